"""Two scorecards side by side, on the briefs that both have: is the second better than the first?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evals import statistics
from evals.checks import Grade
from evals.plan import FOLLOWING, STABILITY, Call
from evals.scorecard import Graded, Samples, grade, stable_briefs
from evals.stability import chances
from evals.suite import Suite, suite_of_card
from serving.card import Card, Difference, Estimate, Rate
from serving.records import CopydeskError, Scorecard
from serving.store import Store


@dataclass(frozen=True)
class Side:
    """One card's part of a comparison, on the briefs in common.

    Attributes:
        k: repeats in common; `pass_k` is None where no brief was asked several times.
    """

    scorecard: int
    version: str
    excellent: Rate
    acceptable: Rate
    bleu: float
    pass_k: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """The second side minus the first, paired by brief.

    Attributes:
        items: briefs of the following part in common.
        briefs: briefs of the stability part in common, each with `k` repeats.
        meeting: share of all samples that meet their brief, both parts, brief by brief.
    """

    first: Side
    second: Side
    suite: str
    suite_digest: str
    items: int
    briefs: int
    k: int
    excellent: Difference
    acceptable: Difference
    bleu: Difference
    pass_k: Estimate | None
    meeting: Estimate

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(store: Store, first: Scorecard, second: Scorecard, suites: Path) -> Comparison:
    """Raises CopydeskError when the cards have no briefs in common."""
    cards = [Card.from_json(scorecard.body or {}) for scorecard in (first, second)]
    if cards[0].suite_digest != cards[1].suite_digest:
        raise CopydeskError(
            f"Scorecard {first.id} is on suite {cards[0].suite} ({cards[0].suite_digest[:12]}), {second.id} on "
            f"{cards[1].suite} ({cards[1].suite_digest[:12]}); only cards on the same briefs are compared."
        )
    suite = suite_of_card(cards[0].suite, cards[0].suite_digest, suites)
    samples: list[Samples] = [
        {(one.item_id, one.part, one.repeat): one for one in store.samples(scorecard.id)}
        for scorecard in (first, second)
    ]
    calls = _common(suite, samples)
    if not any(call.part == FOLLOWING for call in calls):
        raise CopydeskError(f"Scorecards {first.id} and {second.id} have no brief in common; give both the same seed.")
    old, new = (grade(calls, own) for own in samples)
    seed = cards[0].seed
    followed = [[one for one in side if one.part == FOLLOWING] for side in (old, new)]
    overlaps = [[one.overlap for one in side if one.overlap] for side in followed]
    stable = [stable_briefs(side) for side in (old, new)]
    k = min((brief.repeats for brief in stable[0]), default=0)
    bleu = [statistics.corpus_bleu(side) for side in overlaps]
    sides = [
        Side(
            scorecard.id,
            scorecard.version,
            _rate(side, _excellent),
            _rate(side, _meets),
            score,
            statistics.bootstrap_share(chances(briefs, k), seed) if briefs else None,
        )
        for scorecard, side, score, briefs in zip((first, second), followed, bleu, stable, strict=True)
    ]
    return Comparison(
        first=sides[0],
        second=sides[1],
        suite=suite.name,
        suite_digest=suite.digest,
        items=len(followed[0]),
        briefs=len(stable[0]),
        k=k,
        excellent=_paired(followed[1], followed[0], _excellent),
        acceptable=_paired(followed[1], followed[0], _meets),
        bleu=statistics.paired_bleu(overlaps[1], overlaps[0], seed),
        pass_k=statistics.by_brief(chances(stable[1], k), chances(stable[0], k), seed) if k else None,
        meeting=statistics.by_brief(_meeting(new), _meeting(old), seed),
    )


def _common(suite: Suite, samples: Sequence[Samples]) -> list[Call]:
    """What both have, with the same repeats of every brief of the stability part."""
    shared = samples[0].keys() & samples[1].keys()
    known = {item.id: item for item in suite.items}
    repeats = [repeat for _, part, repeat in shared if part == STABILITY]
    whole = max(repeats, default=-1) + 1
    complete = {
        id
        for id, part, _ in shared
        if part == STABILITY and all((id, STABILITY, repeat) in shared for repeat in range(whole))
    }
    return [
        Call(known[id], part, repeat)
        for id, part, repeat in sorted(shared)
        if id in known and (part == FOLLOWING or id in complete)
    ]


def _excellent(one: Graded) -> bool:
    return one.score.grade is Grade.EXCELLENT


def _meets(one: Graded) -> bool:
    return one.score.meets


def _rate(side: Sequence[Graded], holds: Callable[[Graded], bool]) -> Rate:
    return statistics.wilson(sum(map(holds, side)), len(side))


def _paired(new: Sequence[Graded], old: Sequence[Graded], holds: Callable[[Graded], bool]) -> Difference:
    return statistics.paired_rates([holds(one) for one in new], [holds(one) for one in old])


def _meeting(side: Sequence[Graded]) -> list[float]:
    """For each brief, in the order of its id, the share of its samples that meet it."""
    briefs: dict[str, list[bool]] = {}
    for one in side:
        briefs.setdefault(one.item.id, []).append(one.score.meets)
    return [sum(met) / len(met) for _, met in sorted(briefs.items())]
