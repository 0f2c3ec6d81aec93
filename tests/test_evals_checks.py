"""What the checks say of good, bad and strange texts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals import text as reading
from evals.checks import Grade, score
from evals.lint import read_starter
from evals.repetition import repeats
from serving.prompt import length_of, task_of
from serving.records import Requirements, Task

MIST = Requirements(
    product="Luma Dew face mist",
    aliases=("Luma Dew",),
    audience="commuters",
    selling_points=(("aloe and cucumber", "aloe"), ("fits in a handbag",), ("never sticky",)),
    tone="fresh",
    length=(20, 45),
    emoji=(1, 1),
    call_to_action=True,
    must_not=("wow", "treat"),
)
GOOD = (
    "Luma Dew face mist wakes up dry skin on the morning train. Aloe and cucumber land as a light veil, "
    "the bottle fits in a handbag, and the finish is never sticky. Keep one in your bag today. 🌿"
)
MIST_ZH = Requirements(
    product="露米晨露喷雾",
    selling_points=(("芦荟黄瓜水",), ("放得进手提包",)),
    length=(20, 60),
    emoji=(0, 0),
    call_to_action=True,
    must_not=("神器",),
)
GOOD_ZH = "露米晨露喷雾陪你走过干燥的早高峰。芦荟黄瓜水细细落下，小小一瓶放得进手提包。今天就在包里放一瓶。"


def english(**changes: object) -> Task:
    return task_of(Requirements(**{**MIST.__dict__, **changes}), "en", "beauty")  # type: ignore[arg-type]


def chinese(**changes: object) -> Task:
    return task_of(Requirements(**{**MIST_ZH.__dict__, **changes}), "zh", "beauty")  # type: ignore[arg-type]


def missed(text: str, task: Task) -> set[str]:
    return {check.kind for check in score(text, task).checks if not check.passed}


def test_a_text_that_meets_everything_is_excellent_in_both_languages() -> None:
    assert score(GOOD, english()).reasons == ()
    assert score(GOOD, english()).grade is Grade.EXCELLENT
    assert score(GOOD_ZH, chinese()).reasons == ()
    assert score(GOOD_ZH, chinese()).grade is Grade.EXCELLENT


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_starter_pair_is_excellent(language: str) -> None:
    pairs = read_starter(language)
    assert len(pairs) >= 200
    assert [(pair.id, found) for pair in pairs if (found := score(pair.output, pair.task).reasons)] == []


@pytest.mark.parametrize(
    ("change", "kind", "grade"),
    [
        (("Luma Dew face mist", "This mist"), "product", Grade.FAIL),
        (("fits in a handbag", "is small"), "selling_points", Grade.FAIL),
        (("on the morning train", "on the morning train, wow"), "must_not", Grade.FAIL),
        (("Luma Dew face mist wakes", "Sure! Luma Dew face mist wakes"), "wrapping", Grade.FAIL),
        (("a light veil", "a guaranteed light veil"), "claims", Grade.FAIL),
        (("a light veil", "the best light veil"), "wording", Grade.ACCEPTABLE),
        ((" Aloe and cucumber land as a light veil,", " Aloe,"), "length", Grade.EXCELLENT),
        ((" 🌿", ""), "emoji", Grade.ACCEPTABLE),
        (("🌿", "🌿🌿"), "emoji", Grade.ACCEPTABLE),
        (("Keep one in your bag today.", "It is small."), "call_to_action", Grade.ACCEPTABLE),
        (("train. ", "train.\n\n"), "format", Grade.ACCEPTABLE),
    ],
)
def test_one_missed_requirement_decides_the_grade(change: tuple[str, str], kind: str, grade: Grade) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    found = score(text, english())
    assert found.grade is grade
    assert missed(text, english()) == (set() if grade is Grade.EXCELLENT else {kind})


def test_an_alias_or_another_phrasing_counts() -> None:
    text = GOOD.replace("Luma Dew face mist", "LUMA DEW").replace("Aloe and cucumber land", "Aloe lands")
    assert score(text, english()).grade is Grade.EXCELLENT


@pytest.mark.parametrize(
    ("product", "text"),
    [
        ("TrailPeak Daypack", "TrailPeak® Daypack carries the weekend."),
        ("TrailPeak Daypack", "TrailPeak™ Daypack carries the weekend."),
        ("TrailPeak™ Daypack", "TrailPeak Daypack carries the weekend."),
        ("iPhone 15 手机壳", "iPhone 15手机壳轻薄耐摔。"),
        ("iPhone 15手机壳", "iPhone 15 手机壳轻薄耐摔。"),
        ("云栖Pro枕头", "云栖 Pro 枕头撑住肩颈。"),
        ("云栖 Pro 枕头", "云栖Pro枕头撑住肩颈。"),
    ],
)
def test_a_product_is_named_with_or_without_trademark_signs_and_spaces(product: str, text: str) -> None:
    task = english if product.startswith("T") else chinese
    assert "product" not in missed(text, task(product=product, aliases=()))


def test_quotes_hyphens_and_full_width_forms_are_equal() -> None:
    task = english(selling_points=(("20-hour battery",), ("driver's pick",)), product="K9 Go", aliases=(), length=None)
    curly = "Ｋ９ Go has a 20‑hour battery and is the driver’s pick. Take one today. 🌿"
    assert score(curly, task).reasons == ()


def test_a_word_inside_another_is_not_that_word() -> None:
    assert "must_not" not in missed(GOOD.replace("dry skin", "entreaty skin"), english())
    assert "must_not" in missed(GOOD.replace("dry skin", "treated skin"), english())
    for said in ("must-have", "must have"):
        for forbidden in ("must-have", "must have"):
            assert "must_not" in missed(f"{GOOD} A {said}.", english(must_not=(forbidden,)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("   \n\t ", "empty"),
        ("🌿🌿🌿", "only emoji"),
        ("… — !!!", "only emoji"),
        (english().instruction + "\n\n" + english().input, "repeats the brief"),
        ("Audience: commuters\nTone: fresh\nLuma Dew", "repeats the brief"),
        ("Sure! Luma Dew. Audience: commuters Tone: fresh", "repeats the brief"),
    ],
)
def test_no_answer_fails_with_one_reason(text: str, said: str) -> None:
    found = score(text, english())
    assert found.grade is Grade.FAIL
    assert len(found.reasons) == 1
    assert said in found.reasons[0]


@pytest.mark.parametrize(
    ("text", "task"),
    [
        (GOOD_ZH, english()),
        (GOOD, chinese()),
        (
            "La brume Luma Dew réveille la peau sèche dans le train, avec une touche de concombre et pour le sac.",
            english(),
        ),
        ("Luma Dew is een mooie spray met komkommer voor lezers die van een frisse huid houden.", english()),
        ("Luma Dew ist schön und hat einen Duft nach Gurke, mit kühlem Nebel für alle im Zug.", english()),
        (
            "Semprotan Luma Dew menyegarkan kulit kering setiap pagi dengan sentuhan mentimun segar, ringan dibawa ke "
            "kantor, cocok untuk perjalanan panjang naik kereta.",
            english(),
        ),
        (GOOD.replace("dry skin", "dry skin 皮肤"), english()),
        (GOOD.replace("dry skin", "dry skin ミスト"), english()),
        (GOOD_ZH.replace("小小一瓶", "小小の一瓶"), chinese()),
        ("Это спрей Luma Dew для лица, который освежает кожу каждое утро.", english()),
        ("露米のミストは、かわいた肌にうるおいをあたえます。かばんにはいります。", chinese()),
    ],
)
def test_another_language_fails(text: str, task: Task) -> None:
    assert "language" in missed(text, task)


@pytest.mark.parametrize(
    ("product", "points", "text"),
    [
        (
            "Wrenfold laundry basket",
            ("folds flat", "soft rope handles", "holds two full loads"),
            "Wrenfold laundry basket:\n- Folds flat in seconds\n- Soft rope handles\n- Holds two full loads\n"
            "- Machine-washable cotton liner\n- Fits most closets\nOrder yours before Sunday's laundry pile grows.",
        ),
        (
            "TrailPeak hydration pack",
            ("2-liter insulated reservoir", "breathable mesh shoulder straps"),
            "TrailPeak hydration pack\n• 2-liter insulated reservoir\n• Breathable mesh shoulder straps\n"
            "• Quick-release bite valve\n• Reflective trim, night runs included\nGrab yours today!",
        ),
    ],
)
def test_a_terse_list_in_the_words_of_its_brief_is_english(product: str, points: tuple[str, ...], text: str) -> None:
    task = english(product=product, aliases=(), selling_points=tuple((point,) for point in points), format="list")
    assert "language" not in missed(text, task)


def test_a_name_in_another_script_belongs_to_the_brief_that_has_it() -> None:
    both = english(product="Luma Dew 露米 face mist")
    assert "language" not in missed(GOOD.replace("Luma Dew", "Luma Dew 露米"), both)
    assert "language" not in missed(GOOD_ZH.replace("芦荟", "Aloe芦荟"), chinese())


@pytest.mark.parametrize(
    "bullet", ["- ", "-", "* ", "• ", "•", "1. ", "1.", "1) ", "1、", "（1）", "①", "一、", "✅ ", "★"]
)
def test_a_list_is_told_by_its_bullets(bullet: str) -> None:
    assert reading.list_items(f"{bullet}轻便\n{bullet}防水") == ["轻便", "防水"]


@pytest.mark.parametrize(
    "line", ["1.5 litres of tea", "**Light** and warm", "-5 degrees outside", "——来自山里", "2024年新款"]
)
def test_a_line_of_prose_is_no_list(line: str) -> None:
    assert reading.list_items(line) == []


def test_twenty_thousand_characters_are_too_long_and_no_more() -> None:
    long = " ".join(" ".join(pair.output.split()) for pair in read_starter("en"))
    assert len(long) > 20_000
    assert missed(f"{GOOD} {long}", english(emoji=None, call_to_action=None, must_not=())) == {"length"}


@pytest.mark.parametrize(
    "text",
    [
        "so so so so",
        "Luma Dew is soft and light. " * 4,
        "It is soft and it is light, and the light is soft. " * 3,
        "轻盈轻盈轻盈轻盈",
        "好好好好好好",
        "芦荟黄瓜水细细落下，小小一瓶放得进手提包。" * 2 + "细细落下，小小一瓶放得进手提包。芦荟黄瓜水。" * 2,
    ],
)
def test_a_text_that_goes_in_circles_fails(text: str) -> None:
    assert repeats(text) is not None
    zh = not text.isascii()
    found = score(GOOD_ZH + text if zh else GOOD + " " + text, chinese(length=None) if zh else english(length=None))
    assert found.grade is Grade.FAIL
    assert "repetition" in {check.kind for check in found.checks if not check.passed}


@pytest.mark.parametrize(
    "text",
    [
        "Go, go, go! Luma Dew is soft, Luma Dew is light, Luma Dew is yours.",
        "- Soft for men\n- Soft for women\n- Soft for children\n- Soft for all of them at home",
        "Day after day after day, call 555 010 010 for the 10,000,000 bottle prize.",
        "哈哈哈哈，一口接一口，一天又一天。",
        "买它！买它！买它！轻轻松松，干干净净，舒舒服服，漂漂亮亮。",
    ],
)
def test_slogans_and_lists_may_repeat_a_word(text: str) -> None:
    assert repeats(text) is None


def test_a_long_text_of_people_does_not_count_as_repeating_itself() -> None:
    for language in ("en", "zh"):
        assert repeats("\n".join(pair.output for pair in read_starter(language))) is None


def test_a_decomposed_text_is_read_like_a_composed_one() -> None:
    task = english(product="Café Noé", aliases=(), length=None)
    assert "product" not in missed("Cafe\u0301 Noe\u0301 is open", task)


def test_a_list_gives_each_selling_point_its_line() -> None:
    task = english(format="list", length=None)
    good = "Luma Dew face mist:\n- aloe and cucumber\n- fits in a handbag\n- never sticky\nKeep one close. 🌿"
    assert score(good, task).reasons == ()
    assert missed(good.replace("\n- never sticky", " never sticky"), task) == {"format"}
    assert missed(GOOD, task) == {"format"}
    assert missed(good, english(length=None)) == {"format"}


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("™ © 1 #", 0), ("👩‍👩‍👧", 1), ("🇨🇳🇺🇸", 2), ("👍🏽", 1), ("❤️", 1), ("☕", 1), ("1️⃣", 1), ("🌿🌿", 2)],
)
def test_emoji_are_counted_as_people_see_them(text: str, count: int) -> None:
    assert reading.emoji(text) == count


def test_lengths_are_words_or_han_characters() -> None:
    assert length_of("- A 20-hour battery, yes. 🌿", "en") == 4
    assert length_of("iPhone 手机壳，很轻。", "zh") == 5


REQUIREMENTS = st.builds(
    Requirements,
    product=st.text(max_size=12),
    selling_points=st.lists(st.lists(st.text(max_size=8), min_size=1, max_size=2).map(tuple), max_size=3).map(tuple),
    length=st.sampled_from([None, (0, 5), (3, 40)]),
    emoji=st.sampled_from([None, (0, 0), (1, 2)]),
    call_to_action=st.sampled_from([None, True, False]),
    format=st.sampled_from(["paragraph", "list"]),
    must_not=st.lists(st.text(max_size=6), max_size=2).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=300), requirements=REQUIREMENTS, language=st.sampled_from(["en", "zh"]))
def test_any_text_gets_a_grade_that_follows_from_its_checks(
    text: str, requirements: Requirements, language: str
) -> None:
    found = score(text, task_of(requirements, language))
    primary = any(check.primary and not check.passed for check in found.checks)
    assert (found.grade is Grade.FAIL) == primary
    assert (found.grade is Grade.EXCELLENT) == (not found.reasons)
    assert all(bool(check.reason) != check.passed for check in found.checks)


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(["soft", "light", "warm"]), min_size=1, max_size=60))
def test_more_words_never_turn_too_long_into_fine(words: list[str]) -> None:
    task = english(length=(5, 20))
    count = len(words)
    assert ("length" in missed(" ".join(words), task)) == (not 5 <= count <= 20)
