"""Does a text say a selling point: in any of its phrasings, with its own number, and not to deny it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import regex

from evals import numbers, wordings
from evals import text as reading

HEAD = 80  # characters before a phrase that may deny it
# Only what stands right before a phrase denies it: "no residue and sinks in quickly" and "not only waterproof" don't.
_DENIED = {
    "en": regex.compile(
        # Read from the end, where it must stand: a sixth of the time.
        r"(?r)(?:\b(?:not|never|no|nor|cannot|lack(?:s|ing)?|hardly(?: ever)?|rarely|seldom|no longer|anything but)"
        r"|n't|\b(?<!\b(?:not?|never|nobody|n't)\b[^.,;:!?]*)without)"
        r"(?: (?:an?|any|really|very|quite|truly|fully|exactly|actually|even|yet|have|has|offer|include|come with|be))*"
        r"(?: [\w-]+ or)? $"
    ),
    "zh": regex.compile(
        r"(?<!有(?=没有)|是(?=不是)|能(?=不能)|会(?=不会))(?:不|没|无法|无|未|缺少|缺|谈不上|称不上|做不到|别指望|很难|难以)"
        r"(?:有|是|太|够|怎么|那么|能|会|带|含|支持|具备|提供|附|送|配|算|算上|真正|完全|一个|什么|任何)*$"
    ),
}
# After a question, only an answer that is whole denies: "? No need to compromise" sells.
_DENIED_AFTER = {
    "en": regex.compile(
        r" (?:(?:is |are )?(?:not (?:included|part of|available)|sold (?:separately|apart)))\b"
        r"|\? (?:(?:not?|hardly)(?:[.!,]|$)|not (?:really|quite|exactly|here|this|at all)\b)"
    ),
    "zh": regex.compile(
        r"不行|另购|另售|需另|是假的|[?？](?:想多了|并不(?!难)|(?:没有|不(?:是|存在|会有)?的?)(?:[。,!]|$))"
    ),
}


def says(comparable: str, point: Sequence[str], language: str) -> bool:
    """Whether a text, comparable already, has any phrasing of the point, or the words of one in other forms."""
    plain, in_digits = _phrases(tuple(point), language)
    if any(_stands(comparable, phrase, language) for phrase in plain):
        return True
    text = _in_digits(comparable, language)
    return any(_stands(text, phrase, language) for phrase in in_digits) or (
        language == "en" and any(wordings.has(text, phrase, _denied) for phrase in in_digits)
    )


@lru_cache(maxsize=4096)
def _phrases(point: tuple[str, ...], language: str) -> tuple[list[str], list[str]]:
    """Those of a point, comparable as they are and with numbers in digits."""
    plain = [reading.plain(phrase) for phrase in point]
    return plain, [numbers.in_digits(phrase, language) for phrase in plain]


_in_digits = lru_cache(maxsize=256)(numbers.in_digits)  # each point of a brief asks after the same text


def _stands(text: str, phrase: str, language: str) -> bool:
    return phrase in text and any(
        not numbers.cut(text, start, start + len(phrase)) and not _denied(text, start, start + len(phrase), language)
        for start in reading.places(text, phrase, inflected=True)
    )


def _denied(text: str, start: int, end: int, language: str) -> bool:
    """Denied once; what is denied twice is said."""
    if _DENIED_AFTER[language].match(text, end):
        return True
    head, denied = text[max(0, start - HEAD) : start], False
    while found := _DENIED[language].search(head):
        head, denied = head[: found.start()], not denied
    return denied
