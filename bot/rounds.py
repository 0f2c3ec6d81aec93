"""A round in the channel: one message with its progress and a button that cancels it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from slack_bolt.context.ack.async_ack import AsyncAck
from slack_sdk.errors import SlackApiError

from bot.blocks import JSON, actions, button, section
from bot.marks import metadata, posted
from bot.markup import escape
from bot.office import Office, RefusalError
from bot.refusals import code_of, passes
from bot.texts import Words
from serving.jobs import Job, Jobs
from serving.records import Round, RoundState

log = logging.getLogger(__name__)

CANCEL_ROUND = "cancel_round"
KIND = "round"
UPDATE_S = 15.0


class Rounds:
    def __init__(self, office: Office) -> None:
        self._office = office
        self._jobs = Jobs(office.store)
        self._registry = office.desk.registry
        self._channel = office.desk.settings.copydesk_channel
        self._told: dict[int, tuple[float, str]] = {}

    async def show(self) -> None:
        """Bring the messages of all rounds up to date; one at most every UPDATE_S, and at the end at once."""
        if not self._channel:
            return
        for round, job in await asyncio.to_thread(self._jobs.untold):
            await self._show(round, job)

    async def _show(self, round: Round, job: Job) -> None:
        words = await self._office.channel_words()
        blocks = await asyncio.to_thread(round_blocks, round, job, words)
        text = blocks[0]["text"]["text"]
        about: dict[str, Any] = {"text": text, "blocks": blocks, "metadata": metadata(KIND, round=round.id)}
        running = round.state is RoundState.RUNNING
        channel, ts = job.channel or self._channel, job.ts
        if ts is None and running:
            ts = await posted(self._office.slack, self._channel, KIND, round=round.id)
            if ts is None:
                answer = await self._office.slack.chat_postMessage(channel=channel, **about)
                ts = str(answer["ts"])
        elif ts is not None:
            last, said = self._told.get(round.id, (float("-inf"), ""))
            if running and (text == said or time.monotonic() - last < UPDATE_S):
                return
            try:
                await self._office.slack.chat_update(channel=channel, ts=ts, parse="none", link_names=False, **about)
            except SlackApiError as error:
                if passes(error):
                    raise
                log.info("The message of round %d stays as it is: %s", round.id, code_of(error))
        # A round that was over before anybody saw it needs no message: its scorecard comes.
        self._told[round.id] = (time.monotonic(), text)
        await asyncio.to_thread(self._jobs.set_message, round.id, channel, ts, round.state)

    async def cancel_pressed(self, ack: AsyncAck, body: JSON) -> None:
        user, round_id = body["user"]["id"], int(body["actions"][0]["value"])
        if not self._registry.is_lead(user):
            raise RefusalError("leads_only", leads=" ".join(f"<@{lead}>" for lead in self._registry.leads))
        await asyncio.to_thread(self._jobs.cancel, user, round_id)
        await ack()
        self._told.pop(round_id, None)
        self._office.work.start(self.show())


def round_blocks(round: Round, job: Job, words: Words) -> list[JSON]:
    """What the message says now; the button stays as long as there is something to cancel."""
    blocks = [section(round_text(round, job, words))]
    if round.state is RoundState.RUNNING and job.cancelled_by is None:
        blocks.append(actions(button(words("round_cancel"), CANCEL_ROUND, str(round.id), "danger")))
    return blocks


def round_text(round: Round, job: Job, words: Words) -> str:
    version = round.version
    if round.state is RoundState.DONE:
        return words("round_done", version=version, pairs=round.pairs)
    if job.cancelled_by:
        key = "round_stopping" if round.state is RoundState.RUNNING else "round_cancelled"
        return words(key, version=version, who=words.who(job.cancelled_by))
    if round.state is RoundState.FAILED:
        return words("round_failed", version=version, why=escape(round.message))
    if not job.alive:
        return words("round_interrupted", version=version)
    if not job.steps or job.seconds_left is None:
        return words("round_loading", version=version)
    share = f"{job.step / job.steps:.0%}"
    return words("round_running", version=version, share=share, left=words.left(job.seconds_left))
