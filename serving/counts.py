"""What counts prove: intervals of rates and of their differences, the sign test, how far two graders agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb, sqrt

from serving.card import Difference, Rate

Z = 1.959963984540054  # the normal quantile of a two-sided 95 % interval
SIGNIFICANT = 0.05


def wilson(successes: int, total: int) -> Rate:
    """A rate with Wilson's score interval (Wilson 1927), 95 %. With no trials the interval is all of 0..1."""
    if not 0 <= successes <= total:
        raise ValueError(f"{successes} of {total} is no rate")
    if total == 0:
        return Rate(0, 0, 0.0, 1.0)
    share, z2 = successes / total, Z * Z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z / (1 + z2 / total) * sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return Rate(
        successes,
        total,
        0.0 if successes == 0 else max(0.0, middle - half),
        1.0 if successes == total else min(1.0, middle + half),
    )


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided: how likely so lopsided a split is by chance alone. On changed pairs it is McNemar's test."""
    decided = wins + losses
    tail = sum(comb(decided, i) for i in range(min(wins, losses) + 1))
    return float(min(1.0, 2 * tail / 2**decided))


def paired_difference(gained: int, lost: int, total: int) -> Difference:
    """Two rates of the same `total` items apart, of which so many changed, with Tango's score interval (1998), 95 %.

    Where nothing changed, draws of whole pairs would claim certainty; this is as wide as few pairs leave it.
    """
    if total == 0:
        return Difference(0.0, -1.0, 1.0, 1.0, 0, 0)
    difference = (gained - lost) / total

    def rejected(at: float) -> bool:
        # `change` is the likeliest share of pairs that are lost, given that the rates are `at` apart.
        linear = (2 * total - gained + lost) * at - gained - lost
        change = (sqrt(linear * linear + 8 * total * lost * at * (1 - at)) - linear) / (4 * total)
        return (gained - lost - total * at) ** 2 > Z * Z * total * (2 * change + at * (1 - at))

    def end(far: float) -> float:
        near = difference
        for _ in range(50):
            middle = (near + far) / 2
            near, far = (near, middle) if rejected(middle) else (middle, far)
        return near

    return Difference(difference, end(-1.0), end(1.0), sign_test(gained, lost), gained, lost)


def wins_needed(decided: int) -> int | None:
    """The fewest wins of so many that chance does not explain; None when even all of them are too few."""
    return next((n for n in range(decided // 2 + 1, decided + 1) if sign_test(n, decided - n) < SIGNIFICANT), None)


def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa (1960) of two graders on the same texts; None where chance alone would agree on all, or nothing."""
    if not pairs:
        return None
    n = len(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    by_chance = sum(first[label] * second[label] for label in first) / n**2
    if by_chance == 1:
        return None
    return (sum(a == b for a, b in pairs) / n - by_chance) / (1 - by_chance)
