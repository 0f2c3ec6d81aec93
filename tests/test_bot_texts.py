"""Texts, parsing, escapes and blocks: pure, so tested by equality."""

from __future__ import annotations

import re
import sqlite3
import string
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.blocks import draft_footer, reason_blocks
from bot.briefs import ask_view, task_in
from bot.corrections import changed_blocks, difference
from bot.markup import markdown, plain_of, shown
from bot.parsing import MAX_LENGTH, follows_up, says_nothing, task_from
from bot.ratings import thanks_for
from bot.sandbox.inputs import state_of
from bot.texts import TEXTS, Words
from serving.card import Caveat, Reason, Verdict
from serving.prompt import task_of
from serving.records import (
    Brief,
    CopydeskError,
    Correction,
    Draft,
    Pair,
    PairSource,
    PairStatus,
    Requirements,
    Split,
    Task,
)
from serving.registry import ADAPTER_FILES, Registry, digest_of
from serving.store import Store

ROOT = Path(__file__).parent.parent


def fields(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_say_the_same_things_with_the_same_values() -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    assert {key for key in TEXTS["en"] if fields(TEXTS["en"][key]) != fields(TEXTS["zh"][key])} == set()


def test_every_verdict_reason_and_caveat_of_a_scorecard_has_a_sentence() -> None:
    keys = [*(f"card_{v}" for v in Verdict), *(f"why_{r}" for r in Reason), *(f"caveat_{c}" for c in Caveat)]
    assert set(keys) <= TEXTS["en"].keys()


def test_every_error_with_a_code_has_a_sentence() -> None:
    sources = [path for package in ("bot", "serving") for path in (ROOT / package).rglob("*.py")]
    codes = {code for path in sources for code in re.findall(r'\bcode="(\w+)"', path.read_text())}
    assert {"not_saved", "file_missing", "files_changed", "adapter_refused"} <= codes
    assert {f"error_{code}" for code in codes} <= TEXTS["en"].keys()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_wrong_with_a_version_or_the_disk_is_said_in_the_readers_language(
    store: Store, tmp_path: Path, language: str
) -> None:
    words = Words(language)
    round = store.start_round({}, [], "d")
    version = store.finish_round(round.id, {}, path=str(tmp_path / round.version), digest="d", base_model="m")
    registry = Registry(store, ("U_MARA",))
    with pytest.raises(CopydeskError) as gone:
        registry.approve(version.name, user="U_MARA")
    for name in ADAPTER_FILES:
        (tmp_path / version.name).mkdir(exist_ok=True)
        (tmp_path / version.name / name).write_text("other")
    with pytest.raises(CopydeskError) as changed:
        registry.approve(version.name, user="U_MARA")
    with store.transaction() as db:
        db.execute("UPDATE versions SET digest = ?", [digest_of(tmp_path / version.name)])
    with pytest.raises(CopydeskError) as scored:
        registry.approve(version.name, user="U_MARA", digest="earlier")
    with pytest.raises(CopydeskError) as full, store.transaction():
        raise sqlite3.OperationalError("database or disk is full")
    with pytest.raises(CopydeskError) as unknown:
        store.version("copy-0009")
    said = [words.of(error.value) for error in (gone, changed, scored, full, unknown)]
    expected = ("file_missing", "files_changed", "other_files_scored", "not_saved", "no_version")
    values = {"version": version.name, "file": ADAPTER_FILES[0]}
    assert said[:4] == [words(f"error_{key}", **values) for key in expected[:4]]
    assert said[4] == words("error_no_version", version="copy-0009")


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("*Product:* Larkbeam lamp\n* *Avoid*: cheap", "Product: Larkbeam lamp\n* Avoid: cheap"),
        ("for our *Larkbeam* lamp, _calm_, ~cheap~ `30 words`", "for our Larkbeam lamp, calm, cheap 30 words"),
        ("*产品：*云朵枕，给*上班族*看", "产品：云朵枕，给上班族看"),
        ("**Tone:** dry, _*very*_ dry, *_so_ dry*", "Tone: dry, very dry, so dry"),
        ("```\nProduct: a *b*\n``` `a *b* c`", "Product: a *b* a *b* c"),
        ("*<https://x.example/_a_/|Lamp>* <https://x.example/_b_>", "Lamp https://x.example/_b_"),
        ("/copy for https://x.example/_c_", "/copy for https://x.example/_c_"),
    ],
)
def test_bold_and_the_like_are_no_part_of_what_people_type(text: str, said: str) -> None:
    assert plain_of(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "snake_case and __init__",
        "2*3*4, 5 * 3",
        "* item\n* item two",
        "*warm light\n*folds flat",
        "50~80 ~",
        "50字~80字，表情一~两个",
        "don`t, it`s",
        "____",
        "5 *",
    ],
)
def test_a_mark_that_stands_for_itself_stays(text: str) -> None:
    assert plain_of(text) == text


