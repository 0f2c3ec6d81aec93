"""Pairs in and out of files: CSV, JSONL, Alpaca's JSON list, and the starter pairs of the package."""

from __future__ import annotations

import csv
import importlib.resources
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.prompt import language_of, task_of
from serving.records import CATEGORIES, LANGUAGES, CopydeskError, Pair, PairSource, Requirements, Task
from serving.store import NewPair

MAX_CHARACTERS = 10_000
# Of what is not ASCII; from so many common characters on, it was the encoding. In GB18030 simplified Chinese has nine
# of ten, traditional Chinese half; UTF-8 that is read as GB18030 has less than a third, Windows-1252 nearly none.
COMMON_SHARE = 0.4
FORMATS = ("csv", "jsonl", "alpaca")
ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "alpaca"}
IN_CHINESE = {
    **dict.fromkeys(("需求", "指令", "任务"), "instruction"),
    **dict.fromkeys(("输入", "补充"), "input"),
    **dict.fromkeys(("文案", "输出"), "output"),
    "语言": "language",
    **dict.fromkeys(("类别", "品类"), "category"),
}
COLUMNS = ("instruction", "input", "output", "language", "category")
# A spreadsheet runs a cell that opens with one of these as a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

Row = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """A row that was left out. `line` counts from 1; for a JSON list it is the item's number."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True)
class Imported:
    pairs: tuple[NewPair, ...]
    problems: tuple[Problem, ...]


def read_pairs(path: Path, format: str | None = None) -> Imported:
    """Read a file; rows that cannot be used are named and left out.

    Args:
        format: "csv", "jsonl" or "alpaca"; None goes by the file's ending.

    Raises:
        CopydeskError: the file as a whole cannot be read.
    """
    reader = {"csv": _read_csv, "jsonl": _read_jsonl, "alpaca": _read_alpaca}[_format(path, format)]
    return _collect(reader(_text(path)), PairSource.IMPORT)


def starter_pairs(language: str) -> list[NewPair]:
    """The pairs that come with Copydesk.

    Raises:
        CopydeskError: there are none in this language.
    """
    file = importlib.resources.files("serving") / "starter" / f"{language}.jsonl"
    if language not in LANGUAGES or not file.is_file():
        raise CopydeskError(f"There are no starter pairs in {language!r}; there are {', '.join(LANGUAGES)}.")
    imported = _collect(_read_jsonl(file.read_text(encoding="utf-8")), PairSource.STARTER)
    if imported.problems:
        raise CopydeskError(f"The starter pairs are damaged ({imported.problems[0]}); install Copydesk again.")
    return list(imported.pairs)


def write_pairs(path: Path, pairs: Sequence[Pair], format: str | None = None) -> None:
    """Write pairs; the file appears whole or not at all.

    In CSV a text that a spreadsheet would run as a formula gets a leading apostrophe, which `read_pairs` takes off
    again. JSONL keeps everything, the requirements included.

    Raises:
        CopydeskError: the format is unknown, or the file cannot be written.
    """
    writer = {"csv": _write_csv, "jsonl": _write_jsonl, "alpaca": _write_alpaca}[_format(path, format)]
    working = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with working.open("w", encoding="utf-8", newline="") as file:
                writer(file, pairs)
                file.flush()
                os.fsync(file.fileno())
            working.replace(path)
        finally:
            working.unlink(missing_ok=True)
    except OSError as error:
        raise CopydeskError(f"{path} cannot be written ({error.strerror}); choose another place.") from error


def _format(path: Path, format: str | None) -> str:
    found = format or ENDINGS.get(path.suffix.lower(), "")
    if found not in FORMATS:
        known = ", ".join(FORMATS)
        raise CopydeskError(f"{path.name}: the format is not known; add --format with one of {known}.")
    return found


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CopydeskError(f"{path} cannot be read ({error.strerror}).") from error
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    where = ""
    for encoding in ("utf-16",) if marked else ("utf-8-sig", *_in_chinese(data)):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            if encoding == "utf-8-sig":
                line = error.object.count(b"\n", 0, error.start) + 1
                where = f" (line {line} is the first that is not UTF-8)"
            continue
        if "\0" not in text:
            return text
    raise CopydeskError(
        f"{path.name} is not text in UTF-8, UTF-16, GB18030 or Big5{where}; save it as UTF-8 and import it again."
    )


def _in_chinese(data: bytes) -> list[str]:
    """GB18030 or Big5 (as Excel writes it in Taiwan and Hong Kong), where one of them was the encoding.

    Most bytes can be read in both, "crème" in Windows-1252 as "cr鑝e". What is common in Big5 and comes from simplified
    Chinese is common in GB18030 too, so that a draw is GB18030.
    """
    shares = {encoding: _common_share(data, encoding) for encoding in ("gb18030", "cp950")}
    best = max(shares, key=lambda encoding: shares[encoding])
    return [best] if shares[best] >= COMMON_SHARE else []


def _common_share(data: bytes, encoding: str) -> float:
    """The signs and the common characters among those that are not ASCII. Other encodings seldom have these pairs."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return 0.0
    # In Big5 also a sign and a letter of Windows-1252 are a common character ("°C"), but one that stands alone.
    runs: list[str] = re.findall(r"[^\0-\x7f]+", text)
    codes = [(character.encode(encoding), len(run)) for run in runs for character in run]
    if encoding == "gb18030":
        common = sum(0xA1 <= code[0] <= 0xD7 and code[1] >= 0xA1 for code, _ in codes)
    else:
        common = sum(0xA1 <= code[0] <= 0xC6 and length > 1 for code, length in codes)
    return common / max(1, len(codes))


