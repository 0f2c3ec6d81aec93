"""Does a text meet its brief: one function a requirement kind, each with a reason that a copywriter understands.

Grades: a missed primary requirement (the answer itself and nothing around it, no endless repetition, language, product,
selling points, length, words to avoid, forbidden claims) is a fail; a missed secondary one (doubtful wording, emoji,
call to action, format) makes it acceptable; none missed is excellent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from evals import text as reading
from evals.actions import asks
from evals.claims import claims_in
from evals.points import says
from evals.repetition import repeats
from evals.wrapping import wrapping as wrapped
from serving.prompt import han, length_of
from serving.records import Task

PRIMARY = frozenset(
    {"answer", "wrapping", "repetition", "language", "product", "selling_points", "length", "must_not", "claims"}
)
_ENGLISH = """the a an and or but so not no you your we our us it its they them their he his she her i my me this that
these those there here is are was were be been has have had do does did will would can could should may with without for
of to on in at from by as into over under up down out off after before when while until than then if what who which how
all every each any more most some one only just too"""
_FOREIGN = """de la el los las que para con una un les des le et pour avec der die das und mit für ein eine het een van
voor il di che per uma os och för att ett"""
ENGLISH = frozenset(_ENGLISH.split())
FOREIGN = frozenset(_FOREIGN.split())
FEW_WORDS = 8  # below this, function words say nothing about the language
MANY_WORDS, FUNCTION_WORDS = 20, 0.12  # of so many words as many are function words: a quarter or more in people's copy


# Why a check failed, in the language of the brief: its writers read that.
SENTENCES: dict[str, dict[str, str]] = {
    "en": {
        "empty": "The answer is empty.",
        "no_words": "The answer has no words, only emoji or punctuation.",
        "repeats": "The answer repeats the brief instead of writing the copy.",
        "wrapping": "Not copy but words about it: {words}.",
        "in_a_row": "Repeats the same words in a row: {words}.",
        "circles": "Says the same thing again and again.",
        "language": "The text is not in English.",
        "product": "The product is not named: {product}.",
        "selling_points": "Selling points missing: {points}.",
        "short": "Too short: {count} words, the brief asks for {low}-{high}.",
        "long": "Too long: {count} words, the brief asks for {low}-{high}.",
        "must_not": "Uses what the brief says to avoid: {words}.",
        "claims": "Makes a claim that cannot be proven: {words}.",
        "wording": "Perhaps a claim; a person should look: {words}.",
        "emoji": "Emoji: {count} used, the brief asks for {asked}.",
        "no_emoji": "Emoji: {count} used, the brief asks for none.",
        "no_action": "The last sentence does not ask the reader to act.",
        "action": "The last sentence asks the reader to act, which the brief does not want.",
        "no_list": "The brief asks for a list, the text has none.",
        "few_lines": "The list has {count} lines for {points} selling points.",
        "shared_line": "A selling point has no line of its own in the list.",
        "list": "The brief asks for a paragraph, the text is a list.",
        "paragraphs": "The brief asks for one paragraph, the text has {count}.",
    },
    "zh": {
        "empty": "没有写出内容。",
        "no_words": "没有文字，只有表情或标点。",
        "repeats": "重复了需求，没有写文案。",
        "wrapping": "混进了不属于文案的内容：{words}。",
        "in_a_row": "同样的话连着重复：{words}。",
        "circles": "翻来覆去说同样的话。",
        "language": "不是中文。",
        "product": "没有写出产品名：{product}。",
        "selling_points": "缺少卖点：{points}。",
        "short": "太短：{count} 字，需求是 {low}-{high} 字。",
        "long": "太长：{count} 字，需求是 {low}-{high} 字。",
        "must_not": "用了需求要求避免的词：{words}。",
        "claims": "用了无法证实的说法：{words}。",
        "wording": "可能是无法证实的说法，请人看一眼：{words}。",
        "emoji": "表情：用了 {count} 个，需求是 {asked} 个。",
        "no_emoji": "表情：用了 {count} 个，需求是不用。",
        "no_action": "最后一句没有行动号召。",
        "action": "最后一句有行动号召，而需求不要。",
        "no_list": "需求是列表，正文没有列表。",
        "few_lines": "列表有 {count} 条，卖点有 {points} 个。",
        "shared_line": "有的卖点在列表里没有单独一条。",
        "list": "需求是段落，正文是列表。",
        "paragraphs": "需求是一段，正文有 {count} 段。",
    },
}


class Grade(StrEnum):
    EXCELLENT = "excellent"
    ACCEPTABLE = "acceptable"
    FAIL = "fail"


@dataclass(frozen=True)
class CheckResult:
    """One requirement: `reason` is empty where it is met."""

    kind: str
    passed: bool
    primary: bool
    reason: str


@dataclass(frozen=True)
class Score:
    """What the checks say of one text; only requirements that the brief has are in `checks`."""

    grade: Grade
    checks: tuple[CheckResult, ...]

    @property
    def meets(self) -> bool:
        """Every primary requirement is met."""
        return self.grade is not Grade.FAIL

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was missed, the primary requirements first."""
        missed = sorted((check for check in self.checks if not check.passed), key=lambda check: not check.primary)
        return tuple(check.reason for check in missed)

    @property
    def claim(self) -> str:
        """Why the text makes a forbidden claim; "" where it makes none."""
        return next((check.reason for check in self.checks if check.kind == "claims"), "")

    @property
    def badness(self) -> tuple[bool, int, int]:
        """Larger is worse: forbidden claims, then primary requirements missed, then secondary ones."""
        missed = [check for check in self.checks if not check.passed]
        # No answer at all is worse than any answer, though it is one reason.
        nothing = any(check.kind == "answer" for check in missed)
        return bool(self.claim), sum(check.primary for check in missed) + 10 * nothing, len(missed)


