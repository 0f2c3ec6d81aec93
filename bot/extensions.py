""" "30 more": a scorecard that cannot tell yet is extended by a process of its own, once, and updated in place."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterable

from slack_bolt.context.ack.async_ack import AsyncAck

from bot.announcements import Announcements
from bot.blocks import JSON
from bot.markup import escape
from bot.office import Office, RefusalError
from serving.card import Card
from serving.extensions import Extension, Extensions
from serving.processes import log_of, start_module

LOOK_S = 1.0


class Extending:
    def __init__(self, office: Office, announcements: Announcements) -> None:
        self._office = office
        self._announcements = announcements
        self._store = office.store
        self._extensions = Extensions(office.store)

    async def pressed(self, ack: AsyncAck, body: JSON) -> None:
        user, channel, scorecard_id = body["user"]["id"], body["channel"]["id"], int(body["actions"][0]["value"])
        await self._announcements.require_colleague(user)
        items = await asyncio.to_thread(self._items, scorecard_id)
        extension = await asyncio.to_thread(self._extensions.begin, scorecard_id, user, items)
        if extension is None:
            raise RefusalError("more_under_way")
        await ack()
        self._office.work.start(self._see_through(extension))
        words = await self._office.locales.words(user)
        await self._office.whisper(channel, user, words("more_started"))

    async def left(self) -> list[Extension]:
        """What was under way when the process before this one ended; read it before Slack is heard."""
        return await asyncio.to_thread(self._extensions.running)

    def resume(self, left: Iterable[Extension]) -> None:
        """Follow it; the command goes on where it stopped."""
        for extension in left:
            self._office.work.start(self._see_through(extension))

    async def _see_through(self, extension: Extension) -> None:
        process = None if extension.alive else await asyncio.to_thread(self._start, extension)
        # Polled: after a restart the process is no child of ours that could be waited for.
        while (await asyncio.to_thread(self._extensions.extension, extension.id)).alive:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        if process is not None:
            process.wait()  # it has ended; this takes it off the kernel's list
        done = await asyncio.to_thread(self._items, extension.scorecard_id) > extension.items
        await asyncio.to_thread(self._extensions.end, extension.id, done=done)
        self._announcements.due.add(extension.scorecard_id)
        if not done:
            await self._tell_failure(extension)

    def _start(self, extension: Extension) -> subprocess.Popen[bytes]:
        process = start_module(self._office.desk.settings, "evals", "more", str(extension.scorecard_id))
        self._extensions.set_process(extension.id, process.pid)
        return process

    def _items(self, scorecard_id: int) -> int:
        return Card.from_json(self._store.scorecard(scorecard_id).body or {}).items

    async def _tell_failure(self, extension: Extension) -> None:
        scorecard = await asyncio.to_thread(self._store.scorecard, extension.scorecard_id)
        log = log_of(self._office.desk.settings, "evals")
        lines = (await asyncio.to_thread(log.read_text, errors="replace")).strip().splitlines()
        words = await self._office.locales.words(extension.user)
        text = words("more_failed", user=extension.user, detail=escape(lines[-1][:300] if lines else str(log)))
        channel = scorecard.announced_channel or self._office.desk.settings.copydesk_channel
        await self._office.slack.chat_postMessage(channel=channel, thread_ts=scorecard.announced_ts, text=text)
