"""Charts of a scorecard as Slack draws them: the candidate beside its baseline, and all versions so far. Pure.

Slack's charts have no error bars: the intervals stand in the table and in the picture. Names are cut at 20 characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bot.blocks import JSON
from bot.texts import Words
from serving.card import Card, Rate
from serving.shares import rounded
from serving.store import BASE

NAME_LIMIT, TITLE_LIMIT = 20, 50
VERSIONS_SHOWN = 10


@dataclass(frozen=True)
class Step:
    """A version on the way; shares 0..1.

    Attributes:
        stable: None where no brief was asked several times.
        promoted: a lead approved it.
    """

    version: str
    excellent: float
    stable: float | None
    promoted: bool


def step_of(card: Card, promoted: bool) -> Step:
    stable = card.candidate.stability
    return Step(card.version, card.candidate.excellent.share, stable.value if stable else None, promoted)


def bars(card: Card, words: Words) -> JSON:
    """Shares in percent, the baseline beside the candidate; what was not measured has no bar."""
    arms = [arm for arm in (card.live, card.candidate) if arm]
    rows = {
        words("excellent"): [arm.excellent.share for arm in arms],
        words("chart_acceptable"): [arm.acceptable.share for arm in arms],
    }
    stable = [arm.stability.value for arm in arms if arm.stability]
    if len(stable) == len(arms):
        rows[words("chart_stable", k=card.repeats)] = stable
    by_people: list[Rate] = [card.people.live, card.people.candidate][-len(arms) :] if card.people else []
    if by_people and all(rate.total for rate in by_people):
        rows[words("chart_by_people")] = [rate.share for rate in by_people]
    series = {_name(arm.version, words): [shares[n] for shares in rows.values()] for n, arm in enumerate(arms)}
    return _chart("bar", words("chart_bars"), list(rows), series, card.bar)


def trend(steps: Sequence[Step], words: Words, bar: float) -> list[JSON]:
    """The versions so far, the oldest first, promotions marked; nothing while there is only one."""
    steps = steps[-VERSIONS_SHOWN:]
    if len(steps) < 2:
        return []
    names = [("★ " if step.promoted else "") + _name(step.version, words) for step in steps]
    series = {words("excellent"): [step.excellent for step in steps]}
    stable = [step.stable for step in steps if step.stable is not None]
    if len(stable) == len(steps):
        series[words("chart_stability")] = stable
    return [_chart("line", words("chart_trend"), names, series, bar)]


def _name(version: str, words: Words) -> str:
    return words("base_model") if version == BASE else version


def _chart(kind: str, title: str, names: list[str], series: dict[str, list[float]], bar: float) -> JSON:
    names = [name[:NAME_LIMIT] for name in names]
    return {
        "type": "data_visualization",
        "title": title[:TITLE_LIMIT],
        "chart": {
            "type": kind,
            "series": [
                {
                    "name": name[:NAME_LIMIT],
                    "data": [
                        {"label": label, "value": float(rounded(share, bar))}
                        for label, share in zip(names, shares, strict=True)
                    ],
                }
                for name, shares in series.items()
            ],
            "axis_config": {"categories": names, "y_label": "%"},
        },
    }
