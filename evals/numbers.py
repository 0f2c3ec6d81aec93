"""Numbers and units in one spelling: "twelve-hour", "12 h" and "12 hours"; 十二小时, 12 小时 and 12个小时."""

from __future__ import annotations

import re

import regex

from evals import text as reading

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: n for n, word in enumerate(_ONES.split())} | {
    word: 10 * n for n, word in enumerate(_TENS.split(), start=2)
}
_UNITS = {"h": "hour", "hr": "hour", "min": "minute", "l": "liter", "litre": "liter", "g": "gram", "kg": "kilo"}
_UNITS_ZH = {
    **{"h": "小时", "hour": "小时", "hours": "小时", "min": "分钟", "l": "升", "ml": "毫升", "g": "克", "kg": "公斤"},
    **{"千克": "公斤", "mm": "毫米", "cm": "厘米", "个小时": "小时", "个钟头": "小时"},
}
_DIGITS_ZH = {**{digit: n for n, digit in enumerate("零一二三四五六七八九")}, "〇": 0, "两": 2}
_TIMES_ZH = {"十": 10, "百": 100, "千": 1000}


def _any(words: str) -> str:
    return "|".join(words.split())


_INITIALS = "".join({word[0] for word in _WORDS})
# Looked at first: most words begin with none of these.
_WORD = re.compile(rf"\b(?=[{_INITIALS}])(?:({_any(_TENS)})(?: ({_any(_ONES)}))?|({_any(_ONES)}))\b")
_UNIT = regex.compile(r"(?<![a-z])(\d+) ?([a-z]+)\b")
_NUMBER_ZH = regex.compile(r"[零〇一二两三四五六七八九十百千]+")
_UNIT_ZH = regex.compile(rf"(\d) ?({'|'.join(sorted(_UNITS_ZH, key=len, reverse=True))})(?![a-z])")
# What stands before the rest of a larger number, and after the start of one.
_LARGER = regex.compile(rf"(?:\d[.,]|(?:{_any(_TENS)}|hundred|thousand)[ -](?:and )?|[十百千万点零])$")
_TIMES_BEFORE = regex.compile(r"[一二两三四五六七八九几数\d]$")
_STARTS = regex.compile(rf"\d|(?:{_any(_ONES)})\b|[零〇一二两三四五六七八九十百千万]")
_GOES_ON = regex.compile(r"[.,]?\d|[万千百]")


def in_digits(comparable: str, language: str) -> str:
    """Text that is comparable already, so that equal amounts are equal strings."""
    spelt: str
    if language == "zh":
        spelt = _NUMBER_ZH.sub(_han, reading.joined(comparable))
        spelt = _UNIT_ZH.sub(lambda unit: unit[1] + _UNITS_ZH[unit[2]], spelt)
    else:
        spelt = _WORD.sub(lambda word: str(sum(_WORDS[n] for n in word.groups() if n)), comparable.replace("-", " "))
        spelt = _UNIT.sub(_unit, spelt)
    return spelt


def _unit(found: regex.Match[str]) -> str:
    unit = found[2].removesuffix("s")
    return f"{found[1]} {_UNITS.get(unit, unit)}"


def _han(found: regex.Match[str]) -> str:
    """二〇二六 is digits, 一百二十 is counted; 百搭 has no number before its hundred and stays."""
    written: str = found[0]
    if not any(times in written for times in _TIMES_ZH):
        return "".join(str(_DIGITS_ZH[digit]) for digit in written)
    if written[0] in "百千":
        return written
    total = digit = 0
    for character in written:
        if character in _TIMES_ZH:
            total += (digit or 1) * _TIMES_ZH[character]
            digit = 0
        else:
            digit = _DIGITS_ZH[character]
    return str(total + digit)


def cut(text: str, start: int, end: int) -> bool:
    """Whether a number at either end of the span is only a part of the one in the text: 2 hours in 1.2 hours."""
    if _STARTS.match(text, start):
        head = text[max(0, start - 16) : start]
        if _LARGER.search(head) or (text[start] in "十百千万" and _TIMES_BEFORE.search(head)):
            return True
    return text[end - 1].isdecimal() and _GOES_ON.match(text, end) is not None
