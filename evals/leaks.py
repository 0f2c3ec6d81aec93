"""Does training data overlap a suite: the same brief, or 13 words (or Han characters) of a text in a row."""

from __future__ import annotations

from collections.abc import Iterable

from evals.metrics import Memory
from evals.suite import Item
from serving.held_out import key_of_brief, key_of_text
from serving.prompt import brief_key, normalised
from serving.records import Task


def leaked(items: Iterable[Item], training: Iterable[tuple[Task, str]]) -> dict[str, str]:
    """Ids of the items that training pairs give away, each with how.

    Args:
        training: task and output of each pair.
    """
    pairs = list(training)
    briefs = {brief_key(task) for task, _ in pairs}
    outputs = {normalised(output) for _, output in pairs}
    memory = Memory(output for _, output in pairs)
    found: dict[str, str] = {}
    for item in items:
        if brief_key(item.task) in briefs:
            found[item.id] = "its brief is a training pair's"
        elif any(normalised(text) in outputs for text in item.references):
            found[item.id] = "a reference is a training pair's output"
        elif any(memory.holds(text) for text in item.references):
            found[item.id] = "a reference shares 13 words or characters in a row with a training pair's output"
    return found


def keys(items: Iterable[Item]) -> set[str]:
    """What serving/suite_keys.txt holds of a suite, so that no round trains on it."""
    return {key for item in items for key in (key_of_brief(item.task), *map(key_of_text, item.references))}
