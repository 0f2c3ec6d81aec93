"""Figures as people read them: rounding tells nobody that a bar was met which was missed."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from cards import example_card
from hypothesis import given
from hypothesis import strategies as st

from bot.charts import bars, step_of, trend
from bot.scorecards import card_blocks, fallback_text, repetitions, table_rows
from bot.texts import Words
from evals.chart import render_chart
from evals.report import Report, render_report
from evals.tables import print_card, print_list
from serving.card import (
    Agreement,
    Card,
    Caveat,
    Difference,
    Estimate,
    Judged,
    Memorised,
    People,
    Rate,
    Reason,
    Verdict,
)
from serving.counts import wilson
from serving.records import Scorecard
from serving.shares import percent, points, with_interval
from serving.store import Store


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.8, "80 %"), (0.796, "79.6 %"), (0.804, "80.4 %"), (0.7997, "79.97 %"), (0.793, "79 %"), (0.0, "0 %")],
)
def test_a_share_beside_the_bar_keeps_to_its_side(share: float, shown: str) -> None:
    assert percent(share, 0.8) == shown


@given(total=st.integers(1, 400), data=st.data())
def test_no_interval_reads_as_if_it_met_a_bar_that_it_misses(total: int, data: st.DataObject) -> None:
    rate = wilson(data.draw(st.integers(0, total)), total)
    low, high = with_interval(rate, 0.8).split("[")[1].rstrip("]").split(", ")
    assert (float(low) >= 80) == (rate.low >= 0.8)
    assert (float(high) < 80) == (rate.high < 0.8)


def test_a_difference_that_is_not_zero_does_not_read_so() -> None:
    assert points(Difference(0.05, 0.003, 0.1, 0.04)) == "+5 [+0.3, +10]"
    assert points(Estimate(0.0, -0.16, 0.16)) == "0 [-16, +16]"


@pytest.mark.parametrize(("language", "sentence"), [("en", "worse than copy-0003:"), ("zh", "比copy-0003差")])
def test_a_card_names_what_it_was_compared_with_whatever_is_live_later(language: str, sentence: str) -> None:
    values: dict[str, float | int | str] = {"gained": 0, "lost": 6, "p": 0.03}
    card = replace(example_card(), baseline="copy-0003", language=language, reason_values=values)
    card = replace(card, reason=Reason.WORSE_THAN_LIVE, verdict=Verdict.FAIL)
    scorecard = Scorecard(1, "copy-0001", "copy-0003", "en@x", 1, card.to_json(), None, None, "2026-01-01T00:00:00")
    assert sentence in fallback_text(card, Words(language))
    assert sentence in render_report(Report(scorecard, card, (), (), ""))


def unmeasured() -> Card:
    """No brief asked several times, single references, nobody graded the baseline, a judge that answered nothing."""
    card = example_card()
    arms = [
        replace(arm, briefs=(), pass_k=(), metrics=tuple(replace(one, ceiling=None) for one in arm.metrics))
        for arm in (card.candidate, card.live)
        if arm
    ]
    people = People(1, wilson(3, 4), wilson(0, 0), Agreement(None, 4), None, 0)
    judged = Judged("arbiter", wilson(0, 0), wilson(0, 0), 0, 0, 0, 12, Agreement(None, 0))
    card = replace(card, candidate=arms[0], live=arms[1], stability_difference=None, people=people, judged=judged)
    assert Card.from_json(json.loads(json.dumps(card.to_json()))) == card
    return card


def test_what_nobody_measured_reads_so_and_not_as_zero(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    card = unmeasured()
    started = store.start_scorecard("copy-0001", baseline="base", suite="en@x", seed=1)
    scorecard = store.finish_scorecard(started.id, card.to_json())
    for language, said in (("en", "not measured"), ("zh", "尚未测")):
        words = Words(language)
        rows = {row[0]: row[1:] for row in table_rows(card, words)}
        assert rows[words("stability", k=5)] == [said, said, "–", "0"]
        assert rows[words("excellent_by_people")][0] == said
        assert fallback_text(card, words).count(said) == 1
        assert words("chart_stable", k=5) not in json.dumps(bars(card, words), ensure_ascii=False)
        blocks = json.dumps(card_blocks(scorecard, card, words), ensure_ascii=False)
        report = render_report(Report(scorecard, replace(card, language=language), (), (), ""))
        for told in (blocks, re.sub(r'<text class="tick".*?</text>', "", report)):
            assert told.count(said) > 4
            assert not re.search(r"(?<!\d)0 %", told)
    assert render_chart(card).startswith(b"\x89PNG")
    print_card(scorecard)
    print_list([scorecard])
    told = capsys.readouterr().out
    assert not re.search(r"(?<!\d)0 %", told)
    assert "0 of 0" not in told
    assert told.count("not measured") > 8


def test_a_trend_leaves_out_what_some_version_lacks() -> None:
    steps = [step_of(example_card(), False), step_of(unmeasured(), False)]
    (chart,) = trend(steps, Words("en"), 0.8)
    assert [series["name"] for series in chart["chart"]["series"]] == ["excellent"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_card_counts_what_is_copied_and_what_is_always_the_same(language: str) -> None:
    card, words = example_card(), Words(language)
    assert repetitions(card, words) == ""
    similar = tuple(replace(brief, too_similar=brief.met == 5) for brief in card.candidate.briefs)
    card = replace(card, memorised=Memorised(2, 45, 17, "en-007", "…"), caveats=(Caveat.MEMORISED,))
    card = replace(card, candidate=replace(card.candidate, briefs=similar))
    scorecard = Scorecard(1, "copy-0001", "base", "en@x", 1, card.to_json(), None, None, "2026-01-01T00:00:00")
    line = words("memorised", count=2, total=45) + " " + words("too_similar", count=3, total=5)
    told = json.dumps(card_blocks(scorecard, card, words), ensure_ascii=False)
    assert told.count(line) == 1
    assert words("caveat_memorised") not in told


def below_the_bar() -> Card:
    """A card whose interval ends at 79.6 %."""
    card, high = example_card(), 0.796
    excellent = Rate(70, 100, 0.604, high)
    return replace(
        card,
        verdict=Verdict.FAIL,
        reason=Reason.BELOW_BAR,
        reason_values={"bar": 0.8, "low": 0.604, "high": high, "n": 100},
        candidate=replace(card.candidate, excellent=excellent),
    )


def test_slack_the_report_and_the_command_line_round_alike(capsys: pytest.CaptureFixture[str]) -> None:
    card = below_the_bar()
    scorecard = Scorecard(1, "copy-0001", "base", "en@x", 1, card.to_json(), None, None, "2026-01-01T00:00:00")
    for language in ("en", "zh"):
        words = Words(language)
        slack = json.dumps(card_blocks(scorecard, card, words), ensure_ascii=False)
        report = render_report(Report(scorecard, replace(card, language=language), (), (), ""))
        for told in (slack, report, fallback_text(card, words)):
            assert "70 % [60, 79.6]" in told
            assert "79.6 %" in told
    print_card(scorecard)
    told = capsys.readouterr().out
    assert "high 79.6 %" in told
    assert "70/100  70 % [60, 79.6]" in told
