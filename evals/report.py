"""A scorecard as one HTML file that stands alone: figures, pictures, and every text that was scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evals.checks import PRIMARY
from evals.drawing import CANDIDATE, LIVE, Dot, Figure, Point, interval_chart, trend_chart
from evals.plan import FOLLOWING, STABILITY, Call
from evals.scorecard import Graded, Samples, grade
from evals.suite import Item, suite_of_card
from evals.words import WORDS
from serving.card import Arm, Card, Estimate, Rate
from serving.grades import Grades
from serving.judge_answers import JudgeAnswers
from serving.records import Decision, Scorecard
from serving.shares import hundredths, percent, points, reason_figures, with_interval
from serving.store import BASE, Store

NAMES = {
    "bleu": "BLEU",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "chrf": "chrF",
    "distinct1": "distinct-1",
    "distinct2": "distinct-2",
    "self_bleu": "self-BLEU",
}


@dataclass(frozen=True)
class Told:
    """One brief of a card with everything that was written for it.

    Attributes:
        texts: (version, part, samples in the order of their repeats).
    """

    item: Item
    texts: tuple[tuple[str, str, tuple[Graded, ...]], ...]

    @property
    def worst(self) -> str:
        """The worst grade of the card's own texts."""
        grades = {one.score.grade.value for one in self.texts[0][2]}
        return next(grade for grade in ("fail", "acceptable", "excellent") if grade in grades)


@dataclass(frozen=True)
class Report:
    """Attributes:
    briefs: in the order of the plan, the following part first.
    data_digest: of the round's pairs; "" for the base model.
    """

    scorecard: Scorecard
    card: Card
    briefs: tuple[Told, ...]
    trend: tuple[Point, ...]
    data_digest: str


def read_report(store: Store, scorecard: Scorecard, suites: Path) -> Report:
    """Raises CopydeskError when the card's suite is gone."""
    card = Card.from_json(scorecard.body or {})
    card = card.seen_with(Grades(store).people(scorecard), JudgeAnswers(store).of(scorecard))
    items = {item.id: item for item in suite_of_card(card.suite, card.suite_digest, suites).items}
    own = _samples(store, scorecard.id)
    sides = [(card.version, own)]
    if card.live and (live := _live_samples(store, card, scorecard, own)):
        sides.append((card.baseline, live))
    told: dict[tuple[str, str], list[tuple[str, str, tuple[Graded, ...]]]] = {}
    for version, samples in sides:
        calls = [Call(items[id], part, repeat) for id, part, repeat in sorted(samples) if id in items]
        for one in grade(calls, {key: samples[key] for key in (call.key for call in calls)}):
            place = told.setdefault((one.part, one.item.id), [])
            if place and place[-1][0] == version:
                place[-1] = (version, one.part, (*place[-1][2], one))
            else:
                place.append((version, one.part, (one,)))
    order = {id: n for n, id in enumerate(card.item_ids)}
    keys = sorted(told, key=lambda key: (key[0] != FOLLOWING, order.get(key[1], 0), key[1]))
    digest = ""
    if card.version != BASE:
        digest = store.round(store.version(card.version).round_id).data_digest
    return Report(
        scorecard, card, tuple(Told(items[id], tuple(told[part, id])) for part, id in keys), _trend(store, card), digest
    )


def _samples(store: Store, scorecard_id: int) -> Samples:
    return {(one.item_id, one.part, one.repeat): one for one in store.samples(scorecard_id)}


def _live_samples(store: Store, card: Card, scorecard: Scorecard, own: Samples) -> Samples:
    """What the baseline wrote for the same plan; nothing where its card is gone."""
    for other in store.scorecards(card.baseline):
        if (other.suite, other.seed) == (scorecard.suite, scorecard.seed):
            samples = _samples(store, other.id)
            if own.keys() <= samples.keys():
                return {key: samples[key] for key in own}
    return {}


def _trend(store: Store, card: Card) -> tuple[Point, ...]:
    """The newest card of every version on the same suite, the oldest version first."""
    promoted = {one.version for one in store.promotions() if one.decision is Decision.APPROVED}
    newest: dict[str, Card] = {}
    for scorecard in store.scorecards():
        body = scorecard.body or {}
        if body.get("suite_digest") == card.suite_digest and scorecard.version not in newest:
            newest[scorecard.version] = Card.from_json(body)
    newest[card.version] = card
    versions = sorted(newest, key=lambda version: (version != BASE, version))
    return tuple(
        Point(version, rate.share, rate.low, rate.high, version in promoted, version == card.version)
        for version in versions
        for rate in [newest[version].candidate.excellent]
    )


def render_report(report: Report) -> str:
    """The file's text."""
    card = report.card
    words = WORDS[card.language]

    def say(key: str, **values: object) -> str:
        return words[key].format(**values)

    def name(version: str) -> str:
        return words["base"] if version == BASE else version

    environment = Environment(
        loader=PackageLoader("evals", "data"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        percent=percent,
        interval=partial(with_interval, bar=card.bar, unmeasured=words["unmeasured"]),
        points=points,
        hundredths=hundredths,
    )
    return environment.get_template("report.html").render(
        report=report,
        card=card,
        own=card.candidate,
        live=card.live,
        say=say,
        name=name,
        names=NAMES,
        primary=PRIMARY,
        reason=_reason(card, words, name(card.baseline)),
        chart=_chart(card, words, name(card.version), name(card.baseline)),
        trend=_drawn_trend(report, words),
        stability=STABILITY,
    )


def _reason(card: Card, words: Mapping[str, str], baseline: str) -> str:
    # A card of an earlier release does not say in which text the claim stands.
    return words[f"why_{card.reason}"].format(
        **{"item": "–", "product": "–", "baseline": baseline, **reason_figures(card)}
    )


def _chart(card: Card, words: Mapping[str, str], own: str, live: str) -> Markup:
    arms = [(CANDIDATE, own, card.candidate)]
    if card.live:
        arms.insert(0, (LIVE, live, card.live))

    def figure(key: str, values: Sequence[Rate | Estimate], marks: tuple[tuple[str, float, str], ...] = ()) -> Figure:
        dots = [
            Dot(kind, label, share, percent(share, card.bar), value.low, value.high)
            for (kind, label, _), value in zip(arms, values, strict=True)
            for share in [value.share if isinstance(value, Rate) else value.value]
        ]
        return Figure(key, dots, marks)

    bar = ("bar", card.bar, words["bar"].format(bar=percent(card.bar)))
    figures = [
        figure(words["excellent"], [arm.excellent for _, _, arm in arms], (bar,)),
        figure(words["acceptable_short"], [arm.acceptable for _, _, arm in arms]),
    ]
    stable = [arm.stability for _, _, arm in arms if arm.stability]
    if len(stable) == len(arms):
        figures.append(figure(words["pass_k_short"].format(k=card.repeats), stable))
    figures.append(_bleu_figure(arms, words))
    return interval_chart(figures, words["figures"])


def _bleu_figure(arms: list[tuple[str, str, Arm]], words: Mapping[str, str]) -> Figure:
    values = [arm.metric("bleu").value for _, _, arm in arms]
    dots = [Dot(kind, label, bleu, f"{bleu:.2f}") for (kind, label, _), bleu in zip(arms, values, strict=True)]
    ceiling = arms[-1][2].metric("bleu").ceiling
    return Figure("BLEU", dots, (("human", ceiling, words["human"]),) if ceiling is not None else ())


def _drawn_trend(report: Report, words: Mapping[str, str]) -> Markup:
    return trend_chart(report.trend, report.card.bar, words["promoted"], words["trend"])
