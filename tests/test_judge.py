"""The judging model behind OpenAI's protocol: weighed answers, order swapped, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import openai
import pytest
from aiohttp import web
from cards import example_card
from openai_double import EngineDouble
from test_grading import ITEMS, fill, scorecard_with_samples, scored_again

from bot.scorecards import said_by_people
from bot.texts import Words
from evals.judge import Judge, UnscoredError, judge_scorecard, open_judge, questions_for
from evals.report import Report, render_report
from evals.tables import print_people
from serving.card import KAPPA_NEEDED, LABELS_NEEDED, Agreement, Judged
from serving.counts import wilson
from serving.grades import Grades, Kind
from serving.judge_answers import JudgeAnswers
from serving.prompt import task_of
from serving.records import CopydeskError, Requirements, Scorecard
from serving.settings import Settings
from serving.store import Store

LAMP = task_of(Requirements("Lamp", audience="students", tone="calm"), "en")


def said(text: str, tokens: dict[str, float] | None = None) -> dict[str, Any]:
    """An answer in OpenAI's form; `tokens` are probabilities of its first token."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if tokens is not None:
        top = [{"token": token, "logprob": math.log(share), "bytes": None} for token, share in tokens.items()]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "arbiter", "choices": [choice]}


def answered(**choice: Any) -> dict[str, Any]:
    """An answer with exactly this choice."""
    return {**said(""), "choices": [choice]}


Say = Callable[[dict[str, Any]], dict[str, Any] | web.Response]


@dataclass
class JudgeDouble(EngineDouble):
    """Answers what `say` makes of a request; logprobs only where they are asked for."""

    say: Say = lambda body: said("Yes", {"Yes": 0.9, "No": 0.1})
    pause: float = 0.0
    loaded: list[str] = field(default_factory=lambda: ["arbiter"])

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        await asyncio.sleep(self.pause)
        answer = self.say(body)
        return answer if isinstance(answer, web.Response) else web.json_response(answer)


@asynccontextmanager
async def judging(
    say: Say | None = None, *, pause: float = 0.0, patience: float = 5.0, retries: int = 1
) -> AsyncIterator[tuple[Judge, JudgeDouble]]:
    async with JudgeDouble(pause=pause) as double:
        double.say = say or double.say
        async with openai.AsyncOpenAI(
            base_url=f"{double.url}/v1", api_key="none", timeout=patience, max_retries=retries
        ) as client:
            yield Judge(client, "arbiter"), double


def good_is_new(body: dict[str, Any]) -> dict[str, Any]:
    """Sees quality: texts of the candidate are "new"; between two it names the side that has one."""
    text = body["messages"][1]["content"]
    if "Answer A or B" in text:
        side = "A" if text.index("new") < text.index("old") else "B"
        return said(side, {side: 0.8, "B" if side == "A" else "A": 0.2})
    return said("Yes", {"Yes": 0.9, "No": 0.05}) if "new" in text else said("No", {" No": 0.9, "yes": 0.1})


async def test_an_answer_is_weighed_by_its_tokens() -> None:
    tokens = {"Yes": 0.4, " yes": 0.2, "NO": 0.2, "Perhaps": 0.2}
    async with judging(lambda body: said("Yes", tokens)) as (judge, double):
        assert await judge.question("A lamp.", LAMP, "fluent") == pytest.approx(0.75)
    assert double.asked[0]["logprobs"] is True
    assert "A lamp." in double.asked[0]["messages"][1]["content"]


async def test_chinese_is_asked_and_understood_in_chinese() -> None:
    task = task_of(Requirements("台灯"), "zh")
    async with judging(lambda body: said("否", {"否": 0.7, "是": 0.3})) as (judge, double):
        assert await judge.question("一盏台灯。", task, "fluent") == pytest.approx(0.3)
    assert "文案是否通顺" in double.asked[0]["messages"][1]["content"]


