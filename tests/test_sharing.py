"""The engine makes room for a round and comes back, whatever is killed meanwhile; what fits is planned beforehand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

import httpx2
import psutil
import pytest
from bot_world import BRIEF, BRIEF_ZH, World, world

from bot.app import Desk, serve
from bot.drafts import away_text
from bot.texts import Words
from serving.client import EngineUnavailable, ModelClient
from serving.engine import Engine, sharing_plan
from serving.handover import Away, Memory, away_for
from serving.jobs import Jobs
from serving.records import CopydeskError, Round
from serving.registry import Registry, digest_of
from serving.settings import Settings
from serving.sharing import GB, Limits, Machine, Mode, Plan, needs_of, plan
from serving.store import BASE, Store
from trainer.recipe import recipe_named
from trainer.rounds import run_round

HERE = Path(__file__).parent
LLAMA_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
LIMITS = Limits(rank=16, tokens=2048, cpu_cache=1 << 30)


# The plan


@pytest.fixture
def seven_b(tmp_path: Path) -> Path:
    """A model's directory with the shape of Llama-2-7B and weights that take no place on the disk."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_7B))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(13_480_000_000)
    return tmp_path


@pytest.mark.parametrize(
    ("gpu", "ram", "mode", "share"),
    [(80, 128, "together", 0.62), (48, 128, "sleep", 0), (24, 64, "sleep", 0), (24, 24, "stop", 0), (0, 64, "stop", 0)],
)
def test_a_7b_model_shares_a_large_gpu_and_sleeps_or_stops_on_a_small_one(
    seven_b: Path, gpu: int, ram: int, mode: Mode, share: float
) -> None:
    found = plan(Machine(gpu * GB, ram * GB), needs_of(seven_b, LIMITS, gpu=gpu > 0))
    assert (found.mode, round(found.share, 2)) == (mode, share), found.why


def test_the_needs_of_a_7b_round_are_near_what_was_measured(seven_b: Path) -> None:
    """23 GiB with 16 pairs a step on an H100 (docs/performance.md), which are about as many tokens at once."""
    needs = needs_of(seven_b, LIMITS, gpu=True)
    assert needs is not None
    assert 20 < needs.round / (1 << 30) < 26


def test_what_a_person_says_counts_and_so_does_what_is_not_known_yet(seven_b: Path) -> None:
    large = Machine(0, 256 * GB)
    forced = plan(large, needs_of(seven_b, LIMITS, gpu=False), "stop")
    assert (forced.mode, "COPYDESK_ROUND_ENGINE" in forced.why) == ("stop", True)
    assert plan(large, None).mode == "together"
    assert plan(Machine(24 * GB, 64 * GB), None).mode == "sleep", "what is not known may fill the GPU"
    assert needs_of(seven_b / "nowhere", LIMITS, gpu=True) is None
    assert plan(large, None, "sleep").mode == "stop", "vLLM sleeps on a GPU only"
    assert plan(Machine(None, 64 * GB), needs_of(seven_b, LIMITS, gpu=True)).mode == "sleep", "a GPU of unknown size"


def test_a_model_of_an_unusual_shape_is_served_without_an_estimate(tmp_path: Path) -> None:
    for shape in ({"text_config": {"hidden_size": 64}}, {"hidden_size": 64, "intermediate_size": None}):
        (tmp_path / "config.json").write_text(json.dumps(shape))
        assert needs_of(tmp_path, LIMITS, gpu=True) is None


def test_on_this_machine_the_embedded_model_and_its_rounds_run_together(settings: Settings, base_model: Path) -> None:
    found = sharing_plan(settings.model_copy(update={"copydesk_model": str(base_model)}))
    assert (found.mode, found.arguments(), found.environment()) == ("together", [], {})
    assert found.why.startswith("a round and the engine run together: ")


