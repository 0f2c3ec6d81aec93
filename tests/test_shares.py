"""Figures as people read them: rounding tells nobody that a bar was met which was missed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cards import example_card
from hypothesis import given
from hypothesis import strategies as st

from bot.scorecards import card_blocks, fallback_text
from bot.texts import Words
from evals.report import Report, render_report
from evals.tables import print_card
from serving.card import Card, Difference, Estimate, Rate, Reason, Verdict
from serving.counts import wilson
from serving.records import Scorecard
from serving.shares import percent, points, with_interval


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
