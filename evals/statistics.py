"""How sure a figure is: intervals for rates, paired tests, pass^k, bootstraps that draw whole briefs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb

import numpy as np

from evals.overlap import CORPUS_BLEU, Overlap
from serving.card import Difference, Estimate
from serving.counts import paired_difference, wilson
from serving.counts import sign_test as mcnemar  # on the briefs that changed

__all__ = ["bootstrap", "bootstrap_share", "by_brief", "mcnemar", "paired_bleu", "paired_rates", "pass_k", "wilson"]

RESAMPLES = 2000
FEW_CLUSTERS = 6  # below, even briefs that all agree are no more than chance at 5 %: 2 · 0.5^5 > 0.05


def pass_k(met: Sequence[int], repeats: int, k: int) -> float:
    """pass^k: the chance that k samples of a brief all meet it, C(c, k) / C(n, k), mean over briefs (Yao et al. 2024).

    Args:
        met: for each brief, how many of its `repeats` samples met it.
    """
    if not met:
        return 0.0
    return sum(comb(count, k) / comb(repeats, k) for count in met) / len(met)


def bootstrap(clusters: Sequence[float], seed: int) -> Estimate:
    """The mean of one value a brief, with a percentile interval from drawing whole briefs with replacement."""
    values = np.asarray(clusters, dtype=float)
    if not len(values):
        return Estimate(0.0, 0.0, 0.0)
    low, high = np.percentile(values[_draws(len(values), seed)].mean(axis=1), [2.5, 97.5])
    mean = float(values.mean())
    return Estimate(mean, min(mean, float(low)), max(mean, float(high)))


@lru_cache(maxsize=2)  # every k of pass^k, of each version, asks again
def _draws(clusters: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, clusters, (RESAMPLES, clusters))


def bootstrap_share(clusters: Sequence[float], seed: int) -> Estimate:
    """`bootstrap` of values from 0 to 1. Where all are equal, draws would claim certainty: then Wilson's interval."""
    if clusters and len(set(clusters)) == 1:
        rate = wilson(round(sum(clusters)), len(clusters))
        return Estimate(clusters[0], min(clusters[0], rate.low), max(clusters[0], rate.high))
    return bootstrap(clusters, seed)


def paired_rates(candidate: Sequence[bool], live: Sequence[bool]) -> Difference:
    """Candidate minus live on the same items."""
    pairs = list(zip(candidate, live, strict=True))
    gained = sum(new and not old for new, old in pairs)
    lost = sum(old and not new for new, old in pairs)
    return paired_difference(gained, lost, len(pairs))


def corpus_bleu(overlaps: Sequence[Overlap]) -> float:
    return _bleu(np.asarray([one.bleu for one in overlaps]).sum(axis=0))


def _bleu(counts: np.ndarray) -> float:
    return float(CORPUS_BLEU._compute_score_from_stats(counts.tolist()).score) / 100


def paired_bleu(candidate: Sequence[Overlap], live: Sequence[Overlap], seed: int) -> Difference:
    """Corpus BLEU of the candidate minus that of live on the same briefs, by paired bootstrap (Koehn 2004).

    So few briefs that even their agreement proves nothing leave any difference possible, with p = 1.
    """
    rows = [np.asarray([one.bleu for one in overlaps]) for overlaps in (candidate, live)]
    briefs = len(candidate)
    value = _bleu(rows[0].sum(axis=0)) - _bleu(rows[1].sum(axis=0))
    # A resample's counts are a sum of rows: of each as often as it was drawn.
    rng = np.random.default_rng(seed)
    drawn = [np.bincount(rng.integers(0, briefs, briefs), minlength=briefs) for _ in range(RESAMPLES // 2)]
    new, old = (np.stack(drawn) @ one for one in rows)
    spread = np.array([_bleu(one) - _bleu(other) for one, other in zip(new, old, strict=True)])
    if briefs < FEW_CLUSTERS:
        return Difference(value, -1.0, 1.0, 1.0)
    low, high = np.percentile(spread, [2.5, 97.5])
    p = (1 + np.sum(np.abs(spread - spread.mean()) >= abs(value))) / (1 + len(spread))
    return Difference(value, min(value, float(low)), max(value, float(high)), float(min(1.0, p)))


def by_brief(values: Sequence[float], other: Sequence[float], seed: int) -> Estimate:
    """Difference of two values a brief, candidate minus live, paired by brief; of yes and no an interval of rates."""
    differences = [new - old for new, old in zip(values, other, strict=True)]
    if not set(differences) <= {-1.0, 0.0, 1.0}:
        return bootstrap(differences, seed)
    found = paired_difference(differences.count(1.0), differences.count(-1.0), len(differences))
    return Estimate(found.value, found.low, found.high)
