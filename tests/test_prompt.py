"""A brief has one written form, in both languages."""

from __future__ import annotations

import pytest

from serving.prompt import messages, task_messages, task_of
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


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"length": [40, 20]}, "length must be"),
        ({"emoji": [1]}, "emoji must be"),
        ({"colour": "red"}, "unknown keys: colour"),
        ({"selling_points": 3}, "not of the expected form"),
    ],
)
def test_requirements_that_make_no_sense_are_refused_by_name(data: dict[str, object], problem: str) -> None:
    with pytest.raises(CopydeskError, match=problem):
        Requirements.from_mapping(data)