@pytest.mark.parametrize("logprobs", [None, {"content": None}, {"content": [{"token": "Yes", "logprob": -0.1}]}])
async def test_without_logprobs_the_word_counts(logprobs: dict[str, Any] | None) -> None:
    answer = answered(message={"content": "**Yes**, it is."}, logprobs=logprobs)
    async with judging(lambda body: answer) as (judge, _):
        assert await judge.question("A lamp.", LAMP, "fluent") == 1.0


async def test_a_gateway_that_refuses_logprobs_is_asked_without() -> None:
    def say(body: dict[str, Any]) -> dict[str, Any] | web.Response:
        refused = web.json_response({"error": {"message": "logprobs is not supported"}}, status=400)
        return refused if "logprobs" in body else said("no")

    async with judging(say) as (judge, double):
        assert [await judge.question("A lamp.", LAMP, "tone") for _ in range(2)] == [0.0, 0.0]
    assert len(double.asked) == 3


async def test_another_refusal_is_told_and_keeps_the_probabilities() -> None:
    refused = {"error": {"message": "the prompt is too long"}}
    async with judging(lambda body: web.json_response(refused, status=400)) as (judge, double):
        for _ in range(2):
            with pytest.raises(UnscoredError, match=r"refused: .*the prompt is too long"):
                await judge.question("A lamp.", LAMP, "fluent")
    assert ["logprobs" in body for body in double.asked] == [True, True]


async def test_of_two_texts_the_order_decides_nothing() -> None:
    async with judging(good_is_new) as (judge, _):
        assert await judge.pair("a new lamp", "an old lamp", LAMP) == 1.0
        assert await judge.pair("an old lamp", "a new lamp", LAMP) == 0.0
    async with judging(lambda body: said("A", {"A": 0.9, "B": 0.1})) as (judge, _):
        assert await judge.pair("a new lamp", "an old lamp", LAMP) == 0.5
    async with judging(lambda body: said("A", {"A": 0.5, "B": 0.5})) as (judge, _):
        assert await judge.pair("a new lamp", "an old lamp", LAMP) == 0.5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (said("As a language model I cannot say."), "neither yes nor no"),
        (said("Maybe", {"Maybe": 0.9, "Yes": 0.1}), "neither yes nor no"),
        ({**said(""), "choices": []}, "no text"),
        ({"hello": "world"}, "no text"),
        (answered(), "no text"),
        (answered(text="yes"), "no text"),
        (answered(message=None), "no text"),
        (answered(message="yes"), "no text"),
        (answered(message={"content": None}), "neither yes nor no"),
        (answered(message={"content": "Hm."}, logprobs={"content": [{"token": "Hm"}]}), "neither yes nor no"),
        (answered(message={"content": "Hm."}, logprobs={"content": [{"top_logprobs": [{}]}]}), "no text"),
        ({**said(""), "choices": [None]}, "no text"),
        (web.Response(text="<html>busy</html>", content_type="text/html"), "not an answer"),
        (web.Response(text="{", content_type="application/json"), "not an answer"),
        (web.json_response({"error": {"message": "overloaded"}}, status=503), "HTTP 503"),
        (web.json_response({"error": {"message": "slow down"}}, status=429), "HTTP 429"),
    ],
)
async def test_nonsense_is_unscored_with_its_reason(answer: Any, reason: str) -> None:
    def say(body: dict[str, Any]) -> dict[str, Any] | web.Response:
        if isinstance(answer, web.Response):  # one response object goes out once
            return web.Response(body=answer.body, status=answer.status, content_type=answer.content_type)
        return dict(answer)

    async with judging(say, retries=0) as (judge, _):
        with pytest.raises(UnscoredError, match=reason):
            await judge.question("A lamp.", LAMP, "fluent")


async def test_a_rate_limit_delays_an_answer_and_does_not_lose_it() -> None:
    turns = iter([429, 429, 200])

    def say(body: dict[str, Any]) -> dict[str, Any] | web.Response:
        wait = {"retry-after-ms": "10"}
        return said("yes") if next(turns) == 200 else web.json_response({"error": {}}, status=429, headers=wait)

    async with judging(say, retries=3) as (judge, double):
        assert await judge.question("A lamp.", LAMP, "fluent") == 1.0
    assert len(double.asked) == 3


