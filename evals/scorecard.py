"""Stored samples → a card. Pure: the same samples give the same card, and nothing is generated here."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import fmean

from evals import metrics, stability, statistics, style
from evals.checks import Grade, Score, loose_grades, scores
from evals.claims import claims_in
from evals.overlap import Overlap, overlaps, read
from evals.plan import FOLLOWING, STABILITY, Call, Plan
from evals.suite import Item
from evals.text import comparable
from serving.card import (
    Arm,
    BriefStability,
    Card,
    Caveat,
    Difference,
    Estimate,
    Memorised,
    Metric,
    Rate,
    Reason,
    Style,
    Verdict,
    WorstSample,
)
from serving.counts import SIGNIFICANT
from serving.prompt import length_of
from serving.records import Sample

BAR = 0.8  # the share of excellent samples that the gate asks for
FEW_ITEMS = 30
WORST = 3
SHOWN_CHARACTERS = 600  # of a worst sample; the store has the whole text

Samples = Mapping[tuple[str, str, int], Sample]


@dataclass(frozen=True)
class Graded:
    """One sample with today's checks; `overlap` is None in the stability part, which has no reference metrics."""

    item: Item
    part: str
    repeat: int
    text: str
    score: Score
    overlap: Overlap | None
    cut_off: bool


@dataclass(frozen=True)
class Subject:
    """A version and everything that it wrote for a plan."""

    version: str
    digest: str
    samples: Samples


def grade(calls: Iterable[Call], samples: Samples) -> list[Graded]:
    """Check the stored texts, with today's checks."""
    own = [(call, samples[call.key]) for call in calls]
    checked = scores([(sample.text, call.item.task) for call, sample in own])
    compared = [(sample.text, call.item.references) for call, sample in own if call.part == FOLLOWING]
    near = iter(overlaps(compared))
    return [
        Graded(
            call.item,
            call.part,
            call.repeat,
            sample.text,
            found,
            next(near) if call.part == FOLLOWING else None,
            sample.score.get("finish") == "length",
        )
        for (call, sample), found in zip(own, checked, strict=True)
    ]


@dataclass(frozen=True)
class Human:
    """What people score on a plan's briefs, one's text against the others': metrics by name, styles by category."""

    metrics: Mapping[str, float]
    styles: Mapping[str, float]


def human_figures(plan: Plan) -> Human:
    references = [item.references for item in plan.following()]
    first = [own[0] for own in references]
    texts = {item.id: item for item in (*plan.following(), *plan.stability())}
    categories: dict[str, list[str]] = {}
    for item in texts.values():
        categories.setdefault(item.task.category, []).append(item.references[0])
    return Human(
        {
            **(metrics.human_ceiling(references) or {}),
            "distinct1": metrics.distinct(first, 1),
            "distinct2": metrics.distinct(first, 2),
            "self_bleu": metrics.self_bleu([read(text).words for text in first]),
        },
        {category: style.consistency(own, plan.suite.language) for category, own in categories.items()},
    )


def arm(plan: Plan, subject: Subject, graded: Sequence[Graded], human: Human) -> Arm:
    """What one version did."""
    following = [one for one in graded if one.part == FOLLOWING]
    briefs = stable_briefs(graded)
    grades = Counter(one.score.grade for one in following)
    language = plan.suite.language
    used = [subject.samples[call.key] for call in plan.calls()]
    read_loosely = loose_grades([(one.text, one.item.task) for one in following], [one.score for one in following])
    return Arm(
        version=subject.version,
        digest=subject.digest,
        grades={grade.value: grades[grade] for grade in Grade},
        excellent=statistics.wilson(grades[Grade.EXCELLENT], len(following)),
        acceptable=statistics.wilson(sum(one.score.meets for one in following), len(following)),
        requirements=_requirements(following),
        metrics=_metrics(following, human),
        pass_k=stability.pass_curve(briefs, plan.repeats, plan.seed),
        briefs=briefs,
        mean_length=fmean(length_of(one.text, language) for one in following),
        forbidden_claims=sum(bool(one.score.claim) for one in graded),
        samples=len(graded),
        tokens=sum(int(sample.score.get("tokens", 0)) for sample in used),
        seconds=_busy_seconds(used),
        loose=statistics.wilson(read_loosely.count(Grade.EXCELLENT), len(following)),
        styles=_styles(graded, human),
    )