words_of_a_brief = st.text(alphabet="ab1", min_size=1, max_size=4)


@given(st.lists(words_of_a_brief, min_size=1), st.sampled_from(["*", "_", "~", "`"]))
def test_a_mark_inside_of_a_word_stays_and_one_around_words_goes(parts: list[str], mark: str) -> None:
    assert plain_of(mark.join(parts)) == mark.join(parts)
    assert plain_of(" ".join(f"{mark}{part}{mark}" for part in parts)) == " ".join(parts)


def test_a_difference_strikes_what_went_and_marks_what_came() -> None:
    assert difference("Warm for pages.", "Warm for *late* pages.") == "Warm for **\\*late\\*** pages."
    assert difference("保温六小时", "保温十二小时") == "保温~~六~~**十二**小时"


def test_what_stays_in_a_difference_is_escaped_in_every_paragraph() -> None:
    before = "A lamp for <!channel>.\n\n# 1 in *every* test by late readers."
    after = before.replace("late", "young")
    said = "A lamp for &lt;\\!channel&gt;.\n\n\\# 1 in \\*every\\* test by ~~late~~ **young** readers."
    assert difference(before, after) == said


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


@pytest.mark.parametrize(
    ("text", "must_not", "points"),
    [
        (
            "write a line for our lamp, avoid best, cheapest or guaranteed, 30 words",
            ("best", "cheapest", "guaranteed"),
            (),
        ),
        ("copy for our lotion. Never mention cures, heals or doctors.", ("cures", "heals", "doctors"), ()),
        ('copy for our lamp, avoid "best", "cheapest", folds flat', ("best", "cheapest"), ("folds flat",)),
        ("copy for our lamp, avoid cheap, warm light", ("cheap",), ("warm light",)),
        ("write a line for our lamp, avoid best, 30 words or less", ("best",), ()),
        ("为云朵枕写文案，不要说最好，第一或顶级，60字", ("最好", "第一", "顶级"), ()),
        ("为云朵枕写文案，不要说“最好”，“第一”，柔软", ("最好", "第一"), ("柔软",)),
    ],
)
def test_a_list_of_what_must_not_be_said_is_no_selling_point(
    text: str, must_not: tuple[str, ...], points: tuple[str, ...]
) -> None:
    requirements = task_from(text).requirements
    assert requirements.must_not == must_not
    assert requirements.selling_points == tuple((point,) for point in points)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("write a line for our bars, 1,200 calories, honey", ("1,200 calories", "honey")),
        ("Product: Bank\nSelling points: 3,000 mAh, warm light", ("3,000 mAh", "warm light")),
        (
            "Product: Lamp\nSelling points:\n1. Warm light, dimmable\n2) Weighs 1.5 kg",
            ("Warm light, dimmable", "Weighs 1.5 kg"),
        ),
        ("产品：运动衫\n卖点：\n1、透气\n2、轻", ("透气", "轻")),
        ("write copy for our lamp:\n- warm\n- flat", ("warm", "flat")),
        ("给我们的跑鞋写一段文案，1.5kg", ("1.5kg",)),
    ],
)
def test_numbers_in_selling_points_stay_whole_and_those_of_a_list_go(text: str, points: tuple[str, ...]) -> None:
    assert task_from(text).requirements.selling_points == tuple((point,) for point in points)


