"""Whole scorecards over a real store and HTTP: comparing, going on after a stop, strange texts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evals_edge import Edge, Writer, serving
from typer.testing import CliRunner

from evals.__main__ import app
from evals.comparison import compare
from evals.lint import lint, read_starter
from evals.plan import Plan
from evals.report import read_report
from evals.rolling import rolling_suite
from evals.runner import Runner
from evals.suite import Suite, read_suite, suite_names
from serving.card import Card, Caveat, Reason, Verdict
from serving.client import EngineUnavailable, ModelClient
from serving.prompt import task_of
from serving.records import CopydeskError, PairSource, Requirements, Split, Task
from serving.registry import digest_of
from serving.settings import Settings
from serving.store import NewPair, Store, split_of

NAMES = ("mug", "lamp", "scarf", "kettle", "stool", "basket", "clock", "tray", "vase", "rug", "hook", "bench")


def row(name: str) -> dict[str, object]:
    requirements = {
        "product": f"Arbel {name}",
        "selling_points": [[f"oak {name} rim"], ["made to last"]],
        "length": [8, 30],
        "emoji": [0, 0],
        "call_to_action": True,
    }
    return {
        "id": f"en-{name}",
        "language": "en",
        "category": "home",
        "requirements": requirements,
        "references": [
            f"Arbel {name} has an oak {name} rim and is made to last. Order the {name} today.",
            f"The Arbel {name} brings an oak {name} rim to your table, made to last. Take one home.",
        ],
    }


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    path = tmp_path / "home.jsonl"
    path.write_text("\n".join(json.dumps(row(name)) for name in NAMES), encoding="utf-8")
    return read_suite(str(path))


@pytest.fixture
def plan(suite: Suite) -> Plan:
    return Plan(suite, items=12, briefs=4, repeats=3, seed=5)


def good(prompt: str) -> str:
    name = next(name for name in NAMES if f"Arbel {name}." in prompt)
    return f"Arbel {name} has an oak {name} rim and is made to last for you. Put one by the door."


def candidate_is_good(model: str, prompt: str, nth: int) -> str:
    return good(prompt) if model != "base" else "Something nice for everyone."


def train(store: Store, home: Path, outputs: list[NewPair] | None = None) -> str:
    """A version with files and row, as a round leaves it."""
    store.add_pairs(outputs or [])
    round = store.start_round({}, [pair.id for pair in store.pairs()], "digest")
    path = home / "adapters" / round.version
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text("{}")
    (path / "adapter_model.safetensors").write_bytes(round.version.encode())
    store.finish_round(round.id, {}, path=str(path), digest=digest_of(path), base_model="toy")
    return round.version


def runner(store: Store, client: ModelClient, settings: Settings) -> Runner:
    return Runner(store, client, settings.copydesk_home, "toy", pauses=(0.01, 0.01))


async def scored(write: Writer, store: Store, settings: Settings, plan: Plan, name: str) -> Card:
    async with serving(write) as edge, ModelClient(edge.url) as client:
        card = await runner(store, client, settings).run(name, plan)
    assert card.body is not None
    return Card.from_json(json.loads(json.dumps(card.body)))


async def test_a_card_compares_the_candidate_with_the_live_version(
    store: Store, settings: Settings, plan: Plan
) -> None:
    name = train(store, settings.copydesk_home)
    async with serving(candidate_is_good) as edge, ModelClient(edge.url) as client:
        stored = await runner(store, client, settings).run(name, plan)
    assert stored.body is not None
    card = Card.from_json(stored.body)
    assert card.to_json() == Card.from_json(json.loads(json.dumps(stored.body))).to_json()
    assert (card.version, card.baseline, card.live and card.live.version) == (name, "base", "base")
    assert card.candidate.excellent.successes == 12
    assert card.live is not None
    assert card.live.grades == {"excellent": 0, "acceptable": 0, "fail": 12}
    assert card.excellent_difference is not None
    assert (card.excellent_difference.gained, card.excellent_difference.lost) == (12, 0)
    assert card.excellent_difference.p < 0.001
    assert card.bleu_difference is not None
    assert card.bleu_difference.low > 0
    assert card.candidate.pass_k[-1].value == 1.0
    assert card.live.pass_k[-1].value == 0.0
    assert 0 < (card.candidate.metric("bleu").ceiling or 0) < 1
    assert Caveat.SMALL_SAMPLE in card.caveats
    picture = (settings.copydesk_home / card.chart).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert {body["model"] for body in edge.requests} == {"base", name}
    assert not any("seed" in body for body in edge.requests)
    assert 1 < edge.most_in_flight <= 24
    assert [shown.version for shown in store.unannounced_scorecards()] == [name]


async def stop_after_thirty(edge: Edge, run: Coroutine[Any, Any, Any]) -> None:
    """Of its requests: the baseline's 24 and a few of the candidate's."""
    edge.hold_after = 30
    task = asyncio.create_task(run)
    await edge.holding.wait()
    await asyncio.sleep(0.2)  # the thirty answers reach the store
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    edge.hold_after = None


async def test_a_stopped_run_goes_on_without_asking_again(store: Store, settings: Settings, plan: Plan) -> None:
    name = train(store, settings.copydesk_home)
    async with serving(candidate_is_good) as edge, ModelClient(edge.url) as client:
        await stop_after_thirty(edge, runner(store, client, settings).run(name, plan))
        assert store.scorecards(name) == []
        card = await runner(store, client, settings).run(name, plan)
        assert len(edge.requests) == 48
    assert len(store.samples(card.id)) == 24
    assert card.body is not None


async def test_what_a_stopped_run_generated_serves_a_run_against_another_baseline(
    store: Store, settings: Settings, plan: Plan
) -> None:
    live, name = train(store, settings.copydesk_home), train(store, settings.copydesk_home)
    async with serving(candidate_is_good) as edge, ModelClient(edge.url) as client:
        await stop_after_thirty(edge, runner(store, client, settings).run(name, plan))
        hotter = replace(plan, sampling=replace(plan.sampling, temperature=1.0))
        for other in (hotter, replace(plan, seed=6)):  # these share nothing with what was stopped
            await runner(store, client, settings).run(name, other, baseline=live)
        card = await runner(store, client, settings).run(name, plan, baseline=live)
        asked = Counter(body["model"] for body in edge.requests)
        assert asked == {"base": 24, live: 3 * 24, name: 3 * 24}
    assert (card.baseline, len(store.samples(card.id))) == (live, 24)


async def test_the_baseline_is_generated_once_for_all_candidates(store: Store, settings: Settings, plan: Plan) -> None:
    first = train(store, settings.copydesk_home)
    second = train(store, settings.copydesk_home)
    async with serving(candidate_is_good) as edge, ModelClient(edge.url) as client:
        for name in (first, second, second):
            await runner(store, client, settings).run(name, plan)
        asked = [body["model"] for body in edge.requests]
    assert {name: asked.count(name) for name in set(asked)} == {"base": 24, first: 24, second: 24}
    assert len(store.scorecards(second)) == 2


async def test_a_live_version_as_baseline_is_not_announced_again(store: Store, settings: Settings, plan: Plan) -> None:
    first, second = train(store, settings.copydesk_home), train(store, settings.copydesk_home)
    async with serving(candidate_is_good) as edge, ModelClient(edge.url) as client:
        card = await runner(store, client, settings).run(second, plan, baseline=first)
    assert card.baseline == first
    assert [shown.version for shown in store.unannounced_scorecards()] == [second]


async def test_an_engine_that_stumbles_is_asked_again(store: Store, settings: Settings, plan: Plan) -> None:
    async with serving(candidate_is_good) as edge, ModelClient(edge.url) as client:
        edge.broken = 5
        card = await runner(store, client, settings).run("base", plan)
    assert card.body is not None
    assert len(edge.requests) == 24


async def test_an_engine_that_stays_away_is_one_clear_error(store: Store, settings: Settings, plan: Plan) -> None:
    async with serving(candidate_is_good) as edge, ModelClient(edge.url) as client:
        edge.broken = 10_000
        with pytest.raises(EngineUnavailable, match="run this again"):
            await runner(store, client, settings).run("base", plan)
    assert store.scorecards() == []


async def test_strange_texts_are_failed_and_shown_never_a_crash(store: Store, settings: Settings, plan: Plan) -> None:
    strange = ["", "🌿🌿", "x" * 20_000, "这是中文。", "\x00\ufffd", "# \n\n- "]
    name = train(store, settings.copydesk_home)

    def write(model: str, prompt: str, nth: int) -> str:
        return strange[(nth + len(prompt)) % len(strange)]

    card = await scored(write, store, settings, plan, name)
    assert card.candidate.grades["fail"] == 12
    assert (card.verdict, card.reason) == (Verdict.FAIL, Reason.BELOW_BAR)
    assert len(card.worst) == 3
    assert all(sample.reasons for sample in card.worst)


async def test_files_that_changed_are_not_scored(store: Store, settings: Settings, plan: Plan) -> None:
    name = train(store, settings.copydesk_home)
    (Path(store.version(name).path) / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(CopydeskError, match="digest"):
        await scored(candidate_is_good, store, settings, plan, name)


async def test_a_planted_regression_fails(store: Store, settings: Settings, plan: Plan) -> None:
    name = train(store, settings.copydesk_home)

    def worse(model: str, prompt: str, nth: int) -> str:
        return good(prompt) if model == "base" else "A thing for the house, made to last."

    card = await scored(worse, store, settings, plan, name)
    assert (card.verdict, card.reason) == (Verdict.FAIL, Reason.WORSE_THAN_LIVE)
    assert card.reason_values == {"gained": 0, "lost": 12, "p": 2 / 2**12}


async def test_equal_versions_with_few_briefs_are_inconclusive(store: Store, settings: Settings, plan: Plan) -> None:
    name = train(store, settings.copydesk_home)
    card = await scored(lambda model, prompt, nth: good(prompt), store, settings, plan, name)
    assert (card.verdict, card.reason) == (Verdict.INCONCLUSIVE, Reason.TOO_FEW)
    assert card.reason_values["n"] == 12


async def test_a_forbidden_claim_fails_and_is_named(store: Store, settings: Settings, plan: Plan) -> None:
    name = train(store, settings.copydesk_home)

    def write(model: str, prompt: str, nth: int) -> str:
        return good(prompt).replace("for you", "guaranteed") if nth == 2 else good(prompt)

    card = await scored(write, store, settings, plan, name)
    assert (card.verdict, card.reason) == (Verdict.FAIL, Reason.FORBIDDEN_CLAIM)
    assert card.reason_values["claim"] == "guaranteed"


async def test_a_planted_leak_fails_the_card(store: Store, settings: Settings, plan: Plan) -> None:
    item = plan.suite.items[0]
    name = train(store, settings.copydesk_home, [NewPair(item.task, "An output of its own.", PairSource.IMPORT)])
    card = await scored(candidate_is_good, store, settings, plan, name)
    assert (card.verdict, card.reason) == (Verdict.FAIL, Reason.LEAK)
    assert card.reason_values == {"count": 1, "item": item.id}


async def test_a_memoriser_is_named(store: Store, settings: Settings, plan: Plan) -> None:
    output = "This chair is the one that my neighbor made from the old door of the mill by the river."
    pairs = [NewPair(read_starter("en")[0].task, output, PairSource.IMPORT)]
    name = train(store, settings.copydesk_home, pairs)
    card = await scored(lambda model, prompt, nth: output, store, settings, plan, name)
    assert Caveat.MEMORISED in card.caveats


def test_a_larger_draw_keeps_the_smaller_one(suite: Suite) -> None:
    assert suite.draw(9, 3, "following")[:4] == suite.draw(4, 3, "following")
    assert suite.draw(9, 3, "following") != suite.draw(9, 4, "following")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"references": []}, "at least one"),
        ({"references": None}, "at least one"),
        ({"language": "fr"}, "language is 'fr'"),
        ({"requirements": {"length": [9]}}, "length"),
        ({"requirements": {"colour": "red"}}, "colour"),
        ({"requirements": {"aliases": "Alder"}}, "aliases must be a list of texts"),
        ({"requirements": {"format": "bullets"}}, "format must be paragraph or list"),
        ({"requirements": []}, "line 2"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(json.dumps(row("mug")) + "\n" + json.dumps({**row("lamp"), **change}), encoding="utf-8")
    with pytest.raises(CopydeskError, match="line 2") as error:
        read_suite(str(path))
    assert said in str(error.value)


def test_lint_prints_json(tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    path.write_text("\n".join(map(json.dumps, [row("mug"), row("mug") | {"id": "again"}])), encoding="utf-8")
    told = CliRunner().invoke(app, ["lint", str(path), "--json"])
    assert told.exit_code == 1
    assert any("again: Brief with the same brief as en-mug" in found for found in json.loads(told.stdout)[str(path)])


def test_lint_finds_what_is_planted(tmp_path: Path, suite: Suite) -> None:
    # The suite of these tests is one sentence with other nouns, which lint says too.
    assert [found for found in lint(suite, read_starter("en")[:20]) if "nearly the same" not in found] == []
    starter = read_starter("en")[:3]
    leak = row("mug") | {"references": [starter[0].output]}
    path = tmp_path / "planted.jsonl"
    path.write_text("\n".join(map(json.dumps, [leak, row("lamp"), {**row("lamp"), "id": "again"}])), encoding="utf-8")
    found = "\n".join(lint(read_suite(str(path)), starter))
    assert "en-mug: a reference is a training pair's output" in found
    assert "en-mug, reference 1: The product is not named" in found
    assert "again: Brief with the same brief as en-lamp" in found


@pytest.mark.parametrize("name", suite_names())
def test_the_shipped_suite_and_starter_pairs_are_sound(name: str) -> None:
    shipped = read_suite(name)
    assert lint(shipped, read_starter(shipped.language)) == []


def steady(model: str, prompt: str, nth: int) -> str:
    return good(prompt)


@pytest.fixture
def large(tmp_path: Path) -> Suite:
    """Sixty briefs, enough to be extended by thirty."""
    rows = []
    for n in range(60):
        made = json.loads(json.dumps(row(NAMES[n % len(NAMES)])).replace("Arbel", f"Arbel{n}"))
        rows.append(json.dumps({**made, "id": f"en-{n:03}"}))
    path = tmp_path / "large.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return read_suite(str(path))


def any_good(model: str, prompt: str, nth: int) -> str:
    if "Write product copy for " not in prompt:  # the client asks what the endpoint can do
        return "Yes."
    product = prompt.split("Write product copy for ")[1].split(".")[0]
    return f"{product} has an oak {product.split()[1]} rim and is made to last for you. Put one by the door."


async def test_thirty_more_briefs_extend_the_same_card(store: Store, settings: Settings, large: Suite) -> None:
    name = train(store, settings.copydesk_home)
    async with serving(any_good) as edge, ModelClient(edge.url) as client:
        first = await runner(store, client, settings).run(name, Plan(large, items=12, briefs=2, repeats=2))
        store.mark_announced(first.id, "C_COPY", "1.1")
        before = [sample.id for sample in store.samples(first.id)]
        asked = len(edge.requests)
        extended = await runner(store, client, settings).extend(first.id)
        assert len(edge.requests) == asked + 60  # thirty of either version, none of them a second time
        with pytest.raises(CopydeskError, match="says pass"):
            await runner(store, client, settings).extend(first.id)
    card = Card.from_json(extended.body or {})
    assert extended.id == first.id
    assert (card.items, card.verdict, card.looks) == (42, Verdict.PASS, 2)
    assert card.item_ids[:12] == Card.from_json(first.body or {}).item_ids
    assert len(set(card.item_ids)) == 42
    assert Caveat.EXTENDED in card.caveats
    assert card.live is not None
    assert card.live.excellent.total == 42
    assert [sample.id for sample in store.samples(first.id) if sample.id in before] == before
    assert [shown.id for shown in store.unannounced_scorecards()] == [first.id]


async def test_a_larger_card_of_the_same_samples_is_a_further_look(
    store: Store, settings: Settings, large: Suite
) -> None:
    name = train(store, settings.copydesk_home)
    async with serving(any_good) as edge, ModelClient(edge.url) as client:
        cards = []
        for items in (12, 12, 30, 30):
            made = await runner(store, client, settings).run(name, Plan(large, items=items, briefs=2, repeats=2))
            cards.append(Card.from_json(made.body or {}))
    assert [card.looks for card in cards] == [1, 1, 2, 2]
    assert [Caveat.EXTENDED in card.caveats for card in cards] == [False, False, True, True]


async def test_an_extension_stops_at_the_end_of_the_suite(store: Store, settings: Settings, plan: Plan) -> None:
    name = train(store, settings.copydesk_home)
    async with serving(steady) as edge, ModelClient(edge.url) as client:
        card = await runner(store, client, settings).run(name, plan)
        with pytest.raises(CopydeskError, match="all 12 briefs"):
            await runner(store, client, settings).extend(card.id)


async def test_an_extension_survives_kill_9(store: Store, settings: Settings, large: Suite) -> None:
    name = train(store, settings.copydesk_home)
    async with serving(any_good) as edge:
        async with ModelClient(edge.url) as client:
            card = await runner(store, client, settings).run(name, Plan(large, items=12, briefs=2, repeats=2))
        environment = {
            **os.environ,
            "COPYDESK_HOME": str(settings.copydesk_home),
            "COPYDESK_ENDPOINT": edge.url,
            "COPYDESK_MODEL": "toy",
        }
        command = [sys.executable, "-m", "evals", "more", str(card.id), "--json"]
        edge.hold_after = len(edge.requests) + 40  # the live version's thirty, and a few of the candidate's
        process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.DEVNULL)
        await edge.holding.wait()
        await asyncio.sleep(0.3)
        process.kill()
        await process.wait()
        assert Card.from_json(store.scorecard(card.id).body or {}).items == 12
        edge.hold_after = None
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        printed, _ = await process.communicate()
        assert process.returncode == 0
        assert [found["items"] for found in json.loads(printed)] == [42]
        asked = [body for body in edge.requests if body["max_tokens"] > 1]  # not the client's question what is there
        assert len(asked) <= 2 * 16 + 60 + 10  # what was in flight when it was killed may be asked again
    assert len(store.samples(card.id)) == 16 + 30


async def test_a_brief_that_asks_for_more_gets_more_tokens(store: Store, settings: Settings, plan: Plan) -> None:
    first, *others = plan.suite.items
    asking = replace(first.task.requirements, length=(240, 300))
    longer = replace(first, task=task_of(asking, "en", "home"))
    plan = replace(plan, suite=replace(plan.suite, items=(longer, *others)))
    async with serving(candidate_is_good) as edge, ModelClient(edge.url) as client:
        await runner(store, client, settings).run("base", plan)
    assert {body["max_tokens"] for body in edge.requests} == {256, 600}


async def test_two_cards_are_compared_on_the_briefs_that_both_have(
    store: Store, settings: Settings, plan: Plan
) -> None:
    name = train(store, settings.copydesk_home)
    async with serving(candidate_is_good) as edge, ModelClient(edge.url) as client:
        card = await runner(store, client, settings).run(name, plan)
    base = store.scorecards("base")[0]
    found = compare(store, base, card, settings.copydesk_home / "suites")
    assert (found.items, found.briefs, found.k) == (12, 4, 3)
    assert (found.excellent.gained, found.excellent.lost) == (12, 0)
    assert found.excellent.value == found.meeting.value == 1.0
    assert found.bleu.low > 0
    mirrored = compare(store, card, base, settings.copydesk_home / "suites")
    assert mirrored.excellent.value == -1.0
    assert mirrored.bleu.value == pytest.approx(-found.bleu.value)
    same = compare(store, card, card, settings.copydesk_home / "suites")
    assert (same.excellent.value, same.excellent.p, same.bleu.p) == (0.0, 1.0, 1.0)


async def test_cards_on_different_briefs_are_not_compared(
    store: Store, settings: Settings, plan: Plan, large: Suite
) -> None:
    async with serving(any_good) as edge, ModelClient(edge.url) as client:
        one = await runner(store, client, settings).run("base", plan)
        other = await runner(store, client, settings).run("base", Plan(large, items=4, briefs=1, repeats=2))
    with pytest.raises(CopydeskError, match="only cards on the same briefs"):
        compare(store, one, other, settings.copydesk_home / "suites")


def write_feedback(store: Store, count: int) -> list[Task]:
    """Held-out briefs with a correction of each, and one that trains."""
    tasks = []
    for n in range(400):
        task = task_of(Requirements(product=f"Nook {n} shelf", length=(5, 40)), "en", "home")
        if split_of(task) is Split.HELD_OUT and len(tasks) < count:
            tasks.append(task)
    pairs = [
        NewPair(task, f"{task.requirements.product} holds a hat, two bags and {n + 2} umbrellas.", PairSource.IMPORT)
        for n, task in enumerate(tasks)
    ]
    store.add_pairs(pairs)
    return tasks


def test_held_out_feedback_becomes_a_suite_that_grows(store: Store) -> None:
    with pytest.raises(CopydeskError, match="no rolling-en yet"):
        rolling_suite(store, "en")
    tasks = write_feedback(store, 3)
    store.add_pairs(
        [NewPair(tasks[0], f"{tasks[0].requirements.product}, in other words, for the hall.", PairSource.IMPORT)]
    )
    store.add_pairs([NewPair(tasks[1], "A text that only a model wrote.", PairSource.ACCEPTED)])
    suite = rolling_suite(store, "en")
    assert (suite.name, suite.language) == ("rolling-en", "en")
    assert [item.task for item in suite.items] == tasks
    assert [len(item.references) for item in suite.items] == [2, 1, 1]
    assert rolling_suite(store, "en").digest == suite.digest
    with pytest.raises(CopydeskError, match="rolling-zh"):
        rolling_suite(store, "zh")


def test_a_held_out_brief_whose_text_trains_is_left_out(store: Store) -> None:
    tasks = write_feedback(store, 2)
    trains = next(
        task
        for n in range(400)
        if split_of(task := task_of(Requirements(product=f"Hall {n} hook"), "en")) is Split.TRAIN
    )
    text = f"{tasks[0].requirements.product} holds a hat, a coat, two bags and all that comes home in the rain."
    store.add_pairs([NewPair(tasks[0], text, PairSource.IMPORT), NewPair(trains, text, PairSource.IMPORT)])
    assert [item.task for item in rolling_suite(store, "en").items] == tasks[1:]


def test_a_held_out_brief_that_any_text_or_none_would_meet_is_left_out(store: Store) -> None:
    tasks = write_feedback(store, 2)
    store.add_pairs(
        [
            NewPair(task, "A hall, a hat, a hook.", PairSource.IMPORT)
            for n in range(400)
            if split_of(task := Task(f"Write an ad for hook {n}", "warm, please", "en", "home")) is Split.HELD_OUT
        ]
    )
    short = next(
        task
        for n in range(400)
        if split_of(task := task_of(Requirements(product=f"Hall {n} hook"), "en")) is Split.HELD_OUT
    )
    store.add_pairs([NewPair(short, "It names no hook.", PairSource.IMPORT)])
    assert [item.task for item in rolling_suite(store, "en").items] == tasks


async def test_a_rolling_suite_scores_like_any_other_and_outlives_its_pairs(store: Store, settings: Settings) -> None:
    write_feedback(store, 4)
    name = train(store, settings.copydesk_home)
    plan = Plan(rolling_suite(store, "en"), items=3, briefs=1, repeats=2)
    async with serving(lambda model, prompt, nth: "A shelf.") as edge, ModelClient(edge.url) as client:
        scorecard = await runner(store, client, settings).run(name, plan)
    store.withdraw_pair(1)
    report = read_report(store, scorecard, settings.copydesk_home / "suites")
    assert len(report.briefs) == 4
    assert (report.card.suite, report.card.language) == ("rolling-en", "en")
