"""What is planted must be found: regressions, leaks, memorisers, strange texts; and equals must not be called worse."""

from __future__ import annotations

import gc
import random
import unicodedata
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.checks import Grade, loose_grades, score
from evals.leaks import leaked
from evals.lint import read_starter
from evals.plan import STABILITY, Call, Plan
from evals.scorecard import Subject, make_card
from evals.style import consistency
from evals.suite import read_suite
from evals.text import tokens
from serving.card import Card, Caveat, Reason, Verdict
from serving.records import Sample

SHIPPED = {language: read_suite(language) for language in ("en", "zh")}


def written(plan: Plan, write: Callable[[Call], str], name: str = "copy-0001") -> Subject:
    samples = {
        call.key: Sample(0, 0, call.item.id, call.part, call.repeat, write(call), "", {}, "") for call in plan.calls()
    }
    return Subject(name, "", samples)


def excellent(call: Call) -> str:
    return call.item.references[call.repeat % 2]


def failing(call: Call) -> str:
    return {"en": "Something nice for everyone.", "zh": "大家都会喜欢的好东西。"}[call.item.task.language]


def mixed(share: float, seed: int) -> Callable[[Call], str]:
    rng = random.Random(seed)
    return lambda call: excellent(call) if rng.random() < share else failing(call)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_reference_with_every_sixth_word_changed_is_a_leak(language: str) -> None:
    items, pairs = SHIPPED[language].items, []
    for item in items:
        words = list(tokens(item.references[1]))
        words[5::6] = ["other"] * len(words[5::6])
        pairs.append((replace(item.task, instruction="Another brief."), " ".join(words)))
    assert set(leaked(items, pairs)) == {item.id for item in items}


def card_of(
    plan: Plan, new: Callable[[Call], str], live: Callable[[Call], str], training: tuple[str, ...] = ()
) -> Card:
    return make_card(plan, written(plan, new), written(plan, live, "base"), base_model="toy", training=training)