@pytest.mark.parametrize(
    ("length", "bounds"),
    [
        *((said, (18, 30)) for said in ("30 words or less", "30 words max", "not more than 30 words", "max. 30 words")),
        *((said, (18, 30)) for said in ("keep it under 30 words", "no longer than 30 words", "30 words or fewer")),
        *((said, (30, 45)) for said in ("at least 30 words", "no less than 30 words", "30 words or more")),
        ("between 20 and 30 words", (20, 30)),
        ("about 30 words", (24, 36)),
    ],
)
def test_a_limit_is_no_estimate_and_no_selling_point(length: str, bounds: tuple[int, int]) -> None:
    requirements = task_from(f"write a line for our lamp, {length}").requirements
    assert (requirements.length, requirements.selling_points) == (bounds, ())


@pytest.mark.parametrize(
    ("length", "bounds"),
    [
        *(
            (said, (30, 50))
            for said in ("不要超过50字", "别超过50字", "不能超过50字", "50字内", "50个字以内", "控制在50字以内")
        ),
        *((said, (50, 75)) for said in ("不少于50字", "至少50字", "50字以上")),
        ("50字左右", (40, 60)),
    ],
)
def test_a_chinese_limit_is_no_estimate_and_no_selling_point(length: str, bounds: tuple[int, int]) -> None:
    requirements = task_from(f"为云朵枕写文案，{length}").requirements
    assert (requirements.length, requirements.selling_points) == (bounds, ())


@pytest.mark.parametrize(
    "text",
    [
        *("can you make it shorter for Instagram?", "make it shorter for students", "make it shorter"),
        *("给学生写短一点", "来一段更短的文案", "再短一点"),
    ],
)
def test_words_about_a_draft_are_no_brief(text: str) -> None:
    assert task_from(text).requirements.product == ""
    assert follows_up(text)


def test_a_livelier_text_is_a_tone_and_no_product() -> None:
    requirements = task_from("给跑鞋写一段更有活力的文案").requirements
    assert (requirements.product, requirements.tone) == ("跑鞋", "有活力")


def test_a_brief_with_bold_labels_is_understood() -> None:
    text = "*Product:* Larkbeam lamp\n*Avoid*: cheap, best\n*Call to action:* no\n*Emoji:* none\n*Format:* list"
    assert task_from(plain_of(text)).requirements == Requirements(
        product="Larkbeam lamp",
        length=(25, 45),
        emoji=(0, 0),
        call_to_action=False,
        format="list",
        must_not=("cheap", "best"),
    )


@pytest.mark.parametrize(
    ("text", "language"),
    [("帮 Kettlewick Oat Bars 写一段文案", "zh"), ("write a line for our 茶 tea, 30 words", "en")],
)
def test_a_foreign_name_does_not_change_the_language_of_a_brief(text: str, language: str) -> None:
    assert task_from(text).language == language


def in_the_form(requirements: Requirements, language: str = "en") -> dict[str, str]:
    """What stands in the form after "Change", as it is submitted without a touch."""
    view = ask_view(Words(language), "C", task=task_of(requirements, language))
    state, errors = state_of(view["blocks"], {})
    assert errors == {}
    entries = {action: entry for actions in state.values() for action, entry in actions.items()}
    return {
        action: str(entry.get("value") or (entry.get("selected_option") or {}).get("value") or "")
        for action, entry in entries.items()
    }


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("emoji", [(0, 0), (1, 2), (3, 3), (0, 2), None])
@pytest.mark.parametrize("format", ["paragraph", "list"])
def test_what_is_not_touched_in_the_form_stays(language: str, emoji: tuple[int, int] | None, format: str) -> None:
    brief = Requirements(
        product="Larkbeam lamp",
        audience="students",
        selling_points=(("warm light",), ("folds flat",)),
        length=(20, 30),
        emoji=emoji,
        call_to_action=False,
        format=format,
        must_not=("cheap", "best"),
    )
    task = task_in({**in_the_form(brief, language), "tone": "dry"})
    assert task == task_of(replace(brief, tone="dry"), language)


