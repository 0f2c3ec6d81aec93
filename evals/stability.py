"""The same brief several times: does every answer meet it, and how alike are the answers.

A sample meets its brief when it is excellent or acceptable: every primary requirement holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import fmean, pstdev

from evals.checks import Score
from evals.metrics import chrf_of_pairs
from evals.statistics import bootstrap_share
from evals.suite import Item
from serving.card import BriefStability, Estimate, WorstRepeat
from serving.prompt import length_of

TOO_SIMILAR = 0.9  # mean pairwise chrF above which repeats are nearly one text


def brief_stability(item: Item, texts: Sequence[str], scores: Sequence[Score]) -> BriefStability:
    """One brief's repeats.

    Args:
        texts: the samples, in the order of their repeats.
        scores: what the checks say of each.
    """
    similar = chrf_of_pairs(texts) or [1.0]
    lengths = [length_of(text, item.task.language) for text in texts]
    met = sum(score.meets for score in scores)
    worst = max(range(len(scores)), key=lambda repeat: scores[repeat].badness)  # of equally bad ones the first
    return BriefStability(
        item_id=item.id,
        product=item.task.requirements.product or item.task.instruction,
        met=met,
        repeats=len(texts),
        stable=met == len(texts),
        chrf_mean=fmean(similar),
        chrf_min=min(similar),
        length_variation=pstdev(lengths) / fmean(lengths) if any(lengths) else 0.0,
        too_similar=len(texts) > 1 and fmean(similar) > TOO_SIMILAR,
        worst=WorstRepeat(worst, scores[worst].grade.value, next(iter(scores[worst].reasons), "")),
    )


def chances(briefs: Sequence[BriefStability], k: int) -> list[float]:
    """For each brief, the chance that k of its samples all meet it."""
    return [comb(brief.met, k) / comb(brief.repeats, k) for brief in briefs]


def pass_curve(briefs: Sequence[BriefStability], repeats: int, seed: int) -> tuple[Estimate, ...]:
    """pass^1 … pass^repeats, with intervals from drawing whole briefs; nothing where there are none."""
    return tuple(bootstrap_share(chances(briefs, k), seed) for k in range(1, repeats + 1) if briefs)
