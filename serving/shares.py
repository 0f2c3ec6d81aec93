"""Shares as people read them, in percent: rounded, but never onto a bar that they miss, nor across it."""

from __future__ import annotations

from math import isclose

from serving.card import Card, Difference, Estimate, Rate

MOST_DECIMALS = 4
UNMEASURED = "not measured"


def decimals(share: float, bar: float | None) -> int:
    """How many decimals of the percents keep a share on its own side of the bar: 79.6 beside a bar of 80, not 80."""
    if bar is None or isclose(share, bar, abs_tol=1e-9):
        return 0
    return next(
        (n for n in range(MOST_DECIMALS) if (round(100 * share, n) - 100 * bar) * (share - bar) > 0), MOST_DECIMALS
    )


def rounded(share: float, bar: float | None = None) -> str:
    return f"{100 * share:.{decimals(share, bar)}f}"


def percent(share: float, bar: float | None = None) -> str:
    return f"{rounded(share, bar)} %"


def with_interval(value: Rate | Estimate | None, bar: float | None = None, unmeasured: str = UNMEASURED) -> str:
    """A share with its interval; `unmeasured`, in the reader's language, where there was nothing to measure."""
    if value is None or (isinstance(value, Rate) and value.total == 0):
        return unmeasured
    share = value.share if isinstance(value, Rate) else value.value
    return f"{percent(share, bar)} [{rounded(value.low, bar)}, {rounded(value.high, bar)}]"


def points(value: Difference | Estimate | None) -> str:
    """A difference of shares with its interval, in percentage points; what is not zero does not read so."""
    if value is None:
        return "–"
    middle, low, high = (_signed(100 * one, decimals(one, 0.0)) for one in (value.value, value.low, value.high))
    return f"{middle} [{low}, {high}]"


def hundredths(value: Difference | None) -> str:
    """A difference of a metric from 0 to 1 with its interval."""
    if value is None:
        return "–"
    middle, low, high = (_signed(one, 2) for one in (value.value, value.low, value.high))
    return f"{middle} [{low}, {high}]"


def reason_figures(card: Card) -> dict[str, str]:
    """What fills the sentence of the card's reason."""
    return {name: _reason_figure(name, value, card.bar) for name, value in card.reason_values.items()}


def _reason_figure(name: str, value: float | int | str, bar: float) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2g}" if name == "p" else percent(value, bar)


def _signed(number: float, digits: int) -> str:
    shown = f"{number:+.{digits}f}"
    return shown if float(shown) else "0"
