"""Engines on a Ray cluster of two machines, which are processes here: one CPU each, the protocol's double as engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import unused_port
from bot_world import BRIEF, serving_desk
from openai_double import EngineDouble

from serving import cluster
from serving.client import Completion, EngineUnavailable, ModelClient, Piece, Sampling
from serving.cluster import Order, Refusal, Roster
from serving.endpoint import endpoint_key
from serving.exchange import starter_pairs
from serving.jobs import Heard, Jobs
from serving.lock import alone, only_round
from serving.records import CopydeskError, RoundState, Version
from serving.settings import Settings
from serving.store import BASE, Store

ROOT = Path(__file__).resolve().parent.parent
DOUBLE = (sys.executable, str(ROOT / "tests" / "openai_double.py"), "{socket}")
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def two_machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A desk's settings, on a cluster of two machines with an engine each."""
    pytest.importorskip("ray", reason="Ray is not installed: make install")
    # Other tests take the cores too: Ray's patience with its own processes is for machines that do nothing else.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
    # Else a proxy asks the engine of its own machine until that is full, and connections stay with a proxy.
    os.environ["RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING"] = "0"
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    try:
        machines.add_node(num_cpus=1)
        settings = Settings(
            _env_file=None,
            copydesk_home=tmp_path_factory.mktemp("shared"),
            copydesk_ray_address=machines.address,
            copydesk_ray_port=unused_port(),
        )
        cluster.deploy(settings, DOUBLE)
        yield settings
    finally:
        machines.shutdown()


@pytest.fixture
async def client(two_machines: Settings) -> AsyncIterator[ModelClient]:
    async with ModelClient.of(two_machines) as client:
        yield client


def on_disk(settings: Settings, number: int, *, whole: bool = True) -> Version:
    name = f"copy-{number:04d}"
    path = settings.adapters.resolve() / name
    path.mkdir(parents=True, exist_ok=True)
    if whole:
        (path / "adapter_config.json").write_text("{}")
    return Version(name, number, str(path), "d", "m", "2026-01-01")


async def ask(client: ModelClient, model: str = BASE) -> Completion:
    *_, whole = [part async for part in client.stream(HELLO, model, Sampling())]
    assert isinstance(whole, Completion)
    return whole


def engine_of(completion: Completion) -> int:
    """The process id of the engine that wrote it."""
    return int(completion.text.rsplit(" ", 1)[1])


async def engines(client: ModelClient, model: str = BASE) -> set[int]:
    """Those that answer. Serve deals requests out by chance: where only one was heard, more are asked."""
    heard: set[int] = set()
    for _ in range(5):
        heard |= {engine_of(whole) for whole in await asyncio.gather(*(ask(client, model) for _ in range(12)))}
        if len(heard) > 1:
            break
    return heard


async def test_both_machines_answer_and_an_answer_streams(client: ModelClient) -> None:
    assert await client.healthy()
    assert len(await engines(client)) == 2
    began = time.monotonic()
    parts = client.stream(HELLO, BASE, Sampling())
    assert await anext(parts) == Piece("Warm ")
    first = time.monotonic() - began
    assert [type(part) async for part in parts] == [Piece, Piece, Piece, Completion]
    assert time.monotonic() - began > first + 0.2, "the pieces came one by one"


async def test_who_has_no_key_reaches_no_engine(two_machines: Settings) -> None:
    key_file = two_machines.copydesk_home / "engine" / "key"
    assert (key_file.stat().st_mode & 0o777, key_file.read_text()) == (0o600, endpoint_key(two_machines))
    for key in ("", "wrong"):
        async with ModelClient(two_machines.endpoint, key) as stranger:
            assert not await stranger.healthy()
            with pytest.raises(CopydeskError, match="Incorrect API key"):
                await stranger.complete(HELLO, BASE, Sampling())


async def test_a_version_reaches_every_engine_or_is_refused_for_all(
    two_machines: Settings, client: ModelClient
) -> None:
    version = on_disk(two_machines, 1)
    await client.ensure_loaded(version)
    assert await client.models() == [BASE, version.name]
    assert len(await engines(client, version.name)) == 2, "each of them, and none refused"
    with pytest.raises(CopydeskError, match=r"refused copy-0002: .*no adapter_config\.json"):
        await client.ensure_loaded(on_disk(two_machines, 2, whole=False))
    await client.ensure_loaded(on_disk(two_machines, 2))
    assert await client.models() == [BASE, version.name, "copy-0002"], "it is whole now"


@pytest.mark.parametrize("path", ["/etc", "../adapters/copy-0001", "copy-0001"])
async def test_no_other_path_than_a_versions_is_loaded(client: ModelClient, path: str) -> None:
    with pytest.raises(CopydeskError, match="is not a version under"):
        await client.load("copy-0001x", path)


async def test_a_desk_that_comes_back_finds_its_engines_running(two_machines: Settings, client: ModelClient) -> None:
    before = await engines(client)
    await asyncio.to_thread(cluster.deploy, two_machines, DOUBLE)
    assert await engines(client) == before


