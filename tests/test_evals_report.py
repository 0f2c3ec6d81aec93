"""A card as one HTML file."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cards import example_card
from test_evals_planted import SHIPPED, excellent, failing, written
from typer.testing import CliRunner

from evals.__main__ import app
from evals.plan import STABILITY, Call, Plan
from evals.report import Report, read_report, render_report
from evals.scorecard import make_card
from evals.words import WORDS
from serving.card import Card, Caveat, Reason, Verdict
from serving.records import Scorecard
from serving.settings import Settings
from serving.store import Store

NASTY = "<script>alert(1)</script> {{ 7 * 7 }} & “quotes”"


class Page(HTMLParser):
    """Attributes and text of a page, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "line", "circle", "path", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def report_of(store: Store, language: str, folder: Path) -> Report:
    """A card of 8 briefs and 2 × 3 in the store, as a run leaves it."""
    plan = Plan(SHIPPED[language], items=8, briefs=2, repeats=3)
    subjects = []
    for name, write in (("base", failing), ("copy-0001", excellent)):
        if name != "base":
            path = folder / name
            round = store.start_round({}, [], "d" * 64)
            store.finish_round(round.id, {}, path=str(path), digest="e" * 64, base_model="toy")
        scorecard = store.start_scorecard(name, baseline="base", suite=plan.key("toy"), seed=1)
        for call in plan.calls():
            text = NASTY if name == "base" and call.repeat == 1 else write(call)
            store.add_sample(
                scorecard.id, item_id=call.item.id, part=call.part, repeat=call.repeat, text=text, grade="", score={}
            )
        subjects.append(replace(written(plan, write, name), digest="e" * 64))
        live = subjects[0] if name != "base" else None
        store.finish_scorecard(scorecard.id, make_card(plan, subjects[-1], live, base_model="toy").to_json())
    return read_report(store, store.scorecard(2), folder)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_report_stands_alone_and_shows_every_text(store: Store, tmp_path: Path, language: str) -> None:
    report = report_of(store, language, tmp_path)
    text = render_report(report)
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href") or "//" in value]
    assert "url(" not in text
    assert "@import" not in text
    for told in report.briefs:
        assert told.item.id in page.said
        assert all(reference in page.said for reference in told.item.references)
    assert "<script>alert(1)</script> {{ 7 * 7 }} & “quotes”" in page.said  # shown, not run
    assert WORDS[language]["stable"] in page.said
    card = report.card
    for fact in (card.suite_digest, "d" * 64, "e" * 64, "temperature 0.7", "tok:zh", "pass^3"):
        assert fact in page.said
    assert page.tags.count("svg") == 2  # figures, and the two versions over time


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "Worst: answer 3, fail. The product is not named"), ("zh", "最差：第 3 次，不合格。没有写出产品名")],
)
def test_a_report_names_the_worst_answer_to_a_brief(language: str, said: str) -> None:
    plan = Plan(SHIPPED[language], items=4, briefs=2, repeats=3)
    shaky = plan.stability()[0].id

    def once_wrong(call: Call) -> str:
        return failing(call) if (call.item.id, call.part, call.repeat) == (shaky, STABILITY, 2) else excellent(call)

    card = make_card(plan, written(plan, once_wrong), None, base_model="toy")
    assert Card.from_json(json.loads(json.dumps(card.to_json()))) == card
    scorecard = Scorecard(1, "copy-0001", "base", language, 1, {}, None, None, "2026-01-01T00:00:00")
    page = Page(render_report(Report(scorecard, card, (), (), "")))
    said_of = " ".join(page.said.split())
    assert said in said_of
    assert said_of.count(said.partition("3")[0]) == 1  # the other brief missed nothing


def test_a_report_says_the_reason_whatever_it_is() -> None:
    values = {
        Reason.LEAK: {"count": 1, "item": "x"},
        Reason.FORBIDDEN_CLAIM: {"count": 1, "total": 70, "claim": "best"},
        Reason.WORSE_THAN_LIVE: {"gained": 0, "lost": 6, "p": 0.03},
        Reason.LESS_STABLE: {"repeats": 5, "low": 0.1, "high": 0.6},
        Reason.PEOPLE_PREFER_LIVE: {"wins": 5, "losses": 15, "p": 0.04},
    }
    rates = {"bar": 0.8, "low": 0.5, "high": 0.9, "n": 20}
    for language in WORDS:
        for reason in Reason:
            card = replace(example_card(), language=language, reason=reason, reason_values=values.get(reason, rates))
            scorecard = Scorecard(1, "copy-0001", "base", "en", 1, {}, None, None, "2026-01-01T00:00:00")
            text = render_report(Report(scorecard, replace(card, caveats=tuple(Caveat)), (), (), ""))
            assert re.search(r'class="why">[^<{]{10,}<', text)


def test_a_card_without_repeats_is_made_and_says_so() -> None:
    plan = Plan(SHIPPED["zh"], items=4, briefs=0)
    old, new = (written(plan, write, name) for write, name in ((failing, "base"), (excellent, "copy-0001")))
    card = make_card(plan, new, old, base_model="toy")
    assert (card.candidate.pass_k, card.stability_difference) == ((), None)
    scorecard = Scorecard(1, "copy-0001", "base", "zh", 1, {}, None, None, "2026-01-01T00:00:00")
    assert WORDS["zh"]["stability_none"] in render_report(Report(scorecard, card, (), (), ""))


def test_both_languages_say_the_same_things() -> None:
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    for key, english in WORDS["en"].items():
        asked = {language: set(re.findall(r"{(\w+)}", words[key])) for language, words in WORDS.items()}
        assert asked["en"] == asked["zh"], (key, english)
    for verdict in Verdict:
        assert verdict.value in WORDS["en"]


def test_show_writes_the_file(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report_of(store, "en", tmp_path)
    monkeypatch.setenv("COPYDESK_HOME", str(settings.copydesk_home))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "new" / "card.html"
    assert CliRunner().invoke(app, ["show", "copy-0001", "--html", str(file)]).exit_code == 0
    assert file.read_text("utf-8").startswith("<!doctype html>")
    compared = CliRunner().invoke(app, ["compare", "base", "copy-0001"])
    assert "excellent: 8 briefs gained, 0 lost" in " ".join(compared.stdout.split())