@dataclass(frozen=True)
class _Text:
    raw: str
    comparable: str


def score(text: str, task: Task) -> Score:
    """Check a text against its brief. Any text gets a score, the empty one too."""
    return scores([(text, task)])[0]


def scores(written: Sequence[tuple[str, Task]]) -> list[Score]:
    """`score` of many texts, in less time."""
    return [one for block in reading.blocks(written) for one in _scores(block)]


def _scores(written: Sequence[tuple[str, Task]]) -> list[Score]:
    texts = [(_Text(text, reading.comparable(text)), task, list[CheckResult]()) for text, task in written]
    answered = texts
    for kind, check in _CHECKS.items():
        for text, task, results in answered:
            reason = check(text, task)
            if reason is not None:
                results.append(CheckResult(kind, False, kind in PRIMARY, reason) if reason else _PASSED[kind])
        if kind == "answer":  # with no answer, the other reasons would only repeat it
            answered = [one for one in texts if one[2][-1].passed]
    return [Score(_grade(results), tuple(results)) for _, _, results in texts]


def _grade(checks: Sequence[CheckResult]) -> Grade:
    missed = [check.primary for check in checks if not check.passed]
    return Grade.FAIL if any(missed) else Grade.ACCEPTABLE if missed else Grade.EXCELLENT


def loose_grades(written: Sequence[tuple[str, Task]], strict: Sequence[Score]) -> list[Grade]:
    """For each text the best grade of it and of itself without asterisks, first or last line (Zhou et al. 2023).

    It tells a model that wraps good copy ("Sure, here it is:") from one that misses the brief.
    """
    missed = [(n, text, task) for n, (text, task) in enumerate(written) if strict[n].grade is not Grade.EXCELLENT]
    others = [(n, other, task) for n, text, task in missed for other in _unwrapped(text)]
    grades = [{score.grade} for score in strict]
    for (n, _, _), other in zip(others, scores([(text, task) for _, text, task in others]), strict=True):
        grades[n].add(other.grade)
    return [next(grade for grade in Grade if grade in own) for own in grades]


def _unwrapped(text: str) -> set[str]:
    lines = text.strip().splitlines()
    parts = {"\n".join(part).strip() for part in (lines, lines[1:], lines[:-1], lines[1:-1])}
    return (parts | {part.replace("*", "") for part in parts}) - {text, text.strip(), ""}


def _say(task: Task, key: str, **values: object) -> str:
    return SENTENCES[task.language][key].format(**values)


# Each check returns None where the brief does not ask for it, "" where it is met, else the reason.


def answer(text: _Text, task: Task) -> str | None:
    if not text.comparable:
        return _say(task, "empty")
    if not any(map(str.isalpha, text.raw)):
        return _say(task, "no_words")
    if _repeats_brief(text, task):
        return _say(task, "repeats")
    return ""


def _repeats_brief(text: _Text, task: Task) -> bool:
    """The instruction, or two of the brief's lines with their labels, stand in the answer word for word."""
    instruction = reading.plain(task.instruction)
    if instruction and instruction in text.comparable:
        return True
    if not task.requirements.product:
        return bool(task.input.strip()) and reading.plain(task.input) in text.comparable
    lines = [reading.plain(line) for line in task.input.splitlines() if len(line.strip()) >= 6]
    return sum(line in text.comparable for line in lines) >= 2


def wrapping(text: _Text, task: Task) -> str | None:
    """Of product copy: a reply to a customer may offer help, and an email has a subject."""
    if not task.requirements.product:
        return None
    words = wrapped(text.raw, task.language)
    return _say(task, "wrapping", words=words) if words else ""


def repetition(text: _Text, task: Task) -> str | None:
    words = repeats(text.raw)
    if words is None:
        return ""
    return _say(task, "in_a_row", words=words) if words else _say(task, "circles")


