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
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
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
    """What a preference stage learns from, by draft.

    Attributes:
        too_few: why there is no stage although the recipe asks for one, or "".
    """

    choices: tuple[Choice, ...] = ()
    opinions: tuple[Opinion, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    too_few: str = ""

    @property
    def used(self) -> dict[str, list[int]]:
        """The drafts by what people said of them."""
        return {
            "corrected": [one.draft_id for one in self.choices],
            "liked": [one.draft_id for one in self.opinions if one.liked],
            "disliked": [one.draft_id for one in self.opinions if not one.liked],
        }

    @property
    def digest(self) -> str:
        """sha256 over what trains, one canonical JSON line each."""
        lines = [
            *([choice.draft_id, choice.chosen, choice.rejected] for choice in self.choices),
            *([opinion.draft_id, opinion.text, opinion.liked] for opinion in self.opinions),
        ]
        return hashlib.sha256("\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()).hexdigest()

    def without(self, reasons: Mapping[int, str]) -> Judgements:
        """The same, with some drafts left out."""
        return replace(
            self,
            choices=tuple(one for one in self.choices if one.draft_id not in reasons),
            opinions=tuple(one for one in self.opinions if one.draft_id not in reasons),
            left_out=tuple(
                sorted((*self.left_out, *(LeftOut(*one) for one in reasons.items())), key=lambda one: one.draft_id)
            ),
        )

    def if_enough(self) -> Judgements:
        """The same, or none of them where a stage would learn noise."""
        counts = {name: len(ids) for name, ids in self.used.items()}
        rarer = counts["corrected"] or min(counts["liked"], counts["disliked"])
        if rarer >= FEWEST:
            return self
        have = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"
        too_few = f"a preference stage needs {FEWEST} drafts of each kind, and there are: {have}"
        return replace(self.without({id: too_few for ids in self.used.values() for id in ids}), too_few=too_few)


def corrections(store: Store, pairs: Iterable[Pair], skipped: Iterable[Skipped]) -> Judgements:
    """The corrections behind the pairs of a round, each over its draft.

    Args:
        pairs: those that train, as `trainer.hygiene` let them through.
        skipped: pairs that were left out; what stands behind them is left out for the same reason.
    """
    training = {pair.id: pair for pair in pairs}
    reasons = {one.pair_id: one.reason for one in skipped}
    choices, left_out = [], []
    for draft_id, pair_id in {one.draft_id: one.pair_id for one in store.corrections()}.items():  # the last one counts
        if pair_id in reasons:
            left_out.append(LeftOut(draft_id, f"its pair {pair_id} is left out: {reasons[pair_id]}"))
        elif pair := training.get(pair_id):
            draft = store.draft(draft_id)
            if reason := too_alike(draft.text, pair.output, pair.task.language):
                left_out.append(LeftOut(draft_id, reason))
            else:
                choices.append(Choice(draft_id, pair.task, pair.output, _nfc(draft.text)))
    return Judgements(choices=tuple(choices), left_out=tuple(left_out))


def opinions(
    store: Store,
    pairs: Iterable[Pair],
    skipped: Iterable[Skipped],
    suite_keys: Set[str],
    language: str | None = None,
) -> Judgements:
    """The 👍 of a round's pairs, and the 👎 on drafts that nobody corrected.

    Args:
        suite_keys: what `serving.held_out` says of the evaluation suites.
        language: of the briefs; None takes all.
    """
    training = {pair.draft_id for pair in pairs if pair.source is PairSource.ACCEPTED}
    reasons = {one.pair_id: one.reason for one in skipped}
    accepted = {pair.draft_id: pair.id for pair in store.pairs(status=None) if pair.source is PairSource.ACCEPTED}
    corrected = {one.draft_id for one in store.corrections()}
    verdicts: dict[int, set[Verdict]] = defaultdict(set)
    for rating in store.ratings():
        verdicts[rating.draft_id].add(rating.verdict)
    found, left_out = [], []
    for draft_id, said in verdicts.items():
        draft = store.draft(draft_id)
        task = store.brief(draft.brief_id).task
        if draft_id in corrected or language not in (None, task.language):
            continue
        if len(said) > 1:
            reason = "people disagree about it"
        elif Verdict.DOWN in said:
            reason = _unfit(draft, task, suite_keys)
        elif draft_id in training:
            reason = ""
        else:
            pair_id = accepted[draft_id]
            reason = f"its pair {pair_id} is left out: {reasons.get(pair_id, 'it was withdrawn or is too old')}"
        if reason:
            left_out.append(LeftOut(draft_id, reason))
        else:
            found.append(Opinion(draft_id, task, _nfc(draft.text), Verdict.UP in said))
    return Judgements(opinions=tuple(found), left_out=tuple(left_out))


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
    pattern = r"\S" if language == "zh" else r"\w+|[^\w\s]"
    ratio: float = SequenceMatcher(None, re.findall(pattern, one), re.findall(pattern, other), autojunk=False).ratio()
    return 1 - ratio


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
