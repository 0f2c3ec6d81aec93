"""What all parts of the bot share: the desk's data, Slack's client, who we are, people's languages, work under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.locales import Locales
from bot.outside import Check
from bot.refusals import NOT_THERE, code_of
from bot.texts import Words
from serving.client import ModelClient
from serving.handover import Away
from serving.records import CopydeskError
from serving.registry import Registry
from serving.settings import Settings
from serving.store import BASE, Store

log = logging.getLogger(__name__)

ASKED_S = 1.0  # of the three seconds that Slack waits, for what the engine is asked first

JSON = dict[str, Any]


@dataclass(frozen=True)
class Desk:
    """The world that the bot stands in."""

    settings: Settings
    store: Store
    client: ModelClient
    registry: Registry
    checks: dict[str, Check] = field(default_factory=dict)  # by part: does it answer now
    away: Callable[[], Away | None] = lambda: None  # while a round has the engine's memory


class RefusalError(CopydeskError):
    """A sentence of bot/texts for the person who acted, in that person's language."""

    def __init__(self, key: str, **values: str) -> None:
        super().__init__(key, code=key, **values)


@dataclass(frozen=True)
class Identity:
    team: str
    user: str


class Work:
    """Tasks that outlive their listener: Slack wants its answer within three seconds, a draft takes longer."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            # The last frame of a task: what is not caught here is never seen by anybody.
            log.exception("Work in the background failed; requests that still wait are taken up at the next start.")

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Office:
    def __init__(self, desk: Desk, slack: AsyncWebClient) -> None:
        self.desk = desk
        self.slack = slack
        self.locales = Locales(slack)
        self.work = Work()
        self._identity: Identity | None = None

    @cached_property
    def store(self) -> Store:
        return self.desk.store

    async def identity(self) -> Identity:
        if self._identity is None:
            answer = await self.slack.auth_test()
            self._identity = Identity(str(answer["team_id"]), str(answer["user_id"]))
        return self._identity

    async def whisper(
        self, channel: str, user: str, text: str, *, thread_ts: str | None = None, blocks: list[JSON] | None = None
    ) -> None:
        """Say something that only one person sees: there, or to those who are not in the channel in their own."""
        try:
            await self.slack.chat_postEphemeral(
                channel=channel, user=user, text=text, thread_ts=thread_ts, blocks=blocks
            )
        except SlackApiError as error:
            if code_of(error) not in NOT_THERE:
                raise
            await self.slack.chat_postMessage(channel=user, text=text, blocks=blocks)

    async def channel_words(self) -> Words:
        """The channel has no locale; the first lead, who decides, does."""
        leads = self.desk.registry.leads
        return await self.locales.words(leads[0]) if leads else Words("en")

    async def load(self, version: str) -> None:
        """Make the engine know a version now, so that its first draft does not wait for it."""
        if version == BASE:
            return
        try:
            await self.desk.client.ensure_loaded(await asyncio.to_thread(self.store.version, version))
        except CopydeskError as error:
            log.warning("%s is not loaded yet, the next draft tries again: %s", version, error)

    async def thread_of(self, channel: str, ts: str) -> str:
        """The root of the thread that a message is in."""
        answer = await self.slack.conversations_replies(channel=channel, ts=ts, limit=1)
        found: list[JSON] = answer["messages"] or [{}]
        return str(found[0].get("thread_ts") or ts)