def _read_csv(text: str) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(1 << 24)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, dialect=_dialect(text))
    line = 1
    try:
        header = [(name or "").strip().casefold() for name in reader.fieldnames or ()]
        if not header:
            raise CopydeskError("The CSV is empty; its first line names instruction and output.")
        named, header = header, [IN_CHINESE.get(name, name) for name in header]
        for meaning in COLUMNS:
            same = [name for name, known in zip(named, header, strict=True) if known == meaning]
            if len(same) > 1:
                raise CopydeskError(f"The columns {' and '.join(same)} both mean {meaning}; keep one of them.")
        if missing := [name for name in ("instruction", "output") if name not in header]:
            raise CopydeskError(
                f"The CSV has no column {' and no column '.join(missing)}; "
                "its first line must name instruction (需求), output (文案), and if wanted input, language, category."
            )
        reader.fieldnames = header
        while True:
            line = reader.line_num + 1
            try:
                row: dict[Any, Any] = next(reader)
            except StopIteration:
                return
            if None in row:
                yield line, f"{len(header) + len(row[None])} cells under {len(header)} columns; quote texts with commas"
            else:
                yield line, {name: _plain(value) for name, value in row.items() if value is not None}
    except csv.Error as error:
        raise CopydeskError(
            f"The CSV breaks off in the row that begins on line {line}: is a quotation mark left open there? ({error})"
        ) from error


def _dialect(text: str) -> type[csv.Dialect]:
    """Excel writes semicolons or tabs in some countries; the header tells."""
    header = text.partition("\n")[0]

    class Found(csv.excel):
        delimiter = max((",", ";", "\t"), key=header.count)

    return Found


def _plain(value: str) -> str:
    return value[1:] if value.startswith("'") and _is_formula(value) else value


def _read_jsonl(text: str) -> Iterator[tuple[int, Any]]:
    # Not splitlines: U+2028 may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                yield number, f"not JSON ({error.msg} at column {error.colno})"


def _read_alpaca(text: str) -> Iterator[tuple[int, Any]]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise CopydeskError(
            f"This is no JSON ({error.msg} at line {error.lineno}); a file of one object a line is called .jsonl."
        ) from error
    if not isinstance(data, list):
        raise CopydeskError("The JSON must be a list of objects with instruction, input and output.")
    yield from enumerate(data, start=1)


