"""The words of Copydesk as typed values. Rows and Slack payloads stop at the edge; these travel inside."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

CATEGORIES = ("beauty", "food", "home", "electronics", "fashion", "services", "office", "other")
LANGUAGES = ("en", "zh")
FORMATS = ("paragraph", "list")


class CopydeskError(Exception):
    """What went wrong and the next step, in words for the person who reads it.

    Args:
        code: names the sentence in the bot's texts, so that people in Slack read it in their language.
        values: fill that sentence.
    """

    def __init__(self, text: str, *, code: str = "", **values: str) -> None:
        super().__init__(text)
        self.code = code
        self.values = values


@dataclass(frozen=True)
class Requirements:
    """What a text must do, in a form that code can check.

    Attributes:
        product: must be named in the text; "" where nothing is to be named.
        aliases: other accepted names of the product.
        selling_points: each a tuple of accepted phrasings, of which the prompt shows the first.
        length: minimum and maximum, in words for English and Han characters for Chinese; None is free.
        emoji: minimum and maximum count; None is free.
        call_to_action: True when the last sentence must ask the reader to act; None is free.
        format: "paragraph" or "list".
        must_not: words and phrases that may not occur.
    """

    product: str = ""
    aliases: tuple[str, ...] = ()
    audience: str = ""
    selling_points: tuple[tuple[str, ...], ...] = ()
    tone: str = ""
    length: tuple[int, int] | None = None
    emoji: tuple[int, int] | None = None
    call_to_action: bool | None = None
    format: str = "paragraph"
    must_not: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_mapping(cls, data: dict[str, Any]) -> Requirements:
        """Read the JSON form, as files bring it. Raises CopydeskError naming the key that is wrong."""
        if unknown := set(data) - set(_READERS):
            raise CopydeskError(f"Requirements have unknown keys: {', '.join(sorted(unknown))}")
        return cls(**{name: _READERS[name](value, name) for name, value in data.items()})

    @classmethod
    def from_json(cls, text: str) -> Requirements:
        """Read what `to_json` stored. Raises CopydeskError for unknown keys.

        Databases hold values that files brought before they were checked, such as an unknown format. They count as not
        asked for, so that every row opens.
        """
        data: dict[str, Any] = json.loads(text)
        wrong = {name for name in data.keys() & _READERS.keys() if _is_wrong(name, data[name])}
        return cls.from_mapping({name: value for name, value in data.items() if name not in wrong})


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise CopydeskError(f"{name} must be a text, not {value!r}")
    return value


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise CopydeskError(f"{name} must be a list of texts, not {value!r}")
    return tuple(value)


def _points(value: Any, name: str) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list | tuple):
        raise CopydeskError(f"{name} must be a list, not {value!r}")
    points = tuple(_texts([point] if isinstance(point, str) else point, f"each of {name}") for point in value)
    if () in points:
        raise CopydeskError(f"{name} must not hold an empty list")
    return points


def _range(value: Any, name: str) -> tuple[int, int] | None:
    if value is None:
        return None
    pair = isinstance(value, list | tuple) and len(value) == 2
    # JSON's true is an int in Python.
    if not pair or not all(type(n) is int for n in value) or not 0 <= value[0] <= value[1]:
        raise CopydeskError(f"{name} must be [minimum, maximum] in whole numbers, not {value!r}")
    return value[0], value[1]


def _answer(value: Any, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise CopydeskError(f"{name} must be true, false or null, not {value!r}")
    return value


def _format(value: Any, name: str) -> str:
    if value not in FORMATS:
        raise CopydeskError(f"{name} must be {' or '.join(FORMATS)}, not {value!r}")
    return str(value)


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "product": _text,
    "aliases": _texts,
    "audience": _text,
    "selling_points": _points,
    "tone": _text,
    "length": _range,
    "emoji": _range,
    "call_to_action": _answer,
    "format": _format,
    "must_not": _texts,
}


def _is_wrong(name: str, value: Any) -> bool:
    try:
        _READERS[name](value, name)
    except CopydeskError:
        return True
    return False


@dataclass(frozen=True)
class Task:
    """A brief as the model reads it: instruction, optional input, language and category."""

    instruction: str
    input: str = ""
    language: str = "en"
    category: str = "other"
    requirements: Requirements = field(default_factory=Requirements)


@dataclass(frozen=True)
class Brief:
    id: int
    task: Task
    user: str
    channel: str
    thread_ts: str
    created_at: str


@dataclass(frozen=True)
class Draft:
    """A stored completion. `version` is the vLLM model name that wrote it ("base" or "copy-0007")."""

    id: int
    brief_id: int
    request_id: int
    version: str
    text: str
    channel: str
    ts: str
    prompt_tokens: int
    completion_tokens: int
    first_token_s: float | None
    total_s: float
    created_at: str


class Verdict(StrEnum):
    UP = "up"
    DOWN = "down"


class RatingSource(StrEnum):
    BUTTON = "button"
    REACTION = "reaction"


@dataclass(frozen=True)
class Rating:
    id: int
    draft_id: int
    user: str
    verdict: Verdict
    reason: str
    source: RatingSource
    created_at: str


@dataclass(frozen=True)
class Correction:
    id: int
    draft_id: int
    user: str
    text: str
    pair_id: int
    created_at: str


class PairSource(StrEnum):
    STARTER = "starter"
    IMPORT = "import"
    CORRECTION = "correction"
    ACCEPTED = "accepted"  # a draft that people rated 👍


class PairStatus(StrEnum):
    ACTIVE = "active"
    REPLACED = "replaced"  # a newer correction of the same draft took its place
    WITHDRAWN = "withdrawn"  # the rating that accepted it was taken back, or a person removed it


class Split(StrEnum):
    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class Pair:
    """What trains: instruction and input as the model reads them, output as it should answer."""

    id: int
    task: Task
    output: str
    source: PairSource
    status: PairStatus
    split: Split
    author: str
    draft_id: int | None
    created_at: str


class RoundState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Round:
    """One training run. `recipe` and `facts` are JSON objects (hyper-parameters; tokens, loss, seconds …)."""

    id: int
    version: str
    recipe: dict[str, Any]
    state: RoundState
    pairs: int
    data_digest: str
    facts: dict[str, Any]
    message: str
    started_at: str
    finished_at: str | None


@dataclass(frozen=True)
class Version:
    """A whole adapter on disk: directory, row and vLLM model name are the same word."""

    name: str
    round_id: int
    path: str
    digest: str
    base_model: str
    created_at: str


class Decision(StrEnum):
    APPROVED = "approved"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Promotion:
    """A lead's decision. `version` is what is live after it, or what was rejected; "" as digest means base.

    Attributes:
        told_at: when the channel was told.
    """

    id: int
    version: str
    digest: str
    decision: Decision
    user: str
    reason: str
    previous: str
    created_at: str
    told_at: str | None


@dataclass(frozen=True)
class Sample:
    """One generation of an evaluation. Append-only; `score` holds what the checks said of the stored text."""

    id: int
    scorecard_id: int
    item_id: str
    part: str  # "following" or "stability"
    repeat: int
    text: str
    grade: str
    score: dict[str, Any]
    created_at: str


@dataclass(frozen=True)
class Scorecard:
    """What an evaluation of one version found. `body` is the JSON that evals writes and the bot shows.

    Attributes:
        announced_looks: `looks` as it was when the channel had last got both message and picture; 0 before.
    """

    id: int
    version: str
    baseline: str
    suite: str
    seed: int
    body: dict[str, Any] | None  # None until finished
    announced_ts: str | None
    announced_channel: str | None
    created_at: str
    announced_looks: int = 0

    @property
    def looks(self) -> int:
        """How often a verdict was given: more than 1 once it was extended by further briefs."""
        return int((self.body or {}).get("looks", 1))


class RequestState(StrEnum):
    WAITING = "waiting"
    WRITTEN = "written"  # the draft is stored, and not yet shown whole
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(frozen=True)
class Request:
    """A draft that somebody waits for. It is a row before anybody is told "on it", so that no kill loses it."""

    id: int
    brief_id: int
    user: str
    channel: str
    thread_ts: str
    locale: str
    reply_ts: str | None
    state: RequestState
    created_at: str
