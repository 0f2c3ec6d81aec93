"""A trial as leads and copywriters see it: under the scorecard and in its thread, over the sandbox's socket."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bot_world import World, environment, offers, running, scored, world
from test_canary import drafted

from bot.sandbox import Person
from bot.scorecards import trial_text
from bot.texts import Words
from serving.canary import Canaries, Canary, Liked, Trial
from serving.counts import wilson
from serving.life import Life
from serving.records import RatingSource, Verdict
from serving.registry import Registry
from serving.store import BASE, Store

STARTED = Canary(1, "copy-0001", 0.2, "U_MARA", "2026-03-02T08:15:00.000+00:00", None, None)
ENDED = replace(STARTED, ended_by="cli", ended_at="2026-03-04T09:30:00.000+00:00")


def rated(canary: Canary, candidate: tuple[int, int], live: tuple[int, int], people: int = 5) -> Trial:
    return Trial(canary, (Liked("copy-0001", 9, people, wilson(*candidate)), Liked(BASE, 30, 12, wilson(*live))))


def test_a_trial_reads_as_plain_sentences() -> None:
    assert trial_text(rated(STARTED, (12, 15), (40, 60)), Words("en")).splitlines() == [
        "*Being tried with 20 % of the people* since 2026-03-02 08:15 UTC; started by <@U_MARA>. Liked so far:",
        "• copy-0001: 12 of 15 times (80 %, likely 55 % to 93 %; people who rated: 5)",
        "• base model: 40 of 60 times (67 %, likely 54 % to 77 %; people who rated: 12)",
        "The difference may be chance.",
    ]
    assert trial_text(rated(ENDED, (0, 0), (1, 2), people=0), Words("zh")).splitlines() == [
        "copy-0001 给 20 % 的人试用过，从 2026-03-02 08:15 到 2026-03-04 09:30（UTC），由 命令行 结束。期间的好评：",
        "• copy-0001：还没有人评价",
        "• 基础模型：12 人 2 次评价，1 次好评（50 %，大约 9 % 到 91 %）",
        "评价的人太少，还无法比较：每个版本至少要 5 人。",
    ]


@pytest.mark.parametrize(
    ("candidate", "live", "said"),
    [
        ((28, 30), (30, 60), "copy-0001 is liked more often, and not by chance."),
        ((5, 30), (40, 60), "copy-0001 is liked less often, and not by chance."),
    ],
)
def test_a_difference_is_called_real_where_the_intervals_part(
    candidate: tuple[int, int], live: tuple[int, int], said: str
) -> None:
    assert trial_text(rated(STARTED, candidate, live), Words("en")).endswith(said)
    few = "Too few people have rated yet to compare: at least 5 a version."
    assert trial_text(rated(STARTED, candidate, live, people=4), Words("en")).endswith(few)


def canaries(it: World) -> Canaries:
    return Canaries(it.store, Registry(it.store, it.settings.copydesk_leads))


async def offered(person: Person, version: str) -> dict[str, Any]:
    """The scorecard once it offers a trial."""
    return await person.wait_message("C_COPY", lambda m: version in m["text"] and offers(m, "try"))


async def card_with(person: Person, text: str) -> dict[str, Any]:
    return await person.wait_message("C_COPY", lambda m: text in str(m.get("blocks")))


async def final(person: Person, card: dict[str, Any]) -> dict[str, Any]:
    return await person.wait_message("C_COPY", lambda m: "was tried with" in m["text"], thread_ts=card["ts"])


def rate(store: Store, version: str, up: int, down: int) -> None:
    for number in range(up + down):
        draft = drafted(store, version, f"{version}-{number}")
        store.rate(draft, "U_ANNA", Verdict.UP if number < up else Verdict.DOWN, RatingSource.BUTTON)


@pytest.mark.socket
async def test_a_lead_tries_a_version_reads_the_figures_and_ends_it(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        version = scored(it)
        card = await offered(it.mara, version.name)
        await it.anna.press("C_COPY", card["ts"], "try")
        refused = await it.anna.wait_message("C_COPY", lambda m: m["ephemeral"])
        assert refused["text"] == "Only a lead decides about versions: <@U_MARA>"
        assert canaries(it).running is None
        await asyncio.gather(*(it.mara.press("C_COPY", card["ts"], "try") for _ in range(3)))
        shown = await card_with(it.anna, "started by <@U_MARA>")
        assert not offers(shown, "try")
        assert len(it.store.rows("SELECT * FROM canaries")) == 1
        await it.anna.wait_until(lambda _: version.name in it.engine.loaded, "The candidate is not loaded")
        rate(it.store, version.name, 3, 1)
        rate(it.store, BASE, 1, 1)
        await card_with(it.anna, "copy-0001: 3 of 4 times (75 %, likely 30 % to 95 %; people who rated: 1)")
        await card_with(it.anna, "base model: 1 of 2 times")
        await it.anna.press("C_COPY", card["ts"], "end_trial")
        assert canaries(it).running is not None
        for _ in range(3):
            await it.mara.press("C_COPY", card["ts"], "end_trial")
        told = await final(it.anna, card)
        assert "ended by <@U_MARA>. Liked:\n• copy-0001: 3 of 4 times" in told["text"]
        shown = await offered(it.anna, version.name)
        assert "was tried with" in str(shown["blocks"])
        assert len([m for m in await it.anna.thread("C_COPY", card["ts"]) if "was tried with" in m["text"]]) == 1


@pytest.mark.socket
async def test_only_one_version_is_tried_and_a_decision_ends_it(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        first, second = scored(it), scored(it)
        cards = {version.name: await offered(it.mara, version.name) for version in (first, second)}
        await it.mara.press("C_COPY", cards[first.name]["ts"], "try")

        def alone(message: dict[str, Any]) -> bool:
            return message["ts"] == cards[second.name]["ts"] and not offers(message, "try")

        await it.mara.wait_message("C_COPY", alone)
        Registry(it.store, ()).reject(first.name, user="cli")
        told = await final(it.mara, cards[first.name])
        assert "ended by the command line" in told["text"]
        await offered(it.mara, second.name)
        canaries(it).start(second.name, 5, user="cli")
        await card_with(it.anna, "Being tried with 5 % of the people")


@pytest.mark.socket
async def test_a_version_that_the_engine_could_not_serve_is_not_tried(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        version = scored(it)
        Life(it.store).record_load(version.name, "no memory is left")
        card = await offered(it.mara, version.name)
        await it.mara.press("C_COPY", card["ts"], "try")
        refused = await it.mara.wait_message("C_COPY", lambda m: m["ephemeral"])
        assert refused["text"] == ("copy-0001 cannot be tried, since the engine could not serve it: no memory is left")


@pytest.mark.socket
async def test_a_trial_that_ended_while_the_bot_was_killed_is_told_once(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        version = scored(it)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).parent / "bot_process.py"),
            env={**os.environ, **environment(it), "COPYDESK_LEADS": "U_MARA"},
        )
        card = await offered(it.mara, version.name)
        await it.mara.press("C_COPY", card["ts"], "try")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        started = canaries(it).running
        assert started is not None
        async with running(it, orderly=False):
            await card_with(it.anna, "Being tried with 20 %")
        canaries(it).end(started.id, user="U_MARA")
        async with running(it, orderly=False):
            await final(it.anna, card)
        with it.store.transaction() as db:
            db.execute("UPDATE canaries SET told_at = NULL")  # as after a kill between posting and marking
        async with running(it):
            await it.anna.wait_until(lambda _: not canaries(it).untold, "The trial is not marked as told")
        assert len([m for m in await it.anna.thread("C_COPY", card["ts"]) if "was tried with" in m["text"]]) == 1
        assert it.store.live() == BASE != version.name
