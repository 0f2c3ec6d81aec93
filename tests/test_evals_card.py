"""The card's JSON, its picture, and the command that shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cards import example_card
from typer.testing import CliRunner

from evals import chart
from evals.__main__ import app, main
from evals.chart import render_chart
from evals.words import WORDS
from serving.card import Card, Caveat, Verdict
from serving.records import CopydeskError
from serving.settings import Settings
from serving.store import Store


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_card_survives_json(verdict: Verdict) -> None:
    card = example_card(verdict)
    assert Card.from_json(json.loads(json.dumps(card.to_json()))) == card


def test_a_card_of_an_earlier_release_loses_caveats_that_are_no_longer_made() -> None:
    body = example_card().to_json()
    assert Card.from_json(body | {"caveats": ["no_judge", "small_sample"]}).caveats == (Caveat.SMALL_SAMPLE,)


def test_a_card_from_before_worst_repeats_is_read() -> None:
    body = json.loads(json.dumps(example_card().to_json()))
    for brief in body["candidate"]["briefs"] + body["live"]["briefs"]:
        del brief["worst"]
    assert [brief.worst for brief in Card.from_json(body).candidate.briefs] == [None] * 5


def test_a_body_of_another_form_is_one_clear_error() -> None:
    with pytest.raises(CopydeskError, match="score the version again"):
        Card.from_json({"version": "copy-0001"})


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_chart_is_a_picture_of_the_promised_size(verdict: Verdict) -> None:
    picture = render_chart(example_card(verdict))
    assert picture.startswith(b"\x89PNG")
    assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (1200, 700)


@pytest.mark.filterwarnings("error")  # of a character that the font lacks
@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_chinese_chart_has_every_character_on_this_machine(verdict: Verdict) -> None:
    assert render_chart(replace(example_card(verdict), language="zh")).startswith(b"\x89PNG")


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with no fonts but matplotlib's own, which has Latin letters only."""
    monkeypatch.setattr(chart, "findSystemFonts", list)
    chart.labels_for.cache_clear()
    yield
    chart.labels_for.cache_clear()


def test_a_chart_is_labelled_in_the_cards_language(no_fonts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORDS, "zh", WORDS["en"] | {"chart_excellent": "superb"})
    card = example_card()
    assert render_chart(replace(card, language="zh")) != render_chart(card)


def test_a_machine_without_a_chinese_font_draws_in_english(no_fonts: None) -> None:
    card = example_card()
    assert render_chart(replace(card, language="zh")) == render_chart(card)


@pytest.fixture
def shown(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    monkeypatch.setenv("COPYDESK_HOME", str(settings.copydesk_home))
    monkeypatch.chdir(tmp_path)
    card = store.start_scorecard("copy-0001", baseline="base", suite="en@0", seed=1)
    store.finish_scorecard(card.id, example_card().to_json())
    return store


def test_show_and_list_print_tables_and_json(shown: Store) -> None:
    shell = CliRunner()
    assert "15/20" in shell.invoke(app, ["show", "copy-0001"]).stdout
    assert json.loads(shell.invoke(app, ["show", "1", "--json"]).stdout)["verdict"] == "inconclusive"
    assert "copy-0001" in shell.invoke(app, ["list"]).stdout
    assert [card["id"] for card in json.loads(shell.invoke(app, ["list", "--json"]).stdout)] == [1]


def test_an_error_is_one_line_and_exit_1(
    shown: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["evals", "show", "copy-0009"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "There is no scorecard of copy-0009; make one: copydesk eval run copy-0009"
    ]