def test_a_sleeping_engine_has_the_routes_for_it_and_a_shared_gpu_is_divided(seven_b: Path) -> None:
    sleeping, beside = (plan(Machine(gpu * GB, 128 * GB), needs_of(seven_b, LIMITS, gpu=True)) for gpu in (24, 80))
    assert sleeping.arguments() == ["--enable-sleep-mode"]
    assert sleeping.environment() == {"VLLM_SERVER_DEV_MODE": "1"}
    assert beside.arguments() == ["--gpu-memory-utilization", "0.62"]
    assert beside.starts_alone


# When the engine is back

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("minutes", "en", "zh"),
    [
        (None, "I am learning from your corrections. Your draft comes", "学完后草稿会自动出现"),
        (0.5, "will be back in less than a minute.", "不到一分钟后回来"),
        (4.2, "will be back in about 5 min.", "约 5 分钟后回来"),
    ],
)
def test_people_read_when_their_draft_comes(minutes: float | None, en: str, zh: str) -> None:
    away = Away(None if minutes is None else NOW + timedelta(minutes=minutes))
    assert en in away_text(away, NOW, Words("en"))
    assert zh in away_text(away, NOW, Words("zh"))


def training(store: Store) -> Round:
    """A round that this process works on."""
    round = store.start_round({"name": "default"}, [], "digest")
    Jobs(store).begin(round.id, "fingerprint")
    return round


def test_the_engine_is_expected_when_the_round_ends_and_it_has_started(store: Store) -> None:
    assert away_for(store, 30) is None
    round = training(store)
    assert away_for(store, 30) == Away(None)
    Jobs(store).report(round.id, 1, 10, 600.0)
    away = away_for(store, 30)
    assert away is not None
    assert away.back is not None
    assert timedelta(seconds=625) < away.back - datetime.now(UTC) < timedelta(seconds=631)
    store.finish_round(round.id, {"seconds": 60.0}, path="/x", digest="d", base_model="m")
    assert away_for(store, 30) is None
    training(store)
    away = away_for(store, 30)
    assert away is not None
    assert away.back is not None, "the round before tells"


# The engine's double as the supervised process


class Supervised:
    """A running Engine and what it said."""

    def __init__(self, engine: Engine, said: list[str]) -> None:
        self.engine, self.said = engine, said

    async def until(self, state: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not self.said or self.said[-1] != state:
            assert time.monotonic() < deadline, self.said
            await asyncio.sleep(0.05)


def double() -> tuple[str, ...]:
    return sys.executable, str(HERE / "openai_double.py"), "{socket}"


def sharing(settings: Settings, base_model: Path, mode: Mode) -> Settings:
    return settings.model_copy(update={"copydesk_model": str(base_model), "copydesk_round_engine": mode})


@pytest.fixture
def pythonpath(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))


@asynccontextmanager
async def supervised(settings: Settings, store: Store, command: tuple[str, ...] = ()) -> AsyncIterator[Supervised]:
    said: list[str] = []
    stop = asyncio.Event()
    patched = pytest.MonkeyPatch()
    if settings.copydesk_round_engine == "sleep":  # vLLM sleeps on a GPU only, its double anywhere
        patched.setattr("serving.engine.sharing_plan", lambda _: Plan("sleep", True, 0.0, ""))
    engine = Engine(settings, store, said.append, command or double())
    task = asyncio.create_task(engine.run(stop))
    it = Supervised(engine, said)
    try:
        await it.until("ready")
        yield it
    finally:
        stop.set()
        await task
        patched.undo()


async def asleep(settings: Settings) -> bool:
    transport = httpx2.AsyncHTTPTransport(uds=str(settings.engine_socket))
    async with httpx2.AsyncClient(transport=transport, base_url="http://engine") as http:
        return bool((await http.get("/is_sleeping")).json()["is_sleeping"])