def stable_briefs(graded: Iterable[Graded]) -> tuple[BriefStability, ...]:
    """The stability part, brief by brief."""
    repeats: dict[str, list[Graded]] = {}
    for one in graded:
        if one.part == STABILITY:
            repeats.setdefault(one.item.id, []).append(one)
    return tuple(
        stability.brief_stability(own[0].item, [one.text for one in own], [one.score for one in own])
        for own in repeats.values()
    )


def _requirements(graded: Sequence[Graded]) -> dict[str, Rate]:
    asked: Counter[str] = Counter()
    met: Counter[str] = Counter()
    for one in graded:
        for check in one.score.checks:
            asked[check.kind] += 1
            met[check.kind] += check.passed
    return {kind: statistics.wilson(met[kind], total) for kind, total in asked.items()}


def _metrics(following: Sequence[Graded], human: Human) -> tuple[Metric, ...]:
    texts = [one.text for one in following]
    references = metrics.spread([one.item.references for one in following])
    near = [one.overlap for one in following if one.overlap]
    found = metrics.quality_of(near, references)
    values = {
        **{name: found.values[name] for name in ("bleu", "rouge1", "rouge2", "rougeL", "chrf")},
        "distinct1": metrics.distinct(texts, 1),
        "distinct2": metrics.distinct(texts, 2),
        "self_bleu": metrics.self_bleu([one.words for one in near]),
    }
    signatures = {
        **found.signatures,
        **dict.fromkeys(("distinct1", "distinct2"), "tok:latin+han"),
        "self_bleu": "nrefs:others|eff:yes|tok:zh",
    }
    return tuple(Metric(name, value, human.metrics.get(name), signatures[name]) for name, value in values.items())


def _styles(graded: Sequence[Graded], human: Human) -> tuple[Style, ...]:
    """By category, over one text a brief: repeats of one brief are alike for another reason."""
    first = {one.item.id: one for one in reversed(graded)}
    categories: dict[str, list[Graded]] = {}
    for one in first.values():
        categories.setdefault(one.item.task.category, []).append(one)
    return tuple(
        Style(
            category,
            len(own),
            style.consistency([one.text for one in own], own[0].item.task.language),
            human.styles[category],
        )
        for category, own in sorted(categories.items())
        if len(own) >= style.ENOUGH
    )


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


