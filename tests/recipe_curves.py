"""Loss curves of several rounds in one picture, from what `python -m trainer run --json` printed.

Run: python tests/recipe_curves.py docs/pictures/recipes.png article=article.jsonl default=default.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

WINDOW = 10


def losses_of(file: Path) -> list[float]:
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    steps = {line["step"]: line["loss"] for line in lines if "step" in line}  # a round that was killed repeats some
    return list(steps.values())


def draw(curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """One panel each, steps thin and their running mean of ten bold."""
    figure = Figure(figsize=(4 * len(curves), 3.2), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (name, losses) in zip(panels, curves.items(), strict=True):
        steps = range(1, len(losses) + 1)
        windows = [losses[max(0, at - WINDOW) : at] for at in steps]
        axes.plot(steps, losses, color="#9ab", linewidth=0.8)
        axes.plot(steps, [sum(window) / len(window) for window in windows], color="#14508c", linewidth=2)
        axes.set(title=name, xlabel="step", ylabel="loss", ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    draw({name: losses_of(Path(file)) for name, _, file in (a.partition("=") for a in sys.argv[2:])}, Path(sys.argv[1]))