def language(text: _Text, task: Task) -> str | None:
    brief = task.input + task.instruction
    written, foreign_script = han(text.raw), reading.kana(text.raw) > reading.kana(brief)
    if foreign_script or (task.language == "en" and written > han(brief)):
        return _say(task, "language")
    words = reading.latin_words(text.raw.casefold())
    if task.language == "zh":
        other = reading.letters(text.raw) - written - sum(map(len, words))
        return _say(task, "language") if written == 0 or written < len(words) or other > written / 4 else ""
    if not text.raw.isascii() and reading.letters("".join(words)) < 0.9 * reading.letters(text.raw):
        return _say(task, "language")
    english = sum(map(ENGLISH.__contains__, words))
    foreign = len(words) >= FEW_WORDS and sum(map(FOREIGN.__contains__, words)) > english
    few = len(words) >= MANY_WORDS and english < FUNCTION_WORDS * len(words)
    other = few and sum(map(_own_words(brief, task).__contains__, words)) < FUNCTION_WORDS * len(words)
    return _say(task, "language") if foreign or other else ""


def _own_words(brief: str, task: Task) -> frozenset[str]:
    """Terse lists have few function words but the brief's own; the product's name stands in any language."""
    name = " ".join((task.requirements.product, *task.requirements.aliases))
    said, named = ({word.casefold() for word in reading.latin_words(text)} for text in (brief, name))
    return ENGLISH | (said - named)


def product(text: _Text, task: Task) -> str | None:
    name = task.requirements.product
    if not name:
        return None
    said = reading.joined(text.comparable)
    names = [reading.joined(reading.plain(known)) for known in (name, *task.requirements.aliases)]
    if any(reading.contains(said, known) for known in names):
        return ""
    return _say(task, "product", product=name)


def selling_points(text: _Text, task: Task) -> str | None:
    points = task.requirements.selling_points
    if not points:
        return None
    missed = [point[0] for point in points if not says(text.comparable, point, task.language)]
    return _say(task, "selling_points", points="; ".join(missed)) if missed else ""


def length(text: _Text, task: Task) -> str | None:
    if task.requirements.length is None:
        return None
    low, high = task.requirements.length
    count = han(text.comparable) if task.language == "zh" else length_of(text.raw, "en")
    if low <= count <= high:
        return ""
    return _say(task, "short" if count < low else "long", count=count, low=low, high=high)


def must_not(text: _Text, task: Task) -> str | None:
    words = task.requirements.must_not
    if not words:
        return None
    said = text.comparable.replace("-", " ")
    found = [
        word
        for word in words
        if reading.contains(text.comparable, word, inflected=True)
        or reading.contains(said, word.replace("-", " "), inflected=True)
    ]
    return _say(task, "must_not", words=", ".join(found)) if found else ""


def claims(text: _Text, task: Task) -> str | None:
    return _claims(task, "claims", claims_in(text.comparable, task).hard)


def wording(text: _Text, task: Task) -> str | None:
    return _claims(task, "wording", claims_in(text.comparable, task).soft)


def _claims(task: Task, kind: str, found: tuple[str, ...]) -> str | None:
    """Only product copy makes claims."""
    if not task.requirements.product:
        return None
    return _say(task, kind, words=", ".join(found)) if found else ""


def emoji(text: _Text, task: Task) -> str | None:
    if task.requirements.emoji is None:
        return None
    low, high = task.requirements.emoji
    count = reading.emoji(text.raw)
    if low <= count <= high:
        return ""
    if high == 0:
        return _say(task, "no_emoji", count=count)
    return _say(task, "emoji", count=count, asked=low if low == high else f"{low}-{high}")


def call_to_action(text: _Text, task: Task) -> str | None:
    asked = task.requirements.call_to_action
    name = task.requirements.product
    if asked is None or (not asked and not name):
        return None
    names = (name, *task.requirements.aliases) if name else ()
    return "" if asks(text.raw, task.language, names) is asked else _say(task, "no_action" if asked else "action")


def format(text: _Text, task: Task) -> str | None:
    items = [reading.comparable(item) for item in reading.list_items(text.raw)]
    if task.requirements.format == "list":
        points = task.requirements.selling_points
        if not items:
            return _say(task, "no_list")
        if len(items) < len(points):
            return _say(task, "few_lines", count=len(items), points=len(points))
        own = all(any(says(item, point, task.language) for item in items) for point in points)
        return "" if own else _say(task, "shared_line")
    if items:
        return _say(task, "list")
    blocks = sum(bool(block.strip()) for block in text.raw.replace("\r", "").split("\n\n"))
    if task.requirements.product and blocks > 1:
        return _say(task, "paragraphs", count=blocks)
    return ""


_CHECKS: dict[str, Callable[[_Text, Task], str | None]] = {
    "answer": answer,
    "wrapping": wrapping,
    "repetition": repetition,
    "language": language,
    "product": product,
    "selling_points": selling_points,
    "length": length,
    "must_not": must_not,
    "claims": claims,
    "wording": wording,
    "emoji": emoji,
    "call_to_action": call_to_action,
    "format": format,
}
_PASSED = {kind: CheckResult(kind, True, kind in PRIMARY, "") for kind in _CHECKS}
