"""Stored samples → a card. Pure: the same samples give the same card, and nothing is generated here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from evals import metrics, stability, statistics
from evals import text as reading
from evals.checks import Grade, Score, score
from evals.plan import FOLLOWING, STABILITY, Plan
from evals.suite import Item
from serving.card import Arm, Card, Caveat, Difference, Metric, Rate, Reason, Verdict, WorstSample
from serving.records import Sample

BAR = 0.8  # the share of excellent samples that the gate asks for
SIGNIFICANT = 0.05
FEW_ITEMS = 30
WORST = 3
SHOWN_CHARACTERS = 600  # of a worst sample; the store has the whole text

Samples = Mapping[tuple[str, str, int], Sample]


@dataclass(frozen=True)
class Graded:
    item: Item
    part: str
    text: str
    score: Score
    cut_off: bool


@dataclass(frozen=True)
class Subject:
    """A version and everything that it wrote for a plan."""

    version: str
    digest: str
    samples: Samples


def grade(plan: Plan, samples: Samples) -> list[Graded]:
    """Check the stored texts, with today's checks."""
    graded = []
    for call in plan.calls():
        sample = samples[call.key]
        graded.append(
            Graded(
                call.item,
                call.part,
                sample.text,
                score(sample.text, call.item.task),
                sample.score.get("finish") == "length",
            )
        )
    return graded


def arm(plan: Plan, subject: Subject, graded: Sequence[Graded]) -> Arm:
    """What one version did."""
    following = [one for one in graded if one.part == FOLLOWING]
    briefs = tuple(
        stability.brief_stability(item, [one.text for one in own], [one.score for one in own])
        for item in plan.stability()
        for own in [[one for one in graded if one.part == STABILITY and one.item.id == item.id]]
    )
    grades = Counter(one.score.grade for one in following)
    language = plan.suite.language
    used = [subject.samples[call.key] for call in plan.calls()]
    return Arm(
        version=subject.version,
        digest=subject.digest,
        grades={grade.value: grades[grade] for grade in Grade},
        excellent=statistics.wilson(grades[Grade.EXCELLENT], len(following)),
        acceptable=statistics.wilson(sum(one.score.meets for one in following), len(following)),
        requirements=_requirements(following),
        metrics=_metrics(following),
        pass_k=stability.pass_curve(briefs, plan.repeats, plan.seed),
        briefs=briefs,
        mean_length=fmean(reading.length(one.text, language) for one in following),
        forbidden_claims=sum(bool(one.score.claim) for one in graded),
        samples=len(graded),
        tokens=sum(int(sample.score.get("tokens", 0)) for sample in used),
        seconds=_busy_seconds(used),
    )


def _requirements(graded: Sequence[Graded]) -> dict[str, Rate]:
    asked: Counter[str] = Counter()
    met: Counter[str] = Counter()
    for one in graded:
        for check in one.score.checks:
            asked[check.kind] += 1
            met[check.kind] += check.passed
    return {kind: statistics.wilson(met[kind], total) for kind, total in asked.items()}


def _metrics(graded: Sequence[Graded]) -> tuple[Metric, ...]:
    texts = [one.text for one in graded]
    references = [one.item.references for one in graded]
    found = metrics.quality(texts, references)
    ceiling = metrics.human_ceiling(references) or {}
    shown = [
        Metric(name, found.values[name], ceiling.get(name), found.signatures[name])
        for name in ("bleu", "rouge1", "rouge2", "rougeL", "chrf")
    ]
    humans = [own[0] for own in references]
    variety = [
        Metric(f"distinct{n}", metrics.distinct(texts, n), metrics.distinct(humans, n), "tok:latin+han") for n in (1, 2)
    ]
    return (*shown, *variety)


def _busy_seconds(samples: Sequence[Sample]) -> float:
    """How long at least one of the requests was running, over all sittings."""
    spans = sorted(
        (float(sample.score["ended"]) - float(sample.score["seconds"]), float(sample.score["ended"]))
        for sample in samples
        if "ended" in sample.score
    )
    busy, until = 0.0, float("-inf")
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return round(busy, 1)