@pytest.mark.parametrize("collects", [True, False])
def test_a_card_leaves_the_collector_as_it_was(collects: bool) -> None:
    plan = Plan(SHIPPED["en"], items=2, briefs=1, repeats=2)
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        card_of(plan, excellent, excellent)
        assert gc.isenabled() is collects
        with pytest.raises(KeyError):
            make_card(plan, Subject("unwritten", "", {}), None, base_model="toy")
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("items", [20, 50])
def test_thirty_points_fewer_than_live_are_a_fail(language: str, items: int) -> None:
    plan = Plan(SHIPPED[language], items=items, briefs=2, repeats=2)
    worse = {item.id for item in plan.following()[: items * 3 // 10]}
    card = card_of(plan, lambda call: failing(call) if call.item.id in worse else excellent(call), excellent)
    assert (card.verdict, card.reason) == (Verdict.FAIL, Reason.WORSE_THAN_LIVE)
    assert card.reason_values["lost"] == items * 3 // 10


@pytest.mark.parametrize("share", [0.8, 0.9])
def test_identical_versions_are_hardly_ever_called_worse(share: float) -> None:
    plan = Plan(SHIPPED["en"], items=20, briefs=1, repeats=2)
    cards = [card_of(plan, mixed(share, seed), mixed(share, seed + 1000)) for seed in range(100)]
    assert sum(card.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE) for card in cards) >= 95


def test_the_same_texts_are_never_called_worse() -> None:
    for language, suite in SHIPPED.items():
        card = card_of(Plan(suite, items=20, briefs=2, repeats=2), excellent, excellent)
        assert (card.verdict, card.language) == (Verdict.PASS, language)
        assert card.excellent_difference is not None
        assert (card.excellent_difference.value, card.excellent_difference.p) == (0.0, 1.0)


def test_a_version_that_is_less_stable_than_live_does_not_pass() -> None:
    plan = Plan(SHIPPED["en"], items=40, briefs=10, repeats=5)
    shaky = {item.id for item in plan.stability()[:6]}

    def once_wrong(call: Call) -> str:
        return (
            failing(call) if call.part == STABILITY and call.repeat == 4 and call.item.id in shaky else excellent(call)
        )

    card = card_of(plan, once_wrong, excellent)
    assert (card.verdict, card.reason) == (Verdict.INCONCLUSIVE, Reason.LESS_STABLE)
    assert card.reason_values["repeats"] == 5
    assert 0 < float(card.reason_values["low"]) < 0.6 < float(card.reason_values["high"])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_memoriser_is_named_with_what_it_copied(language: str) -> None:
    training = tuple(pair.output for pair in read_starter(language))
    plan = Plan(SHIPPED[language], items=10, briefs=2, repeats=2)
    card = card_of(plan, lambda call: training[call.repeat], excellent, training)
    assert Caveat.MEMORISED in card.caveats
    assert card.memorised is not None
    assert (card.memorised.count, card.memorised.total) == (14, 14)
    assert card.memorised.longest >= 13
    assert card.memorised.words[:6].casefold() in f"{training[0]} {training[1]}".casefold()
    honest = card_of(plan, excellent, excellent, training)
    assert honest.memorised is None


def test_one_forbidden_claim_fails_a_card_and_is_shown_first() -> None:
    plan = Plan(SHIPPED["en"], items=20, briefs=2, repeats=2)
    guilty = plan.following()[3]
    card = card_of(
        plan,
        lambda call: excellent(call).replace(".", ", guaranteed.", 1) if call.item == guilty else excellent(call),
        excellent,
    )
    assert (card.verdict, card.reason) == (Verdict.FAIL, Reason.FORBIDDEN_CLAIM)
    assert card.reason_values["item"] == guilty.id
    assert card.reason_values["product"] == guilty.task.requirements.product
    assert "guarantee" in str(card.reason_values["claim"])
    assert card.worst[0].item_id == guilty.id


STRANGE: dict[str, Callable[[Call], str]] = {
    "empty": lambda call: "",
    "white space": lambda call: " \n\t\u3000 ",
    "only emoji": lambda call: "🌿✨👩‍👩‍👧",
    "20,000 characters": lambda call: (excellent(call) * 200)[:20_000],
    "the brief again": lambda call: f"{call.item.task.instruction}\n\n{call.item.task.input}",
    "another language": lambda call: excellent(
        Call(SHIPPED["zh" if call.item.task.language == "en" else "en"].items[0], call.part, call.repeat)
    ),
    "control characters": lambda call: "\x00\ufffd\u202e" * 10,
    "half a surrogate pair": lambda call: "\ud83c" + failing(call),
}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("what", list(STRANGE))
def test_strange_texts_are_scored_and_never_pass(language: str, what: str) -> None:
    card = card_of(Plan(SHIPPED[language], items=6, briefs=2, repeats=2), STRANGE[what], excellent)
    assert card.verdict is Verdict.FAIL
    assert card.candidate.grades == {"excellent": 0, "acceptable": 0, "fail": 6}
    assert card.candidate.pass_k[-1].value == 0.0
    assert all(sample.reasons for sample in card.worst)
    assert all(0 <= metric.value <= 1 for metric in card.candidate.metrics)


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in text)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_how_a_text_is_encoded_does_not_change_its_grade(language: str) -> None:
    for item in SHIPPED[language].items:
        for text in item.references:
            assert score(unicodedata.normalize("NFD", text), item.task).grade is Grade.EXCELLENT
            assert score(f"\n {text}  \n", item.task).grade is Grade.EXCELLENT
            if language == "zh":
                assert score(full_width(text), item.task).grade is Grade.EXCELLENT


GRADES = (Grade.FAIL, Grade.ACCEPTABLE, Grade.EXCELLENT)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), before=st.text(max_size=30), after=st.text(max_size=30))
def test_read_loosely_no_text_gets_worse(data: st.DataObject, before: str, after: str) -> None:
    item = data.draw(st.sampled_from(SHIPPED[data.draw(st.sampled_from(["en", "zh"]))].items))
    text = f"{before}\n{item.references[0]}\n{after}"
    strict = score(text, item.task)
    assert GRADES.index(loose_grades([(text, item.task)], [strict])[0]) >= GRADES.index(strict.grade)


def test_good_copy_in_a_wrapping_is_excellent_only_loosely() -> None:
    item = SHIPPED["en"].items[0]
    text = f"Sure! Here is the product copy that you asked me for:\n**{item.references[0]}**\nLet me know if it works!"
    strict = score(text, item.task)
    assert strict.grade is not Grade.EXCELLENT
    assert loose_grades([(text, item.task)], [strict])[0] is Grade.EXCELLENT


def test_texts_in_one_style_are_more_alike_than_texts_in_two() -> None:
    plain = ["You get the lid, the cup and the spoon.", "You get the bag, the strap and the key."]
    loud = ["WOW! Cup?! Yes!!! (Now - or never...)", "Bag! Big! Bold!!! (Go - now...)"]
    assert consistency(plain, "en") > consistency([plain[0], loud[0]], "en")
    assert consistency([plain[0]] * 3, "en") == pytest.approx(1.0)
    assert consistency(["杯子。", ""], "zh") == consistency(["x"], "en") == 0.0
