"""How text is read: what counts as equal, as a word, as a Han character, as an emoji, as the last sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import regex

from serving.prompt import nfkc

_Text = TypeVar("_Text")
BLOCK = 64  # of 16 to 256 the fastest


def blocks(texts: Sequence[_Text]) -> Iterator[Sequence[_Text]]:
    """Texts to take through one step after the other: a processor's cache holds a block and a step, not all steps."""
    return (texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK))


def replacing(others: Mapping[str, str]) -> Callable[[str], str]:
    """What puts others in the place of characters: where these are rare, ten times as fast as str.translate."""
    found = re.compile(f"[{re.escape(''.join(others))}]")
    return lambda text: found.sub(lambda one: others[one[0]], text)


_as_one = replacing(
    {
        **dict.fromkeys("‘’‚‛′＇`´", "'"),
        **dict.fromkeys("“”„‟″＂", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f", ""),
        **dict.fromkeys("®™©℠", ""),  # before NFKC makes letters of them; a name is the same without
    }
)
_LATIN_WORD = regex.compile(r"\p{Latin}[\p{Latin}\p{M}'’\-]*")
_ASCII_WORD, _ASCII_TOKEN = re.compile(r"[A-Za-z][A-Za-z'\-]*"), re.compile(r"[a-z0-9]+")  # what they are of ASCII
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_GRAPHEME = regex.compile(r"\X")
# Text symbols such as ™ and © are pictographs only when U+FE0F asks for it.
_EMOJI = regex.compile(
    r"\p{Emoji_Presentation}|\p{Extended_Pictographic}\ufe0f|[0-9#*]\ufe0f?\u20e3"
    r"|(?=\p{Extended_Pictographic})[\u2600-\u27bf]"
)
_RUN = re.compile(r"[0-9#*]?[^\x00-\x7f、。\u3400-\u9fff\uff00-\uffef]+")  # where emoji may stand
# A hyphen, an asterisk or a number with a point may also begin a line of prose, if no space or Han character follows.
_BULLET = regex.compile(
    r"^\s*(?:(?:[-*–—]|\d{1,2}[.)])(?:\s+|(?=\p{Han}))|(?:[•·●▪◦‣➤►★☆✓✔✅☑]\ufe0f?|\d{1,2}[、．）]|[①-⑳]"
    r"|[（(]\d{1,2}[)）]|[一二三四五六七八九十]、)\s*)"
)
# One set of characters first: a search skips all others at once.
_SENTENCE_END = re.compile(r"[.!?。！？\n](?:(?<=[.!?])[\"')\]]*\s+|(?<=[。！？!?])[”’」』）]*|(?<=\n)\n*)")
_HASHTAG = regex.compile(r"(?<![\p{L}\p{N}])[#＃]\p{L}[\p{L}\p{N}_]*[#＃]?")
TAIL = 160  # characters that hold most last sentences whole
ENDINGS = ("", "s", "es", "d", "ed", "ing")
_INSIDE_WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_TOKEN = regex.compile(r"[a-z0-9]+|\p{Han}")
_GAP_ZH = regex.compile(r"(?<=\p{Han}) | (?=\p{Han})")


def comparable(text: str) -> str:
    """NFKC, case folded, one form of quotes and hyphens, no trademark signs, runs of white space as one space."""
    return " ".join(_as_one(nfkc(_as_one(text))).casefold().split())


@lru_cache(maxsize=4096)  # checks and metrics each read a card's texts
def tokens(text: str) -> tuple[str, ...]:
    """Runs of Latin letters and digits, and single Han characters."""
    if text.isascii():
        return tuple(_ASCII_TOKEN.findall(text.lower()))
    return tuple(_TOKEN.findall(nfkc(text).casefold()))


def kana(text: str) -> int:
    return 0 if text.isascii() else len(_KANA.findall(text))


def latin_words(text: str) -> list[str]:
    if text.isascii():
        return _ASCII_WORD.findall(text)
    return [str(word) for word in _LATIN_WORD.findall(text)]


def letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def emoji(text: str) -> int:
    """Emoji as a person counts them: a family or a flag is one."""
    if text.isascii() or not _EMOJI.search(text):
        return 0
    return sum(_is_emoji(c) for run in _RUN.findall(text) for c in _GRAPHEME.findall(run))


def without_emoji(text: str) -> str:
    if text.isascii() or not _EMOJI.search(text):
        return text
    return str(_RUN.sub(lambda run: "".join(c for c in _GRAPHEME.findall(run[0]) if not _is_emoji(c)), text))


def _is_emoji(cluster: str) -> bool:
    return _EMOJI.search(cluster) is not None


def list_items(text: str) -> list[str]:
    """The lines that start with a bullet or a number, without it."""
    return [_BULLET.sub("", line) for line in text.splitlines() if _BULLET.match(line)]


def last_sentence(text: str) -> str:
    """The last one with words; emoji and hashtags after it are none."""
    # The end is enough wherever another sentence ends in it too.
    parts = _sentences(text[-TAIL:])
    if len(parts) < 2 and len(text) > TAIL:
        parts = _sentences(text)
    return parts[-1] if parts else ""


def _sentences(text: str) -> list[str]:
    plain = _HASHTAG.sub("", without_emoji(text))
    parts, start = [], 0
    for end in _SENTENCE_END.finditer(plain):
        parts.append(plain[start : end.start() + 1])
        start = end.end()
    parts.append(plain[start:])
    return [part.strip() for part in parts if any(map(str.isalnum, part))]


@lru_cache(maxsize=4096)
def plain(phrase: str) -> str:
    """`comparable` for words of briefs, which come again with every sample."""
    return comparable(phrase)


def joined(comparable_text: str) -> str:
    """Without the spaces between Han and other characters, which some writers set: iPhone 15手机壳."""
    return comparable_text if comparable_text.isascii() else str(_GAP_ZH.sub("", comparable_text))


def contains(comparable_text: str, phrase: str, inflected: bool = False) -> bool:
    """Whether a text, comparable already, has the phrase as whole words; `inflected` takes endings such as -s too."""
    return next(places(comparable_text, plain(phrase), inflected), None) is not None


def blanked(comparable_text: str, phrase: str) -> str:
    """The text without a phrase."""
    known = plain(phrase)
    if not known or known not in comparable_text:
        return comparable_text
    end, kept = 0, []
    for start in places(comparable_text, known, inflected=False):
        kept.append(comparable_text[end:start])
        end = start + len(known)
    return " ".join([*kept, comparable_text[end:]])


def places(text: str, known: str, inflected: bool) -> Iterator[int]:
    """Where a phrase begins, without overlaps. No regular expressions: compiling thousands of them takes a second."""
    endings = ENDINGS if inflected and known[-1:].isalpha() and known.isascii() else ("",)
    start = text.find(known) if known else -1
    while start >= 0:
        end = start + len(known)
        # Han has no word boundaries; Latin words must not match inside others (cure in secure).
        opens = not known[0].isascii() or text[start - 1 : start] not in _INSIDE_WORD
        closes = not known[-1].isascii() or any(
            text.startswith(ending, end) and text[end + len(ending) : end + len(ending) + 1] not in _INSIDE_WORD
            for ending in endings
        )
        if opens and closes:
            yield start
            start = text.find(known, end)
        else:
            start = text.find(known, start + 1)
