"""Scorecards in the channel, and what leads decide about versions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from slack_bolt.context.ack.async_ack import AsyncAck
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.blocks import JSON, actions, button, plain, section
from bot.charts import Step, step_of
from bot.drafts import metadata, payload_of
from bot.office import Office, RefusalError
from bot.refusals import GONE, code_of
from bot.scorecards import ROLL_BACK, card_blocks, decided, fallback_text, headline
from bot.texts import Words
from serving.canary import Canaries
from serving.card import Card
from serving.client import EngineUnavailable
from serving.grades import Grades
from serving.judge_answers import JudgeAnswers, seen
from serving.records import CopydeskError, Decision, Promotion, Scorecard
from serving.store import BASE

APPROVE_VIEW, REJECT_VIEW = "approve_view", "reject_view"
CARD = "scorecard"
LOOKED_THROUGH = 200  # messages of the channel's history, for a card that was posted and not marked

log = logging.getLogger(__name__)


class Approvals:
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

    async def catch_up(self) -> None:
        """What people said while a killed process did not show it."""
        self.due.update(await asyncio.to_thread(self._grades.recent_scorecards))

    # The scorecard

    async def announce_new(self) -> None:
        """Post every finished scorecard once."""
        if not self._channel:
            return
        for scorecard in await asyncio.to_thread(self._store.unannounced_scorecards):
            await self.announce(scorecard)
        await self._hear_judge()
        await self._refresh_due()

    async def _refresh_due(self) -> None:
        for scorecard_id in list(self.due):
            self.due.discard(scorecard_id)
            try:
                await self.refresh(scorecard_id)
            except SlackApiError as error:
                if code_of(error) in GONE:
                    log.info("The message of scorecard %d was deleted.", scorecard_id)
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

    async def announce(self, scorecard: Scorecard) -> None:
        earlier = await self._posted(scorecard)
        ts = earlier or await self._post(scorecard)
        await asyncio.to_thread(self._store.mark_announced, scorecard.id, self._channel, ts)
        if earlier:  # posted by a process that was killed, or extended by further briefs since
            await self.refresh(scorecard.id)

    async def _posted(self, scorecard: Scorecard) -> str | None:
        """The message of a process that was killed before it wrote down that it had posted."""
        answer = await self._office.slack.conversations_history(
            channel=self._channel, limit=LOOKED_THROUGH, include_all_metadata=True
        )
        for message in answer["messages"]:
            payload = payload_of(message)
            if payload.get("kind") == CARD and payload.get("scorecard") == scorecard.id:
                return str(message["ts"])
        return None

    async def _post(self, scorecard: Scorecard) -> str:
        words = await self.words()
        about = metadata(CARD, scorecard=scorecard.id)
        card = await asyncio.to_thread(self._card_of, scorecard)
        if card is None:
            text = words("card_unreadable", version=scorecard.version)
            answer = await self._office.slack.chat_postMessage(channel=self._channel, text=text, metadata=about)
            return str(answer["ts"])
        answer = await _with_or_without_charts(
            self._office.slack.chat_postMessage,
            await asyncio.to_thread(self._blocks, scorecard, card, words),
            channel=self._channel,
            text=fallback_text(card, words)[:3900],
            metadata=about,
            unfurl_links=False,
            unfurl_media=False,
        )
        ts = str(answer["ts"])
        await self._upload(card, ts, words)
        return ts

    async def _upload(self, card: Card, ts: str, words: Words) -> None:
        """The chart, in the thread: a workspace without file uploads still has the table."""
        path = self._office.desk.settings.copydesk_home / card.chart
        if not card.chart or not await asyncio.to_thread(Path.is_file, path):
            return
        try:
            await self._office.slack.files_upload_v2(
                channel=self._channel,
                thread_ts=ts,
                content=await asyncio.to_thread(path.read_bytes),
                filename=f"{card.version}.png",
                title=words("chart_title", version=card.version),
                alt_txt=fallback_text(card, words)[:900],
            )
        except SlackApiError as error:
            log.warning("The chart %s was not uploaded: %s", path, code_of(error))

    async def words(self) -> Words:
        """The channel has no locale; the first lead, who decides, does."""
        leads = self._registry.leads
        return await self._office.locales.words(leads[0]) if leads else Words("en")

    # Approve and reject

    async def approve_pressed(self, ack: AsyncAck, body: JSON) -> None:
        await self._ask_reason(body, APPROVE_VIEW)
        await ack()

    async def reject_pressed(self, ack: AsyncAck, body: JSON) -> None:
        await self._ask_reason(body, REJECT_VIEW)
        await ack()

    async def _ask_reason(self, body: JSON, callback_id: str) -> None:
        user, about = body["user"]["id"], json.loads(body["actions"][0]["value"])
        self._require_lead(user)
        if decision := await asyncio.to_thread(self._store.decision_on, about["version"]):
            self._office.work.start(self.refresh_all(about["version"]))
            raise RefusalError("decided_already", version=decision.version, user=decision.user)
        if callback_id == APPROVE_VIEW:
            with contextlib.suppress(EngineUnavailable):  # it may load the version when it is back
                await self._office.desk.client.knows(about["version"])
        words = await self._office.locales.words(user)
        about["live"] = await asyncio.to_thread(self._store.live)  # what the lead decides against
        others = await asyncio.to_thread(self._other_cards, about["version"], about["card"])
        view = reason_view(callback_id, about, words, [headline(card, words) for card in others])
        await self._office.slack.views_open(trigger_id=body["trigger_id"], view=view)

    def _require_lead(self, user: str) -> None:
        if not self._registry.is_lead(user):
            leads = " ".join(f"<@{lead}>" for lead in self._registry.leads)
            raise RefusalError("leads_only", leads=leads)

    async def require_colleague(self, user: str) -> None:
        """Leads, and whoever is in the scorecards' channel; anybody may read a public channel and press there."""
        if self._registry.is_lead(user):
            return
        cursor = ""
        while True:
            answer = await self._office.slack.conversations_members(channel=self._channel, limit=1000, cursor=cursor)
            if user in answer["members"]:
                return
            cursor = (answer.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                raise RefusalError("colleagues_only", channel=self._channel)

    async def approved(self, ack: AsyncAck, body: JSON, view: JSON) -> None:
        await self._decided(ack, body, view, approve=True)

    async def rejected(self, ack: AsyncAck, body: JSON, view: JSON) -> None:
        await self._decided(ack, body, view, approve=False)

    async def _decided(self, ack: AsyncAck, body: JSON, view: JSON, *, approve: bool) -> None:
        user, about = body["user"]["id"], json.loads(view["private_metadata"])
        reason = (view["state"]["values"]["reason"]["reason"]["value"] or "").strip()
        words = await self._office.locales.words(user)
        try:
            self._require_lead(user)
            promotion = await asyncio.to_thread(self._decide, about, user, reason, approve)
        except CopydeskError as error:
            log.warning("%s could not decide about %s: %s", user, about["version"], error)
            # Not as an error of a field: those are plain text, which shows ids in place of people's names.
            await ack(response_action="update", view=refused_view(about["version"], words.of(error), words))
            self._office.work.start(self.refresh_all(about["version"]))
            return
        await ack()
        self._office.work.start(self._carry_out(promotion, approve=approve))

    def _decide(self, about: JSON, user: str, reason: str, approve: bool) -> Promotion:
        name = about["version"]
        if approve:
            return self._registry.approve(
                name, user=user, reason=reason, digest=about["digest"], expected_live=about["live"]
            )
        return self._registry.reject(name, user=user, reason=reason)

    async def _carry_out(self, promotion: Promotion, *, approve: bool) -> None:
        await self.refresh_all(promotion.version)
        if approve:
            await self.load(promotion.version)
            await self._say_live(promotion, "now_live")

    async def refresh_all(self, version: str) -> None:
        """A version has a scorecard in each of its languages; what was decided stands on all of them."""
        self.due.update(card.id for card in await asyncio.to_thread(self._store.scorecards, version))
        await self._refresh_due()

    async def refresh(self, scorecard_id: int) -> None:
        """Show on the card what was decided, what people said, and how its trial goes."""
        scorecard = await asyncio.to_thread(self._store.scorecard, scorecard_id)
        card = await asyncio.to_thread(self._card_of, scorecard)
        if card is None or not scorecard.announced_ts or not scorecard.announced_channel:
            return
        decision = await asyncio.to_thread(self._store.decision_on, card.version)
        words = await self.words()
        text = f"{fallback_text(card, words)[:3000]} {decided(decision, words) if decision else ''}"
        await _with_or_without_charts(
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

    def _other_cards(self, version: str, scorecard_id: int) -> list[Card]:
        """The newest scorecards of a version on the suites that this one is not about."""
        seen_suites = {self._store.scorecard(scorecard_id).suite.partition("@")[0]}
        others = []
        for scorecard in self._store.scorecards(version):
            suite = scorecard.suite.partition("@")[0]
            if suite not in seen_suites and (card := self._card_of(scorecard)):
                others.append(card)
            seen_suites.add(suite)
        return others

    def _card_of(self, scorecard: Scorecard) -> Card | None:
        try:
            return seen(self._store, scorecard)
        except CopydeskError as error:
            log.error("Scorecard %d cannot be shown: %s", scorecard.id, error)
            return None

    async def load(self, version: str) -> None:
        """Make the engine know the version now, so that its first draft does not wait for it."""
        if version == BASE:
            return
        try:
            await self._office.desk.client.ensure_loaded(await asyncio.to_thread(self._store.version, version))
        except CopydeskError as error:
            log.warning("%s is not loaded yet, the next draft tries again: %s", version, error)

    async def _say_live(self, promotion: Promotion, key: str) -> None:
        words = await self.words()
        text = words(
            key,
            version=words.version(promotion.version),
            previous=words.version(promotion.previous),
            who=words.who(promotion.user),
        )
        blocks = [section(text)]
        if promotion.version != BASE:
            blocks.append(actions(button(words("roll_back"), ROLL_BACK, promotion.version)))
        await self._office.slack.chat_postMessage(
            channel=self._channel, text=text, blocks=blocks, metadata=metadata("live", promotion=promotion.id)
        )

    # Roll back

    async def roll_back_pressed(self, ack: AsyncAck, body: JSON) -> None:
        user, live = body["user"]["id"], body["actions"][0]["value"]
        promotion = await asyncio.to_thread(self._registry.roll_back, user=user, expected_live=live)
        await ack()
        self._office.work.start(self._rolled_back(promotion))

    async def _rolled_back(self, promotion: Promotion) -> None:
        await self.load(promotion.version)
        await self._say_live(promotion, "rolled_back")


async def _with_or_without_charts(
    send: Callable[..., Awaitable[AsyncSlackResponse]], blocks: list[JSON], **about: Any
) -> AsyncSlackResponse:
    """Not every workspace draws charts yet; the table says the same."""
    try:
        return await send(blocks=blocks, **about)
    except SlackApiError as error:
        if code_of(error) != "invalid_blocks":
            raise
        log.info("Slack draws no charts here: %s", error)
        return await send(blocks=[block for block in blocks if block["type"] != "data_visualization"], **about)


def reason_view(callback_id: str, about: JSON, words: Words, others: Sequence[str] = ()) -> JSON:
    """Asks why. `others` are the headlines of the version's scorecards on other suites."""
    kind = "approve" if callback_id == APPROVE_VIEW else "reject"
    what = [words(f"{kind}_what", version=about["version"], live=words.version(about["live"]))]
    element = {"type": "plain_text_input", "action_id": "reason", "multiline": True, "max_length": 1000}
    return {
        "type": "modal",
        "callback_id": callback_id,
        "private_metadata": json.dumps(about),
        "title": plain(about["version"]),
        "submit": plain(words(kind)),
        "close": plain(words("cancel")),
        "blocks": [
            section("\n".join([*what, *[words("also_scored", headline=other) for other in others]])),
            {
                "type": "input",
                "block_id": "reason",
                "label": plain(words("decision_reason")),
                "element": element,
                "optional": True,
            },
        ],
    }


def refused_view(version: str, text: str, words: Words) -> JSON:
    return {"type": "modal", "title": plain(version), "close": plain(words("close")), "blocks": [section(text)]}
