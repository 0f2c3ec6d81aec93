"""The life of a version: what is recorded, and what cannot go live."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from openai_double import Answer, EngineDouble

from serving.client import ModelClient
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


async def test_a_version_that_loads_and_does_not_answer_is_no_candidate(store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    async with EngineDouble(answers=[Answer(status=500)]) as engine, ModelClient(engine.url) as client:
        with pytest.raises(CopydeskError, match="tried again at the engine's next start"):
            await prove(client, version)
        await prove(client, version)
        assert engine.loaded.count(version.name) == 1
