"""The card as one picture: what the baseline did and what the candidate does, with intervals."""

from __future__ import annotations

from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from serving.card import Arm, Card
from serving.shares import percent

GREY, GREEN, INK = "#9aa5b1", "#1f8a70", "#1d2733"
WIDTH = 0.36
CLEAR = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9}  # a figure stays legible on a line
Bar = tuple[float, float | None, float | None] | None  # value, low, high; None where it was not measured


def render_chart(card: Card) -> bytes:
    """A PNG of 1200 × 700 pixels. Pyplot's global state is not used, so that threads may draw at once."""
    figure = Figure(figsize=(12, 7), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steady = f"all {card.repeats} meet" if card.candidate.briefs else "not measured"
    labels = ["excellent", "acceptable\nor better", f"stable\n({steady})", "BLEU"]
    arms = [(card.live, GREY, card.baseline)] if card.live else []
    arms = [*arms, (card.candidate, GREEN, card.version)]
    for index, (arm, color, label) in enumerate(arms):
        shift = (index - (len(arms) - 1) / 2) * (WIDTH + 0.02)
        assert arm is not None
        _bars(axes, _values(arm), card.bar, shift, color, label)
    _marks(axes, card)
    axes.set_xticks(range(len(labels)), labels, fontsize=19, color=INK)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "20 %", "40 %", "60 %", "80 %", "100 %"], fontsize=16)
    axes.set_ylim(0, 1.12)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e9ed")
    axes.set_axisbelow(True)
    counts = f"{card.items} briefs + {len(card.candidate.briefs)} × {card.repeats}"
    axes.set_title(
        f"{card.version}: {card.verdict.value}   ·   {counts}   ·   suite {card.suite}",
        fontsize=21,
        color=INK,
        loc="left",
        pad=14,
    )
    figure.legend(loc="outside lower center", ncols=4, fontsize=17, columnspacing=1.4, handlelength=1.6, frameon=False)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _values(arm: Arm) -> list[Bar]:
    steady = arm.stability
    return [
        (arm.excellent.share, arm.excellent.low, arm.excellent.high),
        (arm.acceptable.share, arm.acceptable.low, arm.acceptable.high),
        (steady.value, steady.low, steady.high) if steady else None,
        (arm.metric("bleu").value, None, None),
    ]


def _bars(axes: Axes, bars: list[Bar], gate: float, shift: float, color: str, label: str) -> None:
    measured = [(place + shift, bar) for place, bar in enumerate(bars) if bar]
    axes.bar([place for place, _ in measured], [bar[0] for _, bar in measured], WIDTH, color=color, label=label)
    for place, (value, low, high) in measured:
        top = value
        if low is not None and high is not None:
            whisker = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.errorbar(place, value, yerr=whisker, color=INK, capsize=7, lw=2)
            top = max(value, high)
        text = f"{value:.2f}" if low is None else percent(value, gate)
        axes.text(place, top + 0.015, text, ha="center", va="bottom", fontsize=18, color=INK, bbox=CLEAR, zorder=5)


def _marks(axes: Axes, card: Card) -> None:
    axes.hlines(card.bar, -0.45, 0.45, color="#c2410c", lw=2.5, ls="--", label=f"bar {percent(card.bar)}")
    ceiling = card.candidate.metric("bleu").ceiling
    if ceiling is not None:
        axes.hlines(ceiling, 2.55, 3.45, color="#5b4bb7", lw=2.5, ls=":", label=f"human BLEU {ceiling:.2f}")
