"""Text from outside, made harmless for Slack's two notations, and text from Slack made plain again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import regex

JSON = dict[str, Any]
MARKDOWN_LIMIT = 11_000  # of Slack's 12,000 characters in all markdown blocks of a message
TEXT_LIMIT = 3_900  # of the 4,000 that chat.update takes

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ALWAYS = frozenset("\\`*_~[]|!")
_AT_LINE_START = frozenset("#+-=")


def _paired(marks: str, word: str) -> str:
    """A text on one line between two of the marks, close to it and not inside of a word, as in snake_case and 2*3*4."""
    return rf"(?<!{word})(?P<mark>{marks})(?=\S)(?P<text>(?:(?!(?P=mark))[^\n])+)(?<=\S)(?P=mark)(?!{word})"


_MARKED = regex.compile(
    "|".join(
        (
            r"(?P<kept><[^<>]*>|\bhttps?://\S+)",
            r"```\s*(?P<code>.*?)\s*```",
            # Chinese has no spaces: *产品：*云朵枕. But 50字~80字 is a range.
            _paired(r"\*\*?|`", r"[[\p{L}\p{N}]--\p{Han}]"),
            _paired(r"[_~]", r"[\p{L}\p{N}_~]"),
        )
    ),
    regex.V1 | regex.S,
)


def escape(text: str) -> str:
    """For mrkdwn and fallback text: nothing of it is a mention, a link or a command."""
    return "".join(_ENTITIES.get(char, char) for char in text)


def unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def plain_of(text: str) -> str:
    """What a person typed, from what Slack sends: marks of links, mentions, bold and the like are taken off."""
    text = _unmarked(text)
    text = re.sub(r"<(?:https?://|mailto:)[^|>]+\|([^>]+)>", r"\1", text)
    text = re.sub(r"<((?:https?://|mailto:)[^>]+)>", r"\1", text)
    text = re.sub(r"<[@#!][^|>]*\|([^>]+)>", r"\1", text)
    text = re.sub(r"<[@#!][^>]*>", "", text)
    return unescape(text).strip()


def _unmarked(text: str) -> str:
    return str(_MARKED.sub(_inside, text))


def _inside(found: regex.Match[str]) -> str:
    if found["mark"] and found["mark"] != "`":
        return _unmarked(found["text"])
    return str(found["kept"] or found["code"] or found["text"] or "")


def with_emoji(text: str, blocks: Iterable[JSON]) -> str:
    """Emoji as themselves: a message's text has names such as :sparkles:, its blocks say what they stand for."""
    characters = {
        element["name"]: "".join(chr(int(point, 16)) for point in element["unicode"].split("-"))
        for element in _elements(blocks)
        if element.get("type") == "emoji" and element.get("unicode")
    }
    name = re.compile(r":([^\s:]+):(?::skin-tone-\d:)?")
    return name.sub(lambda found: characters.get(found[1], found[0]), text)


def _elements(blocks: Iterable[JSON]) -> Iterator[JSON]:
    for block in blocks:
        yield block
        yield from _elements(block.get("elements", ()))


def markdown(text: str) -> str:
    """For markdown blocks: shown as it stands, whatever it contains.

    What a longer text adds never changes what was there: markdown(a + b) starts with markdown(a), so that a stream
    may append the difference.
    """
    parts: list[str] = []
    start, digits, before = True, False, ""
    for char in text:
        if char == "\n":
            start, digits = True, False
        elif start and char in " \t":
            continue
        elif char in _ENTITIES:
            char, start = _ENTITIES[char], False
        elif char in _ALWAYS or (start and char in _AT_LINE_START) or (digits and char in ".)"):
            char, start, digits = f"\\{char}", False, False
        elif char == "/" and before == ":":
            char, start = "\\/", False
        elif char.isdigit() and (start or digits):
            start, digits = False, True
        else:
            start, digits = False, False
        before = char
        parts.append(char)
    return "".join(parts)


def shown(text: str) -> str:
    """Markdown of a text, cut where Slack would refuse more; a cut ends in "…"."""
    whole = markdown(text)
    if len(whole) <= MARKDOWN_LIMIT:
        return whole
    # An escape is at most six characters a character, so that this many always fit.
    cut = text[: MARKDOWN_LIMIT // 6]
    while len(longer := text[: len(cut) + 500]) > len(cut) and len(markdown(longer)) < MARKDOWN_LIMIT:
        cut = longer
    return markdown(cut) + " …"


def fallback(text: str) -> str:
    """The text of notifications and screen readers, escaped and short enough for chat.update."""
    return escape(text) if len(escape(text)) <= TEXT_LIMIT else escape(text[: TEXT_LIMIT // 6]) + " …"
