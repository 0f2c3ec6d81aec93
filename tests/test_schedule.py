"""When rounds start by themselves, and what the channel sees of a round."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp.test_utils import unused_port
from bot_world import World, offers, running, world
from openai_double import EngineDouble
from pydantic import ValidationError

from bot.rounds import round_text
from bot.schedule import PAUSE, Rules, Schedule, due
from bot.texts import Words
from serving.exchange import starter_pairs
from serving.jobs import Job, Jobs
from serving.processes import log_of
from serving.records import Round, RoundState
from serving.settings import Settings
from serving.store import Store

NIGHT = (time(22), time(6))
NOW = datetime(2026, 5, 1, 23, 0, tzinfo=UTC)


def hours_ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


@pytest.mark.parametrize(
    ("rules", "last_round", "new_pairs", "expected"),
    [
        (Rules(), hours_ago(99), 99, False),
        (Rules(hours=24), None, 1, True),
        (Rules(hours=24), None, 0, False),
        (Rules(hours=24), hours_ago(23.9), 50, False),
        (Rules(hours=24), hours_ago(24), 1, True),
        (Rules(hours=24), hours_ago(99), 0, False),
        (Rules(pairs=20), hours_ago(0.1), 19, False),
        (Rules(pairs=20), hours_ago(0.1), 20, True),
        (Rules(hours=24, pairs=20), hours_ago(1), 20, True),
        (Rules(hours=24, pairs=20), hours_ago(25), 1, True),
        (Rules(pairs=20, window=NIGHT), hours_ago(1), 20, True),
        (Rules(pairs=20, window=(time(1), time(5))), hours_ago(1), 20, False),
    ],
)
def test_a_round_is_due_by_the_clock_or_by_new_pairs(
    rules: Rules, last_round: datetime | None, new_pairs: int, expected: bool
) -> None:
    assert due(NOW, last_round, new_pairs, rules) is expected


@pytest.mark.parametrize(
    ("moment", "night", "day"),
    [("21:59", False, True), ("22:00", True, False), ("00:00", True, False), ("06:00", False, True)],
)
def test_a_window_may_reach_past_midnight(moment: str, night: bool, day: bool) -> None:
    assert Rules(window=NIGHT).open_at(time.fromisoformat(moment)) is night
    assert Rules(window=(time(6), time(22))).open_at(time.fromisoformat(moment)) is day


def test_rules_are_off_until_they_are_set(settings: Settings) -> None:
    assert not Rules.of(settings).any
    told = Settings(_env_file=None, copydesk_round_hours=12, copydesk_round_window="22:00-06:00")
    assert Rules.of(told) == Rules(hours=12, window=NIGHT)
    assert Rules.of(told).any


@pytest.mark.parametrize("window", ["22-6", "25:00-06:00", "22:00", "22:00-06:61"])
def test_a_window_that_is_none_is_refused(window: str) -> None:
    with pytest.raises(ValidationError):
        Settings(_env_file=None, copydesk_round_window=window)


async def test_new_pairs_become_a_version_scored_once_in_each_language(desk: Settings, store: Store) -> None:
    """The real trainer and the real evaluation, as processes of their own."""
    clock = NOW
    async with EngineDouble() as engine:
        changes = {"copydesk_endpoint": engine.url, "copydesk_round_pairs": 5}
        schedule = Schedule(desk.model_copy(update=changes), store, lambda: clock)
        stop = asyncio.Event()
        await schedule.look(stop)
        assert store.rounds() == []
        store.add_pairs(starter_pairs("en")[:6] + starter_pairs("zh")[:6])
        await schedule.look(stop)
        assert [round.state for round in store.rounds()] == [RoundState.DONE]
        assert [card.suite.split("@")[0] for card in store.scorecards("copy-0001")] == ["zh", "en"]
        clock += PAUSE
        await schedule.look(stop)
        assert len(store.rounds()) == 1


async def test_a_round_that_fails_is_not_tried_again_at_once(settings: Settings, store: Store) -> None:
    clock = NOW
    broken = settings.model_copy(update={"copydesk_model": str(settings.copydesk_home), "copydesk_round_pairs": 1})
    schedule = Schedule(broken, store, lambda: clock)
    store.add_pairs(starter_pairs("en")[:9])
    await schedule.look(asyncio.Event())
    log = (settings.logs / "trainer.log").read_text()
    assert "holds no model" in log
    await schedule.look(asyncio.Event())
    assert (settings.logs / "trainer.log").read_text() == log


async def test_with_a_cluster_the_schedules_rounds_go_there(settings: Settings, store: Store) -> None:
    changes = {"copydesk_ray_address": f"127.0.0.1:{unused_port()}", "copydesk_round_pairs": 1}
    schedule = Schedule(settings.model_copy(update=changes), store, lambda: NOW)
    store.add_pairs(starter_pairs("en")[:9])
    await schedule.look(asyncio.Event())
    assert re.search("No Ray cluster answers|Ray is not installed", log_of(settings, "serving.cluster").read_text())
    assert not log_of(settings, "trainer").exists()


async def test_a_round_that_is_killed_again_and_again_is_given_up(settings: Settings, store: Store) -> None:
    schedule = Schedule(settings.model_copy(update={"copydesk_round_pairs": 1}), store, lambda: NOW)
    store.add_pairs(starter_pairs("en")[:1])
    round = store.start_round({"name": "default"}, [1], "d")
    jobs = Jobs(store)
    for step, tries in ((5, 1), (5, 1), (9, 2), (9, 1), (9, 2), (7, 3)):
        jobs.begin(round.id, "f")
        jobs.report(round.id, step, 20, 1.0)
        begun = jobs.job(round.id)
        assert begun is not None
        assert begun.tries == tries
        assert store.round(round.id).state is RoundState.RUNNING
    with store.transaction() as db:
        db.execute("UPDATE round_jobs SET pid_started = 0")  # dead
    await schedule.look(asyncio.Event())
    given_up = store.round(round.id)
    assert given_up.state is RoundState.FAILED
    assert "killed 3 times" in given_up.message


# What the channel sees

HERE = datetime.now(UTC).isoformat()


def round_of(state: RoundState = RoundState.RUNNING, message: str = "") -> Round:
    return Round(7, "copy-0007", {}, state, 40, "", {}, message, HERE, None)


def job(**changes: Any) -> Job:
    """Of this process, which lives."""
    me = psutil.Process()
    own = Job(7, "", me.pid, me.create_time(), 0, 0, None, None, None, None, "", HERE, 1)
    return replace(own, **changes)


@pytest.mark.parametrize(
    ("round", "job", "says"),
    [
        (round_of(), job(), "Training copy-0007. The base model is being loaded."),
        (round_of(), job(step=5, steps=20, seconds_left=61), "Training copy-0007: 25% done, about 2 min left."),
        (round_of(), job(step=19, steps=20, seconds_left=3), "Training copy-0007: 95% done, less than a minute left."),
        (
            round_of(),
            job(pid_started=0.0),
            "Training copy-0007 was interrupted. The next round goes on where it stopped.",
        ),
        (round_of(), job(cancelled_by="U1"), "<@U1> cancelled copy-0007; it stops after this step."),
        (
            round_of(RoundState.FAILED),
            job(cancelled_by="cli"),
            "the command line cancelled copy-0007. What is live goes on; no example is lost.",
        ),
        (
            round_of(RoundState.FAILED, "<bad>"),
            job(),
            "copy-0007 was not finished. What is live goes on. Show this to your admin: &lt;bad&gt;",
        ),
        (round_of(RoundState.DONE), job(), "copy-0007 has learned from 40 examples. Its scorecard comes here."),
    ],
)
def test_a_round_is_told_in_one_sentence(round: Round, job: Job, says: str) -> None:
    assert round_text(round, job, Words("en")) == says


async def shown(it: World, text: str) -> dict[str, Any]:
    return await it.mara.wait_message("C_COPY", lambda message: text in json.dumps(message))


@pytest.mark.socket
async def test_leads_see_a_round_and_cancel_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.app.ROUNDS_S", 0.1)
    monkeypatch.setattr("bot.rounds.UPDATE_S", 0.3)
    async with world(tmp_path) as it:
        jobs = Jobs(it.store)
        round = it.store.start_round({"name": "default"}, [], "digest")
        jobs.begin(round.id, "fingerprint")
        message = await shown(it, "The base model is being loaded")
        assert offers(message, "cancel_round")
        jobs.report(round.id, 5, 20, 300.0)
        assert (await shown(it, "25% done, about 5 min left"))["ts"] == message["ts"]
        await it.anna.press("C_COPY", message["ts"], "cancel_round")
        await it.anna.wait_message("C_COPY", lambda m: m["ephemeral"] and "Only a lead" in m["text"])
        assert jobs.report(round.id, 6, 20, 280.0) is None
        await it.mara.press("C_COPY", message["ts"], "cancel_round")
        assert not offers(await shown(it, "<@U_MARA> cancelled copy-0001; it stops"), "cancel_round")
        assert jobs.report(round.id, 7, 20, 260.0) == "U_MARA"
        it.store.fail_round(round.id, "cancelled by U_MARA")
        ended = await shown(it, "<@U_MARA> cancelled copy-0001. What is live goes on")
        assert ended["ts"] == message["ts"]
        assert jobs.untold() == []


@pytest.mark.socket
async def test_a_round_that_ended_unseen_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.app.ROUNDS_S", 0.1)
    async with world(tmp_path, bot=False) as it:
        round = it.store.start_round({"name": "default"}, [], "digest")
        Jobs(it.store).begin(round.id, "fingerprint")
        it.store.fail_round(round.id, "no")
        async with running(it):
            await it.mara.wait_until(lambda state: Jobs(it.store).untold() == [], "The round stays untold")
        assert await it.mara.messages("C_COPY") == []
