"""Scorecards in the channel: posted once, then kept up to date with what people say and decide."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from aiohttp import ClientError
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.blocks import JSON, section
from bot.charts import Step, step_of
from bot.marks import has_file, metadata, posted
from bot.office import Office, RefusalError
from bot.refusals import code_of, passes
from bot.scorecards import card_blocks, decided, fallback_text
from bot.texts import Words
from serving.canary import Canaries
from serving.card import Card
from serving.grades import Grades
from serving.judge_answers import JudgeAnswers, seen
from serving.records import CopydeskError, Decision, Scorecard

CARD = "scorecard"

log = logging.getLogger(__name__)


class Announcements:
    def __init__(self, office: Office) -> None:
        self._office = office
        self._store = office.store
        self._registry = office.desk.registry
        self._channel = office.desk.settings.copydesk_channel
        self._grades = Grades(office.store)
        self._canaries = Canaries(office.store, office.desk.registry)
        self._judge_answers = JudgeAnswers(office.store)
        self._heard = self._judged = ""  # the newest answer of a judge: at the last look, and on the scorecards
        self.due: set[int] = set()  # scorecards whose message no longer shows what people said
        self._refreshing = asyncio.Lock()  # or a message that waits for Slack would replace a newer one
        self._not_taken: set[int] = set()  # scorecards whose picture Slack's file host refused, until the next start

    async def catch_up(self) -> None:
        """What people said while a killed process did not show it."""
        self.due.update(await asyncio.to_thread(self._grades.recent_scorecards))

    # The scorecard

    async def announce_new(self) -> None:
        """Post every finished scorecard once; bring its message and picture up to date where it was extended since."""
        if not self._channel:
            return
        unannounced = await asyncio.to_thread(self._store.unannounced_scorecards)
        in_channel = [await self.announce(scorecard) for scorecard in unannounced]
        await self._hear_judge()
        await self._refresh_due()
        for scorecard in in_channel:  # last: no message waits for a picture that Slack does not take now
            if scorecard.id not in self._not_taken:
                await self._illustrate(scorecard)

    async def _refresh_due(self) -> None:
        async with self._refreshing:
            for scorecard_id in list(self.due):
                self.due.discard(scorecard_id)
                try:
                    await self.refresh(scorecard_id)
                except BaseException as error:
                    if isinstance(error, SlackApiError) and not passes(error):
                        log.info("The message of scorecard %d stays as it is: %s", scorecard_id, code_of(error))
                        continue
                    self.due.add(scorecard_id)
                    raise

    async def _hear_judge(self) -> None:
        """A judge is another process; its word is shown once it has paused."""
        newest = await asyncio.to_thread(lambda: self._judge_answers.newest)
        if newest == self._heard and newest != self._judged:
            self.due.update(await asyncio.to_thread(self._judge_answers.recent_scorecards))
            self._judged = newest
        self._heard = newest

    async def announce(self, scorecard: Scorecard) -> Scorecard:
        """The scorecard with its place in the channel."""
        if scorecard.announced_ts:  # extended by further briefs since, or its picture is missing
            self.due.add(scorecard.id)
            return scorecard
        earlier = await posted(self._office.slack, self._channel, CARD, scorecard=scorecard.id)
        if earlier:  # by a process that was killed
            self.due.add(scorecard.id)
        ts = earlier or await self._post(scorecard)
        await asyncio.to_thread(self._store.mark_announced, scorecard.id, self._channel, ts, looks=0)
        return replace(scorecard, announced_channel=self._channel, announced_ts=ts)

    async def _post(self, scorecard: Scorecard) -> str:
        words = await self._office.channel_words()
        about = metadata(CARD, scorecard=scorecard.id)
        card = await asyncio.to_thread(self.card_of, scorecard)
        if card is None:
            text = words("card_unreadable", version=scorecard.version)
            answer = await self._office.slack.chat_postMessage(channel=self._channel, text=text, metadata=about)
            return str(answer["ts"])
        answer = await as_far_as_drawn(
            self._office.slack.chat_postMessage,
            await asyncio.to_thread(self._blocks, scorecard, card, words),
            channel=self._channel,
            text=fallback_text(card, words)[:3900],
            metadata=about,
            unfurl_links=False,
            unfurl_media=False,
        )
        return str(answer["ts"])

    async def _illustrate(self, scorecard: Scorecard) -> None:
        """The chart in the thread, once for each look; a workspace without file uploads still has the table."""
        channel, ts = str(scorecard.announced_channel), str(scorecard.announced_ts)
        card = await asyncio.to_thread(self.card_of, scorecard)
        if card and card.chart:
            try:
                await self._upload(card, channel, ts)
            except SlackApiError as error:
                if passes(error):
                    raise
                log.warning("The chart %s was not uploaded: %s", card.chart, code_of(error))
            except SlackRequestError as error:  # of the host for files, which a firewall may block
                log.warning("The chart %s was not uploaded; the next start tries again: %s", card.chart, error)
                self._not_taken.add(scorecard.id)
                return
        await asyncio.to_thread(self._store.mark_announced, scorecard.id, channel, ts, scorecard.looks)

    async def _upload(self, card: Card, channel: str, ts: str) -> None:
        path = self._office.desk.settings.copydesk_home / card.chart
        name = f"{card.version}.png" if card.looks == 1 else f"{card.version}-{card.looks}.png"
        if not await asyncio.to_thread(path.is_file) or await has_file(self._office.slack, channel, ts, name):
            return
        words = await self._office.channel_words()
        await self._office.slack.files_upload_v2(
            channel=channel,
            thread_ts=ts,
            content=await asyncio.to_thread(path.read_bytes),
            filename=name,
            title=words("chart_title", version=card.version),
            alt_txt=fallback_text(card, words)[:900],
        )

    async def require_colleague(self, user: str) -> None:
        """Leads, and whoever is in the scorecards' channel; anybody may read a public channel and press there."""
        if self._registry.is_lead(user):
            return
        cursor = ""
        while True:
            answer = await self._office.slack.conversations_members(channel=self._channel, limit=200, cursor=cursor)
            if user in answer["members"]:
                return
            cursor = (answer.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                raise RefusalError("colleagues_only", channel=self._channel)

    async def refresh_all(self, version: str) -> None:
        """A version has a scorecard in each of its languages; what was decided stands on all of them."""
        self.due.update(card.id for card in await asyncio.to_thread(self._store.scorecards, version))
        try:
            await self._refresh_due()
        except (SlackApiError, ClientError, OSError, TimeoutError) as error:
            log.warning("A scorecard is brought up to date later: %s", error)

    async def refresh(self, scorecard_id: int) -> None:
        """Show on the card what was decided, what people said, and how its trial goes."""
        scorecard = await asyncio.to_thread(self._store.scorecard, scorecard_id)
        card = await asyncio.to_thread(self.card_of, scorecard)
        if card is None or not scorecard.announced_ts or not scorecard.announced_channel:
            return
        decision = await asyncio.to_thread(self._store.decision_on, card.version)
        words = await self._office.channel_words()
        text = f"{fallback_text(card, words)[:3000]} {decided(decision, words) if decision else ''}"
        await as_far_as_drawn(
            self._office.slack.chat_update,
            await asyncio.to_thread(self._blocks, scorecard, card, words),
            channel=scorecard.announced_channel,
            ts=scorecard.announced_ts,
            text=text.strip(),
            parse="none",
            link_names=False,
        )

    def _blocks(self, scorecard: Scorecard, card: Card, words: Words) -> list[JSON]:
        return card_blocks(
            scorecard,
            card,
            words,
            self._store.decision_on(card.version),
            self._history(scorecard),
            self._canaries.trial_of(card.version),
            self._canaries.running,
        )

    def _history(self, scorecard: Scorecard) -> list[Step]:
        """The newest scorecard of each version so far on the same suite, the oldest first."""
        promoted = {p.version for p in self._store.promotions() if p.decision is Decision.APPROVED}
        steps: dict[str, Step] = {}
        for earlier in self._store.scorecards():
            if earlier.suite == scorecard.suite and earlier.id <= scorecard.id and earlier.version not in steps:
                with contextlib.suppress(CopydeskError):  # of another release's form
                    card = Card.from_json(earlier.body or {})
                    steps[earlier.version] = step_of(card, earlier.version in promoted)
        return list(steps.values())[::-1]

    def card_of(self, scorecard: Scorecard) -> Card | None:
        try:
            return seen(self._store, scorecard)
        except CopydeskError as error:
            log.error("Scorecard %d cannot be shown: %s", scorecard.id, error)
            return None


async def as_far_as_drawn(
    send: Callable[..., Awaitable[AsyncSlackResponse]], blocks: list[JSON], text: str, **about: Any
) -> AsyncSlackResponse:
    """Not every workspace draws charts yet, nor tables: the table says what charts say, and the text what it says."""
    plainer = [block for block in blocks if block["type"] != "data_visualization"]
    plainest = [section(text[:3000]) if block["type"] == "table" else block for block in plainer]
    for drawn in (blocks, plainer):
        try:
            return await send(blocks=drawn, text=text, **about)
        except SlackApiError as error:
            if code_of(error) != "invalid_blocks":
                raise
            log.info("Slack does not draw all of the card here: %s", error)
    return await send(blocks=plainest, text=text, **about)
