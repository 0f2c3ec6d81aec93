"""The real vLLM as a supervised process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from serving.client import Completion, EngineUnavailable, ModelClient, Piece, Sampling
from serving.engine import Engine, arguments, reason_of
from serving.handover import Memory
from serving.jobs import Jobs
from serving.life import Life
from serving.prompt import task_messages, task_of
from serving.records import CopydeskError, Requirements, Task, Version
from serving.registry import Registry, digest_of
from serving.settings import Settings
from serving.store import BASE, Store
from trainer.dataset import prompt_tokens

LAMP = task_of(Requirements(product="Alder lamp", selling_points=(("warm light",),), length=(20, 30)), "en", "home")
CUP = task_of(Requirements(product="云朵保温杯", selling_points=(("保温12小时",),), length=(40, 60)), "zh", "home")

TEXT = (
    "The Alder lamp gives warm light for long evenings and stands on a foot of solid oak, so that every reader finds "
    "the page and the shelf."
)


def vllm_process(supervisor: int) -> psutil.Process:
    """The engine's own process, under the process that supervises it."""
    (child,) = [p for p in psutil.Process(supervisor).children() if "serving.vllm_server" in " ".join(p.cmdline())]
    return child


@pytest.fixture(scope="module")
def desk(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, int]]:
    """Settings of a running engine, and the supervisor's process id."""
    home = tmp_path_factory.mktemp("desk")
    settings = Settings(_env_file=None, copydesk_home=home, copydesk_model=str(base_model))
    environment = {
        **os.environ,
        "COPYDESK_HOME": str(home),
        "COPYDESK_MODEL": str(base_model),
        "COPYDESK_ROUND_ENGINE": "stop",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.engine"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.strip() == "ready":
                break
        else:
            pytest.fail(f"The engine did not start: {reason_of(settings.logs / 'engine.log')}")
        yield settings, process.pid
    finally:
        process.terminate()
        process.wait(60)


async def killed_in_the_middle(client: ModelClient, engine: psutil.Process) -> None:
    async for part in client.stream(task_messages(LAMP), BASE, Sampling(max_tokens=200)):
        if isinstance(part, Piece):
            engine.send_signal(signal.SIGKILL)


async def until_serving(settings: Settings, model: str = BASE) -> None:
    async with ModelClient(settings.endpoint) as client:
        for _ in range(300):
            if await client.healthy() and model in await client.models():
                return
            await asyncio.sleep(1)
    pytest.fail("The engine did not come back within five minutes")


@pytest.mark.engine
async def test_a_completion_streams_piece_by_piece_and_ends_with_the_whole(desk: tuple[Settings, int]) -> None:
    settings, _ = desk
    async with ModelClient(settings.endpoint) as client:
        answer = [part async for part in client.stream(task_messages(LAMP), BASE, Sampling(max_tokens=24))]
    *pieces, whole = answer
    assert isinstance(whole, Completion)
    assert all(isinstance(piece, Piece) for piece in pieces)
    assert len(pieces) > 3
    assert "".join(piece.text for piece in pieces if isinstance(piece, Piece)).strip() == whole.text
    assert 0 < whole.completion_tokens <= 24
    assert whole.prompt_tokens > 40


@pytest.mark.engine
@pytest.mark.parametrize("task", [LAMP, CUP], ids=["en", "zh"])
async def test_the_model_is_given_the_tokens_that_rounds_train_on(desk: tuple[Settings, int], task: Task) -> None:
    settings, _ = desk
    tokenizer = AutoTokenizer.from_pretrained(settings.copydesk_model)
    order = {"model": BASE, "messages": task_messages(task), "max_tokens": 1, "return_token_ids": True}
    transport = httpx2.AsyncHTTPTransport(uds=str(settings.engine_socket))
    async with httpx2.AsyncClient(transport=transport, base_url="http://engine", timeout=60) as http:
        answer = await http.post("/v1/chat/completions", json=order)
    assert answer.json()["prompt_token_ids"] == prompt_tokens(task, tokenizer)


@pytest.mark.engine
async def test_only_names_of_versions_are_served_and_a_path_is_none(desk: tuple[Settings, int]) -> None:
    settings, _ = desk
    async with ModelClient(settings.endpoint) as client:
        for name in ("copy-9999", "../../etc", str(settings.copydesk_home)):
            with pytest.raises(CopydeskError, match="refused the request"):
                await client.complete(task_messages(LAMP), name, Sampling(max_tokens=4))
        assert await client.models() == [BASE]


@pytest.mark.engine
async def test_nobody_else_on_the_machine_reaches_the_engine(desk: tuple[Settings, int]) -> None:
    settings, supervisor = desk
    assert stat.S_IMODE(settings.engine_socket.parent.stat().st_mode) == 0o700
    process = vllm_process(supervisor)
    addresses = {
        c.laddr.ip for p in [process, *process.children()] for c in p.net_connections("inet") if c.status == "LISTEN"
    }
    assert addresses <= {"127.0.0.1", "::1"}


def made(store: Store, settings: Settings, rank: int, *, corrupt: bool = False) -> Version:
    """A version as a round registers it, on q_proj alone."""
    round = store.start_round({}, [], "d")
    directory = settings.adapters / round.version
    directory.mkdir(parents=True)
    base = json.loads((Path(settings.copydesk_model) / "config.json").read_text())
    width = base["hidden_size"]
    tensors = {}
    for layer in range(base["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, width) / width
        tensors[f"{name}.lora_B.weight"] = torch.randn(width, rank) / width
    weights = directory / "adapter_model.safetensors"
    save_file(tensors, weights)
    if corrupt:
        weights.write_bytes(weights.read_bytes()[:1000])
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    digest, name = digest_of(directory), Path(settings.copydesk_model).name
    return store.finish_round(round.id, {}, path=str(directory.resolve()), digest=digest, base_model=name)


@pytest.mark.engine
async def test_new_versions_are_tried_and_one_that_does_not_load_cannot_go_live(desk: tuple[Settings, int]) -> None:
    settings, _ = desk
    store = Store(settings.database)
    life, registry = Life(store), Registry(store, ())
    corrupt, foreign, good = (
        made(store, settings, 8, corrupt=True),
        made(store, settings, 128),
        made(store, settings, 8),
    )
    for _ in range(240):
        found = [life.last_failure(version.name) for version in (corrupt, foreign, good)]
        if None not in found:
            break
        await asyncio.sleep(0.5)
    assert [life.state(version) for version in (corrupt, foreign, good)] == ["failed", "failed", "loaded"], found
    assert "rank 128" in (found[1] or "")
    for version in (corrupt, foreign):
        with pytest.raises(CopydeskError, match=f"{version.name} cannot be served, so it cannot go live"):
            registry.approve(version.name, user="cli")
    assert registry.approve(good.name, user="cli").version == store.live()
    async with ModelClient(settings.endpoint) as client:
        assert (await client.complete(task_messages(LAMP), good.name, Sampling(max_tokens=4))).model == good.name


@pytest.mark.engine
async def test_an_adapters_probabilities_are_pefts_within_the_noise_of_bf16(desk: tuple[Settings, int]) -> None:
    settings, _ = desk
    store = Store(settings.database)
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(settings.copydesk_model)
    base = AutoModelForCausalLM.from_pretrained(settings.copydesk_model, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=6, target_modules="all-linear", init_lora_weights=False))
    round = store.start_round({}, [], "d")
    directory = settings.adapters / round.version
    model.save_pretrained(directory)
    name = Path(settings.copydesk_model).name
    version = store.finish_round(
        round.id, {}, path=str(directory.resolve()), digest=digest_of(directory), base_model=name
    )
    async with ModelClient(settings.endpoint) as client:
        await client.ensure_loaded(version)
    prompts = [" ".join(TEXT.split()[:words]) for words in (4, 8, 12, 16, 20, 24)]

    async def gaps(served: str, other: str) -> tuple[float, float]:
        """How far the engine's log-probabilities are from PEFT's: for what it was asked, and for the other model."""
        found = torch.tensor([list(logprobs) for logprobs in await asyncio.gather(*(top(p, served) for p in prompts))])
        ids, engine = found[..., 0].long(), found[..., 1]
        answers = {}
        for which in (served, other):
            with torch.no_grad(), model.disable_adapter() if which == BASE else contextlib.nullcontext():
                logits = [model(**tokenizer(p, return_tensors="pt")).logits[0, -1] for p in prompts]
            answers[which] = torch.stack(logits).log_softmax(-1).gather(1, ids)
        return float((engine - answers[served]).abs().mean()), float((engine - answers[other]).abs().mean())

    async def top(prompt: str, served: str) -> list[tuple[int, float]]:
        body = {"model": served, "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 20}
        transport = httpx2.AsyncHTTPTransport(uds=str(settings.engine_socket))
        async with httpx2.AsyncClient(transport=transport, base_url="http://engine", timeout=60) as http:
            answer = await http.post("/v1/completions", json={**body, "return_tokens_as_token_ids": True})
        (logprobs,) = answer.json()["choices"][0]["logprobs"]["top_logprobs"]
        return [(int(key.removeprefix("token_id:")), value) for key, value in logprobs.items()][:20]

    noise, far = await gaps(BASE, version.name)
    gap, _ = await gaps(version.name, BASE)
    assert far > 5 * noise
    assert gap < 2 * noise


@pytest.mark.engine
async def test_a_killed_engine_says_so_at_once_and_comes_back(desk: tuple[Settings, int]) -> None:
    settings, supervisor = desk
    before = vllm_process(supervisor)
    workers = before.children(recursive=True)
    assert workers
    async with ModelClient(settings.endpoint) as client:
        with pytest.raises(EngineUnavailable):
            await killed_in_the_middle(client, before)
        await until_serving(settings)
        assert vllm_process(supervisor).pid != before.pid
        assert not any(worker.is_running() for worker in workers), "a worker of the killed engine holds its memory"
        assert (await client.complete(task_messages(LAMP), BASE, Sampling(max_tokens=4))).text


@pytest.mark.engine
async def test_a_draft_under_way_is_finished_before_the_engine_stops_for_a_round(desk: tuple[Settings, int]) -> None:
    settings, supervisor = desk
    store, memory = Store(settings.database), Memory(settings)
    live = store.live()
    await until_serving(settings, live)
    async with ModelClient(settings.endpoint) as client:
        for _ in range(10):  # the engine may be just back from the test before
            if constrained := await client.constrains(live):
                break
            await asyncio.sleep(1)
        assert constrained
        draft = client.stream(task_messages(LAMP), live, Sampling(max_tokens=12))
        await anext(draft)
        round = store.start_round({}, [], "d")
        Jobs(store).begin(round.id, "this process works on it")
        *_, whole = [part async for part in draft]
        assert isinstance(whole, Completion)
        for _ in range(150):
            if memory.take():
                break
            await asyncio.sleep(0.2)
        assert psutil.Process(supervisor).children(recursive=True) == [], "the memory is free"
        with pytest.raises(EngineUnavailable):
            await client.complete(task_messages(LAMP), live, Sampling(max_tokens=4))
        store.fail_round(round.id, "failed")
        memory.release()
        await until_serving(settings, live)
        assert (await client.complete(task_messages(LAMP), live, Sampling(max_tokens=4))).text


@pytest.mark.engine
def test_an_engine_ends_with_its_supervisor_however_that_went(base_model: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "COPYDESK_HOME": str(tmp_path), "COPYDESK_MODEL": str(base_model)}
    supervisor = subprocess.Popen([sys.executable, "-m", "serving.engine"], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(engine := psutil.Process(supervisor.pid).children(recursive=True)) < 2:
        assert time.monotonic() < deadline, "the supervisor started no engine with a worker"
        time.sleep(0.2)
    supervisor.kill()
    supervisor.wait()
    _, alive = psutil.wait_procs(engine, timeout=30)
    assert alive == []


async def test_a_model_that_does_not_exist_is_one_clear_message(settings: Settings, store: Store) -> None:
    wrong = settings.model_copy(update={"copydesk_model": str(settings.copydesk_home)})
    with pytest.raises(CopydeskError, match="holds no model"):
        await Engine(wrong, store).run(asyncio.Event())


async def test_nobody_at_the_address_is_told_apart_from_a_refusal(settings: Settings) -> None:
    async with ModelClient(settings.endpoint) as client:
        assert not await client.healthy()
        with pytest.raises(EngineUnavailable, match="does not answer"):
            await client.complete(task_messages(LAMP), BASE, Sampling())


def test_adapters_in_use_are_never_evicted_by_default(tmp_path: Path) -> None:
    words = arguments("model", tmp_path / "engine.sock")
    assert int(words[words.index("--max-loras") + 1]) >= 2
    assert int(words[words.index("--max-cpu-loras") + 1]) >= 4


def test_a_failed_start_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    assert reason_of(path) == "it never ran"
    path.write_text("INFO start\nRuntimeError: something odd\n")
    assert reason_of(path) == "RuntimeError: something odd"
    path.write_text("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB\n")
    assert "too little memory" in reason_of(path)
