"""What leads decide about versions: here by a press, or on the command line; the channel is told either way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Sequence

from slack_bolt.context.ack.async_ack import AsyncAck

from bot.announcements import Announcements
from bot.blocks import JSON, actions, button, plain, section
from bot.marks import metadata, posted
from bot.office import ASKED_S, Office, RefusalError
from bot.scorecards import ROLL_BACK, headline
from bot.texts import Words
from serving.card import Card, Verdict
from serving.client import EngineUnavailable
from serving.engine import admit
from serving.life import Life
from serving.records import LANGUAGES, CopydeskError, Decision, Promotion
from serving.store import BASE

APPROVE_VIEW, REJECT_VIEW = "approve_view", "reject_view"
LIVE = "live"
TRIED_POLL_S = 0.1
SAID = {Decision.APPROVED: "now_live", Decision.ROLLED_BACK: "rolled_back"}

log = logging.getLogger(__name__)


class Approvals:
    def __init__(self, office: Office, announcements: Announcements) -> None:
        self._office = office
        self._announcements = announcements
        self._store = office.store
        self._registry = office.desk.registry
        self._channel = office.desk.settings.copydesk_channel
        self._turn = asyncio.Lock()

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
            self._office.work.start(self._announcements.refresh_all(about["version"]))
            raise RefusalError("decided_already", version=decision.version, user=decision.user)
        if callback_id == APPROVE_VIEW:
            with contextlib.suppress(EngineUnavailable, TimeoutError):  # it may load the version when it is back
                async with asyncio.timeout(ASKED_S):
                    await self._office.desk.client.knows(about["version"])
            self._office.work.start(self._try(about["version"]))
        words = await self._office.locales.words(user)
        about["live"] = await asyncio.to_thread(self._store.live)  # what the lead decides against
        others = await asyncio.to_thread(self._other_cards, about["version"], about["card"])
        remarks = [words("also_scored", headline=headline(card, words)) for card in others]
        scorecard = await asyncio.to_thread(self._store.scorecard, about["card"])
        card = await asyncio.to_thread(self._announcements.card_of, scorecard)
        if callback_id == APPROVE_VIEW and card and card.live and card.baseline != about["live"]:
            baseline, live = words.version(card.baseline), words.version(about["live"])
            named = {"baseline": baseline, "live": live, "version": about["version"]}
            remarks.insert(0, words("compared_with_another", **named))
        if callback_id == APPROVE_VIEW and card and card.verdict is not Verdict.PASS:
            remarks.insert(0, words("approve_against", headline=headline(card, words)))
        view = reason_view(callback_id, about, words, remarks)
        await self._office.slack.views_open(trigger_id=body["trigger_id"], view=view)

    async def _try(self, name: str) -> None:
        """Let the engine load a version that it never tried while the lead reads: Slack waits for three seconds."""
        desk = self._office.desk
        if await self._untried(name):
            try:
                await admit(desk.settings, self._store, desk.client, await asyncio.to_thread(self._store.version, name))
            except CopydeskError as error:
                log.warning("%s was not served when it was tried: %s", name, error)

    async def _untried(self, name: str) -> bool:
        return await asyncio.to_thread(Life(self._store).last_failure, name) is None

    async def _require_tried(self, name: str) -> None:
        """Wait for what `_try` finds, as long as Slack waits for us."""
        deadline = time.monotonic() + ASKED_S
        while await self._untried(name):
            if time.monotonic() > deadline:
                raise RefusalError("untried", version=name)
            await asyncio.sleep(TRIED_POLL_S)

    def _require_lead(self, user: str) -> None:
        if not self._registry.is_lead(user):
            leads = " ".join(f"<@{lead}>" for lead in self._registry.leads)
            raise RefusalError("leads_only", leads=leads)

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
            if approve:
                await self._require_tried(about["version"])
            await asyncio.to_thread(self._decide, about, user, reason, approve)
        except CopydeskError as error:
            log.warning("%s could not decide about %s: %s", user, about["version"], error)
            # Not as an error of a field: those are plain text, which shows ids in place of people's names.
            await ack(response_action="update", view=refused_view(about["version"], words.of(error), words))
            self._office.work.start(self._announcements.refresh_all(about["version"]))
            return
        await ack()
        self._office.work.start(self.tell())

    def _decide(self, about: JSON, user: str, reason: str, approve: bool) -> None:
        name = about["version"]
        if approve:
            self._registry.approve(
                name, user=user, reason=reason, digest=about["digest"], expected_live=about.get("live")
            )
        else:
            self._registry.reject(name, user=user, reason=reason)

    def _other_cards(self, version: str, scorecard_id: int) -> list[Card]:
        """The newest scorecards of a version on the suites that this one is not about."""
        seen_suites = {self._store.scorecard(scorecard_id).suite.partition("@")[0]}
        others = []
        for scorecard in self._store.scorecards(version):
            suite = scorecard.suite.partition("@")[0]
            if suite not in seen_suites and (card := self._announcements.card_of(scorecard)):
                others.append(card)
            seen_suites.add(suite)
        return others

    # Told in the channel

    async def tell(self) -> None:
        """Say what was decided, and show it on the version's scorecards; a kill in between loses none of it."""
        async with self._turn:
            for promotion in await asyncio.to_thread(self._store.untold_promotions):
                if self._channel:
                    await self._tell(promotion)
                await asyncio.to_thread(self._store.mark_told, promotion.id)

    async def _tell(self, promotion: Promotion) -> None:
        if said := SAID.get(promotion.decision):
            await self._office.load(promotion.version)
            if not await posted(self._office.slack, self._channel, LIVE, promotion=promotion.id):
                await self._say_live(promotion, said)
        if promotion.decision is not Decision.ROLLED_BACK:
            await self._announcements.refresh_all(promotion.version)

    async def _say_live(self, promotion: Promotion, key: str) -> None:
        words = await self._office.channel_words()
        text = words(
            key,
            version=words.version(promotion.version),
            previous=words.version(promotion.previous),
            who=words.who(promotion.user),
        )
        if promotion.decision is Decision.APPROVED:
            for language in await asyncio.to_thread(self._unscored, promotion.version):
                text += " " + words("not_scored_in", language=words(f"language_{language}"))
        blocks = [section(text)]
        if promotion.version != BASE:
            blocks.append(actions(button(words("roll_back"), ROLL_BACK, promotion.version)))
        await self._office.slack.chat_postMessage(
            channel=self._channel, text=text, blocks=blocks, metadata=metadata(LIVE, promotion=promotion.id)
        )

    def _unscored(self, version: str) -> list[str]:
        """Languages that people may ask for and no scorecard of the version is about."""
        scored = {(card.body or {}).get("language", "en") for card in self._store.scorecards(version)}
        return [language for language in LANGUAGES if language not in scored]

    async def roll_back_pressed(self, ack: AsyncAck, body: JSON) -> None:
        user, live = body["user"]["id"], body["actions"][0]["value"]
        await asyncio.to_thread(self._office.desk.registry.roll_back, user=user, expected_live=live)
        await ack()
        self._office.work.start(self.tell())


def reason_view(callback_id: str, about: JSON, words: Words, remarks: Sequence[str]) -> JSON:
    """Asks why. `remarks` are what the version's scorecards say."""
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
            section("\n".join([*what, *remarks])),
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
