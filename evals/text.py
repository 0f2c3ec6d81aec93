"""How text is read: what counts as equal, as a word, as a Han character, as an emoji, as the last sentence."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import regex

_SAME = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′＇`´", "'"),
        **dict.fromkeys("“”„‟″＂", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f", ""),
    }
)
_HAN = regex.compile(r"\p{Han}")
_LATIN_WORD = regex.compile(r"\p{Latin}[\p{Latin}\p{M}'’\-]*")
_LETTER = regex.compile(r"\p{L}")
_GRAPHEME = regex.compile(r"\X")
# Text symbols such as ™ and © are pictographs only when U+FE0F asks for it.
_EMOJI = regex.compile(
    r"\p{Emoji_Presentation}|\p{Extended_Pictographic}\ufe0f|[0-9#*]\ufe0f?\u20e3"
    r"|(?=\p{Extended_Pictographic})[\u2600-\u27bf]"
)
_BULLET = regex.compile(r"^\s*(?:[-*•·–—]|\d{1,2}[.)、])\s+")
_SENTENCE_END = regex.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？!?])[”’」』）]*|\n+")
_TOKEN = regex.compile(r"[a-z0-9]+|\p{Han}")


def comparable(text: str) -> str:
    """NFKC, case folded, one form of quotes and hyphens, runs of white space as one space."""
    folded = unicodedata.normalize("NFKC", text.translate(_SAME)).translate(_SAME).casefold()
    return " ".join(folded.split())


def tokens(text: str) -> list[str]:
    """Runs of Latin letters and digits, and single Han characters."""
    return [str(token) for token in _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())]


def length(text: str, language: str) -> int:
    """Words for English (what white space separates and holds a letter or digit), Han characters for Chinese."""
    if language == "zh":
        return len(_HAN.findall(unicodedata.normalize("NFKC", text)))
    return sum(any(c.isalnum() for c in word) for word in text.split())


def han(text: str) -> int:
    return len(_HAN.findall(text))


def latin_words(text: str) -> list[str]:
    return [str(word) for word in _LATIN_WORD.findall(text)]


def letters(text: str) -> int:
    return len(_LETTER.findall(text))


def emoji(text: str) -> int:
    """Emoji as a person counts them: a family or a flag is one."""
    return sum(_EMOJI.search(cluster) is not None for cluster in _GRAPHEME.findall(text))


def without_emoji(text: str) -> str:
    return "".join(cluster for cluster in _GRAPHEME.findall(text) if not _EMOJI.search(cluster))


def list_items(text: str) -> list[str]:
    """The lines that start with a bullet or a number, without it."""
    return [_BULLET.sub("", line) for line in text.splitlines() if _BULLET.match(line)]


def last_sentence(text: str) -> str:
    parts = [part.strip() for part in _SENTENCE_END.split(without_emoji(text)) if part and part.strip()]
    return parts[-1] if parts else ""


@lru_cache(maxsize=4096)
def _plain(phrase: str) -> str:
    return comparable(phrase)


@lru_cache(maxsize=4096)
def _phrase(plain: str, inflected: bool) -> regex.Pattern[str]:
    suffix = "(?:s|es|d|ed|ing)?" if inflected and plain[-1].isalpha() and plain.isascii() else ""
    # Han has no word boundaries; Latin words must not match inside others (cure in secure).
    left = r"(?<![a-z0-9])" if plain[0].isascii() else ""
    right = r"(?![a-z0-9])" if plain[-1].isascii() else ""
    return regex.compile(f"{left}{regex.escape(plain)}{suffix}{right}")


def contains(comparable_text: str, phrase: str, inflected: bool = False) -> bool:
    """Whether a text, comparable already, has the phrase as whole words; `inflected` takes endings such as -s too."""
    plain = _plain(phrase)
    # The plain search is a hundred times faster and nearly always enough to say no.
    return bool(plain) and plain in comparable_text and _phrase(plain, inflected).search(comparable_text) is not None


def blanked(comparable_text: str, phrase: str) -> str:
    """The text without a phrase."""
    plain = _plain(phrase)
    if not plain or plain not in comparable_text:
        return comparable_text
    return str(_phrase(plain, False).sub(" ", comparable_text))
