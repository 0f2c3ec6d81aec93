"""A brief has one written form, in both languages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serving.prompt import language_of, messages, task_messages, task_of
from serving.records import CopydeskError, Requirements

FULL = Requirements(
    product="Alder lamp",
    audience="students who read late",
    selling_points=(("warm light", "soft light"), ("folds flat",)),
    tone="calm",
    length=(25, 40),
    emoji=(0, 0),
    call_to_action=True,
    must_not=("perfect", "best"),
)


def test_an_english_brief_reads_line_by_line() -> None:
    task = task_of(FULL, "en", "home")
    assert task.instruction == "Write product copy for Alder lamp."
    assert task.input == (
        "Audience: students who read late\nSelling points: warm light; folds flat\nTone: calm\nLength: 25-40 words\n"
        "Format: paragraph\nEmoji: none\nCall to action: yes\nAvoid: perfect, best"
    )


def test_a_chinese_brief_reads_line_by_line() -> None:
    requirements = Requirements(
        product="露米台灯", selling_points=(("暖光",),), length=(50, 80), emoji=(1, 1), call_to_action=False
    )
    task = task_of(requirements, "zh", "home")
    assert task.instruction == "为「露米台灯」写一段产品文案。"
    assert task.input == "卖点：暖光\n长度：50-80字\n格式：段落\n表情：1个\n行动号召：不要"


def test_what_is_not_asked_for_is_not_in_the_prompt() -> None:
    assert task_of(Requirements(product="X"), "en").input == "Format: paragraph"


def test_the_desk_speaks_first_and_the_brief_is_one_turn() -> None:
    roles = [message["role"] for message in task_messages(task_of(FULL, "en"))]
    assert roles == ["system", "user"]
    assert messages("Write.", "", "en")[1]["content"] == "Write."
    assert messages("Write.", "Tone: calm", "en")[1]["content"] == "Write.\n\nTone: calm"


def test_requirements_survive_their_json() -> None:
    assert Requirements.from_json(FULL.to_json()) == FULL
    assert Requirements.from_json(Requirements().to_json()) == Requirements()


def test_a_stored_value_that_no_file_may_bring_any_more_is_as_not_asked_for() -> None:
    odd = replace(FULL, format="bullets", call_to_action="no", must_not=("best", 3), aliases=("A", "l"))  # type: ignore[arg-type]
    assert Requirements.from_json(odd.to_json()) == replace(
        FULL, format="paragraph", call_to_action=None, must_not=(), aliases=("A", "l")
    )
    with pytest.raises(CopydeskError, match="unknown keys: colour"):
        Requirements.from_json('{"colour": "red"}')


def test_lists_and_tuples_are_read_alike() -> None:
    data = {"selling_points": ("warm", ["flat", "thin"]), "must_not": ["best"], "length": (1, 2), "format": "list"}
    assert Requirements.from_mapping(data) == Requirements(
        selling_points=(("warm",), ("flat", "thin")), must_not=("best",), length=(1, 2), format="list"
    )


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"length": [40, 20]}, "length must be"),
        ({"emoji": [1]}, "emoji must be"),
        ({"colour": "red"}, "unknown keys: colour"),
        ({"length": 20}, "length must be"),
        ({"emoji": [False, True]}, "emoji must be"),
        ({"length": "20"}, "length must be"),
        ({"product": None}, "product must be a text, not None"),
        ({"aliases": "Alder"}, "aliases must be a list of texts, not 'Alder'"),
        ({"must_not": "best"}, "must_not must be a list of texts"),
        ({"must_not": ["best", 3]}, "must_not must be a list of texts"),
        ({"selling_points": 3}, "selling_points must be a list, not 3"),
        ({"selling_points": "warm light"}, "selling_points must be a list, not 'warm light'"),
        ({"selling_points": ["warm", 3]}, "each of selling_points must be a list of texts, not 3"),
        ({"selling_points": ["warm", []]}, "selling_points must not hold an empty list"),
        ({"format": "bullets"}, "format must be paragraph or list, not 'bullets'"),
        ({"call_to_action": "no"}, "call_to_action must be true, false or null, not 'no'"),
        ({"call_to_action": 1}, "call_to_action must be"),
    ],
)
def test_requirements_that_make_no_sense_are_refused_by_name(data: dict[str, object], problem: str) -> None:
    with pytest.raises(CopydeskError, match=problem):
        Requirements.from_mapping(data)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("露米 Luma 晨露喷雾, 30ml", "zh"),
        ("Luma Dew face mist", "en"),
        ("123 …", "en"),
        ("", "en"),
        ("帮 Kettlewick Oat Bars 写一段文案", "zh"),
        ("帮 kettlewick bars 写一段文案", "zh"),
        ("Kettlewick Oat Bars 蜂蜜烘焙", "zh"),
        ("保温12h，500ml", "zh"),
        ("for our 茶 tea, write a line", "en"),
        ("Write a line for 云朵保温杯", "en"),
    ],
)
def test_the_language_is_that_of_more_words_and_names_count_less(text: str, language: str) -> None:
    assert language_of(text) == language
