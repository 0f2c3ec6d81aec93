"""Every accepted request is answered once and by the version that the row names: kills, crowds, engines in trouble."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from bot_world import BRIEF, World, environment, offers, refused_in, scored, world
from openai_double import Answer

from serving.canary import Canaries
from serving.life import Life
from serving.registry import Registry
from serving.store import BASE

pytestmark = pytest.mark.socket
HERE = Path(__file__).parent
KILLS = 30
CLIENTS = 8
VLLM = bool(os.environ.get("COPYDESK_CHAOS"))  # make chaos: the real engine is killed, a quarter to half an hour
PAUSE_S = 40.0 if VLLM else 1.5  # from kill to kill at most; vLLM starts in 30 s
CROWD = 1000
NEXT = "Warm light for late pages. Try it tonight."


def requests(it: World) -> int:
    return int(it.store.rows("SELECT count(*) AS n FROM requests")[0]["n"])


async def accepted(it: World, count: int, seconds: float = 60.0) -> None:
    """Until so many requests were accepted."""
    deadline = time.monotonic() + seconds
    while requests(it) < count:
        assert time.monotonic() < deadline, f"{requests(it)} requests of {count} were accepted"
        await asyncio.sleep(0.05)


async def answered(it: World, count: int, seconds: float = 60.0) -> None:
    """Until so many drafts are stored and nobody waits any more."""
    deadline = time.monotonic() + seconds
    while len(it.store.drafts()) < count or it.store.waiting_requests():
        assert time.monotonic() < deadline, f"{len(it.store.drafts())} drafts, {len(it.store.waiting_requests())} wait"
        await asyncio.sleep(0.2)


class Killed:
    """A process that is started again as soon as it is gone."""

    def __init__(self, *command: str, environment: dict[str, str]) -> None:
        self.command, self.environment = command, environment
        self.process: Process | None = None

    async def run(self) -> None:
        try:
            while True:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable, *self.command, env={**os.environ, **self.environment}
                )
                await self.process.wait()
        finally:
            if self.process and self.process.returncode is None:
                self.process.kill()
                await self.process.wait()

    def kill(self, chance: random.Random) -> None:
        """One of its processes."""
        if self.process and self.process.returncode is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(self.process.pid)
                chance.choice([process, *process.children(recursive=True)]).kill()


@asynccontextmanager
async def restarted(*processes: Killed) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(process.run()) for process in processes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.timeout(3600 if VLLM else 600)
async def test_kills_of_engine_and_bot_at_random_moments_lose_and_double_nothing(
    base_model: Path, tmp_path: Path
) -> None:
    chance = random.Random(5)
    async with world(tmp_path, bot=False) as it:
        socket = it.settings.engine_socket
        it.settings = it.settings.model_copy(update={"copydesk_endpoint": "" if VLLM else f"unix://{socket}"})
        if VLLM:
            place = {"COPYDESK_HOME": str(tmp_path), "COPYDESK_MODEL": str(base_model)}
            engine = Killed("-m", "serving.engine", environment=place)
        else:
            socket.parent.mkdir()
            engine = Killed(str(HERE / "openai_double.py"), str(socket), environment={"PYTHONPATH": str(HERE.parent)})
        bot = Killed(str(HERE / "bot_process.py"), environment=environment(it))
        sent: list[str] = []
        done = False

        async def client(number: int) -> None:
            turn = 0
            while not done:
                turn += 1
                sent.append(await it.anna.mention("C_COPY", f"{BRIEF} {number}.{turn}"))
                await asyncio.sleep(chance.uniform(0.5, 2.0) * PAUSE_S)

        async with restarted(engine, bot):
            await it.anna.wait_until(lambda state: state["connections"] > 0, "The bot did not connect")
            clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
            for number in range(KILLS):  # a machine may be too slow to accept anything between two kills
                await accepted(it, number + 1)
                await asyncio.sleep(chance.uniform(0.0, 1.0) * PAUSE_S)
                (engine if number % 2 else bot).kill(chance)
            done = True
            await asyncio.gather(*clients)
            await answered(it, requests(it), seconds=40 * PAUSE_S)
            rows = it.store.rows("SELECT r.thread_ts, d.ts FROM requests r LEFT JOIN drafts d ON d.request_id = r.id")
            assert {row["thread_ts"] for row in rows} <= set(sent)
            assert len(rows) >= KILLS
            for row in rows:
                shown = [m["ts"] for m in await it.anna.thread("C_COPY", row["thread_ts"]) if offers(m, "correct")]
                assert shown == [row["ts"]]


@pytest.mark.timeout(300)
async def test_a_thousand_requests_at_once_are_all_answered_in_bounded_memory(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        before = psutil.Process().memory_info().rss
        await asyncio.gather(*(it.anna.mention("C_COPY", f"{BRIEF} {number}") for number in range(CROWD)))
        await answered(it, CROWD, seconds=240)
        assert len(it.store.drafts()) == CROWD == len(it.engine.asked)
        assert psutil.Process().memory_info().rss - before < 600 << 20


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(status=500),
        Answer(raw=b"data: \xff\xfe{broken\n\n"),
        Answer(raw=b"<html>gateway</html>"),
        Answer(("Half ", "a ", "line"), breaks_after=2),
    ],
    ids=["500", "no UTF-8", "no protocol", "cut in the middle"],
)
async def test_an_engine_in_trouble_is_told_once_and_the_draft_comes(tmp_path: Path, trouble: Answer) -> None:
    async with world(tmp_path) as it:
        it.engine.answers = [trouble, trouble]
        ts = await it.anna.mention("C_COPY", BRIEF)
        await it.draft(it.anna, "C_COPY", ts)
        await answered(it, 1)
        assert [d.text for d in it.store.drafts()] == [NEXT]
        assert it.store.live() == BASE


async def test_a_request_that_the_engine_refuses_is_one_clear_message(tmp_path: Path) -> None:
    too_long = json.dumps({"error": {"message": "maximum context length is 2048 tokens"}}).encode()
    async with world(tmp_path) as it:
        it.engine.answers = [Answer(raw=too_long, status=400)]
        ts = await it.anna.mention("C_COPY", BRIEF)
        told = await it.anna.wait_message("C_COPY", lambda m: "too long for the model" in m["text"], thread_ts=ts)
        assert not offers(told, "correct")
        await answered(it, 0)
        assert (it.store.waiting_requests(), it.store.drafts(), len(it.engine.asked)) == ([], [], 1)


@pytest.mark.parametrize(
    "typed", ["copy-0001", "../../etc/passwd", "model: copy-0001", '"},"model":"copy-0001","x":{"']
)
async def test_nothing_that_a_person_types_chooses_an_adapter_or_a_path(tmp_path: Path, typed: str) -> None:
    async with world(tmp_path) as it:
        scored(it)
        ts = await it.anna.mention("C_COPY", f"{BRIEF} {typed}")
        await it.draft(it.anna, "C_COPY", ts)
        assert {asked["model"] for asked in it.engine.asked} == {BASE}
        assert it.engine.loaded == ["base"]


async def test_a_draft_in_a_canary_is_written_by_the_version_that_its_row_names(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        version = scored(it)
        started = Canaries(it.store, Registry(it.store, ("U_MARA",))).start(version.name, 50, user="U_MARA")
        for person in (it.anna, it.liwei):
            ts = await person.mention("C_COPY", BRIEF)
            await it.draft(person, "C_COPY", ts)
        await answered(it, 2)
        assert [d.version for d in it.store.drafts()[::-1]] == [asked["model"] for asked in it.engine.asked]
        expected = [version.name if started.chooses(user) else BASE for user in ("U_ANNA", "U_LIWEI")]
        assert [asked["model"] for asked in it.engine.asked] == expected


async def test_who_tries_a_candidate_that_the_engine_refuses_is_served_by_the_live_version(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        version = scored(it)
        started = Canaries(it.store, Registry(it.store, ("U_MARA",))).start(version.name, 50, user="U_MARA")
        assert any(started.chooses(user) for user in ("U_ANNA", "U_LIWEI", "U_MARA"))
        it.engine.strict = True
        (Path(version.path) / "adapter_config.json").unlink()
        for person in (it.anna, it.liwei, it.mara):
            ts = await person.mention("C_COPY", BRIEF)
            await it.draft(person, "C_COPY", ts)
        assert {d.version for d in it.store.drafts()} == {BASE}


async def test_a_version_that_nobody_tried_is_tried_before_it_goes_live(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        refused, good = scored(it), scored(it)
        it.engine.answers = [Answer(status=400)]
        card = await it.card(it.mara, refused.name)
        await it.mara.press("C_COPY", card["ts"], "approve")
        told = await refused_in(it.mara, await it.mara.wait_modal(callback_id="approve_view"))
        assert told.startswith("copy-0001 cannot go live, since the engine could not serve it: The engine refused")
        it.engine.answers = [Answer(status=500)]
        card = await it.card(it.mara, good.name)
        await it.mara.press("C_COPY", card["ts"], "approve")
        told = await refused_in(it.mara, await it.mara.wait_modal(callback_id="approve_view"))
        assert told.startswith("copy-0002 cannot go live yet: the engine has not shown so far")
        assert it.store.live() == BASE
        await it.mara.press("C_COPY", card["ts"], "approve")
        assert await it.mara.submit(await it.mara.wait_modal(callback_id="approve_view")) is None
        assert (it.store.live(), Life(it.store).last_failure(good.name)) == (good.name, "")


async def test_a_lead_who_approves_what_the_engine_cannot_serve_reads_why(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        version = scored(it)
        Life(it.store).record_load(version.name, "no memory is left")
        card = await it.card(it.mara, version.name)
        await it.mara.press("C_COPY", card["ts"], "approve")
        told = await refused_in(it.mara, await it.mara.wait_modal(callback_id="approve_view"))
        expected = "copy-0001 cannot go live, since the engine could not serve it: no memory is left"
        assert (told, it.store.live()) == (expected, BASE)