def test_the_form_shows_the_number_of_emoji_that_a_brief_has() -> None:
    def shown(locale: str, emoji: tuple[int, int]) -> list[str]:
        view = ask_view(Words(locale), "C", task=task_of(Requirements(product="Lamp", emoji=emoji), "en"))
        (block,) = (block for block in view["blocks"] if block["block_id"] == "emoji")
        return [option["text"]["text"] for option in block["element"]["options"]]

    assert shown("en", (1, 2)) == ["None", "One or two", "As it comes"]
    assert shown("en", (3, 3)) == ["None", "One or two", "As it comes", "3 emoji"]
    assert shown("zh", (3, 5)) == ["不用", "一两个", "随意", "3–5 个表情"]


def test_a_form_in_the_language_of_the_brief_reads_more_than_the_name() -> None:
    values = {**in_the_form(Requirements(product="Kettlewick Oat Bars")), "language": "auto"}
    assert task_in({**values, "selling_points": "蜂蜜烘焙"}).language == "zh"
    assert task_in({**values, "selling_points": "honey, 茶"}).language == "en"


def test_a_length_that_cannot_be_written_becomes_the_longest_that_can() -> None:
    asked = task_from("Product: Lamp\nLength: 900 words").requirements.length
    assert asked == (MAX_LENGTH * 8 // 10, MAX_LENGTH)
    older = in_the_form(Requirements(product="Lamp", length=(800, 1000)))
    assert task_in(older).requirements.length == (MAX_LENGTH, MAX_LENGTH)


def test_a_text_without_a_product_is_the_instruction() -> None:
    task = task_from("something nice, please")
    assert (task.instruction, task.requirements) == ("something nice, please", Requirements())


@pytest.mark.parametrize(
    ("text", "nothing"),
    [
        *((text, True) for text in ("Hello!", "你好", "lamp", "Great, thank you!", "好的，谢谢啦")),
        *((text, False) for text in ("保温杯文案", "Good morning lamp for students")),
    ],
)
def test_a_greeting_is_no_brief(text: str, nothing: bool) -> None:
    assert says_nothing(text) is nothing


def test_a_draft_says_where_it_is_not_as_asked() -> None:
    brief = Brief(1, task_of(Requirements(product="Lamp", length=(16, 24)), "en"), "U", "C", "1.0", "now")
    draft = Draft(7, 1, 1, "copy-0003", "One two three - four.", "C", "2.0", 1, 256, None, 1.0, "now")
    line = draft_footer(draft, brief, Words("en"))[0]["elements"][0]["text"]
    assert line == "copy-0003 · 4 words · asked: 16–24 · cut off before its end"
    whole = draft_footer(replace(draft, text="one " * 25), brief, Words("en"))[0]["elements"][0]["text"]
    assert whole == "copy-0003 · 25 words · asked: 16–24 · cut off, it became too long"
    longer = Brief(1, task_of(Requirements(product="Lamp", length=(240, 300)), "en"), "U", "C", "1.0", "now")
    whole = draft_footer(replace(draft, text="one " * 250), longer, Words("en"))[0]["elements"][0]["text"]
    assert whole == "copy-0003 · 250 words"


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


@pytest.mark.parametrize(
    ("source", "split", "key"),
    [
        (PairSource.ACCEPTED, Split.TRAIN, "thanks_up"),
        (PairSource.CORRECTION, Split.TRAIN, "thanks_up_corrected"),
        (PairSource.ACCEPTED, Split.HELD_OUT, "thanks_up_held_out"),
    ],
)
def test_thanks_by_pair(source: PairSource, split: Split, key: str) -> None:
    assert thanks_for(Pair(1, Task("Write."), "text", source, PairStatus.ACTIVE, split, "", None, "")) == key


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
