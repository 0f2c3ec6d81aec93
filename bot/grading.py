"""Grading texts blind and comparing candidate with baseline: a modal under the scorecard that asks one thing a time."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

from slack_bolt.context.ack.async_ack import AsyncAck
from slack_sdk.errors import SlackApiError

from bot.announcements import Announcements
from bot.blocks import JSON, SECTION_LIMIT, actions, brief_text, button, context, plain, section
from bot.office import Office, RefusalError
from bot.refusals import code_of
from bot.scorecards import duel_sentence
from bot.texts import Words
from serving.card import LABELS_NEEDED, Duel, People
from serving.grades import CHOICES, GRADES, Entry, Grades, Kind, Sheet
from serving.records import Scorecard
from serving.shares import with_interval

ANSWER = "answer"  # followed by ":" and one of GRADES or CHOICES
BACK = "answer_back"
TEXT_SECTIONS = 7  # of a text in the modal; 20,000 characters

log = logging.getLogger(__name__)


class Grading:
    def __init__(self, office: Office, announcements: Announcements) -> None:
        self._office = office
        self._announcements = announcements
        self._store = office.store
        self._grades = Grades(office.store)
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def grade_pressed(self, ack: AsyncAck, body: JSON) -> None:
        await self._open(body, Kind.GRADES)
        await ack()

    async def compare_pressed(self, ack: AsyncAck, body: JSON) -> None:
        await self._open(body, Kind.VOTES)
        await ack()

    async def _open(self, body: JSON, kind: Kind) -> None:
        user, scorecard_id = body["user"]["id"], int(body["actions"][0]["value"])
        await self._announcements.require_colleague(user)
        scorecard = await asyncio.to_thread(self._store.scorecard, scorecard_id)
        sheet = await asyncio.to_thread(self._grades.open, scorecard, user, kind)
        view = await self._view(sheet, await self._office.locales.words(user))
        await self._office.slack.views_open(trigger_id=body["trigger_id"], view=view)

    async def answered(self, ack: AsyncAck, body: JSON) -> None:
        action, user = body["actions"][0], body["user"]["id"]
        sheet_id, position = map(int, action["value"].split(":"))
        answer = action["action_id"].split(":")[1]
        sheet = await asyncio.to_thread(
            self._grades.answer, sheet_id, user, position, answer, float(action["action_ts"])
        )
        await ack()
        self._announcements.due.add(sheet.scorecard_id)
        self._office.work.start(self._show(sheet.id, body["view"]["id"], user))

    async def back_pressed(self, ack: AsyncAck, body: JSON) -> None:
        sheet_id, position = map(int, body["actions"][0]["value"].split(":"))
        await ack()
        self._office.work.start(self._show(sheet_id, body["view"]["id"], body["user"]["id"], position))

    async def _show(self, sheet_id: int, view_id: str, user: str, position: int | None = None) -> None:
        """Put the next question, or the one at `position`, into the modal."""
        words = await self._office.locales.words(user)
        async with self._turns[sheet_id]:  # of two quick taps the later one is shown last
            view = await self._view(await asyncio.to_thread(self._grades.sheet, sheet_id), words, position)
            try:
                await self._office.slack.views_update(view_id=view_id, view=view)
            except SlackApiError as error:
                log.info("The modal of sheet %d is closed (%s); what was answered is stored.", sheet_id, code_of(error))

    async def _view(self, sheet: Sheet, words: Words, position: int | None = None) -> JSON:
        scorecard = await asyncio.to_thread(self._store.scorecard, sheet.scorecard_id)
        if sheet.next is None:
            return await asyncio.to_thread(self._end_view, sheet, scorecard, words)
        return question_view(sheet, scorecard, sheet.entries[position - 1] if position else sheet.next, words)

    def _end_view(self, sheet: Sheet, scorecard: Scorecard, words: Words) -> JSON:
        if sheet.kind is Kind.VOTES:
            return reveal_view(sheet, scorecard, self._grades.duel(scorecard, sheet.id), words)
        people = self._grades.people(scorecard)
        assert people is not None
        judge = self._office.desk.settings.copydesk_judge_endpoint
        return thanks_view(sheet, scorecard, people, len(self._grades.by_people()) if judge else None, words)

    async def close_pressed(self, ack: AsyncAck, body: JSON) -> None:
        """A lead ends a comparison before everybody is through."""
        user, scorecard_id = body["user"]["id"], int(body["actions"][0]["value"])
        if not self._office.desk.registry.is_lead(user):
            leads = " ".join(f"<@{lead}>" for lead in self._office.desk.registry.leads)
            raise RefusalError("leads_only", leads=leads)
        await asyncio.to_thread(self._grades.close_votes, scorecard_id, user)
        await ack()
        self._announcements.due.add(scorecard_id)


def question_view(sheet: Sheet, scorecard: Scorecard, entry: Entry, words: Words) -> JSON:
    """One text with three grades, or two with three choices."""
    value = f"{sheet.id}:{entry.position}"
    compared = sheet.kind is Kind.VOTES
    blocks: list[JSON] = [
        context(words(f"{sheet.kind}_progress", n=entry.position, total=len(sheet.entries))),
        section(brief_text(entry.task, words)),
        {"type": "divider"},
    ]
    for side, text in zip("AB", entry.texts, strict=False):
        if compared:
            blocks.append({"type": "header", "text": plain(side)})
        blocks += text_sections(text, words)
    blocks.append({"type": "divider"})
    buttons = [
        button(
            words(f"{sheet.kind}_{answer}"), f"{ANSWER}:{answer}", value, "primary" if entry.answer == answer else ""
        )
        for answer in (CHOICES if compared else GRADES)
    ]
    if entry.position > 1:
        buttons.append(button(words("back"), BACK, f"{sheet.id}:{entry.position - 1}"))
    named = {"version": words.version(scorecard.version), "baseline": words.version(scorecard.baseline)}
    blocks += [actions(*buttons), context(words(f"{sheet.kind}_hint", **named))]
    return _modal(sheet, blocks, words)


def text_sections(text: str, words: Words) -> list[JSON]:
    """A text exactly as it was written, in as many sections as it needs; plain text is not parsed by Slack."""
    if not text.strip():
        return [section(words("no_text"))]
    parts = [text[i : i + SECTION_LIMIT] for i in range(0, len(text), SECTION_LIMIT)]
    if len(parts) > TEXT_SECTIONS:
        parts = [*parts[:TEXT_SECTIONS], "…"]
    return [{"type": "section", "text": {**plain(part), "emoji": False}} for part in parts]


def thanks_view(sheet: Sheet, scorecard: Scorecard, people: People, labels: int | None, words: Words) -> JSON:
    """Args:
    labels: how many texts people have graded by now; None where no judge waits for them.
    """
    rates = words(
        "graded_rates",
        version=scorecard.version,
        candidate=with_interval(people.candidate, unmeasured=words("not_measured")),
        live=with_interval(people.live, unmeasured=words("not_measured")),
        baseline=words.version(scorecard.baseline),
    )
    blocks = [section(words("graded_all", n=sheet.answered)), section(rates)]
    if labels is not None:
        blocks.append(context(words("graded_fed", labels=labels, needed=LABELS_NEEDED)))
    return _modal(sheet, blocks, words)


def reveal_view(sheet: Sheet, scorecard: Scorecard, duel: Duel | None, words: Words) -> JSON:
    if duel is None:  # a lead closed it before the first vote
        return _modal(sheet, [section(words("votes_closed", user=sheet.closed_by))], words)
    opening = words("voted_all", n=sheet.answered)
    if sheet.closed_by:
        opening = words("votes_closed_at", user=sheet.closed_by, n=sheet.answered, total=len(sheet.entries))
    return _modal(
        sheet, [section(opening), section(duel_sentence(duel, scorecard.version, scorecard.baseline, words))], words
    )


def _modal(sheet: Sheet, blocks: list[JSON], words: Words) -> JSON:
    return {
        "type": "modal",
        "callback_id": f"sheet_{sheet.kind}",
        "title": plain(words(f"{sheet.kind}_title")),
        "close": plain(words("close" if sheet.done else "later")),
        "blocks": blocks,
    }
