"""Does a text end by asking the reader to act. People ask in too many words to list, so the form tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from evals import text as reading
from serving.prompt import han

DATA = Path(__file__).parent / "data"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words before an imperative, and words after a verb that is an adjective or a noun too.
_LEAD = _set("so then and just please today tonight now simply go on or always never don't not why let's come")
_OBJECT = _set(
    "a an the it them this that these those one two three four five ten some any your yours yourself our us "
    "up out in on onto off down with to into for every each"
)
# A clause that opens so leads into an imperative; after any other, a verb goes on with the telling.
_CONDITION = _set(
    "if when before after once while until for in on at with this next today tonight tomorrow need want ready "
    "your whether looking"
)
_TURN = _set("so then please just why let's don't")  # a clause that opens so may ask after any other
_PART = re.compile(r"[;:]| - ")
_CLAUSE = re.compile(r"[,;:、]")
LONGEST_ZH = 24  # Han characters of a sentence that asks by its form; longer ones tell
_LEAD_ZH = "前后时里上中天晚早末边旁次头先再就快请去来"
_OBJECT_ZH = "一两三四五六七八九十几半个它这上下进到出回起好点些张"


def asks(text: str, language: str, names: Sequence[str] = ()) -> bool:
    """Whether the last sentence asks; emoji and hashtags after it don't count.

    Args:
        names: the product's: a Chinese sentence with one of them as its subject tells.
    """
    sentence = reading.comparable(reading.last_sentence(text)).lstrip("- *•>")
    if _words(language, "+").search(sentence):
        return True
    return _asks_zh(sentence, names) if language == "zh" else any(map(_asks_en, _PART.split(sentence)))


def _asks_en(part: str) -> bool:
    clauses = [words for clause in part.split(",") if (words := clause.split())]
    if not clauses:
        return False
    first, *others = clauses
    if _imperative(first, alone=not others):
        return True
    return any(_imperative(clause, alone=True) for clause in others if clause[0] in _TURN or first[0] in _CONDITION)


def _imperative(clause: Sequence[str], alone: bool) -> bool:
    """A verb opens the clause; one word before a comma is none ("Light, soft and warm")."""
    words = [word.strip(".!?\"'()") for word in clause]
    while words and words[0] in _LEAD:
        words = words[1:]
    if not words:
        return False
    if words[0] in _listed("en", "~"):
        return words[1:2] != [] and words[1] in _OBJECT
    return words[0] in _listed("en", "") and (len(words) > 1 or alone)


def _asks_zh(sentence: str, names: Sequence[str]) -> bool:
    if sentence.rstrip("。!~ ").endswith("吧"):
        return True
    if han(sentence) > LONGEST_ZH or _words("zh", "-").search(sentence):
        return False
    if any(reading.joined(sentence).startswith(reading.joined(reading.plain(name))) for name in names):
        return False
    plain = _words("zh", "=").sub("·", sentence)
    return any(_form_zh().search(clause.strip()) for clause in _CLAUSE.split(plain))


@cache
def _form_zh() -> re.Pattern[str]:
    """A verb of one character at the start, after a time or place, or before a number or the like; a longer one."""
    verb = _words("zh", "").pattern
    return re.compile(f"(?:^|[{_LEAD_ZH}])(?:{verb})|(?:{verb})[{_OBJECT_ZH}]|{_words('zh', '*').pattern}")


@cache
def _words(language: str, mark: str) -> re.Pattern[str]:
    """Any of those listed."""
    words = "|".join(map(re.escape, sorted(_listed(language, mark), key=lambda word: (-len(word), word))))
    return re.compile(rf"\b(?:{words})\b" if language == "en" else words)


@cache
def _listed(language: str, mark: str) -> frozenset[str]:
    """The words that have a mark in the data file; "" for those without one."""
    lines = (DATA / f"actions_{language}.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and (line[0] if line[0] in "#+-=~*" else "") == mark]
    return frozenset(line.lstrip("+-=~*") for line in lines)