async def test_a_desk_on_the_cluster_drafts_there(two_machines: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "deploy", partial(cluster.deploy, command=DOUBLE))
    settings = {name: getattr(two_machines, name) for name in ("copydesk_ray_address", "copydesk_ray_port")}
    home = two_machines.copydesk_home
    async with serving_desk(home, EngineDouble(), copydesk_endpoint="", **settings) as it:
        ts = await it.anna.mention("C_COPY", BRIEF)
        draft = await it.draft(it.anna, "C_COPY", ts)
    assert "Warm light from" in draft["blocks"][0]["text"]


async def test_a_killed_engine_loses_no_request_and_its_successor_knows_the_versions(
    two_machines: Settings, client: ModelClient
) -> None:
    version = on_disk(two_machines, 1)
    await client.ensure_loaded(version)
    killed = (await engines(client)).pop()
    loads = [asyncio.create_task(answered(client, version.name)) for _ in range(20)]
    await asyncio.sleep(0.15)
    os.kill(killed, signal.SIGKILL)
    answers = await asyncio.gather(*loads)
    assert len(answers) == 20
    for _ in range(60):
        alive = await engines(client, version.name)
        if len(alive) == 2:
            break
        await asyncio.sleep(0.5)
    assert len(alive) == 2
    assert killed not in alive


async def answered(client: ModelClient, model: str) -> Completion:
    """As the desk asks: what breaks off in the middle is asked again."""
    while True:
        try:
            return await ask(client, model)
        except EngineUnavailable:
            await asyncio.sleep(0.25)


def test_a_round_runs_on_the_cluster_and_its_version_is_the_desks(
    two_machines: Settings, tiny_model: Path, tmp_path: Path
) -> None:
    home = {"copydesk_model": str(tiny_model), "copydesk_home": tmp_path}
    settings = two_machines.model_copy(update={**home, "copydesk_ray_round_processes": 2})
    store = Store(settings.database)
    store.add_pairs(starter_pairs("en")[:6])
    assert cluster.run_round(settings, ["--language", "en"]) == 0
    (round,) = store.rounds()
    assert (round.state, round.pairs) == (RoundState.DONE, len(store.round_pairs(round.id)))
    assert round.facts["processes"] == 2
    (version,) = store.versions()
    assert Path(version.path) == settings.adapters.resolve() / version.name
    assert (Path(version.path) / "adapter_model.safetensors").is_file()
    assert not list(settings.copydesk_home.glob(".round-*"))


