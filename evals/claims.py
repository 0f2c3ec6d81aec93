"""Claims that product copy must not make: absolute ones and those that nobody can prove, by rules in data files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from evals import text as reading
from serving.records import Requirements, Task

DATA = Path(__file__).parent / "data"
INNOCENT, SOFT, NEGATION, TRADITIONAL = "+ ", "? ", "- ", "= "  # how a line starts; any other is a hard claim

_WHOLE_WORDS = r"(?<!\w)(?:{})(?:s|es|d|ed|ing)?(?!\w)"
_CAPTURING = re.compile(r"(?<!\\)\((?!\?)")

Span = tuple[int, int]


@dataclass(frozen=True)
class Claims:
    """Attributes:
    hard: forbidden.
    soft: words that may be innocent; a person should look.
    """

    hard: tuple[str, ...] = ()
    soft: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rules:
    equal: Callable[[str], str]  # of characters that compare as another
    any: re.Pattern[str]
    hard: re.Pattern[str]
    soft: re.Pattern[str]
    innocent: re.Pattern[str]


def claims_in(comparable: str, task: Task) -> Claims:
    """The claims in a text that is comparable already."""
    text = _suspect(comparable, task.language)
    if not text:
        return Claims()
    rules = _rules(task.language)
    for phrase in _own_words(task.requirements):
        text = reading.blanked(text, rules.equal(reading.plain(phrase)))
    innocent = list(_spans(rules.innocent, text))
    hard = [span for span in _spans(rules.hard, text) if not _inside(span, innocent)]
    # A soft one is excused by its first character: how far 最 reaches, no rule can tell.
    soft = [(start, end) for start, end in _spans(rules.soft, text) if not _inside((start, start + 1), innocent + hard)]
    return Claims(_words(text, hard), _words(text, soft))


@lru_cache(maxsize=256)  # two checks ask after the same texts
def _suspect(comparable: str, language: str) -> str:
    """The text as rules read it, "" where none of them finds anything: most texts."""
    rules = _rules(language)
    text = rules.equal(comparable)
    return text if rules.any.search(text) else ""


def _own_words(requirements: Requirements) -> tuple[str, ...]:
    phrases = (phrase for point in requirements.selling_points for phrase in point)
    return (requirements.product, *requirements.aliases, *phrases)


def _spans(rule: re.Pattern[str], text: str) -> Iterator[Span]:
    return (found.span() for found in rule.finditer(text))


def _inside(span: Span, others: list[Span]) -> bool:
    """Wholly in one of the others: 第一口 excuses 第一 but not 第一口碑, which only overlaps it."""
    return any(start <= span[0] and span[1] <= end for start, end in others)


def _words(text: str, spans: Iterable[Span]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text[start:end] for start, end in spans))


@cache
def _rules(language: str) -> _Rules:
    lines = (DATA / f"claims_{language}.txt").read_text(encoding="utf-8").splitlines()
    marked: dict[str, list[str]] = {INNOCENT: [], SOFT: [], NEGATION: [], TRADITIONAL: [], "": []}
    for line in lines:
        if line and not line.startswith("#"):
            mark = line[:2] if line[:2] in marked else ""
            marked[mark].append(line.removeprefix(mark))
    pairs = " ".join(marked[TRADITIONAL]).split()
    equal = reading.replacing({"-": " "} | {pair[0]: pair[1] for pair in pairs})
    rules = {mark: "|".join(equal(reading.comparable(line)) for line in own) for mark, own in marked.items()}
    # No group is asked for what it matched, and keeping that nearly doubles the time of a search.
    rules = {mark: _CAPTURING.sub("(?:", rule) for mark, rule in rules.items()}
    hard, soft = rules[""], rules[SOFT]
    negated = f"(?:{rules[NEGATION]}) ?(?:{hard}|{soft})"
    # ASCII: between 网 and "no.1" is a word boundary.
    frame = _WHOLE_WORDS if language == "en" else "(?:{})"
    parts = (f"{hard}|{soft}", hard, soft, f"{rules[INNOCENT]}|{negated}")
    return _Rules(equal, *(re.compile(frame.format(part), re.ASCII) for part in parts))
