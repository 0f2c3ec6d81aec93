"""A brief as chat messages. Bot, trainer and evals use this code alone, so that what trains is what is served."""

from __future__ import annotations

import hashlib
import unicodedata
from functools import lru_cache

import regex

from serving.records import Requirements, Task

_NOT_HAN = regex.compile(r"\P{Han}+")
_LATIN_WORD = regex.compile(r"(?<![\p{Latin}\d])\p{Latin}+")  # no unit of a number, as in 30ml
SYSTEM = {
    "en": "You write product copy. Follow every line of the brief. Answer with the copy only.",
    "zh": "你是产品文案。逐条满足要求，只输出文案。",
}


@lru_cache(maxsize=4096)  # the checks and the metrics of a card's texts ask again
def nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


@lru_cache(maxsize=4096)  # likewise: the length check, then the spread and the mean of lengths
def length_of(text: str, language: str) -> int:
    """As briefs ask for it: words for English (those with a letter or digit), Han characters for Chinese."""
    if language == "zh":
        return han(nfkc(text))
    return sum(word[0].isalnum() or any(map(str.isalnum, word)) for word in text.split())


def han(text: str) -> int:
    """Han characters."""
    return 0 if text.isascii() else len(_NOT_HAN.sub("", text))


def language_of(text: str) -> str:
    """ "zh" or "en", by Han characters against Latin words: two characters weigh as much as a word.

    Capitalised words weigh half of that: in Chinese they are names.
    """
    words = sum(1 if word[0].isupper() else 2 for word in _LATIN_WORD.findall(text))
    return "zh" if han(text) >= max(words, 1) else "en"


def messages(instruction: str, input: str = "", language: str = "en") -> list[dict[str, str]]:
    """Chat messages for one brief: the desk's system line and one user turn, in NFC whichever keyboard wrote it."""
    user = unicodedata.normalize("NFC", f"{instruction}\n\n{input}" if input else instruction)
    return [{"role": "system", "content": SYSTEM[language]}, {"role": "user", "content": user}]


def task_messages(task: Task) -> list[dict[str, str]]:
    return messages(task.instruction, task.input, task.language)


def task_of(requirements: Requirements, language: str, category: str = "other") -> Task:
    """Requirements written out in the one form that people see, the model reads and pairs store."""
    write = _english if language == "en" else _chinese
    instruction, input = write(requirements)
    return Task(instruction, input, language, category, requirements)


def _english(r: Requirements) -> tuple[str, str]:
    lines = [
        r.audience and f"Audience: {r.audience}",
        r.selling_points and "Selling points: " + "; ".join(point[0] for point in r.selling_points),
        r.tone and f"Tone: {r.tone}",
        r.length and f"Length: {r.length[0]}-{r.length[1]} words",
        f"Format: {r.format}",
        r.emoji and "Emoji: " + _count(r.emoji, none="none", exactly="exactly {}"),
        r.call_to_action is not None and f"Call to action: {'yes' if r.call_to_action else 'no'}",
        r.must_not and "Avoid: " + ", ".join(r.must_not),
    ]
    return f"Write product copy for {r.product}.", "\n".join(line for line in lines if line)


_FORMATS_ZH = {"paragraph": "段落", "list": "列表"}


def _chinese(r: Requirements) -> tuple[str, str]:
    lines = [
        r.audience and f"受众：{r.audience}",
        r.selling_points and "卖点：" + "；".join(point[0] for point in r.selling_points),
        r.tone and f"语气：{r.tone}",
        r.length and f"长度：{r.length[0]}-{r.length[1]}字",
        f"格式：{_FORMATS_ZH.get(r.format, r.format)}",
        r.emoji and "表情：" + _count(r.emoji, none="不用", exactly="{}个"),
        r.call_to_action is not None and f"行动号召：{'要' if r.call_to_action else '不要'}",
        r.must_not and "避免：" + "、".join(r.must_not),
    ]
    return f"为「{r.product}」写一段产品文案。", "\n".join(line for line in lines if line)


def _count(bounds: tuple[int, int], none: str, exactly: str) -> str:
    low, high = bounds
    if high == 0:
        return none
    return exactly.format(low) if low == high else f"{low}-{high}"


def normalised(text: str) -> str:
    """Text as it is compared: NFKC, case folded, runs of white space as one space."""
    return " ".join(nfkc(text).casefold().split())


def brief_key(task: Task) -> str:
    """The same brief, however it is spelt, has the same key (hex, 64 characters)."""
    return hashlib.sha256(normalised(f"{task.instruction}\n{task.input}").encode()).hexdigest()
