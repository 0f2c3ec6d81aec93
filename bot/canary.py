"""A candidate tried by a part of the people: begun and ended under its scorecard, told in that message's thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

from slack_bolt.context.ack.async_ack import AsyncAck
from slack_sdk.errors import SlackApiError

from bot.announcements import Announcements
from bot.blocks import JSON
from bot.marks import metadata, posted
from bot.office import ASKED_S, Office
from bot.refusals import passes
from bot.scorecards import trial_text
from serving.canary import SHARE_PERCENT, Canaries, Trial
from serving.client import EngineUnavailable
from serving.records import Scorecard

TRIAL = "trial"

log = logging.getLogger(__name__)


class Trials:
    def __init__(self, office: Office, announcements: Announcements) -> None:
        self._office = office
        self._announcements = announcements
        self._store = office.store
        self._channel = office.desk.settings.copydesk_channel
        self._canaries = Canaries(office.store, office.desk.registry)
        self._turn = asyncio.Lock()
        self._shown: list[Trial | None] = []  # nothing before the first look: a killed process may have shown less

    async def try_pressed(self, ack: AsyncAck, body: JSON) -> None:
        user, about = body["user"]["id"], json.loads(body["actions"][0]["value"])
        version = about["version"]
        self._office.desk.registry.require_lead(user)
        with contextlib.suppress(EngineUnavailable, TimeoutError):  # it may load the version when it is back
            async with asyncio.timeout(ASKED_S):
                await self._office.desk.client.knows(version)
        self._announcements.due.add(about["card"])  # where this is refused, the card is behind
        await asyncio.to_thread(self._canaries.start, version, SHARE_PERCENT, user=user)
        await ack()
        self._office.work.start(self.show())
        self._office.work.start(self._office.load(version))

    async def end_pressed(self, ack: AsyncAck, body: JSON) -> None:
        user, id = body["user"]["id"], int(body["actions"][0]["value"])
        await asyncio.to_thread(self._canaries.end, id, user=user)
        await ack()
        self._office.work.start(self.show())

    async def show(self) -> None:
        """Bring scorecards up to date where the trial or its figures changed; post the figures of trials that ended."""
        if not self._channel:
            return
        async with self._turn:
            trial = await asyncio.to_thread(lambda: self._canaries.running_trial)
            if [trial] != self._shown:
                first = trial.canary.version if trial else ""
                self._announcements.due.update(await asyncio.to_thread(self._canaries.scorecards, first))
                self._shown = [trial]
            for over in await asyncio.to_thread(lambda: self._canaries.untold):
                await self._tell(over)
                await asyncio.to_thread(self._canaries.mark_told, over.canary.id)

    async def _tell(self, over: Trial) -> None:
        card = await asyncio.to_thread(self._card_of, over.canary.version)
        if card is None:  # begun and ended on the command line before the channel saw a scorecard
            return
        channel, ts = card.announced_channel or self._channel, card.announced_ts or ""
        try:
            await self._announcements.refresh_all(over.canary.version)
            if not await posted(self._office.slack, channel, TRIAL, thread_ts=ts, trial=over.canary.id):
                await self._office.slack.chat_postMessage(
                    channel=channel,
                    thread_ts=ts,
                    text=trial_text(over, await self._office.channel_words()),
                    metadata=metadata(TRIAL, trial=over.canary.id),
                )
        except SlackApiError as error:
            if passes(error):
                raise
            log.info("The message of scorecard %d was deleted; nobody reads what came of its trial.", card.id)

    def _card_of(self, version: str) -> Scorecard | None:
        return next((card for card in self._store.scorecards(version) if card.announced_ts), None)
