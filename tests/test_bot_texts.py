"""Texts, parsing, escapes and blocks: pure, so tested by equality."""

from __future__ import annotations

import string
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.blocks import draft_footer, reason_blocks
from bot.corrections import changed_blocks, difference
from bot.markup import markdown, plain_of, shown
from bot.parsing import says_nothing, task_from
from bot.texts import TEXTS, Words
from serving.card import Caveat, Reason, Verdict
from serving.prompt import task_of
from serving.records import Brief, CopydeskError, Correction, Draft, Requirements


def fields(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_say_the_same_things_with_the_same_values() -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    assert {key for key in TEXTS["en"] if fields(TEXTS["en"][key]) != fields(TEXTS["zh"][key])} == set()


def test_every_verdict_reason_and_caveat_of_a_scorecard_has_a_sentence() -> None:
    keys = [*(f"card_{v}" for v in Verdict), *(f"why_{r}" for r in Reason), *(f"caveat_{c}" for c in Caveat)]
    assert set(keys) <= TEXTS["en"].keys()


def test_an_error_without_a_sentence_of_its_own_is_shown_escaped() -> None:
    assert Words("en").of(CopydeskError("<!here> broke")).endswith("&lt;!here&gt; broke")
    assert Words("zh").of(CopydeskError("x", code="gone")) == "这一稿已经不在了，请重新提需求。"


@given(st.lists(st.text(alphabet="ab 1.#-*_<&>![]()`|~:/\n\\中", max_size=6)))
def test_more_text_never_changes_what_was_streamed(pieces: list[str]) -> None:
    texts = [markdown(text) for text in accumulate(pieces)]
    assert all(after.startswith(before) for before, after in pairwise(texts))


@given(st.text(alphabet="ab<&>!*中\n", max_size=30_000))
def test_what_is_shown_always_fits_a_markdown_block(text: str) -> None:
    assert len(shown(text)) <= 12_000


def test_what_people_type_arrives_plain() -> None:
    assert (
        plain_of("<@U1> a &lt;b&gt; <https://x.example|x> &amp; <https://y.example>") == "a <b> x & https://y.example"
    )


def test_a_difference_strikes_what_went_and_marks_what_came() -> None:
    assert difference("Warm for pages.", "Warm for *late* pages.") == "Warm for **\\*late\\*** pages."
    assert difference("保温六小时", "保温十二小时") == "保温~~六~~**十二**小时"


@pytest.mark.parametrize(
    ("text", "requirements"),
    [
        (
            "write a line for our Larkbeam desk lamp for students, warm light and folds flat, 30 words, calm tone, "
            "avoid cheap or best, no emoji",
            Requirements(
                product="Larkbeam desk lamp",
                audience="students",
                selling_points=(("warm light",), ("folds flat",)),
                tone="calm",
                length=(24, 36),
                emoji=(0, 0),
                call_to_action=True,
                must_not=("cheap", "best"),
            ),
        ),
        (
            "Product: Kettlewick oat bars\nAudience: hikers\nSelling points: honey; fits a pocket\nTone: dry\n"
            "Length: 25-40 words\nEmoji: 1-2\nCall to action: no",
            Requirements(
                product="Kettlewick oat bars",
                audience="hikers",
                selling_points=(("honey",), ("fits a pocket",)),
                tone="dry",
                length=(25, 40),
                emoji=(1, 2),
                call_to_action=False,
            ),
        ),
        (
            "给上班族写一段保温杯的文案，50字，语气温暖，不要说最好、第一，不用表情",
            Requirements(
                product="保温杯",
                audience="上班族",
                tone="温暖",
                length=(40, 60),
                emoji=(0, 0),
                call_to_action=True,
                must_not=("最好", "第一"),
            ),
        ),
        (
            "帮我写个小红书种草文案，便携榨汁杯，少女心一点",
            Requirements(product="便携榨汁杯", tone="少女心", length=(50, 80), emoji=(0, 0), call_to_action=True),
        ),
        (
            "写一句话，介绍青柠气泡水，20字以内",
            Requirements(product="青柠气泡水", length=(12, 20), emoji=(0, 0), call_to_action=True),
        ),
    ],
)
def test_a_brief_in_free_text_is_understood(text: str, requirements: Requirements) -> None:
    assert task_from(text).requirements == requirements


def test_a_text_without_a_product_is_the_instruction() -> None:
    task = task_from("something nice, please")
    assert (task.instruction, task.requirements) == ("something nice, please", Requirements())


@pytest.mark.parametrize(("text", "nothing"), [("Hello!", True), ("你好", True), ("lamp", True), ("保温杯文案", False)])
def test_a_greeting_is_no_brief(text: str, nothing: bool) -> None:
    assert says_nothing(text) is nothing


def test_a_draft_says_where_it_is_not_as_asked() -> None:
    brief = Brief(1, task_of(Requirements(product="Lamp", length=(16, 24)), "en"), "U", "C", "1.0", "now")
    draft = Draft(7, 1, 1, "copy-0003", "One two three - four.", "C", "2.0", 1, 256, None, 1.0, "now")
    line = draft_footer(draft, brief, Words("en"))[0]["elements"][0]["text"]
    assert line == "copy-0003 · 4 words · asked: 16–24 · cut off, it became too long"


def test_a_correction_that_is_mostly_new_is_shown_whole() -> None:
    draft = Draft(7, 1, 1, "base", "A lamp that shines on every page you read.", "C", "2.0", 1, 9, None, 1.0, "now")
    correction = Correction(1, 7, "U", "Warm light, folds flat. Try it tonight.", 1, "now")
    assert changed_blocks(draft, correction, Words("en"))[1]["text"] == "Warm light, folds flat. Try it tonight."


def test_a_draft_names_its_version_and_offers_what_can_be_done() -> None:
    task = task_of(Requirements(product="Lamp"), "en")
    brief = Brief(1, task, "U", "C", "1.0", "now")
    draft = Draft(7, 1, 1, "copy-0003", "One two three.", "C", "2.0", 1, 1, None, 1.0, "now")
    context, feedback, buttons = draft_footer(draft, brief, Words("en"))
    assert context["elements"] == [{"type": "mrkdwn", "text": "copy-0003 · 3 words"}]
    assert feedback["elements"] == [
        {
            "type": "feedback_buttons",
            "action_id": "rate",
            "positive_button": {"text": {"type": "plain_text", "text": "Good"}, "value": "up:7"},
            "negative_button": {"text": {"type": "plain_text", "text": "Not good"}, "value": "down:7"},
        }
    ]
    assert [(b["action_id"], b["value"]) for b in buttons["elements"]] == [("correct", "7"), ("again", "7")]


def test_reasons_are_one_tap_each() -> None:
    _, buttons = reason_blocks(7, Words("zh"))
    assert [b["text"]["text"] for b in buttons["elements"]] == [
        "没按需求",
        "事实有误",
        "语气不对",
        "太长或太短",
        "文风",
        "其他",
    ]
