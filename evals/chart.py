"""The card as one picture: what the baseline did and what the candidate does, with intervals.

It is labelled in the card's language, and in English on a machine without a font for that: see `labels_for`.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts
from matplotlib.ft2font import FT2Font

from evals.words import WORDS
from serving.card import Arm, Card
from serving.shares import percent
from serving.store import BASE

GREY, GREEN, INK = "#9aa5b1", "#1f8a70", "#1d2733"
WIDTH = 0.36
CLEAR = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9}  # a figure stays legible on a line
Bar = tuple[float, float | None, float | None] | None  # value, low, high; None where it was not measured


def render_chart(card: Card) -> bytes:
    """A PNG of 1200 × 700 pixels. Pyplot's global state is not used, so that threads may draw at once."""
    words, font = labels_for(card.language)
    figure = Figure(figsize=(12, 7), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    stable = "chart_stable" if card.candidate.briefs else "chart_stable_unmeasured"
    labels = [words["chart_excellent"], words["chart_acceptable"], words[stable].format(k=card.repeats), "BLEU"]
    arms = [(card.live, GREY, words["base"] if card.baseline == BASE else card.baseline)] if card.live else []
    arms = [*arms, (card.candidate, GREEN, card.version)]
    for index, (arm, color, label) in enumerate(arms):
        shift = (index - (len(arms) - 1) / 2) * (WIDTH + 0.02)
        assert arm is not None
        _bars(axes, _values(arm), card.bar, shift, color, label)
    _marks(axes, card, words)
    axes.set_xticks(range(len(labels)), labels, fontproperties=_sized(font, 19), color=INK)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "20 %", "40 %", "60 %", "80 %", "100 %"], fontsize=16)
    axes.set_ylim(0, 1.12)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e9ed")
    axes.set_axisbelow(True)
    title = words["chart_title"].format(
        version=card.version,
        verdict=words[card.verdict],
        items=card.items,
        briefs=len(card.candidate.briefs),
        repeats=card.repeats,
        suite=card.suite,
    )
    axes.set_title(title, fontproperties=_sized(font, 21), color=INK, loc="left", pad=14)
    figure.legend(
        loc="outside lower center",
        ncols=4,
        prop=_sized(font, 17),
        columnspacing=1.4,
        handlelength=1.6,
        frameon=False,
    )
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


@cache
def labels_for(language: str) -> tuple[dict[str, str], str]:
    """The words of a language and the path of a font that has them; English where no installed font does.

    matplotlib brings a font for Latin letters. Another one is sought among those of the machine, regular before bold,
    sans before serif; once a process, since each is opened.
    """
    words = WORDS[language]
    characters = {ord(character) for text in words.values() for character in text if character.isprintable()}
    own = findfont(FontProperties())
    found = []
    for path in (own, *findSystemFonts()):
        try:
            font = FT2Font(path)
        except (OSError, RuntimeError):  # damaged, or of a kind that is not drawn
            continue
        if all(font.get_char_index(character) for character in characters):
            found.append((path != own, font.style_name != "Regular", "Serif" in font.family_name, path))
    return (words, min(found)[-1]) if found else (WORDS["en"], own)


def _sized(font: str, size: int) -> FontProperties:
    return FontProperties(fname=font, size=size)


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


def _marks(axes: Axes, card: Card, words: dict[str, str]) -> None:
    bar = words["bar"].format(bar=percent(card.bar))
    axes.hlines(card.bar, -0.45, 0.45, color="#c2410c", lw=2.5, ls="--", label=bar)
    ceiling = card.candidate.metric("bleu").ceiling
    if ceiling is not None:
        human = words["chart_human"].format(value=f"{ceiling:.2f}")
        axes.hlines(ceiling, 2.55, 3.45, color="#5b4bb7", lw=2.5, ls=":", label=human)