def test_a_round_without_room_says_so_instead_of_waiting(
    two_machines: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ROOM_S", 1.0)
    changes = {"copydesk_home": tmp_path, "copydesk_ray_round_processes": 3}  # an engine has one of the three CPUs
    with pytest.raises(CopydeskError, match="No machine of the cluster has 3 CPUs free for the round; wait"):
        cluster.run_round(two_machines.model_copy(update=changes), [])
    assert not list(tmp_path.glob(".round-*"))


def test_where_engines_have_every_gpu_the_next_step_is_fewer_engines() -> None:
    assert cluster.no_room("GPU", 1) == (
        "No machine of the cluster has 1 GPU free for the round; set COPYDESK_RAY_REPLICAS to 1 less than there are "
        "GPUs and start the desk again, or add a machine."
    )


def test_all_that_hangs_on_a_round_is_taken_over(store: Store) -> None:
    tables = [row["name"] for row in store.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    keys = {table: store.rows(f"PRAGMA foreign_key_list({table})") for table in tables}
    hanging = {table for table in tables if any(key["table"] == "rounds" for key in keys[table])}
    assert set(cluster.ROUND_TABLES) == {"rounds"} | hanging


@pytest.fixture
def nowhere(settings: Settings) -> Settings:
    """The settings of a desk whose cluster is down."""
    pytest.importorskip("ray")
    return settings.model_copy(update={"copydesk_ray_address": f"127.0.0.1:{unused_port()}"})


def left_over(settings: Settings) -> Store:
    """The copy of a `run_round` that was killed."""
    home = settings.copydesk_home / ".round-killed"
    home.mkdir()
    cluster._copy_home(settings, home)
    return Store(home / settings.database.name)


def test_a_round_whose_command_was_killed_is_the_desks_to_go_on_with(nowhere: Settings, store: Store) -> None:
    store.add_pairs(starter_pairs("en")[:1])
    request = store.add_request(starter_pairs("en")[0].task, user="U1", channel="C1", thread_ts="1", locale="en")
    assert request is not None
    counted = {"prompt_tokens": 1, "completion_tokens": 1, "first_token_s": None, "total_s": 1.0}
    draft = store.answer(request.id, version=BASE, text="Warm light.", ts="2", **counted)
    copy = left_over(nowhere)
    round = copy.start_round({"name": "dpo"}, [1], "digest")
    Jobs(copy).hear(round.id, {"corrected": [draft.id]}, [])
    Jobs(copy).begin(round.id, "fingerprint")
    with pytest.raises(CopydeskError, match="No Ray cluster answers"):
        cluster.run_round(nowhere, [])
    assert [(round.version, round.state) for round in store.rounds()] == [("copy-0001", RoundState.RUNNING)]
    assert Jobs(store).heard(round.id) == [Heard(draft.id, "corrected", "")]
    assert not list(nowhere.copydesk_home.glob(".round-*"))


def test_a_copy_stays_while_its_trainer_trains_on(nowhere: Settings, store: Store) -> None:
    left_over(nowhere)
    with only_round(nowhere.adapters), pytest.raises(CopydeskError, match="A round is running already"):
        cluster.run_round(nowhere, [])
    assert list(nowhere.copydesk_home.glob(".round-*"))


@pytest.mark.parametrize("lost_by", ["the cluster", "a full disk"])
def test_what_was_trained_and_not_taken_over_is_at_the_next_round(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, lost_by: str
) -> None:
    ray = pytest.importorskip("ray")
    lost, take_over = [True], cluster._take_over

    def trained(ray: Any, settings: Settings, home: Path, options: list[str]) -> tuple[int, str]:
        if lost[0]:
            Store(home / settings.database.name).start_round({}, [], "digest")
            if lost_by == "the cluster":
                raise ray.exceptions.WorkerCrashedError
        return 0, ""

    def taken_over(copy: Store, store: Store, first: int) -> None:
        if lost[0]:
            raise CopydeskError("Nothing was saved: the disk is full.")
        take_over(copy, store, first)

    monkeypatch.setattr(cluster, "joined", lambda settings: nullcontext(ray))
    monkeypatch.setattr(cluster, "_trained", trained)
    monkeypatch.setattr(cluster, "_take_over", taken_over)
    with pytest.raises(CopydeskError, match="copydesk round run goes on with it" if "cluster" in lost_by else "full"):
        cluster.run_round(settings, [])
    assert store.rounds() == []
    lost[0] = False
    assert cluster.run_round(settings, []) == 0
    assert [round.version for round in store.rounds()] == ["copy-0001"]
    assert not list(settings.copydesk_home.glob(".round-*"))


def test_two_rounds_never_go_to_the_cluster_at_once(nowhere: Settings) -> None:
    with (
        alone(nowhere.copydesk_home / "round.lock", ""),
        pytest.raises(CopydeskError, match="A round runs on the cluster already"),
    ):
        cluster.run_round(nowhere, [])


def test_a_lock_that_cannot_be_made_names_its_path_and_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file in the folder's place")
    (tmp_path / "taken.lock").mkdir()
    for path in (tmp_path / "home" / "desk.lock", tmp_path / "taken.lock"):
        with (
            pytest.raises(CopydeskError, match=f"{path} cannot be written .*correct the folder's owner"),
            alone(path, ""),
        ):
            pass


def test_no_cluster_at_the_address_is_one_clear_message(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    settings = Settings(_env_file=None, copydesk_home=tmp_path, copydesk_ray_address=f"127.0.0.1:{unused_port()}")
    with pytest.raises(CopydeskError, match="No Ray cluster answers"):
        cluster.deploy(settings)


def test_more_engines_than_machines_are_refused(two_machines: Settings) -> None:
    wanted = two_machines.model_copy(update={"copydesk_ray_replicas": 3})
    with pytest.raises(CopydeskError, match="The cluster has 2 machines; set COPYDESK_RAY_REPLICAS to 2 or less"):
        cluster.deploy(wanted, DOUBLE)


def test_a_roster_that_fell_learns_from_the_replicas_what_is_wanted() -> None:
    roster = Roster()
    assert roster.sync("first", {"copy-0001": "/a"}, {}) == {"copy-0001": Order("/a", 0)}
    assert roster.known_to_all() == ["copy-0001"]
    assert roster.sync("second", {}, {}) == {"copy-0001": Order("/a", 0)}, "who comes late is told"
    assert roster.known_to_all() == [], "until each of them knows it"


def test_a_retired_version_stays_retired_while_a_replica_still_knows_it() -> None:
    roster = Roster()
    roster.want("copy-0001", "/a")
    roster.sync("first", {"copy-0001": "/a"}, {})
    roster.retire("copy-0001")
    assert roster.sync("first", {"copy-0001": "/a"}, {}) == {}
    assert roster.standing("copy-0001") == ([], ["copy-0001 was refused or retired meanwhile."])


def test_a_refusal_counts_for_the_order_it_answers() -> None:
    roster = Roster()
    roster.want("copy-0001", "/a")
    roster.sync("first", {}, {"copy-0001": Refusal(1, "no file")})
    assert roster.standing("copy-0001") == ([False], ["no file"])
    roster.want("copy-0001", "/a")
    assert roster.standing("copy-0001") == ([False], []), "it has not answered the second one yet"


def test_a_replica_that_fell_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    roster = Roster()
    roster.want("copy-0001", "/a")
    roster.sync("first", {}, {})
    assert roster.standing("copy-0001") == ([False], [])
    monkeypatch.setattr(cluster, "GONE_S", 0.0)
    assert roster.standing("copy-0001") == ([], [])
