"""Is the content sound: ids, duplicates, every text meets its own brief, suite and starter pairs apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

from evals.checks import score
from evals.leaks import leaked
from evals.metrics import chrf
from evals.suite import Item, Suite, rows_of, task_from_row
from serving.prompt import brief_key, normalised
from serving.records import CopydeskError, Task

NEARLY_THE_SAME = 0.75  # chrF of two texts of different briefs


@dataclass(frozen=True)
class Starter:
    id: str
    task: Task
    output: str


def read_starter(language: str) -> list[Starter]:
    """The starter pairs of a language; none where there is no file. Raises CopydeskError naming a broken row."""
    source = resources.files("serving").joinpath("starter", f"{language}.jsonl")
    if not source.is_file():
        return []
    pairs = []
    for where, row in rows_of(source.read_text(encoding="utf-8"), f"Starter {language}"):
        try:
            pairs.append(Starter(str(row["id"]), task_from_row(row), str(row["output"])))
        except KeyError as error:
            raise CopydeskError(f"{where}: {error.args[0]} is missing. Correct the line.") from error
    return pairs


def lint(suite: Suite, starter: Sequence[Starter]) -> list[str]:
    """Everything that is wrong, one sentence a finding; [] is sound."""
    return [
        *_repeated("Starter pair", [(pair.id, pair.task) for pair in starter]),
        *_repeated("Brief", [(item.id, item.task) for item in suite.items]),
        *_unmet(suite.items, starter),
        *_same_references(suite.items),
        *(f"{id}: {how}." for id, how in leaked(suite.items, [(pair.task, pair.output) for pair in starter]).items()),
        *_near_duplicates([(pair.id, pair.output) for pair in starter]),
        *_near_duplicates([(item.id, text) for item in suite.items for text in item.references]),
    ]


def _repeated(what: str, tasks: Sequence[tuple[str, Task]]) -> Iterable[str]:
    for id, count in Counter(id for id, _ in tasks).items():
        if count > 1:
            yield f"{id}: the id is there {count} times."
    first: dict[str, str] = {}
    for id, task in tasks:
        other = first.setdefault(brief_key(task), id)
        if other != id:
            yield f"{id}: {what} with the same brief as {other}."


def _unmet(items: Sequence[Item], starter: Sequence[Starter]) -> Iterable[str]:
    texts = [
        (f"{item.id}, reference {n}", item.task, text) for item in items for n, text in enumerate(item.references, 1)
    ]
    for where, task, text in [*texts, *((pair.id, pair.task, pair.output) for pair in starter)]:
        for reason in score(text, task).reasons:
            yield f"{where}: {reason}"


def _same_references(items: Sequence[Item]) -> Iterable[str]:
    for item in items:
        if len({normalised(text) for text in item.references}) < len(item.references):
            yield f"{item.id}: two references are the same text."


def _near_duplicates(texts: Sequence[tuple[str, str]]) -> Iterable[str]:
    """Texts of different briefs that share most of their words; chrF only where the cheap measure says so."""
    bags = [(id, text, set(normalised(text).split()) if " " in text else set(text)) for id, text in texts]
    for place, (id, text, words) in enumerate(bags):
        for other_id, other, other_words in bags[:place]:
            shared = len(words & other_words) / max(1, min(len(words), len(other_words)))
            if id != other_id and shared > NEARLY_THE_SAME and chrf(text, other) > NEARLY_THE_SAME:
                yield f"{id}: nearly the same text as {other_id}."