def _collect(rows: Iterable[tuple[int, Any]], source: PairSource) -> Imported:
    pairs: list[NewPair] = []
    problems: list[Problem] = []
    for line, row in rows:
        try:
            if not isinstance(row, dict):
                raise CopydeskError(row if isinstance(row, str) else "the row is not an object")
            pairs.append(_pair(row, source))
        except CopydeskError as error:
            problems.append(Problem(line, str(error)))
    return Imported(tuple(pairs), tuple(problems))


def _pair(row: Row, source: PairSource) -> NewPair:
    """Raises CopydeskError saying why the row cannot be used."""
    for name in (*COLUMNS, "author", "requirements"):
        try:
            json.dumps(row.get(name), ensure_ascii=False).encode()
        except UnicodeEncodeError as error:  # JSON may escape one half of an emoji, "\\ud83d"
            raise CopydeskError(f"{name} holds half a character; correct the escape \\u….") from error
    output = _string(row, "output").strip()
    if not output:
        raise CopydeskError("the output is empty")
    requirements = _requirements(row)
    instruction, input = _string(row, "instruction").strip(), _string(row, "input").strip()
    language = _string(row, "language").strip() or language_of(instruction or output)
    if language not in LANGUAGES:
        raise CopydeskError(f"the language {language!r} is not one of {', '.join(LANGUAGES)}")
    category = _string(row, "category").strip() or "other"
    if category not in CATEGORIES:
        raise CopydeskError(f"the category {category!r} is not one of {', '.join(CATEGORIES)}")
    if instruction:
        task = Task(instruction, input, language, category, requirements or Requirements())
    elif requirements:
        task = task_of(requirements, language, category)
    else:
        raise CopydeskError("the instruction is empty")
    for name, text in (("instruction", task.instruction), ("input", task.input), ("output", output)):
        if len(text) > MAX_CHARACTERS:
            raise CopydeskError(f"the {name} has {len(text):,} characters; {MAX_CHARACTERS:,} are the most")
    return NewPair(task, output, source, author=_string(row, "author"))


def _requirements(row: Row) -> Requirements | None:
    value = row.get("requirements")
    if not value:
        return None
    if not isinstance(value, dict):
        raise CopydeskError("the requirements are not an object")
    return Requirements.from_mapping(value)


def _string(row: Row, name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CopydeskError(f"{name} is not a text")
    if "\0" in value:
        raise CopydeskError(f"{name} holds a NUL character")
    return value


def _columns(pair: Pair) -> dict[str, str]:
    task = pair.task
    return dict(zip(COLUMNS, (task.instruction, task.input, pair.output, task.language, task.category), strict=True))


def _write_csv(file: io.TextIOBase, pairs: Sequence[Pair]) -> None:
    # Excel takes a file without the mark for the country's old encoding.
    file.write("\ufeff")
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for pair in pairs:
        writer.writerow({name: _guarded(value) for name, value in _columns(pair).items()})


def _guarded(value: str) -> str:
    return f"'{value}" if _is_formula(value) else value


def _is_formula(value: str) -> bool:
    # Apostrophes before the sign count as none, so that a guarded text is known when it is read and guarded again.
    return value.lstrip("'").startswith(FORMULA_STARTS)


def _write_jsonl(file: io.TextIOBase, pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        row: Row = dict(_columns(pair))
        requirements = {
            name: value for name, value in asdict(pair.task.requirements).items() if value not in (None, "", ())
        }
        if pair.task.requirements != Requirements():
            row["requirements"] = requirements
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_alpaca(file: io.TextIOBase, pairs: Sequence[Pair]) -> None:
    rows = [{name: _columns(pair)[name] for name in ("instruction", "input", "output")} for pair in pairs]
    json.dump(rows, file, ensure_ascii=False, indent=2)
    file.write("\n")
