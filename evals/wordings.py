"""Is an English phrase said in other words of the same stems: any form, any order, close together in one sentence.

"Fits in a handbag" is said by "it fits easily into your handbag", "roasted in small batches" by "small-batch roasted".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from itertools import pairwise

from nltk.stem.porter import PorterStemmer

from evals import numbers

GAP = 3  # words that carry meaning may stand between those of the phrase
NO = "no"  # the stem of every word that denies

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)?")
_ASCII_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+(?:[.,][0-9]+)*")  # what that is of comparable ASCII
_END = re.compile(r"[.!?;]+(?=\s|$)")
# What may stand between a number and what it counts: no comma, and nothing that begins another fact.
_DESCRIBED = re.compile(r"[^\w.,;:!?]*(?:[a-z']+ ){0,2}")
_LIGHT_WORDS = """a an the and or your our its their his her my this that these those each every all any it you they
them of in into on onto at to for with from by as is are be been being has have had"""
_DENYING_WORDS = "no not never nor neither none nothing cannot without hardly rarely seldom lacks lacking"
_LIGHT = frozenset(_LIGHT_WORDS.split())
_DENIES = frozenset(_DENYING_WORDS.split())

Denied = Callable[[str, int, int, str], bool]


class _Sentence:
    """Its words that carry meaning: their stems, and where they stand in the text."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self._text, self._start = text, start
        self._words: list[str] = (_ASCII_WORD if text.isascii() else _WORD).findall(text, start, end)
        self.all_stems = frozenset(map(_stem, self._words))  # of words without meaning too

    @cached_property
    def stems(self) -> list[str]:
        return [_stem(word) for word in self._words if word not in _LIGHT]

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        found, end = [], self._start
        for word in self._words:
            start = self._text.index(word, end)  # between two words stands no letter and no digit
            end = start + len(word)
            if word not in _LIGHT:
                found.append((start, end))
        return found


def has(text: str, phrase: str, denied: Denied) -> bool:
    """Whether a text has the phrase in other wording; both comparable, in digits.

    A single word has no other wording, and the order of two numbers says which is which. A number counts what it
    counts in the phrase: "a 2-year warranty, 5 days" is no 5-year warranty.
    """
    wanted, different = _wanted(phrase)
    if not wanted:
        return False
    return any(
        not any(numbers.cut(text, *place) for place in span if text[place[0]].isdecimal())
        and not denied(text, span[0][0], span[-1][1], "en")
        for sentence in _sentences(text)
        if different <= sentence.all_stems
        for span in _spans(text, sentence, wanted)
    )


@lru_cache(maxsize=4096)
def _wanted(phrase: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """The stems to look for, and the different ones among them; none where a phrase has no other wording."""
    stems = tuple(stem for sentence in _read(phrase) for stem in sentence.stems)
    if len(stems) < 2 or sum(stem[0].isdecimal() for stem in stems) > 1:
        return (), frozenset()
    return stems, frozenset(stems)


def _spans(text: str, sentence: _Sentence, wanted: tuple[str, ...]) -> Iterator[list[tuple[int, int]]]:
    """The places of words among which all wanted stems stand close together, and no denial that the phrase lacks."""
    for first, stem in enumerate(sentence.stems):
        if stem not in wanted:
            continue
        missing = list(wanted)
        for last, other in enumerate(sentence.stems[first : first + len(wanted) + GAP], start=first + 1):
            if other in missing and (not other[0].isdecimal() or _counts(text, sentence, last - 1, wanted)):
                missing.remove(other)
            elif other == NO:
                break
            if not missing:
                yield sentence.places[first:last]
                break


def _counts(text: str, sentence: _Sentence, place: int, wanted: tuple[str, ...]) -> bool:
    """Whether the number there has the neighbour that it has among the wanted: what follows it, else what leads to it.

    "Two loads" is "two full loads" too.
    """
    number = wanted.index(sentence.stems[place])
    start, end = sentence.places[place]
    if ends := number == len(wanted) - 1:
        near = range(max(0, place - 3), place)
    else:
        near = range(place + 1, min(place + 4, len(sentence.stems)))
    for other in near:
        if sentence.stems[other] == wanted[number - 1 if ends else number + 1]:
            between = text[sentence.places[other][1] : start] if ends else text[end : sentence.places[other][0]]
            if _DESCRIBED.fullmatch(between) and (ends or _LIGHT.isdisjoint(between.split())):
                return True
    return False


def _read(text: str) -> tuple[_Sentence, ...]:
    ends = [0, *(end.end() for end in _END.finditer(text)), len(text)]
    return tuple(_Sentence(text, start, end) for start, end in pairwise(ends))


_sentences = lru_cache(maxsize=256)(_read)  # each point of a brief asks after the same text


_porter = PorterStemmer()


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    return NO if word in _DENIES or word.endswith("n't") else str(_porter.stem(word.removesuffix("'s")))
