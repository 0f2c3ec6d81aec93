"""People's grades and blind comparisons: in the store, and by real Bolt over the sandbox's socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from bot_world import World, environment, offers, running, world
from cards import example_card
from evals_edge import Edge, serving
from typer.testing import CliRunner

from bot.charts import Step, bars, trend
from bot.home import home_blocks
from bot.sandbox import Person, limits
from bot.sandbox.limits import checked_message_blocks
from bot.sandbox.people import SeenView
from bot.scorecards import headline
from bot.texts import Words
from evals.__main__ import app as evals_app
from evals.plan import Plan
from evals.runner import Runner
from evals.suite import read_suite
from serving.card import Agreement, Card, Duel, People, Rate, Reason, Verdict
from serving.client import ModelClient
from serving.counts import kappa, sign_test, wilson, wins_needed
from serving.extensions import Extensions
from serving.grades import Grades, Kind, Sheet
from serving.judge_answers import seen
from serving.prompt import task_of
from serving.records import CopydeskError, Requirements, Scorecard
from serving.registry import digest_of
from serving.store import BASE, Store

ITEMS = 30


def scorecard_with_samples(store: Store, card: Card | None = None) -> Scorecard:
    """A candidate whose texts the checks find excellent, against a baseline whose texts fail."""
    made = []
    for version, word, grade in (("base", "old", "fail"), ("copy-0001", "new", "excellent")):
        scorecard = store.start_scorecard(version, baseline="base", suite="en@x", seed=1)
        for n in range(ITEMS):
            store.add_sample(
                scorecard.id,
                item_id=f"en-{n:03}",
                part="following",
                repeat=0,
                text=f"Lamp {n} in {word} words.",
                grade=grade,
                score={},
            )
        body = (card or example_card()).to_json() | {"version": version}
        made.append(store.finish_scorecard(scorecard.id, body))
    store.mark_announced(made[0].id, "", "")
    items = {f"en-{n:03}": task_of(Requirements(f"Lamp {n}", selling_points=(("warm",),)), "en") for n in range(ITEMS)}
    Grades(store).keep_items("en@x", items)
    return made[1]


def scored_again(store: Store, version: str) -> Scorecard:
    """A newer scorecard with the same texts."""
    (earlier,) = store.scorecards(version)
    again = store.start_scorecard(version, baseline="base", suite="en@x", seed=1)
    for one in store.samples(earlier.id):
        store.add_sample(
            again.id, item_id=one.item_id, part=one.part, repeat=one.repeat, text=one.text, grade=one.grade, score={}
        )
    return store.finish_scorecard(again.id, earlier.body or {})


def fill(grades: Grades, sheet: Sheet, new: str, old: str, since: float = 100.0) -> Sheet:
    """Answer all that is open: `new` for the candidate's text (or where it stands on side a), `old` for the other."""
    while entry := sheet.next:
        answer = new if "new" in entry.texts[0] else old
        sheet = grades.answer(sheet.id, sheet.user, entry.position, answer, since + entry.position)
    return sheet


# Counts


def test_the_sign_test_and_its_needed_wins_are_those_of_the_tables() -> None:
    assert [wins_needed(n) for n in (5, 6, 20, 30, 50)] == [None, 6, 15, 21, 33]
    assert sign_test(15, 5) == pytest.approx(0.04139, abs=1e-5)
    assert sign_test(0, 0) == sign_test(3, 3) == 1.0


def test_kappa_is_the_published_one() -> None:
    # Cohen's own example as Wikipedia prints it: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([]) is kappa([("y", "y")] * 9) is None


# Sheets


