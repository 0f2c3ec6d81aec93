"""Does a text meet its brief: one function a requirement kind, each with a reason that a copywriter understands.

Grades: a missed primary requirement (the answer itself, language, product, selling points, length, words to avoid,
forbidden claims) is a fail; a missed secondary one (emoji, call to action, format) makes it acceptable; none missed is
excellent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from evals import text as reading
from serving.records import Requirements, Task

DATA = Path(__file__).parent / "data"
PRIMARY = frozenset({"answer", "language", "product", "selling_points", "length", "must_not", "claims"})
UNITS = {"en": "words", "zh": "characters"}
_ENGLISH = "the and you your with for of is it to on that this are at from by as its"
_FOREIGN = "de la el los las que para con una un les des le et pour avec der das und mit für ein eine"
ENGLISH = frozenset(_ENGLISH.split())
FOREIGN = frozenset(_FOREIGN.split())
LONGEST_ACTION_ZH = 24  # Han characters of a sentence that asks; longer ones tell
SHORT_ACTION_ZH = 12  # a sentence as short as this that names an action surely asks
FEW_WORDS = 8  # below this, function words say nothing about the language


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


@dataclass(frozen=True)
class _Text:
    raw: str
    comparable: str


def score(text: str, task: Task) -> Score:
    """Check a text against its brief. Any text gets a score, the empty one too."""
    given = _Text(text, reading.comparable(text))
    results: list[CheckResult] = []
    for kind, check in _CHECKS.items():
        reason = check(given, task)
        if reason is not None:
            results.append(CheckResult(kind, not reason, kind in PRIMARY, reason))
        if kind == "answer" and reason:
            break  # with no answer, the other reasons would only repeat it
    if any(check.primary and not check.passed for check in results):
        grade = Grade.FAIL
    elif any(not check.passed for check in results):
        grade = Grade.ACCEPTABLE
    else:
        grade = Grade.EXCELLENT
    return Score(grade, tuple(results))


# Each check returns None where the brief does not ask for it, "" where it is met, else the reason.


def answer(text: _Text, task: Task) -> str | None:
    if not text.comparable:
        return "The answer is empty."
    if not reading.letters(text.raw):
        return "The answer has no words, only emoji or punctuation."
    if _repeats_brief(text, task):
        return "The answer repeats the brief instead of writing the copy."
    return ""


def _repeats_brief(text: _Text, task: Task) -> bool:
    """The instruction, or two lines of the brief, stand in the answer word for word."""
    instruction = reading.comparable(task.instruction)
    if instruction and instruction in text.comparable:
        return True
    if not task.requirements.product:
        return bool(task.input.strip()) and reading.comparable(task.input) in text.comparable
    lines = [reading.comparable(line) for line in task.input.splitlines() if len(line.strip()) >= 6]
    answers = {reading.comparable(line) for line in text.raw.splitlines()}
    return sum(line in answers for line in lines) >= 2


def language(text: _Text, task: Task) -> str | None:
    han = reading.han(text.raw)
    words = [word.casefold() for word in reading.latin_words(text.raw)]
    if task.language == "zh":
        if han == 0 or han < len(words):
            return "The text is not in Chinese."
        kana = reading.letters(text.raw) - han - sum(len(word) for word in words)
        return "The text is not in Chinese." if kana > han / 4 else ""
    latin = sum(sum(c.isalpha() for c in word) for word in words)
    if latin < 0.9 * reading.letters(text.raw):
        return "The text is not in English."
    foreign = sum(word in FOREIGN for word in words)
    if len(words) >= FEW_WORDS and foreign > sum(word in ENGLISH for word in words):
        return "The text is not in English."
    return ""


def product(text: _Text, task: Task) -> str | None:
    name = task.requirements.product
    if not name:
        return None
    if any(reading.contains(text.comparable, known) for known in (name, *task.requirements.aliases)):
        return ""
    return f"The product is not named: {name}."


def selling_points(text: _Text, task: Task) -> str | None:
    points = task.requirements.selling_points
    if not points:
        return None
    missed = [point[0] for point in points if not any(reading.contains(text.comparable, phrase) for phrase in point)]
    return f"Selling points missing: {'; '.join(missed)}." if missed else ""


def length(text: _Text, task: Task) -> str | None:
    if task.requirements.length is None:
        return None
    low, high = task.requirements.length
    count = reading.length(text.raw, task.language)
    unit = UNITS.get(task.language, "words")
    if count < low:
        return f"Too short: {count} {unit}, the brief asks for {low}-{high}."
    if count > high:
        return f"Too long: {count} {unit}, the brief asks for {low}-{high}."
    return ""


def must_not(text: _Text, task: Task) -> str | None:
    words = task.requirements.must_not
    if not words:
        return None
    found = [word for word in words if reading.contains(text.comparable, word, inflected=True)]
    return f"Uses what the brief says to avoid: {', '.join(found)}." if found else ""


def claims(text: _Text, task: Task) -> str | None:
    forbidden, innocent = _claims(task.language)
    rest = text.comparable
    for phrase in (*innocent, *_own_words(task.requirements)):
        rest = reading.blanked(rest, phrase)
    found = [claim for claim in forbidden if reading.contains(rest, claim, inflected=True)]
    return f"Makes a claim that cannot be proven: {', '.join(found)}." if found else ""


def _own_words(requirements: Requirements) -> tuple[str, ...]:
    phrases = (phrase for point in requirements.selling_points for phrase in point)
    return (requirements.product, *requirements.aliases, *phrases)


@cache
def _claims(language: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Forbidden claims and innocent phrases of a language."""
    data = (DATA / f"claims_{language}.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in data.splitlines()]
    lines = [line for line in lines if line and not (line.startswith("#") and line[1:2] == " ")]
    return (
        tuple(line for line in lines if not line.startswith("+")),
        tuple(line[1:].strip() for line in lines if line.startswith("+")),
    )


def emoji(text: _Text, task: Task) -> str | None:
    if task.requirements.emoji is None:
        return None
    low, high = task.requirements.emoji
    count = reading.emoji(text.raw)
    if low <= count <= high:
        return ""
    asked = "none" if high == 0 else str(low) if low == high else f"{low}-{high}"
    return f"Emoji: {count} used, the brief asks for {asked}."


def call_to_action(text: _Text, task: Task) -> str | None:
    asked = task.requirements.call_to_action
    if asked is None or (not asked and not task.requirements.product):
        return None
    sentence = reading.comparable(reading.last_sentence(text.raw)).lstrip("- *•")
    if asked:
        return "" if asks_to_act(sentence, task.language) else "The last sentence does not ask the reader to act."
    # Only a sentence that opens as a request counts against a brief that wants none.
    opening = sentence.split(",")[0] if task.language != "zh" or reading.han(sentence) <= SHORT_ACTION_ZH else ""
    acts = asks_to_act(opening, task.language)
    return "The last sentence asks the reader to act, which the brief does not want." if acts else ""


def asks_to_act(sentence: str, language: str) -> bool:
    """Whether a comparable sentence asks: an imperative in English, in Chinese a short one with a verb of doing."""
    verbs, statements = _verbs(language)
    if language == "zh":
        said = any(word in sentence for word in statements) or reading.han(sentence) > LONGEST_ACTION_ZH
        return not said and any(verb in sentence for verb in verbs)
    clauses = [clause.split() for clause in sentence.replace(";", ",").replace(":", ",").split(",")]
    return any(_opening(words) in verbs for words in clauses if words)


def _opening(words: list[str]) -> str:
    """The first word that is not a way to lead into an imperative."""
    lead = {"so", "then", "and", "just", "please", "today", "tonight", "now", "simply", "go", "or", "always", "never"}
    return next((word.strip(".!?\"'()") for word in words if word not in lead), "")


@cache
def _verbs(language: str) -> tuple[frozenset[str], frozenset[str]]:
    """Verbs that ask, and words that make a sentence a statement."""
    data = (DATA / f"actions_{language}.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in data.splitlines() if line.strip() and not line.startswith("#")]
    return (
        frozenset(line for line in lines if not line.startswith("-")),
        frozenset(line[1:] for line in lines if line.startswith("-")),
    )


def format(text: _Text, task: Task) -> str | None:
    items = [reading.comparable(item) for item in reading.list_items(text.raw)]
    if task.requirements.format == "list":
        points = task.requirements.selling_points
        if not items:
            return "The brief asks for a list, the text has none."
        if len(items) < len(points):
            return f"The list has {len(items)} lines for {len(points)} selling points."
        own = all(any(reading.contains(item, phrase) for item in items for phrase in point) for point in points)
        return "" if own else "A selling point has no line of its own in the list."
    if items:
        return "The brief asks for a paragraph, the text is a list."
    blocks = sum(bool(block.strip()) for block in text.raw.replace("\r", "").split("\n\n"))
    if task.requirements.product and blocks > 1:
        return f"The brief asks for one paragraph, the text has {blocks}."
    return ""


_CHECKS: dict[str, Callable[[_Text, Task], str | None]] = {
    "answer": answer,
    "language": language,
    "product": product,
    "selling_points": selling_points,
    "length": length,
    "must_not": must_not,
    "claims": claims,
    "emoji": emoji,
    "call_to_action": call_to_action,
    "format": format,
}
