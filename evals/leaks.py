"""Does training data overlap a suite: the same brief, 13 words (or Han characters) of a text in a row, much of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from evals.metrics import Memory
from evals.suite import Item
from evals.text import tokens
from serving.held_out import key_of_brief, key_of_text
from serving.prompt import brief_key, normalised
from serving.records import Task

# Of runs of three words, a reference with every sixth word changed shares about half; of the shipped texts, which were
# written apart in one style, no two share a third.
RUN, MUCH = 3, 0.4


def leaked(items: Iterable[Item], training: Iterable[tuple[Task, str]]) -> dict[str, str]:
    """Ids of the items that training pairs give away, each with how.

    Args:
        training: task and output of each pair.
    """
    pairs = list(training)
    briefs = {brief_key(task) for task, _ in pairs}
    outputs = {normalised(output) for _, output in pairs}
    memory = Memory(output for _, output in pairs)
    likeness = _Likeness(output for _, output in pairs)
    found: dict[str, str] = {}
    for item in items:
        if brief_key(item.task) in briefs:
            found[item.id] = "its brief is a training pair's"
        elif any(normalised(text) in outputs for text in item.references):
            found[item.id] = "a reference is a training pair's output"
        elif any(memory.holds(text) for text in item.references):
            found[item.id] = "a reference shares 13 words or characters in a row with a training pair's output"
        elif any(likeness.to(text) >= MUCH for text in item.references):
            found[item.id] = "a reference is nearly a training pair's output"
    return found


class _Likeness:
    """How much of a text stands in the one output that has most of it."""

    def __init__(self, outputs: Iterable[str]) -> None:
        self._outputs: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, output in enumerate(outputs):
            for run in _runs(output):
                self._outputs[run].append(number)

    def to(self, text: str) -> float:
        runs = _runs(text)
        shared = Counter(number for run in runs for number in self._outputs.get(run, ()))
        return max(shared.values(), default=0) / max(1, len(runs))


def _runs(text: str) -> set[tuple[str, ...]]:
    words = tokens(text)
    return set(zip(*(words[start:] for start in range(RUN)), strict=False))


def keys(items: Iterable[Item]) -> set[str]:
    """What serving/suite_keys.txt holds of a suite, so that no round trains on it."""
    return {key for item in items for key in (key_of_brief(item.task), *map(key_of_text, item.references))}