def taken(memory: Memory, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not memory.take():
        assert time.monotonic() < deadline, "nobody gave the memory back"
        time.sleep(0.05)


@pytest.mark.usefixtures("pythonpath")
@pytest.mark.parametrize("mode", ["sleep", "stop"])
async def test_the_engine_makes_room_for_a_round_and_comes_back(
    settings: Settings, store: Store, base_model: Path, mode: Mode
) -> None:
    desk = sharing(settings, base_model, mode)
    async with supervised(desk, store) as it:
        before, memory = it.engine.pid, Memory(desk)
        assert not memory.take(), "the engine has it"
        round = training(store)
        await asyncio.to_thread(taken, memory)
        assert it.said[-1] == "away"
        assert not it.engine.ready.is_set()
        if mode == "sleep":
            assert (it.engine.pid, await asleep(desk)) == (before, True)
            async with ModelClient(desk.endpoint) as client:
                with pytest.raises(EngineUnavailable, match="sleeps"):
                    await client.load("copy-0009", "/nowhere")
        else:
            assert it.engine.pid is None
        store.fail_round(round.id, "cancelled by cli")
        await asyncio.sleep(2)
        assert it.said[-1] == "away", "the round's process still fills the memory"
        memory.release()
        await it.until("ready")
        assert it.engine.away is None
        assert it.engine.restarts == 0
        if mode == "sleep":
            assert (it.engine.pid, await asleep(desk)) == (before, False)
        async with ModelClient(desk.endpoint) as client:
            assert await client.models() == [BASE]


@pytest.mark.usefixtures("pythonpath")
async def test_where_both_fit_the_engine_stays(settings: Settings, store: Store, base_model: Path) -> None:
    desk = sharing(settings, base_model, "together")
    async with supervised(desk, store) as it:
        training(store)
        assert Memory(desk).take()
        await asyncio.sleep(2.5)
        assert (it.said, it.engine.away) == (["starting", "ready"], None)


ROUND = """
import sys, time
from pathlib import Path
from serving.handover import Memory
from serving.jobs import Jobs
from serving.settings import Settings
from serving.store import Store
settings = Settings(_env_file=None, copydesk_home=Path(sys.argv[1]))
store = Store(settings.database)
Jobs(store).begin(store.start_round({}, [], "d").id, "f")
memory = Memory(settings)
while not memory.take():
    time.sleep(0.05)
print("mine", flush=True)
time.sleep(600)
"""


@pytest.mark.usefixtures("pythonpath")
@pytest.mark.parametrize("mode", ["sleep", "stop"])
async def test_a_killed_round_gives_the_memory_back(
    settings: Settings, store: Store, base_model: Path, mode: Mode
) -> None:
    desk = sharing(settings, base_model, mode)
    async with supervised(desk, store) as it:
        home = str(desk.copydesk_home)
        round = await asyncio.create_subprocess_exec(sys.executable, "-c", ROUND, home, stdout=asyncio.subprocess.PIPE)
        assert round.stdout is not None
        assert await round.stdout.readline() == b"mine\n"
        assert it.said[-1] == "away"
        round.kill()
        await round.wait()
        await it.until("ready")
        assert (it.engine.away, it.engine.restarts) == (None, 0)


async def put_to_sleep(it: Supervised, desk: Settings, store: Store) -> tuple[int, Memory, Round]:
    """A round has the memory from now on: the engine's process, the memory, the round."""
    before, memory = it.engine.pid, Memory(desk)
    assert before is not None
    round = training(store)
    await asyncio.to_thread(taken, memory)
    return before, memory, round


@pytest.mark.usefixtures("pythonpath")
async def test_an_engine_that_dies_asleep_starts_anew_after_the_round(
    settings: Settings, store: Store, base_model: Path
) -> None:
    desk = sharing(settings, base_model, "sleep")
    async with supervised(desk, store) as it:
        before, memory, round = await put_to_sleep(it, desk, store)
        os.kill(before, signal.SIGKILL)
        store.fail_round(round.id, "failed")
        memory.release()
        await it.until("ready")
        assert it.engine.pid not in (None, before)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.engine.HEALTH_S", 0.1)
    monkeypatch.setattr("serving.engine.UNANSWERED", 3)
    monkeypatch.setattr("serving.engine.STOP_TIMEOUT_S", 0.5)
    monkeypatch.setattr("serving.client.CONNECT_TIMEOUT_S", 1.0)


@pytest.mark.usefixtures("pythonpath")
async def test_an_engine_that_hangs_is_started_again(
    settings: Settings,
    store: Store,
    base_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    impatient(monkeypatch)
    async with supervised(sharing(settings, base_model, "together"), store) as it:
        before = it.engine.pid
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        await it.until("down")
        await it.until("ready")
        assert it.engine.pid not in (None, before)
        assert not psutil.pid_exists(before)
        assert it.engine.restarts == 1
    assert caplog.text.count("The engine lives and did not answer 3 times in a row") == 1


@pytest.mark.usefixtures("pythonpath")
async def test_an_engine_that_answers_now_and_then_stays(
    settings: Settings, store: Store, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = cycle((False, False, True))
    asked: list[bool] = []
    impatient(monkeypatch)

    async def healthy(client: ModelClient) -> bool:
        asked.append(next(answers))
        return asked[-1]

    async with supervised(sharing(settings, base_model, "together"), store) as it:
        monkeypatch.setattr(ModelClient, "healthy", healthy)
        await asyncio.sleep(2)
        assert len(asked) > 6
        assert (it.said, it.engine.restarts) == (["starting", "ready"], 0)


@pytest.mark.usefixtures("pythonpath")
async def test_nobody_asks_an_engine_that_sleeps_for_a_round(
    settings: Settings, store: Store, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = sharing(settings, base_model, "sleep")
    impatient(monkeypatch)
    async with supervised(desk, store) as it:
        before, memory, round = await put_to_sleep(it, desk, store)
        os.kill(before, signal.SIGSTOP)
        await asyncio.sleep(5)
        assert (it.engine.pid, it.said[-1]) == (before, "away")
        os.kill(before, signal.SIGCONT)
        store.fail_round(round.id, "failed")
        memory.release()
        await it.until("ready")
        assert (it.engine.pid, it.engine.restarts) == (before, 0)


DIES_ONCE = """
import asyncio, os, sys
from pathlib import Path
from openai_double import EngineDouble

class Dying(EngineDouble):
    async def _load(self, request):
        if not Path(sys.argv[2]).exists():
            Path(sys.argv[2]).touch()
            os._exit(1)
        return await super()._load(request)

async def main():
    async with Dying(socket=sys.argv[1]):
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.usefixtures("pythonpath")
async def test_an_engine_that_dies_while_the_live_version_loads_starts_once_more(
    settings: Settings, store: Store, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent}:{HERE}")
    desk, died = sharing(settings, base_model, "together"), settings.copydesk_home / "died"
    command = (sys.executable, "-c", DIES_ONCE, "{socket}", str(died))
    round = store.start_round({}, [], "d")
    directory = settings.adapters / round.version
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({"r": 8, "target_modules": ["q_proj"]}))
    (directory / "adapter_model.safetensors").write_bytes(b"weights")
    digest, base = digest_of(directory), str(base_model)
    version = store.finish_round(round.id, {}, path=str(directory), digest=digest, base_model=base)
    Registry(store, ()).approve(version.name, user="cli")
    died.touch()
    async with supervised(desk, store, command) as it:
        assert it.engine.pid is not None
        died.unlink()
        os.kill(it.engine.pid, signal.SIGKILL)
        await it.until("down")
        await it.until("ready")
        assert (died.exists(), it.engine.restarts) == (True, 2)
        async with ModelClient(desk.endpoint) as client:
            assert await client.models() == [BASE, version.name]


DESK = """
import asyncio, sys
from pathlib import Path
from serving.engine import Engine, until_signal
from serving.settings import Settings
from serving.store import Store
home, model, mode, *command = sys.argv[1:]
settings = Settings(_env_file=None, copydesk_home=Path(home), copydesk_model=model, copydesk_round_engine=mode)
async def main():
    say = lambda state: print(state, flush=True)
    await Engine(settings, Store(settings.database), say, tuple(command)).run(until_signal())
asyncio.run(main())
"""


@pytest.mark.usefixtures("pythonpath")
@pytest.mark.parametrize("mode", ["sleep", "stop"])
def test_a_desk_that_was_killed_leaves_no_pause_behind_and_waits_for_a_living_round(
    settings: Settings, store: Store, base_model: Path, mode: Mode
) -> None:
    desk, memory = sharing(settings, base_model, mode), Memory(settings)
    command = [sys.executable, "-c", DESK, str(desk.copydesk_home), desk.copydesk_model, mode, *double()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert [first.stdout.readline() for _ in range(2)] == ["starting\n", "ready\n"]
        round = training(store)
        taken(memory)
        first.kill()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
        assert second.stdout is not None
        assert second.stdout.readline() == "away\n", "the round lives"
        store.fail_round(round.id, "failed")
        memory.release()
        assert [second.stdout.readline() for _ in range(2)] == ["starting\n", "ready\n"]
        second.terminate()


# A round that waits for the memory


def test_a_round_waits_for_the_memory_and_can_be_cancelled_meanwhile(desk: Settings, filled: Store) -> None:
    engine, notes = Memory(desk), list[str]()
    assert engine.take()
    jobs = Jobs(filled)

    def cancel() -> None:
        while jobs.running() is None:
            time.sleep(0.05)
        jobs.cancel("U_MARA")

    threading.Thread(target=cancel).start()
    with pytest.raises(CopydeskError, match="cancelled by U_MARA"):
        run_round(desk, filled, recipe_named("default"), on_note=notes.append)
    assert notes == ["The engine finishes its drafts and makes room."]
    assert filled.rounds()[0].message == "cancelled by U_MARA"
    engine.release()
    assert Memory(desk).take(), "a round that ended holds nothing"


@pytest.mark.usefixtures("pythonpath")
@pytest.mark.parametrize("mode", ["sleep", "stop"])
async def test_the_engine_that_comes_back_knows_the_version_that_the_round_made(
    desk: Settings, filled: Store, mode: Mode
) -> None:
    settings = desk.model_copy(update={"copydesk_round_engine": mode})
    async with supervised(settings, filled) as it:
        made = await asyncio.to_thread(run_round, settings, filled, recipe_named("default"))
        await it.until("ready")
        assert it.said.count("away") == 1
        async with ModelClient(settings.endpoint) as client:
            assert await client.models() == [BASE, made.version.name]


# What people see


@pytest.mark.socket
@pytest.mark.usefixtures("pythonpath")
async def test_who_asks_during_a_round_reads_when_the_draft_comes_and_gets_it(tmp_path: Path, base_model: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        it.settings = sharing(it.settings.model_copy(update={"copydesk_endpoint": ""}), base_model, "stop")
        async with supervised(it.settings, it.store) as engine, bot_of(it, engine.engine):
            memory = Memory(it.settings)
            round = training(it.store)
            Jobs(it.store).report(round.id, 1, 10, 290.0)
            await asyncio.to_thread(taken, memory)
            english = await it.anna.mention("C_COPY", BRIEF)
            chinese = await it.liwei.mention("C_COPY", BRIEF_ZH)
            await it.anna.wait_message(
                "C_COPY", lambda m: "will be back in about 5 min" in m["text"], thread_ts=english
            )
            await it.liwei.wait_message("C_COPY", lambda m: "约 5 分钟后回来" in m["text"], thread_ts=chinese)
            assert len(it.store.waiting_requests()) == 2
            it.store.fail_round(round.id, "cancelled by cli")
            memory.release()
            for person, ts in ((it.anna, english), (it.liwei, chinese)):
                await it.draft(person, "C_COPY", ts)
                replies = [
                    m for m in await person.thread("C_COPY", ts) if "back in" in m["text"] or "后回来" in m["text"]
                ]
                assert replies == [], "the draft took the sentence's place"
        assert (it.store.waiting_requests(), len(it.store.drafts())) == ([], 2)


@asynccontextmanager
async def bot_of(it: World, engine: Engine) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with ModelClient(it.settings.endpoint) as client:
        registry = Registry(it.store, it.settings.copydesk_leads)
        task = asyncio.create_task(serve(Desk(it.settings, it.store, client, registry, {}, lambda: engine.away), stop))
        try:
            await it.anna.wait_until(lambda state: state["connections"] > 0 or task.done(), "The bot did not connect")
            yield
        finally:
            stop.set()
            await task
