"""What people said about drafts, as preferences: which of them may train, and why each other one may not.

A correction is a choice: the person's text over the draft. A 👍 or 👎 on a draft that nobody corrected is an opinion. A
👎 never becomes a text to imitate, and a correction that is one only trains as a choice if its pair trains, too.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass
from difflib import SequenceMatcher

from serving.prompt import normalised
from serving.records import Draft, Pair, PairSource, PairStatus, Task, Verdict
from serving.store import Store, split_of
from trainer.hygiene import Skipped, in_nfc, kept_apart, unusable

TINY_EDIT = 0.03  # DPO on texts closer than this lowers the likelihood of both
FEWEST = 100  # of the rarer side; with less a preference stage learns noise


@dataclass(frozen=True)
class Choice:
    """A correction over its draft."""

    draft_id: int
    task: Task
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Opinion:
    """A draft that people liked, or disliked without saying how it should read."""

    draft_id: int
    task: Task
    text: str
    liked: bool


@dataclass(frozen=True)
class LeftOut:
    """A judgement that does not train as a preference, and why."""

    draft_id: int
    reason: str

    def __str__(self) -> str:
        return f"draft {self.draft_id}: {self.reason}"


@dataclass(frozen=True)
class Judgements:
    """What a preference stage may learn from, each by draft."""

    choices: tuple[Choice, ...] = ()
    opinions: tuple[Opinion, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 over what would train, one canonical JSON line each."""
        lines = [
            *([choice.draft_id, choice.chosen, choice.rejected] for choice in self.choices),
            *([opinion.draft_id, opinion.text, opinion.liked] for opinion in self.opinions),
        ]
        return hashlib.sha256("\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()).hexdigest()

    def too_few(self, recipe: str) -> str:
        """Why there is no preference stage, as a sentence, or ""."""
        if recipe == "dpo" and len(self.choices) < FEWEST:
            return f"{len(self.choices)} corrections can be used as preferences, and {FEWEST} are needed"
        liked = sum(opinion.liked for opinion in self.opinions)
        rarer = min(liked, len(self.opinions) - liked)
        if recipe == "kto" and rarer < FEWEST:
            return f"{liked} 👍 and {len(self.opinions) - liked} 👎 can be used, and {FEWEST} of each are needed"
        return ""


def collect(
    store: Store,
    pairs: Iterable[Pair],
    skipped: Iterable[Skipped],
    suite_keys: Set[str],
    language: str | None = None,
) -> Judgements:
    """The judgements behind and beside the pairs of a round.

    Args:
        pairs: those that train, as `trainer.hygiene` let them through.
        skipped: pairs that were left out; a correction or a 👍 among them is left out here for the same reason.
        suite_keys: what `serving.held_out` says of the evaluation suites.
        language: of opinions; None takes all.
    """
    training = {pair.id: pair for pair in pairs}
    accepted = {pair.draft_id: pair.id for pair in store.pairs(status=None) if pair.source is PairSource.ACCEPTED}
    corrected = {correction.draft_id: correction.pair_id for correction in store.corrections()}  # the last one counts
    reasons = {one.pair_id: one.reason for one in skipped}
    verdicts: dict[int, set[Verdict]] = defaultdict(set)
    for rating in store.ratings():
        verdicts[rating.draft_id].add(rating.verdict)
    choices, opinions, left_out = [], [], []
    for draft in reversed(store.drafts()):
        pair_id = corrected.get(draft.id)
        if pair_id is not None:
            if pair := training.get(pair_id):
                if reason := too_alike(draft.text, pair.output, pair.task.language):
                    left_out.append(LeftOut(draft.id, reason))
                else:
                    choices.append(Choice(draft.id, pair.task, pair.output, _nfc(draft.text)))
            elif pair_id in reasons:
                left_out.append(LeftOut(draft.id, f"its pair {pair_id} is left out: {reasons[pair_id]}"))
        elif draft.id in verdicts:
            task = store.brief(draft.brief_id).task
            if language not in (None, task.language):
                continue
            liked = Verdict.UP in verdicts[draft.id]
            if len(verdicts[draft.id]) > 1:
                reason = "people disagree about it"
            elif liked:
                pair_id = accepted[draft.id]
                found = reasons.get(pair_id, "it is not among the pairs of this round")
                reason = "" if pair_id in training else f"its pair {pair_id} is left out: {found}"
            else:
                reason = _unfit(draft, task, suite_keys)
            if reason:
                left_out.append(LeftOut(draft.id, reason))
            else:
                opinions.append(Opinion(draft.id, task, _nfc(draft.text), liked))
    return Judgements(tuple(choices), tuple(opinions), tuple(left_out))


def too_alike(draft: str, correction: str, language: str) -> str:
    """Why a correction is only a text to imitate and no preference, or ""."""
    if not normalised(draft):
        return "its text is empty"
    if normalised(draft) == normalised(correction):
        return "the correction changes only spaces or capitals"
    changed = edit_share(draft, correction, language)
    return f"the correction changes only {changed:.1%} of it" if changed < TINY_EDIT else ""


def edit_share(one: str, other: str, language: str) -> float:
    """How much of two texts differs, 0 to 1: characters in Chinese, words and punctuation marks elsewhere."""
    parts = [list(text) if language == "zh" else re.findall(r"\w+|[^\w\s]", text) for text in (one, other)]
    return 1 - SequenceMatcher(None, *parts, autojunk=False).ratio()


def _unfit(draft: Draft, task: Task, suite_keys: Set[str]) -> str:
    """Why a draft without a pair may not train, or ""."""
    pair = in_nfc(
        Pair(
            0, task, draft.text, PairSource.ACCEPTED, PairStatus.ACTIVE, split_of(task), "", draft.id, draft.created_at
        )
    )
    return unusable(pair) or kept_apart(pair, suite_keys)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