def test_a_sheet_mixes_both_versions_shows_no_names_and_is_the_same_when_opened_again(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    sheet = grades.open(scorecard, "U_ANNA", Kind.GRADES)
    assert (len(sheet.entries), sum("new" in entry.texts[0] for entry in sheet.entries)) == (20, 10)
    assert sheet.entries[0].task.requirements.product.startswith("Lamp ")
    assert grades.open(scorecard, "U_ANNA", Kind.GRADES) == sheet
    other = grades.open(scorecard, "U_LIWEI", Kind.GRADES)
    assert [entry.texts for entry in other.entries] != [entry.texts for entry in sheet.entries]


def test_a_second_grader_is_given_texts_that_nobody_has_graded(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    first = fill(grades, grades.open(scorecard, "U_ANNA", Kind.GRADES), "excellent", "fail")
    second = grades.open(scorecard, "U_LIWEI", Kind.GRADES)
    assert {entry.texts for entry in first.entries}.isdisjoint(entry.texts for entry in second.entries)


def test_the_last_press_counts_in_whatever_order_presses_arrive(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    sheet = grades.open(scorecard, "U_ANNA", Kind.GRADES)
    grades.answer(sheet.id, "U_ANNA", 1, "fail", 10.0)
    for _ in range(3):
        grades.answer(sheet.id, "U_ANNA", 1, "excellent", 20.0)
    assert grades.answer(sheet.id, "U_ANNA", 1, "fail", 10.0).entries[0].answer == "excellent"
    with pytest.raises(CopydeskError, match="another person's"):
        grades.answer(sheet.id, "U_LIWEI", 1, "fail", 30.0)


def test_grades_give_rates_and_the_agreement_with_the_checks(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    assert grades.people(scorecard) is None
    fill(grades, grades.open(scorecard, "U_ANNA", Kind.GRADES), "excellent", "fail")
    people = grades.people(scorecard)
    assert people == People(1, wilson(10, 10), wilson(0, 10), Agreement(1.0, 20), None, 0)


def test_grades_of_the_live_version_count_on_when_the_scorecard_is_extended(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    fill(grades, grades.open(scorecard, "U_ANNA", Kind.GRADES), "excellent", "fail")
    before = grades.people(scorecard)
    scored_again(store, "base")
    assert grades.people(scorecard) == before


def test_what_people_said_stays_when_a_version_is_scored_again(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    fill(grades, grades.open(scorecard, "U_ANNA", Kind.GRADES), "excellent", "fail")
    fill(grades, grades.open(scorecard, "U_ANNA", Kind.VOTES), "a", "b")
    before = grades.people(scorecard)
    again = scored_again(store, "copy-0001")
    assert grades.people(again) == before
    sheet = fill(grades, grades.open(again, "U_ANNA", Kind.GRADES), "fail", "fail")
    seen = grades.people(again)
    assert seen is not None
    assert (seen.graders, seen.candidate.successes, seen.candidate.total) == (1, 10, 20)
    assert all("new" not in entry.texts[0] or entry.answer == "fail" for entry in sheet.entries)


def test_of_several_grades_of_a_text_the_middle_counts_and_of_two_the_worse(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    sheet = grades.open(scorecard, "U_ANNA", Kind.GRADES)
    grades.answer(sheet.id, "U_ANNA", 1, "excellent", 1.0)
    (text,) = grades.by_people()
    (sample,) = (row["sample_id"] for row in store.rows("SELECT sample_id FROM grades"))
    for user, grade, middle in (("U_B", "fail", "fail"), ("U_C", "acceptable", "acceptable")):
        with store.transaction() as db:
            store.insert(db, "grades", sample_id=sample, user=user, grade=grade, pressed_at=1.0)
        assert grades.by_people() == {text: middle}


def test_votes_show_nothing_until_all_are_given_and_then_stay(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    sheet = grades.open(scorecard, "U_ANNA", Kind.VOTES)
    assert all({text.split()[1] for text in entry.texts} == {entry.texts[0].split()[1]} for entry in sheet.entries)
    assert 0 < sum("new" in entry.texts[0] for entry in sheet.entries) < 20  # sides are shuffled
    grades.answer(sheet.id, "U_ANNA", 1, "tie", 1.0)
    people = grades.people(scorecard)
    assert people is not None
    assert (people.duel, people.voting) == (None, 1)
    done = fill(grades, grades.sheet(sheet.id), "a", "b")
    assert grades.duel(scorecard) == Duel(19, 1, 0, sign_test(19, 0), 15, 1, False)
    assert grades.answer(sheet.id, "U_ANNA", 1, "a", 900.0) == done


def test_a_brief_goes_to_the_majority_of_its_voters(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    for user, new, old in (("U_A", "a", "b"), ("U_B", "b", "a"), ("U_C", "a", "b")):
        fill(grades, grades.open(scorecard, user, Kind.VOTES), new, old)
    duel = grades.duel(scorecard)
    assert duel is not None
    assert (duel.voters, duel.wins > duel.losses) == (3, True)
    assert duel.wins + duel.ties + duel.losses >= 20


def test_a_person_who_compares_again_after_a_new_scoring_has_one_voice(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    fill(grades, grades.open(scorecard, "U_ANNA", Kind.VOTES), "a", "b")
    again = scored_again(store, "copy-0001")
    fill(grades, grades.open(again, "U_ANNA", Kind.VOTES), "b", "a", since=900.0)
    duel = grades.duel(again)
    assert duel is not None
    assert (duel.voters, duel.losses, duel.ties) == (1, 20, 0)
    assert 0 < duel.wins <= 10  # what only the first sheet held, of 30 briefs


def test_a_lead_ends_a_comparison_early_and_it_says_so(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store), Grades(store)
    sheet = grades.open(scorecard, "U_ANNA", Kind.VOTES)
    grades.answer(sheet.id, "U_ANNA", 1, "tie", 1.0)
    assert grades.close_votes(scorecard.id, "U_MARA") == 1
    duel = grades.duel(scorecard)
    assert duel == Duel(0, 1, 0, 1.0, None, 1, True)
    assert grades.answer(sheet.id, "U_ANNA", 2, "a", 2.0).answered == 1


def test_people_take_a_pass_back_only_with_enough_grades_or_votes() -> None:
    card = example_card(Verdict.PASS)

    def seen(found: Rate, duel: Duel | None = None) -> Card:
        return card.seen_with(People(2, found, wilson(0, 0), Agreement(None, 0), duel, 0), None)

    assert seen(wilson(1, 9)).verdict is Verdict.PASS
    assert seen(wilson(14, 20)).verdict is Verdict.PASS  # their interval holds the bar
    for wins, losses, verdict in ((5, 15, "inconclusive"), (6, 14, "pass"), (15, 5, "pass"), (0, 5, "pass")):
        duel = Duel(wins, 0, losses, sign_test(wins, losses), wins_needed(wins + losses), 1, False)
        assert seen(wilson(0, 0), duel).verdict == verdict
    few = seen(wilson(8, 20))
    assert (few.verdict, few.reason) == (Verdict.INCONCLUSIVE, Reason.PEOPLE_BELOW_BAR)
    failed = replace(card, verdict=Verdict.FAIL)
    assert (
        failed.seen_with(People(2, wilson(20, 20), wilson(0, 0), Agreement(None, 0), None, 0), None).verdict == "fail"
    )


def test_a_pass_that_people_took_back_is_none_in_lists_and_on_the_home_tab(store: Store) -> None:
    scorecard, grades = scorecard_with_samples(store, example_card(Verdict.PASS)), Grades(store)
    shell = CliRunner(env={"COPYDESK_HOME": str(store.path.parent), "COLUMNS": "200"})

    def listed(*options: str) -> str:
        return shell.invoke(evals_app, ["list", scorecard.version, *options]).stdout

    def home() -> str:
        return json.dumps(home_blocks(store, "D_ANNA", Words("en")))

    passed = home()
    assert " pass " in listed()
    fill(grades, grades.open(scorecard, "U_ANNA", Kind.GRADES), "fail", "fail")
    assert seen(store, scorecard).verdict is Verdict.INCONCLUSIVE
    assert home() != passed
    assert headline(seen(store, scorecard), Words("en")) in home()
    assert " inconclusive " in listed()
    assert [card["verdict"] for card in json.loads(listed("--json"))] == ["inconclusive"]
    store.finish_scorecard(scorecard.id, {"version": "of another form"})
    assert [card["version"] for card in json.loads(listed("--json"))] == ["of another form"]
    assert "cannot be shown" in home()


# On a terminal


def test_grading_on_a_terminal_is_left_and_continued(store: Store) -> None:
    scorecard = scorecard_with_samples(store)
    command = [sys.executable, "-m", "evals", "grade", str(scorecard.id)]
    variables = {**os.environ, "COPYDESK_HOME": str(store.path.parent)}

    def graded(keys: str) -> str:
        return subprocess.run(command, input=keys, env=variables, capture_output=True, text=True, check=True).stdout

    assert graded("e\n?\nfail\n\n").endswith("2 of 20 are graded.\n")
    out = graded("a\n" * 18)
    assert "3 of 20" in out
    assert "copy-0001" not in out
    assert "20 of 20 are graded.\npeople: excellent" in out


# In Slack


async def card_of(it: World, person: Person) -> dict[str, object]:
    return await person.wait_message("C_COPY", lambda m: offers(m, "grade_blind"))


def progress(view: SeenView) -> str:
    return str(view.blocks[0]["elements"][0]["text"])


def shown(view: SeenView) -> list[str]:
    return [block["text"]["text"] for block in view.blocks if block["type"] == "section"]


async def wait_progress(person: Person, text: str) -> SeenView:
    def at(state: dict[str, object]) -> bool:
        modals = state["modals"]
        return bool(modals) and text in str(modals)  # type: ignore[arg-type]

    await person.wait_until(at, f"The modal does not show {text}")
    view = await person.modal()
    assert view is not None
    return view


async def grade_all(person: Person, view: SeenView, start: int = 1) -> None:
    for n in range(start, 21):
        view = await wait_progress(person, f"{n} of 20")
        answer = "excellent" if "new" in shown(view)[1] else "fail"
        await person.press_in(view, f"answer:{answer}")


@pytest.mark.socket
async def test_a_copywriter_grades_twenty_leaves_comes_back_and_the_card_shows_it(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        scorecard = scorecard_with_samples(it.store)
        card = await card_of(it, it.anna)
        await it.anna.press("C_COPY", str(card["ts"]), "grade_blind")
        view = await it.anna.wait_modal(callback_id="sheet_grades")
        assert "copy-0001" not in str(view.body)
        assert "base" not in str(view.body)
        for n in range(1, 8):
            view = await wait_progress(it.anna, f"{n} of 20")
            await it.anna.press_in(view, "answer:fail")
        view = await wait_progress(it.anna, "8 of 20")
        await it.anna.dismiss(view)
        await it.anna.press("C_COPY", str(card["ts"]), "grade_blind")
        view = await wait_progress(it.anna, "8 of 20")
        await it.anna.press_in(view, "answer_back")
        view = await wait_progress(it.anna, "7 of 20")
        chosen = [b for b in view.blocks[-2]["elements"] if b.get("style") == "primary"]
        assert [b["action_id"] for b in chosen] == ["answer:fail"]
        await it.anna.press_in(view, "answer:acceptable")
        await grade_all(it.anna, view, 8)
        end = await wait_progress(it.anna, "graded all 20")
        assert "of 100 graded texts" not in str(end.body)  # no judge waits for them
        rows = it.store.rows("SELECT grade, count(*) AS n FROM grades GROUP BY grade")
        assert sum(row["n"] for row in rows) == 20
        await it.mara.wait_message("C_COPY", lambda m: "excellent, by people" in str(m["blocks"]))
        assert it.store.scorecard(scorecard.id).body == scorecard.body  # what people said is not frozen in it


@pytest.mark.socket
async def test_a_blind_comparison_is_revealed_at_its_end(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        scorecard_with_samples(it.store)
        card = await card_of(it, it.anna)
        await it.anna.press("C_COPY", str(card["ts"]), "compare_blind")
        for n in range(1, 21):
            view = await wait_progress(it.anna, f"{n} of 20")
            told = str(view.body)
            assert told.count("copy-0001") == told.count("One is by copy-0001, one by base model") == 1
            text_a = shown(view)[1]
            await it.anna.press_in(view, f"answer:{'tie' if n > 16 else 'a' if 'new' in text_a else 'b'}")
            if n == 10:
                message = await it.mara.wait_message("C_COPY", lambda m: "Being compared by 1 now" in str(m["blocks"]))
                assert "Compared blind" not in str(message["blocks"])
        end = await wait_progress(it.anna, "You compared all 20 pairs")
        sentence = (
            "*Compared blind:* copy-0001 was better 16 times, base model 0 times, 4 ties (1 voting). "
            "That is more than chance: 13 of 16 are needed (p < 0.001)."
        )
        assert shown(end)[1] == sentence
        await it.mara.wait_message("C_COPY", lambda m: sentence in str(m["blocks"]))


@pytest.mark.socket
async def test_only_a_lead_ends_a_comparison(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        scorecard_with_samples(it.store)
        card = await card_of(it, it.liwei)
        await it.liwei.press("C_COPY", str(card["ts"]), "compare_blind")
        view = await wait_progress(it.liwei, "第 1 对，共 20 对")
        await it.liwei.press_in(view, "answer:a")
        await it.mara.wait_message("C_COPY", lambda m: offers(m, "close_votes"))
        await it.anna.press("C_COPY", str(card["ts"]), "close_votes")
        refused = await it.anna.wait_message("C_COPY", lambda m: m["ephemeral"])
        assert refused["text"] == "Only a lead decides about versions: <@U_MARA>"
        await it.mara.press("C_COPY", str(card["ts"]), "close_votes")
        await it.mara.wait_message("C_COPY", lambda m: "was ended early" in str(m["blocks"]))
        view = await wait_progress(it.liwei, "第 2 对，共 20 对")
        await it.liwei.press_in(view, "answer:a")
        await wait_progress(it.liwei, "结束了这次盲比，当时你比了 1 对")


@pytest.mark.socket
async def test_somebody_outside_the_channel_cannot_grade(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        scorecard_with_samples(it.store)
        card = await card_of(it, it.liwei)
        it.sandbox.workspace.leave("C_COPY", "U_LIWEI")
        await it.liwei.press("C_COPY", str(card["ts"]), "grade_blind")
        # Slack shows nothing in a channel to those who are not in it.
        refused = await it.liwei.wait_message(it.liwei.dm, lambda m: "盲评" in m["text"])
        assert refused["text"] == "盲评由 <#C_COPY> 的成员来做。请先加入频道，再点一次。"
        assert it.store.rows("SELECT * FROM sheets") == []


@pytest.mark.socket
async def test_a_tap_that_comes_three_times_counts_once(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        scorecard_with_samples(it.store)
        card = await card_of(it, it.anna)
        await it.anna.press("C_COPY", str(card["ts"]), "grade_blind")
        view = await wait_progress(it.anna, "1 of 20")
        await asyncio.gather(*(it.anna.press_in(view, "answer:fail") for _ in range(3)))
        await wait_progress(it.anna, "2 of 20")
        assert len(it.store.rows("SELECT * FROM grades")) == 1


@pytest.mark.socket
async def test_grading_goes_on_after_the_bot_was_killed(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        scorecard_with_samples(it.store)
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).parent / "bot_process.py"), env={**os.environ, **environment(it)}
        )
        card = await card_of(it, it.anna)
        await it.anna.press("C_COPY", str(card["ts"]), "grade_blind")
        for n in range(1, 4):
            view = await wait_progress(it.anna, f"{n} of 20")
            await it.anna.press_in(view, "answer:fail")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        assert len(it.store.rows("SELECT * FROM grades")) == 3
        view = await it.anna.modal()
        assert view is not None
        async with running(it):
            await it.anna.press_in(view, "answer:excellent")  # the modal that stood open through it all
            # Not the rate: the first texts of a sheet may all be the live version's.
            await it.anna.wait_message("C_COPY", lambda m: "Graded blind by 1" in str(m["blocks"]))
            await wait_progress(it.anna, f"{len(it.store.rows('SELECT * FROM grades')) + 1} of 20")


@pytest.mark.socket
async def test_a_scorecard_without_its_briefs_says_what_to_do(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        scorecard_with_samples(it.store)
        with it.store.transaction() as db:
            db.execute("DELETE FROM suite_items")
        card = await card_of(it, it.anna)
        await it.anna.press("C_COPY", str(card["ts"]), "grade_blind")
        refused = await it.anna.wait_message("C_COPY", lambda m: m["ephemeral"])
        assert "copydesk eval run copy-0001" in refused["text"]


# Charts


def test_charts_stay_within_slacks_limits_and_mark_promotions() -> None:
    steps = [Step(BASE, 0.1, 0.0, False), Step("copy-0001-with-a-very-long-name", 0.75, 0.6, True)]
    for language in ("en", "zh"):
        words = Words(language)
        charts = [bars(example_card(), words), *trend(steps, words, 0.8)]
        for chart in checked_message_blocks(charts):
            assert len(chart["title"]) <= 50
            labels = chart["chart"]["axis_config"]["categories"]
            assert max(map(len, [*labels, *(series["name"] for series in chart["chart"]["series"])])) <= 20
    assert charts[1]["chart"]["axis_config"]["categories"][1].startswith("★ copy-0001")
    assert charts[0]["chart"]["series"][1]["data"][0] == {"label": "优秀", "value": 75}
    assert trend(steps[:1], words, 0.8) == []


@pytest.mark.socket
async def test_a_workspace_without_charts_gets_the_card_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(limits._CHECKS, "data_visualization")
    async with world(tmp_path) as it:
        scorecard_with_samples(it.store)
        card = await card_of(it, it.anna)
        assert "data_visualization" not in str(card)
        await it.anna.press("C_COPY", str(card["ts"]), "grade_blind")
        await it.anna.press_in(await wait_progress(it.anna, "1 of 20"), "answer:fail")
        await it.mara.wait_message("C_COPY", lambda m: "Graded blind by 1" in str(m["blocks"]))


# More briefs


@pytest.mark.socket
async def test_more_briefs_are_begun_once_and_a_failure_is_told_with_what_to_do(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        scorecard_with_samples(it.store)  # its samples are of no suite, which the command refuses
        card = await it.anna.wait_message("C_COPY", lambda m: offers(m, "more"))
        await it.anna.press("C_COPY", str(card["ts"]), "more")
        await it.anna.wait_message("C_COPY", lambda m: m["text"].startswith("30 more briefs are being written"))
        await it.liwei.press("C_COPY", str(card["ts"]), "more")
        await it.liwei.wait_message("C_COPY", lambda m: m["text"] == "已经在再测 30 份了，完成后评分卡会自动更新。")
        assert len(it.store.rows("SELECT * FROM extensions")) == 1
        await it.anna.wait_message("C_COPY", lambda m: "could not be scored" in m["text"], thread_ts=str(card["ts"]))
        assert [row["state"] for row in it.store.rows("SELECT state FROM extensions")] == ["failed"]


def often_as_people(model: str, prompt: str, nth: int) -> str:
    """The candidate writes four briefs of five as people do; the base writes nothing that fits."""
    if model == BASE:
        return "Something nice for everyone."
    item = next(i for i in read_suite("en").items if prompt.startswith(i.task.instruction) and i.task.input in prompt)
    return "Nice." if zlib.crc32(item.id.encode()) % 5 == 0 else item.references[0]


async def inconclusive(it: World, edge: Edge) -> Scorecard:
    """A real scorecard of 20 briefs, by the engine that the desk has from now on."""
    directory = it.settings.adapters / "copy-0001"
    directory.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (directory / name).write_text(name)
    round = it.store.start_round({}, [], "d")
    it.store.finish_round(round.id, {}, path=str(directory), digest=digest_of(directory), base_model="m")
    it.settings = it.settings.model_copy(update={"copydesk_endpoint": edge.url})
    async with ModelClient(edge.url) as client:
        runner = Runner(it.store, client, it.settings.copydesk_home, it.settings.copydesk_model)
        return await runner.run("copy-0001", Plan(read_suite("en"), items=20, briefs=2, repeats=2))


@pytest.mark.socket
@pytest.mark.parametrize("killed", [False, True])
async def test_more_briefs_extend_the_card_in_place_also_when_the_bot_is_killed(tmp_path: Path, killed: bool) -> None:
    async with world(tmp_path, bot=False) as it, serving(often_as_people) as edge:
        scorecard = await inconclusive(it, edge)
        bot = str(Path(__file__).parent / "bot_process.py")
        process = await asyncio.create_subprocess_exec(sys.executable, bot, env={**os.environ, **environment(it)})
        try:
            card = await it.anna.wait_message("C_COPY", lambda m: offers(m, "more"))
            if killed:
                edge.hold_after = len(edge.requests) + 10
            await it.anna.press("C_COPY", str(card["ts"]), "more")
            if killed:
                await asyncio.wait_for(edge.holding.wait(), 60)
        finally:
            if killed:
                process.kill()
                await process.wait()
        if killed:
            (extension,) = Extensions(it.store).running()
            assert extension.pid is not None
            os.kill(extension.pid, signal.SIGKILL)  # the machine went down, and the command with it
            edge.hold_after = None
            process = await asyncio.create_subprocess_exec(sys.executable, bot, env={**os.environ, **environment(it)})
        try:
            shown = await it.anna.wait_message(
                "C_COPY", lambda m: m["ts"] == card["ts"] and "50 briefs" in str(m["blocks"]), timeout=90
            )
            assert "50 briefs" in str(shown["blocks"])
            assert [m["ts"] for m in await it.anna.messages("C_COPY") if offers(m, "grade_blind")] == [card["ts"]]
            found = Card.from_json(it.store.scorecard(scorecard.id).body or {})
            assert (found.items, len(it.store.rows("SELECT * FROM extensions"))) == (50, 1)
        finally:
            process.kill()
            await process.wait()
