"""Which pairs a round may learn from. Every pair that is left out is named with the reason.

The newest judgement wins, and a correction before any other: where two pairs say nearly the same, or answer one brief
in clearly different ways by different people, the later correction stays. Two drafts that people both liked are no
conflict, nor are several answers by the same person.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from serving.held_out import key_of_brief, key_of_text
from serving.prompt import normalised
from serving.records import CopydeskError, Pair, PairSource, Split
from serving.store import split_of

SHINGLE = 5  # characters
NEAR = 0.8  # Jaccard index of two answers' shingles from which they are the same text
FEWEST_SHINGLES = 20  # shorter answers are compared whole
DIFFERENT = 0.5  # below it two answers to one brief are clearly different
ENOUGH_PAIRS = 500
MIXED = (0.25, 0.75)  # a habit that neither few nor most texts of a category show
FEWEST_FOR_STYLE = 20


@dataclass(frozen=True)
class Skipped:
    """A pair that does not train, and why."""

    pair_id: int
    reason: str

    def __str__(self) -> str:
        return f"pair {self.pair_id}: {self.reason}"


@dataclass(frozen=True)
class Clean:
    """Pairs in NFC, by id, and those that were left out, by id."""

    pairs: tuple[Pair, ...]
    skipped: tuple[Skipped, ...]


def clean(pairs: Iterable[Pair], held_out: Sequence[Pair], suite_keys: Set[str]) -> Clean:
    """Normalise pairs and leave out those that must not train.

    Args:
        held_out: pairs that are kept for comparison; nothing like them trains.
        suite_keys: what `serving.held_out` says of the evaluation suites.
    """
    reasons: dict[int, str] = {}
    usable: list[Pair] = []
    for pair in map(in_nfc, pairs):
        if reason := unusable(pair) or kept_apart(pair, suite_keys):
            reasons[pair.id] = reason
        else:
            usable.append(pair)
    order = sorted(usable, key=_weight, reverse=True)
    protected = [in_nfc(pair) for pair in held_out]
    for step in (_same, _nearly_same, _in_conflict):
        found = step(order, protected)
        reasons |= found
        order = [pair for pair in order if pair.id not in found]
    kept = tuple(sorted(order, key=lambda pair: pair.id))
    return Clean(kept, tuple(Skipped(id, reasons[id]) for id in sorted(reasons)))


def in_nfc(pair: Pair) -> Pair:
    """The same letters in one encoding, whichever keyboard they came from."""

    def nfc(text: str) -> str:
        return unicodedata.normalize("NFC", text)

    task = replace(pair.task, instruction=nfc(pair.task.instruction), input=nfc(pair.task.input))
    return replace(pair, task=task, output=nfc(pair.output).strip())


def unusable(pair: Pair) -> str:
    """Why nothing can be learned from a pair, or ""."""
    if _blank(pair.output):
        return "the output is empty"
    if _blank(pair.task.instruction):
        return "the instruction is empty"
    for name, text in (("output", pair.output), ("brief", f"{pair.task.instruction}\n{pair.task.input}")):
        if "\ufffd" in text or _misread(text):
            return f"the {name} was read in a wrong encoding; import it again as UTF-8"
    return ""


def _blank(text: str) -> bool:
    """Nothing to see: white space, or characters without a shape such as zero-width spaces."""
    return all(c.isspace() or unicodedata.category(c) in ("Cf", "Cc") for c in text)


def _misread(text: str) -> bool:
    """UTF-8 that was read as Windows-1252, such as "cafÃ©": it is UTF-8 again when it is written back."""
    try:
        return text.encode("cp1252").decode("utf-8") != text
    except UnicodeError:
        return False


def kept_apart(pair: Pair, suite_keys: Set[str]) -> str:
    """Why a pair is for comparison and not for training, or ""."""
    if pair.split is not Split.TRAIN or split_of(pair.task) is not Split.TRAIN:
        return "its brief is held out"
    if key_of_brief(pair.task) in suite_keys:
        return "its brief is one of an evaluation suite"
    if key_of_text(pair.output) in suite_keys:
        return "its output is a reference of an evaluation suite"
    return ""


def refuse_held_out(pairs: Iterable[Pair], suite_keys: Set[str]) -> None:
    """The last look before a round: raises CopydeskError if a pair for comparison is among those that would train."""
    for pair in pairs:
        if reason := kept_apart(pair, suite_keys):
            raise CopydeskError(f"Pair {pair.id} must not train ({reason}); nothing was trained.")


def _weight(pair: Pair) -> tuple[bool, str, int]:
    return pair.source is PairSource.CORRECTION, pair.created_at, pair.id


def _same(order: Sequence[Pair], protected: Sequence[Pair]) -> dict[int, str]:
    first: dict[tuple[str, str, str], int] = {}
    found = {}
    for pair in order:
        key = (normalised(pair.task.instruction), normalised(pair.task.input), normalised(pair.output))
        if first.setdefault(key, pair.id) != pair.id:
            found[pair.id] = f"the same as pair {first[key]}"
    return found


def _nearly_same(order: Sequence[Pair], protected: Sequence[Pair]) -> dict[int, str]:
    """Exact all-pairs search with prefix filtering (Bayardo et al., WWW 2007): texts whose Jaccard index reaches t
    share one of each other's rarest (1 - t) of shingles, so only those are looked up.
    """
    shingled = {pair.id: _compared(pair.output) for pair in (*protected, *order)}
    frequency = Counter(shingle for found in shingled.values() for shingle in found)
    lookup: dict[str, list[int]] = defaultdict(list)
    dropped: dict[int, str] = {}
    held = {pair.id for pair in protected}
    for pair in (*protected, *order):
        mine = shingled[pair.id]
        rarest = sorted(mine, key=lambda shingle: (frequency[shingle], shingle))
        prefix = rarest[: len(mine) - int(NEAR * len(mine)) + 1]
        candidates = {id for shingle in prefix for id in lookup[shingle]}
        near = next((id for id in sorted(candidates) if jaccard(mine, shingled[id]) >= NEAR), None)
        if near is not None and pair.id not in held:
            dropped[pair.id] = f"nearly the text of pair {near}" + (", which is held out" if near in held else "")
            continue
        for shingle in prefix:
            lookup[shingle].append(pair.id)
    return dropped


def _in_conflict(order: Sequence[Pair], protected: Sequence[Pair]) -> dict[int, str]:
    winners: dict[str, Pair] = {}
    found = {}
    for pair in order:
        winner = winners.setdefault(key_of_brief(pair.task), pair)
        liked = pair.source is winner.source is PairSource.ACCEPTED
        same_hand = (pair.author, pair.source) == (winner.author, winner.source)
        if liked or same_hand or pair.created_at > winner.created_at:
            continue
        if jaccard(shingles(pair.output), shingles(winner.output)) < DIFFERENT:
            found[pair.id] = f"pair {winner.id} answers the same brief in another way and is the later judgement"
    return found


def shingles(text: str) -> frozenset[str]:
    """All runs of SHINGLE characters; spaces and case do not count."""
    plain = _plain(text)
    return frozenset(plain[at : at + SHINGLE] for at in range(max(1, len(plain) - SHINGLE + 1)))


def _compared(text: str) -> frozenset[str]:
    """The shingles of a text; a short one is a single shingle, near to its equals only."""
    found = shingles(text)
    return found if len(found) >= FEWEST_SHINGLES else frozenset([_plain(text)])


def _plain(text: str) -> str:
    return normalised(text).replace(" ", "")


def jaccard(one: Set[str], other: Set[str]) -> float:
    return len(one & other) / len(one | other)


# Warnings

_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_LIST = re.compile(r"^\s*([-*•·]|\d+[.、)])\s*\S", re.MULTILINE)

# Each habit: texts that could show it, and those of them that do. What the brief asks for is no habit.
_HABITS: Mapping[str, Callable[[Pair], bool | None]] = {
    "exclamation marks": lambda pair: "!" in pair.output or "！" in pair.output,
    "emoji": lambda pair: bool(_EMOJI.search(pair.output)) if pair.task.requirements.emoji is None else None,
    "lists": lambda pair: bool(_LIST.search(pair.output)) if not pair.task.requirements.product else None,
    "您 instead of 你": lambda pair: "您" in pair.output if re.search("[您你]", pair.output) else None,
}


def warnings(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """What a person should know about the data before trusting the version, one sentence each."""
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.task.category, pair.task.language].append(pair)
    few = [f"{group} {count}" for group, count in counts(pairs).items() if count < ENOUGH_PAIRS]
    found = [f"Fewer than {ENOUGH_PAIRS} pairs, so style may not settle: {', '.join(few)}."] if few else []
    for (name, language), group in sorted(groups.items()):
        for habit, shows in _HABITS.items():
            said = [shown for pair in group if (shown := shows(pair)) is not None]
            share = sum(said) / len(said) if said else 0.0
            if len(said) >= FEWEST_FOR_STYLE and MIXED[0] <= share <= MIXED[1]:
                found.append(f"Mixed styles in {name} {language}: {share:.0%} of {len(said)} texts use {habit}.")
    return tuple(found)


def counts(pairs: Iterable[Pair]) -> dict[str, int]:
    """Pairs by category and language, such as {"food en": 40}."""
    found = Counter(f"{pair.task.category} {pair.task.language}" for pair in pairs)
    return dict(sorted(found.items()))
