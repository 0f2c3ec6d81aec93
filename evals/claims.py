"""Claims that product copy must not make: absolute, or impossible to prove."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from evals import text as reading
from serving.records import Requirements, Task

DATA = Path(__file__).parent / "data"


def claims_in(text: str, task: Task) -> list[str]:
    """The forbidden claims that a text makes, as the lists of claims spell them."""
    return found(reading.comparable(text), task)


def found(comparable: str, task: Task) -> list[str]:
    """`claims_in` a text that is comparable already."""
    forbidden, innocent = _claims(task.language)
    rest = comparable
    for phrase in (*(known for known in innocent if known in rest), *_own_words(task.requirements)):
        rest = reading.blanked(rest, phrase)
    return [claim for claim in forbidden if claim in rest and reading.contains(rest, claim, inflected=True)]


def _own_words(requirements: Requirements) -> tuple[str, ...]:
    phrases = (phrase for point in requirements.selling_points for phrase in point)
    return (requirements.product, *requirements.aliases, *phrases)


@cache
def _claims(language: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Forbidden claims and innocent phrases of a language."""
    data = (DATA / f"claims_{language}.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in data.splitlines()]
    lines = [reading.comparable(line) for line in lines if line and not line.startswith("# ")]
    return (
        tuple(line for line in lines if not line.startswith("+")),
        tuple(line[1:].strip() for line in lines if line.startswith("+")),
    )