async def test_a_judge_that_is_too_slow_is_soon_not_asked_any_more() -> None:
    async with judging(pause=2.0, patience=0.1, retries=0) as (judge, double):
        reasons = []
        for _ in range(7):
            with pytest.raises(UnscoredError) as failed:
                await judge.question("A lamp.", LAMP, "fluent")
            reasons.append(str(failed.value))
    assert reasons == ["no answer within 0.1 s"] * 5 + ["not asked: the judge did not answer before"] * 2
    assert len(double.asked) == 5


def test_audience_and_tone_are_asked_where_the_brief_names_them() -> None:
    assert questions_for(LAMP) == ["fluent", "grounded", "audience", "tone", "publishable"]
    assert questions_for(task_of(Requirements("Lamp"), "en")) == ["fluent", "grounded", "publishable"]


# A scorecard


async def test_a_scorecard_is_judged_from_its_stored_texts_once(store: Store) -> None:
    scorecard = scorecard_with_samples(store)
    async with judging(good_is_new) as (judge, double):
        await judge_scorecard(store, judge, scorecard, lambda done, total: None)
        asked = len(double.asked)
        await judge_scorecard(store, judge, scorecard, lambda done, total: None)
        assert len(double.asked) == asked == ITEMS * (3 + 3 + 2)
    found = JudgeAnswers(store).of(scorecard)
    assert found == Judged("arbiter", wilson(ITEMS, ITEMS), wilson(0, ITEMS), ITEMS, 0, 0, 0, Agreement(None, 0))
    assert not found.calibrated


async def test_what_was_unscored_is_no_pass_and_is_asked_again(store: Store) -> None:
    scorecard = scorecard_with_samples(store)
    async with judging(lambda body: said("Hm.")) as (judge, _):
        await judge_scorecard(store, judge, scorecard, lambda done, total: None)
    found = JudgeAnswers(store).of(scorecard)
    assert found is not None
    assert (found.candidate.total, found.wins, found.unscored) == (0, 0, ITEMS * 7)
    async with judging(good_is_new) as (judge, _):
        await judge_scorecard(store, judge, scorecard, lambda done, total: None)
    again = JudgeAnswers(store).of(scorecard)
    assert again is not None
    assert (again.candidate.successes, again.unscored) == (ITEMS, 0)


