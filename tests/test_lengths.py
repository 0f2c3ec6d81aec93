"""A text has room for what its brief asks for, within what the engine takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.parsing import MAX_LENGTH
from evals.plan import SAMPLING, Plan
from evals.suite import Suite, read_suite
from serving.client import Sampling
from serving.lengths import MAX_MODEL_LEN, TEMPLATE, tokens_for
from serving.prompt import task_of
from serving.records import Requirements, Task

SHIPPED = {language: read_suite(language) for language in ("en", "zh")}
POINTS = {"en": ("warm dimmable light", "folds flat"), "zh": ("保温十二小时", "一键开盖，单手就能喝")}


def lamp(high: int | None, language: str = "en", **more: str) -> Task:
    length = None if high is None else (1, high)
    points = tuple((point,) for point in POINTS[language])
    return task_of(Requirements(product="Larkbeam lamp", selling_points=points, length=length, **more), language)


@pytest.mark.parametrize(
    ("high", "language", "tokens"), [(None, "en", 256), (40, "en", 256), (300, "en", 600), (300, "zh", 780)]
)
def test_a_longer_text_may_take_more_tokens(high: int | None, language: str, tokens: int) -> None:
    assert tokens_for(lamp(high, language)) == tokens


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_longest_text_fits_beside_its_brief(language: str) -> None:
    assert tokens_for(lamp(MAX_LENGTH, language)) > MAX_LENGTH * 1.9
    assert tokens_for(lamp(MAX_LENGTH, language)) < tokens_for(lamp(MAX_LENGTH * 2, language))


def test_a_long_brief_leaves_less_room_and_never_less_than_before() -> None:
    longer = tokens_for(lamp(500, "zh", audience="早上只有五分钟的人" * 20))
    assert 256 < longer < tokens_for(lamp(500, "zh"))
    assert longer < MAX_MODEL_LEN - TEMPLATE
    assert tokens_for(lamp(500, "zh", audience="早上只有五分钟的人" * 100)) == 256


@pytest.mark.parametrize("suite", SHIPPED.values(), ids=SHIPPED)
def test_cards_of_the_shipped_suites_stay_comparable(suite: Suite) -> None:
    plan = Plan(suite)
    assert Sampling.max_tokens == SAMPLING.max_tokens
    assert {plan.sampling_for(item.task) for item in suite.items} == {SAMPLING}


def test_samples_of_a_suite_that_asks_for_more_are_not_those_that_were_cut() -> None:
    suite = SHIPPED["en"]
    longer = replace(suite, items=(replace(suite.items[0], task=lamp(300)), *suite.items[1:]))
    plan = Plan(longer)
    assert plan.sampling_for(longer.items[0].task).max_tokens == 600
    assert longer.digest == suite.digest
    assert plan.key("m") != Plan(suite).key("m")
