"""The life of a version: what is recorded, and what cannot go live."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from openai_double import Answer, EngineDouble

from serving.client import EngineUnavailable, ModelClient
from serving.engine import admit
from serving.life import Life, prove
from serving.records import CopydeskError, Version
from serving.registry import Registry, check, digest_of
from serving.settings import Settings
from serving.store import BASE, Store

PLAIN = {"r": 16, "target_modules": ["q_proj"], "bias": "none"}


@pytest.fixture
def registry(store: Store, settings: Settings) -> Registry:
    return Registry(store, settings.copydesk_leads)


def trained(store: Store, home: Path, config: object = PLAIN) -> Version:
    round = store.start_round({}, [], "d")
    directory = home / "adapters" / round.version
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps(config))
    (directory / "adapter_model.safetensors").write_bytes(round.version.encode())
    return store.finish_round(round.id, {}, path=str(directory), digest=digest_of(directory), base_model="small")


def test_a_version_goes_from_registered_to_retired_and_every_step_is_told(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    life = Life(store)
    first, second, third = (trained(store, tmp_path) for _ in range(3))
    assert life.state(first) == "registered"
    life.record_load(first.name)
    assert life.state(first) == "loaded"
    registry.approve(first.name, user="cli", reason="reads well")
    assert life.state(first) == "live"
    registry.approve(second.name, user="cli")
    assert (life.state(first), life.state(second)) == ("previous", "live")
    registry.approve(third.name, user="cli")
    assert [life.state(v) for v in (first, second, third)] == ["retired", "previous", "live"]
    registry.roll_back(user="cli")
    assert [life.state(v) for v in (first, second, third)] == ["previous", "live", "retired"]
    assert [step.state for step in life.steps(first)] == [
        "registered", "loaded", "live", "previous", "retired", "previous",
    ]  # fmt: skip


def test_a_retired_version_is_not_promoted_again(registry: Registry, store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    registry.approve(version.name, user="cli")
    registry.roll_back(user="cli")
    with pytest.raises(CopydeskError, match="approved already"):
        registry.approve(version.name, user="cli")


def test_what_did_not_load_does_not_go_live_until_it_does(registry: Registry, store: Store, tmp_path: Path) -> None:
    life, version = Life(store), trained(store, tmp_path)
    life.record_load(version.name, "no memory")
    assert life.state(version) == "failed"
    with pytest.raises(CopydeskError, match="cannot go live: no memory"):
        registry.approve(version.name, user="cli")
    life.record_load(version.name)
    life.record_load(version.name)
    assert [step.state for step in life.steps(version)] == ["registered", "failed", "loaded"]
    assert registry.approve(version.name, user="cli").version == version.name


def test_a_version_before_that_does_not_load_any_more_does_not_come_back_and_the_base_does(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    first, second = trained(store, tmp_path), trained(store, tmp_path)
    registry.approve(first.name, user="cli")
    registry.approve(second.name, user="cli")
    Life(store).record_load(first.name, "no memory")
    with pytest.raises(CopydeskError, match=r"cannot be served: no memory .*copydesk version rollback --base"):
        registry.roll_back(user="cli")
    assert store.live() == second.name
    assert registry.roll_back(user="cli", to_base=True).version == store.live() == BASE
    assert [Life(store).state(version) for version in (first, second)] == ["retired", "retired"]


def test_rolling_back_takes_less_than_a_second(registry: Registry, store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    registry.approve(version.name, user="cli")
    began = time.monotonic()
    registry.roll_back(user="cli")
    assert (store.live(), time.monotonic() - began < 1) == (BASE, True)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (PLAIN | {"r": 128}, "rank 128"),
        (PLAIN | {"use_dora": True}, "no plain LoRA"),
        (PLAIN | {"modules_to_save": ["lm_head"]}, "no plain LoRA"),
        (PLAIN | {"bias": "all"}, "no plain LoRA"),
        (PLAIN | {"target_modules": ["q_proj", "lm_head"]}, "no plain LoRA"),
        (PLAIN | {"target_modules": "all-linear"}, "no plain LoRA"),
        (PLAIN | {"target_modules": []}, "no plain LoRA"),
        (PLAIN | {"target_modules": None}, "no LoRA adapter"),
        ({}, "no LoRA adapter"),
        ("corrupt", "no LoRA adapter"),
    ],
)
def test_a_foreign_adapter_is_refused_before_the_engine_is_asked(
    store: Store, tmp_path: Path, config: object, why: str
) -> None:
    with pytest.raises(CopydeskError, match=why):
        check(trained(store, tmp_path, config), "/models/small", 64)


def test_an_adapter_of_another_base_is_refused(store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    check(version, "/models/small", 16)
    with pytest.raises(CopydeskError, match="was trained on small; large is served"):
        check(version, "/models/large", 16)


A, B = "a" * 40, "b" * 40
CACHE = "/hub/models--meta--Llama-2-7b/snapshots"


@pytest.mark.parametrize(
    ("trained_on", "served", "fits"),
    [
        ("Llama-2-7b", "/models/Llama-2-7b-chat", False),
        ("Llama-2-7b-chat", "/models/Llama-2-7b", False),
        ("Llama-2-7b", f"/hub/models--meta--Llama-2-7b-chat/snapshots/{A}", False),
        ("models", "/models/Llama-2-7b", False),
        ("/old/disk/Llama-2-7b", "/models/Llama-2-7b", True),
        ("meta/Llama-2-7b", "meta/Llama-2-7b", True),
        ("meta/Llama-2-7b", f"{CACHE}/{A}", True),
        (f"{CACHE}/{A}", "meta/Llama-2-7b", True),
        (f"{CACHE}/{A}", f"/elsewhere{CACHE}/{A}", True),
        (f"{CACHE}/{A}", f"{CACHE}/{B}", False),
    ],
)
def test_bases_are_told_apart_by_their_whole_names(
    store: Store, tmp_path: Path, trained_on: str, served: str, fits: bool
) -> None:
    version = replace(trained(store, tmp_path), base_model=trained_on)
    if fits:
        check(version, served, 16)
        return
    with pytest.raises(CopydeskError, match="was trained on"):
        check(version, served, 16)


def test_a_commit_that_the_round_recorded_must_be_the_one_that_is_served(store: Store, tmp_path: Path) -> None:
    version = replace(trained(store, tmp_path), base_model="meta/Llama-2-7b")
    for recorded in (A, "main", "files:0123456789abcdef"):
        check(version, f"{CACHE}/{A}", 16, recorded)
    check(version, "/models/Llama-2-7b", 16, A)
    with pytest.raises(CopydeskError, match=f"trained on Llama-2-7b at {B}; {A} is served"):
        check(version, f"{CACHE}/{A}", 16, B)


async def test_what_the_engine_makes_of_a_version_is_recorded_and_its_troubles_are_not(
    settings: Settings, store: Store, tmp_path: Path
) -> None:
    life, version = Life(store), trained(store, tmp_path)
    troubles = [Answer(status=500), Answer(status=400), Answer()]
    async with EngineDouble(answers=troubles) as engine, ModelClient(engine.url) as client:
        theirs = settings.model_copy(update={"copydesk_endpoint": engine.url})
        with pytest.raises(EngineUnavailable):
            await admit(theirs, store, client, version)
        assert life.last_failure(version.name) is None
        with pytest.raises(CopydeskError, match="refused the request"):
            await admit(theirs, store, client, version)
        assert "refused the request" in (life.last_failure(version.name) or "")
        await admit(theirs, store, client, version)
        assert life.last_failure(version.name) == ""
        assert [asked["max_tokens"] for asked in engine.asked] == [1, 1, 1]


async def test_an_endpoint_that_loads_nothing_is_no_fault_of_the_version(
    settings: Settings, store: Store, tmp_path: Path
) -> None:
    version = trained(store, tmp_path)
    async with EngineDouble(loads=False) as engine:
        theirs = settings.model_copy(update={"copydesk_endpoint": engine.url})
        async with ModelClient.of(theirs) as client:
            with pytest.raises(CopydeskError, match="loads no adapters"):
                await admit(theirs, store, client, version)
    assert Life(store).last_failure(version.name) is None


async def test_a_version_that_loads_and_does_not_answer_is_no_candidate(store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    async with EngineDouble(answers=[Answer(status=500)]) as engine, ModelClient(engine.url) as client:
        with pytest.raises(CopydeskError, match="tried again at the engine's next start"):
            await prove(client, version)
        await prove(client, version)
        assert engine.loaded.count(version.name) == 1
