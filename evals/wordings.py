"""Is an English phrase said in other words of the same stems: any form, any order, close together in one sentence.

"Fits in a handbag" is said by "it fits easily into your handbag", "roasted in small batches" by "small-batch roasted".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from nltk.stem.porter import PorterStemmer

from evals import numbers

GAP = 3  # words that carry meaning may stand between those of the phrase
NO = "no"  # the stem of every word that denies

_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)?|[.!?;]+(?=\s|$)")
_LIGHT_WORDS = """a an the and or your our its their his her my this that these those each every all any it you they
them of in into on onto at to for with from by as is are be been being has have had"""
_DENYING_WORDS = "no not never nor neither none nothing cannot without hardly rarely seldom lacks lacking"
_LIGHT = frozenset(_LIGHT_WORDS.split())
_DENIES = frozenset(_DENYING_WORDS.split())

Denied = Callable[[str, int, int, str], bool]


class _Sentence(NamedTuple):
    """Its words that carry meaning: their stems, and where they stand."""

    stems: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    different: frozenset[str]


def has(text: str, phrase: str, denied: Denied) -> bool:
    """Whether a text has the phrase in other wording; both comparable, in digits.

    A single word has no other wording, and the order of two numbers says which is which.
    """
    wanted, different = _wanted(phrase)
    if not wanted:
        return False
    return any(
        not any(numbers.cut(text, *place) for place in span if text[place[0]].isdecimal())
        and not denied(text, span[0][0], span[-1][1], "en")
        for sentence in _sentences(text)
        if different <= sentence.different
        for span in _spans(sentence, wanted)
    )


@lru_cache(maxsize=4096)
def _wanted(phrase: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """The stems to look for, and the different ones among them; none where a phrase has no other wording."""
    stems = tuple(stem for sentence in _read(phrase) for stem in sentence.stems)
    if len(stems) < 2 or sum(stem[0].isdecimal() for stem in stems) > 1:
        return (), frozenset()
    return stems, frozenset(stems)


def _spans(sentence: _Sentence, wanted: tuple[str, ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    """The places of words among which all wanted stems stand close together, and no denial that the phrase lacks."""
    for first, stem in enumerate(sentence.stems):
        if stem not in wanted:
            continue
        missing = list(wanted)
        for last, other in enumerate(sentence.stems[first : first + len(wanted) + GAP], start=first + 1):
            if other in missing:
                missing.remove(other)
            elif other == NO:
                break
            if not missing:
                yield sentence.places[first:last]
                break


def _read(text: str) -> tuple[_Sentence, ...]:
    sentences: list[_Sentence] = []
    stems: list[str] = []
    places: list[tuple[int, int]] = []
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in _LIGHT:
            continue
        if token[0] in ".!?;":
            sentences.append(_Sentence(tuple(stems), tuple(places), frozenset(stems)))
            stems, places = [], []
        else:
            stems.append(_stem(token))
            places.append(found.span())
    return (*sentences, _Sentence(tuple(stems), tuple(places), frozenset(stems)))


_sentences = lru_cache(maxsize=16)(_read)  # each point of a brief asks after the same text


_porter = PorterStemmer()


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    return NO if word in _DENIES or word.endswith("n't") else str(_porter.stem(word.removesuffix("'s")))