def make_card(
    plan: Plan,
    candidate: Subject,
    live: Subject | None,
    *,
    base_model: str,
    training: Sequence[str] = (),
    leaks: Mapping[str, str] | None = None,
) -> Card:
    """Aggregate, compare, decide.

    Args:
        live: the baseline; None when the candidate is the baseline.
        training: outputs of the round that made the candidate.
        leaks: items of the suite that the round gives away (see evals.leaks).
    """
    graded = grade(plan, candidate.samples)
    own = arm(plan, candidate, graded)
    other: Arm | None = None
    excellent = bleu = None
    steady = None
    if live is not None:
        live_graded = grade(plan, live.samples)
        other = arm(plan, live, live_graded)
        following = [one for one in graded if one.part == FOLLOWING]
        live_following = [one for one in live_graded if one.part == FOLLOWING]
        excellent = statistics.paired_rates(
            [one.score.grade is Grade.EXCELLENT for one in following],
            [one.score.grade is Grade.EXCELLENT for one in live_following],
            plan.seed,
        )
        bleu = statistics.paired_bleu(
            [one.text for one in following],
            [one.text for one in live_following],
            [one.item.references for one in following],
            plan.seed,
        )
        steady = statistics.by_brief(
            stability.chances(own.briefs, plan.repeats), stability.chances(other.briefs, plan.repeats), plan.seed
        )
    verdict, reason, values = judge(own, excellent, graded, leaks or {})
    return Card(
        version=candidate.version,
        digest=candidate.digest,
        base_model=base_model,
        baseline=live.version if live else candidate.version,
        verdict=verdict,
        reason=reason,
        reason_values=values,
        bar=BAR,
        suite=plan.suite.name,
        suite_digest=plan.suite.digest,
        suite_size=len(plan.suite.items),
        seed=plan.seed,
        items=own.excellent.total,
        item_ids=tuple(item.id for item in plan.following()),
        repeats=plan.repeats,
        sampling={name: value for name, value in asdict(plan.sampling).items() if value is not None},
        candidate=own,
        live=other,
        excellent_difference=excellent,
        bleu_difference=bleu,
        stability_difference=steady,
        worst=worst(graded),
        caveats=_caveats(own, graded, training),
    )


def judge(
    own: Arm, difference: Difference | None, graded: Sequence[Graded], leaks: Mapping[str, str]
) -> tuple[Verdict, Reason, dict[str, float | int | str]]:
    """The gate: no leak, no forbidden claim, not significantly worse than live, and the interval against the bar."""
    if leaks:
        return Verdict.FAIL, Reason.LEAK, {"count": len(leaks), "item": next(iter(leaks))}
    claims = [one.score.claim for one in graded if one.score.claim]
    if claims:
        first = claims[0].partition(": ")[2].rstrip(".")
        return (
            Verdict.FAIL,
            Reason.FORBIDDEN_CLAIM,
            {"count": len(claims), "total": len(graded), "claim": first},
        )
    if difference is not None and difference.value < 0 and difference.p < SIGNIFICANT:
        gained, lost = difference.gained or 0, difference.lost or 0
        return Verdict.FAIL, Reason.WORSE_THAN_LIVE, {"gained": gained, "lost": lost, "p": difference.p}
    rate = own.excellent
    values: dict[str, float | int | str] = {"bar": BAR, "low": rate.low, "high": rate.high, "n": rate.total}
    if rate.low >= BAR:
        return Verdict.PASS, Reason.MEETS_BAR, values
    if rate.high < BAR:
        return Verdict.FAIL, Reason.BELOW_BAR, values
    return Verdict.INCONCLUSIVE, Reason.TOO_FEW, values


def worst(graded: Sequence[Graded]) -> tuple[WorstSample, ...]:
    """Samples that missed most, one an item, primary requirements before secondary ones."""

    def badness(one: Graded) -> tuple[int, int]:
        missed = [check.primary for check in one.score.checks if not check.passed]
        # No answer at all is worse than any answer, though it is one reason.
        nothing = any(check.kind == "answer" and not check.passed for check in one.score.checks)
        return sum(missed) + 10 * nothing, len(missed)

    shown: dict[str, WorstSample] = {}
    for one in sorted(graded, key=badness, reverse=True):
        if one.score.reasons and one.item.id not in shown and len(shown) < WORST:
            name = one.item.task.requirements.product or one.item.task.instruction
            text = one.text if len(one.text) <= SHOWN_CHARACTERS else one.text[:SHOWN_CHARACTERS] + "…"
            shown[one.item.id] = WorstSample(
                one.item.id, one.part, name, text, one.score.grade.value, one.score.reasons
            )
    return tuple(shown.values())


def _caveats(own: Arm, graded: Sequence[Graded], training: Sequence[str]) -> tuple[Caveat, ...]:
    memory = metrics.Memory(training)
    found = {
        Caveat.SMALL_SAMPLE: own.excellent.total < FEW_ITEMS,
        Caveat.NO_JUDGE: True,
        Caveat.CEILING_ONE_FEWER: own.metric("bleu").ceiling is not None,
        Caveat.BLEU_BAND: True,
        Caveat.MEMORISED: any(memory.holds(one.text) for one in graded),
        Caveat.CUT_OFF: any(one.cut_off for one in graded),
    }
    return tuple(caveat for caveat, holds in found.items() if holds)
