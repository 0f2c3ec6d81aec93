"""Is an English phrase said in other words of the same stems: any form, any order, close together in one sentence.

"Fits in a handbag" is said by "it fits easily into your handbag", "roasted in small batches" by "small-batch roasted".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import regex
from nltk.stem.porter import PorterStemmer

from evals import numbers

GAP = 3  # words that carry meaning may stand between those of the phrase
NO = "no"  # the stem of every word that denies

_TOKEN = regex.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)?|[.!?;]+(?=\s|$)")
_LIGHT_WORDS = """a an the and or your our its their his her my this that these those each every all any it you they
them of in into on onto at to for with from by as is are be been being has have had"""
_DENYING_WORDS = "no not never nor neither none nothing cannot without hardly rarely seldom lacks lacking"
_LIGHT = frozenset(_LIGHT_WORDS.split())
_DENIES = frozenset(_DENYING_WORDS.split())

Denied = Callable[[str, int, int, str], bool]


@dataclass(frozen=True)
class _Word:
    stem: str
    start: int
    end: int


def has(text: str, phrase: str, denied: Denied) -> bool:
    """Whether a text has the phrase in other wording; both comparable, in digits.

    A single word has no other wording, and the order of two numbers says which is which.
    """
    wanted = Counter(_stems(phrase))
    if wanted.total() < 2 or sum(stem[0].isdecimal() for stem in wanted.elements()) > 1:
        return False
    return any(
        not any(numbers.cut(text, word.start, word.end) for word in span if word.stem[0].isdecimal())
        and not denied(text, span[0].start, span[-1].end, "en")
        for sentence in _sentences(text)
        for span in _spans(sentence, wanted)
    )


def _spans(sentence: tuple[_Word, ...], wanted: Counter[str]) -> Iterator[tuple[_Word, ...]]:
    """Where all wanted stems stand close together, with no denial among them that the phrase lacks."""
    if wanted - Counter(word.stem for word in sentence):
        return
    longest = wanted.total() + GAP
    for first, word in enumerate(sentence):
        missing = Counter(wanted)
        if word.stem not in missing:
            continue
        for last, other in enumerate(sentence[first : first + longest], start=first):
            if missing[other.stem]:
                missing[other.stem] -= 1
            elif other.stem == NO:
                break
            if not missing.total():
                yield sentence[first : last + 1]
                break


@lru_cache(maxsize=4096)
def _stems(phrase: str) -> tuple[str, ...]:
    return tuple(word.stem for sentence in _sentences(phrase) for word in sentence)


@lru_cache(maxsize=16)  # each point of a brief asks after the same text
def _sentences(text: str) -> tuple[tuple[_Word, ...], ...]:
    """The words that carry meaning, sentence by sentence."""
    sentences: list[list[_Word]] = [[]]
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token[0] in ".!?;":
            sentences.append([])
        elif token not in _LIGHT:
            sentences[-1].append(_Word(_stem(token), *found.span()))
    return tuple(tuple(words) for words in sentences if words)


_porter = PorterStemmer()


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    return NO if word in _DENIES or word.endswith("n't") else str(_porter.stem(word.removesuffix("'s")))
