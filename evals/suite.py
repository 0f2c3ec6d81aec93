"""A suite: frozen briefs with checkable requirements and references. One JSONL file a language."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.prompt import task_of
from serving.records import CATEGORIES, LANGUAGES, CopydeskError, Requirements, Task

SUITES = Path(__file__).parent / "suites"


@dataclass(frozen=True)
class Item:
    id: str
    task: Task
    references: tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """Attributes:
    name: of the file, without ".jsonl".
    digest: sha256 of the file's bytes.
    content: those bytes.
    """

    name: str
    digest: str
    items: tuple[Item, ...]
    content: bytes = field(repr=False, compare=False)

    @property
    def language(self) -> str:
        return self.items[0].task.language

    def item(self, id: str) -> Item:
        return next(item for item in self.items if item.id == id)

    def draw(self, count: int, seed: int, part: str) -> tuple[Item, ...]:
        """The items of one part of a card. A larger count with the same seed keeps those of a smaller one."""
        order = sorted(self.items, key=lambda item: item.id)
        random.Random(f"{self.name} {part} {seed}").shuffle(order)
        return tuple(order[:count])


def task_from_row(row: dict[str, Any]) -> Task:
    """The task of one row of a suite or of the starter pairs: written from its requirements, unless it has its own."""
    language, category = str(row["language"]), str(row["category"])
    if language not in LANGUAGES:
        raise CopydeskError(f"language is {language!r}; it is one of {', '.join(LANGUAGES)}")
    if category not in CATEGORIES:
        raise CopydeskError(f"category is {category!r}; it is one of {', '.join(CATEGORIES)}")
    requirements = Requirements.from_mapping(row["requirements"])
    if "instruction" in row:
        return Task(str(row["instruction"]), str(row.get("input", "")), language, category, requirements)
    return task_of(requirements, language, category)


def rows_of(text: str, name: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each row with the words that name it in an error. Raises CopydeskError for a line that is not an object."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CopydeskError(f"{name}, line {number}: not JSON ({error.msg}). Correct the line.") from error
        if not isinstance(row, dict):
            raise CopydeskError(f"{name}, line {number}: not a JSON object. Correct the line.")
        yield f"{name}, line {number}" + (f" ({row['id']})" if "id" in row else ""), row


def read_suite(name_or_path: str) -> Suite:
    """A suite of this package by name ("en"), or any file.

    Raises:
        CopydeskError: naming the row that is broken.
    """
    path = Path(name_or_path)
    if path.suffix == ".jsonl":
        content, name = _bytes(path), path.stem
    else:
        source = SUITES / f"{name_or_path}.jsonl"
        if not source.is_file():
            raise CopydeskError(
                f"There is no suite {name_or_path}; there are {', '.join(suite_names()) or 'none'}, "
                "or give the path of a .jsonl file."
            )
        content, name = source.read_bytes(), name_or_path
    return suite_of(name, content)


def suite_of(name: str, content: bytes) -> Suite:
    """A suite from the bytes of its file. Raises CopydeskError naming the row that is broken."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CopydeskError(f"{name}: not UTF-8 at byte {error.start}. Save the file as UTF-8.") from error
    items: dict[str, Item] = {}
    for where, row in rows_of(text, f"Suite {name}"):
        try:
            item = _item(row)
        except KeyError as error:
            raise CopydeskError(f"{where}: {error.args[0]} is missing. Correct the line.") from error
        except (CopydeskError, TypeError, AttributeError) as error:
            raise CopydeskError(f"{where}: {error}. Correct the line.") from error
        if item.id in items:
            raise CopydeskError(f"{where}: the id is there twice. Give each row its own.")
        items[item.id] = item
    if not items:
        raise CopydeskError(f"Suite {name} is empty; it needs at least one brief.")
    if len({item.task.language for item in items.values()}) > 1:
        raise CopydeskError(f"Suite {name} mixes languages; keep one file a language.")
    return Suite(name, hashlib.sha256(content).hexdigest(), tuple(items.values()), content)


def keep(suite: Suite, folder: Path) -> None:
    """Leave the suite's bytes beside the cards: one that is shown or extended later needs the briefs of its day."""
    path = _kept(folder, suite.name, suite.digest)
    if not path.exists():
        write_whole(path, suite.content)


def suite_of_card(name: str, digest: str, folder: Path) -> Suite:
    """The suite that a card was made on. Raises CopydeskError when it is not there any more."""
    path = _kept(folder, name, digest)
    if path.is_file():
        return suite_of(name, _bytes(path))
    if name in suite_names() and (shipped := read_suite(name)).digest == digest:
        return shipped
    raise CopydeskError(f"The briefs of this card ({path}) are gone; score the version again: copydesk eval run")


def _kept(folder: Path, name: str, digest: str) -> Path:
    return folder / f"{name}-{digest[:12]}.jsonl"


def write_whole(path: Path, content: bytes) -> None:
    """The file is there whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise CopydeskError(f"{path} cannot be written ({error.strerror}); free some space.") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CopydeskError(f"The suite {path} cannot be read ({error.strerror}).") from error


def _item(row: dict[str, Any]) -> Item:
    references = row["references"]
    if not isinstance(references, list) or not references:
        raise CopydeskError("references needs at least one text")
    if not all(isinstance(text, str) and text.strip() for text in references):
        raise CopydeskError("a reference is empty")
    return Item(str(row["id"]), task_from_row(row), tuple(references))


def suite_names() -> list[str]:
    return sorted(path.stem for path in SUITES.glob("*.jsonl"))