@contextmanager
def _without_collecting() -> Iterator[None]:
    """No search for cycles, of which scoring makes none: going through all texts so far takes a fifth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@_without_collecting()
def make_card(
    plan: Plan,
    candidate: Subject,
    live: Subject | None,
    *,
    base_model: str,
    training: Sequence[str] = (),
    leaks: Mapping[str, str] | None = None,
    looks: int = 1,
) -> Card:
    """Aggregate, compare, decide.

    Args:
        live: the baseline; None when the candidate is the baseline.
        training: outputs of the round that made the candidate.
        leaks: items of the suite that the round gives away (see evals.leaks).
        looks: how many verdicts on these samples this one makes.
    """
    graded, human = grade(plan.calls(), candidate.samples), human_figures(plan)
    own = arm(plan, candidate, graded, human)
    other: Arm | None = None
    excellent = bleu = None
    steady = None
    if live is not None:
        live_graded = grade(plan.calls(), live.samples)
        other = arm(plan, live, live_graded, human)
        following = [one for one in graded if one.part == FOLLOWING]
        live_following = [one for one in live_graded if one.part == FOLLOWING]
        excellent = statistics.paired_rates(
            [one.score.grade is Grade.EXCELLENT for one in following],
            [one.score.grade is Grade.EXCELLENT for one in live_following],
        )
        bleu = statistics.paired_bleu(
            [one.overlap for one in following if one.overlap],
            [one.overlap for one in live_following if one.overlap],
            plan.seed,
        )
        if own.briefs:
            steady = statistics.by_brief(
                stability.chances(own.briefs, plan.repeats), stability.chances(other.briefs, plan.repeats), plan.seed
            )
    memorised = _memorised(graded, training)
    verdict, reason, values = decide(own, excellent, steady, graded, leaks or {})
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
        caveats=_caveats(own, graded, memorised, looks),
        language=plan.suite.language,
        memorised=memorised,
        looks=looks,
    )


def decide(
    own: Arm,
    difference: Difference | None,
    steady: Estimate | None,
    graded: Sequence[Graded],
    leaks: Mapping[str, str],
) -> tuple[Verdict, Reason, dict[str, float | int | str]]:
    """The gate: no leak, no forbidden claim, neither worse nor less stable than live, and the interval over the bar."""
    if leaks:
        return Verdict.FAIL, Reason.LEAK, {"count": len(leaks), "item": next(iter(leaks))}
    claiming = [one for one in graded if one.score.claim]
    if claiming:
        first = claiming[0]
        claim = ", ".join(claims_in(comparable(first.text), first.item.task).hard)
        where = {"item": first.item.id, "product": _name(first.item)}
        return (
            Verdict.FAIL,
            Reason.FORBIDDEN_CLAIM,
            {"count": len(claiming), "total": len(graded), "claim": claim, **where},
        )
    if difference is not None and difference.value < 0 and difference.p < SIGNIFICANT:
        gained, lost = difference.gained or 0, difference.lost or 0
        return Verdict.FAIL, Reason.WORSE_THAN_LIVE, {"gained": gained, "lost": lost, "p": difference.p}
    rate = own.excellent
    values: dict[str, float | int | str] = {"bar": BAR, "low": rate.low, "high": rate.high, "n": rate.total}
    if rate.low >= BAR and steady is not None and steady.high < 0:
        repeats = max(brief.repeats for brief in own.briefs)
        fewer: dict[str, float | int | str] = {"repeats": repeats, "low": -steady.high, "high": -steady.low}
        return Verdict.INCONCLUSIVE, Reason.LESS_STABLE, fewer
    if rate.low >= BAR:
        return Verdict.PASS, Reason.MEETS_BAR, values
    if rate.high < BAR:
        return Verdict.FAIL, Reason.BELOW_BAR, values
    return Verdict.INCONCLUSIVE, Reason.TOO_FEW, values


def worst(graded: Sequence[Graded]) -> tuple[WorstSample, ...]:
    """Samples that missed most, one an item."""
    shown: dict[str, WorstSample] = {}
    for one in sorted(graded, key=lambda one: one.score.badness, reverse=True):
        if one.score.reasons and one.item.id not in shown and len(shown) < WORST:
            text = one.text if len(one.text) <= SHOWN_CHARACTERS else one.text[:SHOWN_CHARACTERS] + "…"
            shown[one.item.id] = WorstSample(
                one.item.id, one.part, _name(one.item), text, one.score.grade.value, one.score.reasons
            )
    return tuple(shown.values())


def _name(item: Item) -> str:
    return item.task.requirements.product or item.task.instruction


def _memorised(graded: Sequence[Graded], training: Sequence[str]) -> Memorised | None:
    memory = metrics.Memory(training)
    runs = [(memory.run(one.text), one.item.id) for one in graded]
    copied = [(run, item_id) for run, item_id in runs if run]
    if not copied:
        return None
    run, item_id = max(copied, key=lambda one: len(one[0]))
    space = " " if graded[0].item.task.language != "zh" else ""
    return Memorised(len(copied), len(graded), len(run), item_id, space.join(run))


def _caveats(own: Arm, graded: Sequence[Graded], memorised: Memorised | None, looks: int) -> tuple[Caveat, ...]:
    found = {
        Caveat.SMALL_SAMPLE: own.excellent.total < FEW_ITEMS,
        Caveat.CEILING_ONE_FEWER: own.metric("bleu").ceiling is not None,
        Caveat.BLEU_BAND: True,
        Caveat.MEMORISED: memorised is not None,
        Caveat.CUT_OFF: any(one.cut_off for one in graded),
        Caveat.EXTENDED: looks > 1,
    }
    return tuple(caveat for caveat, holds in found.items() if holds)
