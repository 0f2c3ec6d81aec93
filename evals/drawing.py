"""The report's pictures as inline SVG: intervals beside each other, and versions over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, LEFT, RIGHT = 860, 270, 70
ROW, GAP = 26, 22  # of one dot, and between figures
LIVE, CANDIDATE, BAR, HUMAN = "live", "own", "bar", "human"


@dataclass(frozen=True)
class Dot:
    """One version's figure, and how it is written; low and high are None where it has no interval."""

    kind: str
    label: str
    value: float
    shown: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Figure:
    """A group of dots, with marks (kind, value, label) across it."""

    name: str
    dots: Sequence[Dot]
    marks: Sequence[tuple[str, float, str]] = ()


@dataclass(frozen=True)
class Point:
    """One version on the time line."""

    version: str
    value: float
    low: float
    high: float
    promoted: bool
    current: bool


def interval_chart(figures: Sequence[Figure], title: str) -> Markup:
    """One line a dot with its interval, on a scale from 0 to 100 %."""
    parts: list[str] = []
    y = 24.0
    for figure in figures:
        top = y
        middle = top + ROW * len(figure.dots) / 2 + 5
        parts.append(f'<text class="name" x="{LEFT - 110}" y="{middle}" text-anchor="end">{escape(figure.name)}</text>')
        bottom = top + ROW * len(figure.dots)
        for kind, value, label in figure.marks:
            x = _x(value)
            parts.append(f'<line class="{kind}" x1="{x:.1f}" y1="{top - 4}" x2="{x:.1f}" y2="{bottom + 4}"/>')
            parts.append(f'<text class="mark" x="{x:.1f}" y="{top - 8}" text-anchor="middle">{escape(label)}</text>')
        for dot in figure.dots:
            parts += _dot(dot, y + ROW / 2)
            y += ROW
        y += GAP
    return _svg([*_scale(y - GAP + 8), *parts], y + 14, title)


def _dot(dot: Dot, y: float) -> list[str]:
    x = _x(dot.value)
    end = _x(dot.high if dot.high is not None else dot.value)
    parts = [f'<text class="version" x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(dot.label)}</text>']
    if dot.low is not None and dot.high is not None:
        parts.append(f'<line class="{dot.kind} range" x1="{_x(dot.low):.1f}" y1="{y}" x2="{end:.1f}" y2="{y}"/>')
    parts.append(f'<circle class="{dot.kind}" cx="{x:.1f}" cy="{y}" r="6"/>')
    parts.append(f'<text class="value" x="{end + 12:.1f}" y="{y + 4}">{escape(dot.shown)}</text>')
    return parts


def _scale(bottom: float) -> list[str]:
    lines = []
    for tenth in range(0, 11, 2):
        x = _x(tenth / 10)
        lines.append(f'<line class="grid" x1="{x:.1f}" y1="14" x2="{x:.1f}" y2="{bottom}"/>')
        lines.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tenth * 10} %</text>')
    return lines


def _x(value: float) -> float:
    return LEFT + value * (WIDTH - LEFT - RIGHT)


def trend_chart(points: Sequence[Point], bar: float, promoted: str, title: str) -> Markup:
    """Versions from left to right, the share of excellent copy upwards."""
    height, top, bottom, left = 240, 34.0, 196.0, 56.0
    step = (WIDTH - left - 60) / max(1, len(points))

    def y(value: float) -> float:
        return bottom - value * (bottom - top)

    parts = []
    for fifth in range(0, 6):
        level = y(fifth / 5)
        parts.append(f'<line class="grid" x1="{left}" y1="{level:.1f}" x2="{WIDTH - 20}" y2="{level:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{level + 4:.1f}" text-anchor="end">{fifth * 20} %</text>')
    parts.append(f'<line class="bar" x1="{left}" y1="{y(bar):.1f}" x2="{WIDTH - 20}" y2="{y(bar):.1f}"/>')
    places = [left + step * (n + 0.5) for n in range(len(points))]
    line = " ".join(f"{x:.1f},{y(point.value):.1f}" for x, point in zip(places, points, strict=True))
    parts.append(f'<polyline class="course" points="{line}"/>')
    every = -(-len(points) // 12)  # more than a dozen names would run into each other
    for n, (x, point) in enumerate(zip(places, points, strict=True)):
        kind = CANDIDATE if point.current else LIVE
        parts.append(
            f'<line class="{kind} range" x1="{x:.1f}" y1="{y(point.low):.1f}" x2="{x:.1f}" y2="{y(point.high):.1f}"/>'
        )
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y(point.value):.1f}" r="6"/>')
        if point.promoted:
            flag = y(point.high) - 8
            parts.append(f'<path class="flag" d="M{x:.1f} {flag:.1f} v-18 l14 5 l-14 5"/>')
            parts.append(f'<text class="mark" x="{x + 17:.1f}" y="{flag - 9:.1f}">{escape(promoted)}</text>')
        if n % every == 0 or point.current:
            name = escape(point.version)
            parts.append(f'<text class="version" x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{name}</text>')
    return _svg(parts, height, title)


def _svg(parts: Sequence[str], height: float, title: str) -> Markup:
    name = escape(title)
    opening = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{name}"><title>{name}</title>'
    return Markup("".join([opening, *parts, "</svg>"]))