async def test_the_judge_is_measured_against_people_and_needs_a_hundred_labels(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    async with judging(good_is_new) as (judge, _):
        await judge_scorecard(store, judge, scorecard, lambda done, total: None)
    fill(grades, grades.open(scorecard, "U_ANNA", Kind.GRADES), "excellent", "fail")
    found = JudgeAnswers(store).of(scorecard)
    assert found is not None
    assert (found.people, found.calibrated) == (Agreement(1.0, 20), False)
    enough = Judged("j", wilson(0, 0), wilson(0, 0), 0, 0, 0, 0, Agreement(KAPPA_NEEDED, LABELS_NEEDED))
    assert enough.calibrated


def chosen(n: int) -> float:
    """What the judge below thinks of the candidate's text about lamp `n`: better, as good, or worse."""
    return (1.0, 0.5, 0.0)[n % 3]


def chooses(body: dict[str, Any]) -> dict[str, Any]:
    text = body["messages"][1]["content"]
    lamp = re.search(r"Lamp (\d+) in", text)
    assert lamp is not None
    new_first, better = "new" in text[lamp.start() : lamp.start() + 20], chosen(int(lamp[1]))
    return said("A" if better == 0.5 or (better == 1.0) == new_first else "B")


def vote(grades: Grades, scorecard: Scorecard, user: str, wish: Callable[[int], float]) -> None:
    sheet = grades.open(scorecard, user, Kind.VOTES)
    while entry := sheet.next:
        better = wish(int(entry.texts[0].split()[1]))
        answer = "tie" if better == 0.5 else "a" if (better == 1.0) == ("new" in entry.texts[0]) else "b"
        sheet = grades.answer(sheet.id, user, entry.position, answer, 100.0 + entry.position)


async def test_what_the_judge_prefers_is_measured_against_what_most_people_prefer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.grades.SHEET_SIZE", ITEMS)  # everybody compares the same briefs
    scorecard, grades, answers = scorecard_with_samples(store), Grades(store), JudgeAnswers(store)
    async with judging(chooses) as (judge, _):
        await judge_scorecard(store, judge, scorecard, lambda done, total: None)
    found = answers.of(scorecard)
    assert found is not None
    assert (found.wins, found.ties, found.losses, found.votes) == (10, 10, 10, Agreement(None, 0))
    for user in ("U_A", "U_B"):
        vote(grades, scorecard, user, lambda n: chosen(n + 1) if n < 6 else chosen(n))
    vote(grades, scorecard, "U_C", lambda n: 1.0 - chosen(n))  # outvoted
    sheet = grades.open(scorecard, "U_D", Kind.VOTES)
    grades.answer(sheet.id, "U_D", 1, "tie", 1.0)  # not done, so it says nothing yet
    again = answers.of(scorecard)
    assert again is not None
    # 24 of 30 agree, and 10 of 30 would by chance.
    assert (again.votes.kappa, again.votes.labels) == (pytest.approx(0.7), ITEMS)
    assert again.people == found.people == Agreement(None, 0)


def test_how_far_the_judge_chooses_as_people_do_is_shown_in_both_languages(capsys: pytest.CaptureFixture[str]) -> None:
    judged = Judged("arbiter", wilson(0, 0), wilson(0, 0), 0, 0, 0, 0, Agreement(0.5, 40), Agreement(0.7, 30))
    for language, told in (("en", "which of two texts is better"), ("zh", "两篇里选更好的一篇")):
        kappa = {"en": "κ = 0.70 on 30 pairs", "zh": "κ = 0.70（30 对）"}[language]
        card = replace(example_card(), language=language, judged=judged)
        scorecard = Scorecard(1, "copy-0001", "base", "en", 1, {}, None, None, "2026-01-01T00:00:00")
        report = render_report(Report(scorecard, card, (), (), ""))
        assert told in report
        assert kappa in report
        (line,) = said_by_people(card, Words(language))
        assert told in line
        assert "κ = 0.70" in line
        assert told not in render_report(
            Report(scorecard, replace(card, judged=replace(judged, votes=Agreement(None, 0))), (), (), "")
        )
    print_people(card)
    assert "judge and people, compared blind: kappa 0.70 on 30 pairs" in capsys.readouterr().out


async def test_a_person_who_thinks_again_is_compared_with_the_judge_by_the_last_word(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    fill(grades, grades.open(scorecard, "U_ANNA", Kind.GRADES), "excellent", "fail")
    again = scored_again(store, "copy-0001")
    graded = next(text for text, grade in grades.by_people().items() if grade == "excellent")
    (copy,) = (sample.id for sample in store.samples(again.id) if sample.item_id == graded[-1])
    with store.transaction() as db:
        store.insert(db, "grades", sample_id=copy, user="U_ANNA", grade="fail", pressed_at=900.0)
    async with judging(good_is_new) as (judge, _):
        for card in (scorecard, again):
            await judge_scorecard(store, judge, card, lambda done, total: None)
    found = JudgeAnswers(store).of(again)
    assert found is not None
    assert (found.people.labels, found.people.kappa) == (20, pytest.approx(0.9))


async def test_a_version_that_is_scored_again_keeps_its_judges_words_and_is_not_asked_about_again(store: Store) -> None:
    scorecard = scorecard_with_samples(store)
    async with judging(good_is_new) as (judge, double):
        await judge_scorecard(store, judge, scorecard, lambda done, total: None)
        asked, found = len(double.asked), JudgeAnswers(store).of(scorecard)
        again = scored_again(store, "copy-0001")
        assert JudgeAnswers(store).of(again) == found
        await judge_scorecard(store, judge, again, lambda done, total: None)
        assert (len(double.asked), JudgeAnswers(store).of(again)) == (asked, found)
        elsewhere = replace(again, baseline="copy-0000")
        compared = JudgeAnswers(store).of(elsewhere)
        assert compared is not None
        assert (compared.candidate.total, compared.live.total, compared.wins) == (ITEMS, 0, 0)


async def test_a_judge_that_answers_nothing_takes_no_other_judges_place(store: Store) -> None:
    scorecard = scorecard_with_samples(store)
    for name, say in (("arbiter", good_is_new), ("mute", lambda body: said("Hm."))):
        async with judging(say) as (judge, _):
            judge.model = name
            await judge_scorecard(store, judge, scorecard, lambda done, total: None)
    found = JudgeAnswers(store).of(scorecard)
    assert found is not None
    assert (found.judge, found.unscored) == ("arbiter", 0)


async def test_a_text_that_was_judged_by_half_of_its_questions_is_not_judged(store: Store) -> None:
    scorecard = scorecard_with_samples(store)
    asked = 0

    def dies(body: dict[str, Any]) -> dict[str, Any] | web.Response:
        nonlocal asked
        asked += 1
        return good_is_new(body) if asked < 50 else web.json_response({"error": {}}, status=401)

    async with judging(dies) as (judge, _):
        with pytest.raises(CopydeskError, match="set COPYDESK_JUDGE_KEY"):
            await judge_scorecard(store, judge, scorecard, lambda done, total: None)
    rows = store.rows("SELECT count(*) AS n FROM judgements WHERE question <> 'pair' GROUP BY sample_id")
    assert {row["n"] for row in rows} <= {3}


async def test_a_refused_key_is_told_with_the_next_step(store: Store) -> None:
    scorecard = scorecard_with_samples(store)
    async with judging(lambda body: web.json_response({"error": {}}, status=401)) as (judge, _):
        with pytest.raises(CopydeskError, match="set COPYDESK_JUDGE_KEY"):
            await judge_scorecard(store, judge, scorecard, lambda done, total: None)


async def test_no_version_judges_itself(store: Store, settings: Settings) -> None:
    scorecard = scorecard_with_samples(store)
    async with JudgeDouble() as double:

        async def opened(**values: str) -> Judge:
            return await open_judge(settings.model_copy(update=values), store, scorecard)

        judge = {"copydesk_judge_endpoint": double.url}
        assert (await opened(**judge)).model == "arbiter"
        with pytest.raises(CopydeskError, match="There is no judge"):
            await opened()
        with pytest.raises(CopydeskError, match="own engine"):
            await opened(**judge, copydesk_endpoint=double.url.replace("127.0.0.1", "localhost") + "/v1/")
        for name in ("copy-0001", "base", "HuggingFaceTB/SmolLM2-135M-Instruct"):
            with pytest.raises(CopydeskError, match="is what is judged"):
                await opened(**judge, copydesk_judge_model=name)
        double.loaded.append("copy-0001")
        with pytest.raises(CopydeskError, match="served beside it"):
            await opened(**judge, copydesk_judge_model="arbiter")
        with pytest.raises(CopydeskError, match="COPYDESK_JUDGE_MODEL"):
            await opened(**judge)


async def test_the_command_judges_and_says_how_far_to_trust_it(store: Store, settings: Settings) -> None:
    scorecard = scorecard_with_samples(store)
    async with JudgeDouble(say=good_is_new) as double:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "evals", "judge", str(scorecard.id)),
            env={**os.environ, "COPYDESK_HOME": str(settings.copydesk_home), "COPYDESK_JUDGE_ENDPOINT": double.url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, bar = await process.communicate()
    assert process.returncode == 0
    assert f"{ITEMS * 7}/{ITEMS * 7}" in bar.decode()
    assert f"judge arbiter (uncalibrated): excellent {ITEMS}/{ITEMS}" in out.decode()
    assert "judge and people: kappa not measured on 0 texts" in out.decode()
    assert json.dumps(scorecard.body) == json.dumps(store.scorecard(scorecard.id).body)
