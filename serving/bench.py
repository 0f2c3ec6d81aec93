"""How fast versions are served, and what a swap costs. Run: python -m serving.bench, or with a GPU: … --gpu MODEL_DIR

One JSON line a figure on standard output: the start, tokens a second and first tokens of base, adapter and
transformers, then fifty swaps of the live version under load. With --gpu the weights are made up in the shape of
MODEL_DIR/config.json, and the engine also sleeps, as it does while a round runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
from openai import APIError, AsyncOpenAI

from serving.engine import arguments, environment, has_cpu_build
from serving.processor import has_bf16
from serving.registry import TARGETS
from serving.store import BASE

SWAPS = 50
CONTENTS = 4  # different adapters; each swap gives one of them a new name and path, as every round does
PROMPT = "Write a short product text for the Alder lamp: warm light, oak foot, for readers. Twenty to thirty words."
READY_TIMEOUT_S = 900
RANK = 16


@dataclass(frozen=True)
class Scale:
    """How much is asked on a kind of machine."""

    concurrencies: tuple[int, ...]
    requests: dict[int, int]  # by concurrency
    tokens: int
    swap_clients: int
    swap_tokens: int
    swap_pause_s: float


HERE = Scale((1, 8, 24), {1: 2, 8: 16, 24: 24}, 48, 16, 12, 0.3)
GPU = Scale((1, 8, 32), {1: 4, 8: 32, 32: 128}, 128, 32, 64, 0.2)


@dataclass
class Answers:
    """What the clients of a load saw."""

    asked: int = 0
    tokens: int = 0
    first_s: list[float] = field(default_factory=list)
    failed: int = 0
    wrong_version: int = 0
    unclear: int = 0

    def percentile(self, share: float) -> float:
        return round(1000 * sorted(self.first_s)[min(len(self.first_s) - 1, int(share * len(self.first_s)))], 1)


class Served:
    """An engine as the desk starts it, on a socket of its own."""

    def __init__(self, model: str, folder: Path, extra: tuple[str, ...]) -> None:
        self.model, self.folder, self.extra = model, folder, extra
        self.socket = folder / "engine.sock"
        self.numbers = count()  # of prompts
        transport = httpx2.AsyncHTTPTransport(uds=str(self.socket))
        self.http = httpx2.AsyncClient(
            transport=transport, base_url="http://engine", timeout=300, limits=httpx2.Limits(max_connections=None)
        )
        self.openai = AsyncOpenAI(api_key="none", base_url="http://engine/v1", http_client=self.http, max_retries=0)

    async def __aenter__(self) -> Served:
        self.log = (self.folder / "engine.log").open("wb")
        engine = arguments(self.model, self.socket)
        command = [sys.executable, "-m", "serving.vllm_server", str(os.getpid()), *engine, *self.extra]
        self.process = subprocess.Popen(  # noqa: ASYNC220  (a bench has nothing else to do meanwhile)
            command,
            env={**os.environ, **environment(self.model, self.socket), "VLLM_SERVER_DEV_MODE": "1"},
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not await self.healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The engine did not start: {(self.folder / 'engine.log').read_text()[-2000:]}")
            await asyncio.sleep(0.25)
        await self.ask(BASE, 1)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.openai.close()
        self.process.terminate()
        self.process.wait(60)
        self.log.close()

    async def healthy(self) -> bool:
        try:
            return (await self.http.get("/health")).status_code == 200
        except httpx2.HTTPError:
            return False

    async def load(self, name: str, path: Path) -> float:
        """Seconds."""
        began = time.monotonic()
        answer = await self.http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)})
        answer.raise_for_status()
        return time.monotonic() - began

    async def ask(self, model: str, tokens: int, seen: Answers | None = None, prompt: str = PROMPT) -> str:
        """The greedy text of so many tokens, whatever the model would rather."""
        began, text = time.monotonic(), ""
        if seen is not None:
            seen.asked += 1
        stream = await self.openai.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=tokens,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            if chunk.model != model:
                raise RuntimeError(f"{chunk.model} answered for {model}")
            if chunk.choices and chunk.choices[0].delta.content:
                if not text and seen is not None:
                    seen.first_s.append(time.monotonic() - began)
                text += chunk.choices[0].delta.content
        if seen is not None:
            seen.tokens += tokens
        return text


def write_adapters(model: str, folder: Path) -> list[Path]:
    """Random adapters of the default recipe's shape, loud enough to change every answer."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    hidden, inner = config.hidden_size, config.intermediate_size
    size = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    query, keys = config.num_attention_heads * size, config.num_key_value_heads * size
    widths = ((hidden, query), (hidden, keys), (hidden, keys), (query, hidden), (hidden, inner), (hidden, inner))
    shapes = dict(zip(TARGETS, (*widths, (inner, hidden)), strict=True))
    made = []
    for number in range(2 * CONTENTS):
        torch.manual_seed(number)
        tensors = {}
        for layer in range(config.num_hidden_layers):
            for target, (width, out) in shapes.items():
                part = "mlp" if target in TARGETS[4:] else "self_attn"
                name = f"base_model.model.model.layers.{layer}.{part}.{target}"
                tensors[f"{name}.lora_A.weight"] = (torch.randn(RANK, width) / width**0.5).to(torch.bfloat16)
                tensors[f"{name}.lora_B.weight"] = (torch.randn(out, RANK) * 0.15).to(torch.bfloat16)
        path = folder / f"content-{number}"
        path.mkdir()
        save_file(tensors, path / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK, "bias": "none"}
        settings |= {"target_modules": sorted(TARGETS), "base_model_name_or_path": model, "lora_dropout": 0.0}
        (path / "adapter_config.json").write_text(json.dumps(settings))
        made.append(path)
    return made


async def crowd(clients: int, requests: int, ask: Callable[[int], Awaitable[object]]) -> float:
    """Seconds in which so many clients got all requests answered."""
    numbers = iter(range(requests))

    async def client() -> None:
        for number in numbers:
            await ask(number)

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.monotonic() - began


async def throughput(engine: Served, model: str, clients: int, scale: Scale) -> dict[str, Any]:
    seen = Answers()
    # Prompts that were never asked before: a cache of prefixes must not do the work.
    seconds = await crowd(
        clients,
        scale.requests[clients],
        lambda _: engine.ask(model, scale.tokens, seen, f"{next(engine.numbers)}. {PROMPT}"),
    )
    return {"tok_s": round(seen.tokens / seconds, 1), "first_token_p50_ms": seen.percentile(0.5)}


async def compare(engine: Served, adapter: str, scale: Scale) -> None:
    """Base and adapter by turns, so that a slow minute of the machine meets both."""
    for clients in scale.concurrencies:
        runs: dict[str, list[dict[str, Any]]] = {"base": [], "adapter": []}
        for _ in range(3):
            runs["base"].append(await throughput(engine, BASE, clients, scale))
            runs["adapter"].append(await throughput(engine, adapter, clients, scale))
        for name, found in runs.items():
            middle = sorted(found, key=lambda run: float(run["tok_s"]))[1]
            say({"engine": name, "concurrency": clients, **middle})
        ratios = [a["tok_s"] / b["tok_s"] for a, b in zip(runs["adapter"], runs["base"], strict=True)]
        say({"adapter_to_base": round(statistics.median(ratios), 3), "concurrency": clients})


async def different(engine: Served, made: list[Path], scale: Scale) -> tuple[list[Path], list[set[str]]]:
    """Adapters whose texts tell them apart, and how each of their texts begins; two of random weights may agree."""
    contents: list[Path] = []
    texts: list[set[str]] = []
    for path in made:
        name = f"known-{path.name}"
        await engine.load(name, path)
        # A crowd of them, since the last bit of a product depends on what it is computed beside.
        asked = [engine.ask(name, scale.swap_tokens) for _ in range(scale.swap_clients)]
        begins = {text[:24] for text in await asyncio.gather(*asked)}
        await engine.http.post("/v1/unload_lora_adapter", json={"lora_name": name})
        if len(contents) < CONTENTS and all(begins.isdisjoint(other) for other in texts):
            contents.append(path)
            texts.append(begins)
    return contents, texts


async def swap(engine: Served, contents: list[Path], folder: Path, scale: Scale) -> None:
    """Fifty versions become live one after the other while clients ask for whichever is live."""
    contents, texts = await different(engine, contents, scale)
    told_apart = len(contents) == CONTENTS
    live, done = f"copy-{0:04d}", False
    paths = [folder / f"copy-{number:04d}" for number in range(SWAPS + 1)]
    for number, path in enumerate(paths):
        path.symlink_to(contents[number % len(contents)])
    await engine.load(live, paths[0])
    calm, swapping, loads = Answers(), Answers(), []
    seen = calm

    async def client() -> None:
        while not done:
            model, current = live, seen
            try:
                text = (await engine.ask(model, scale.swap_tokens, current))[:24]
            except (APIError, RuntimeError, httpx2.HTTPError):
                current.failed += 1
                continue
            own = int(model[-4:]) % len(contents)
            if text not in texts[own]:
                others = any(text in known for number, known in enumerate(texts) if number != own)
                current.wrong_version += others
                current.unclear += not others

    clients = [asyncio.create_task(client()) for _ in range(scale.swap_clients)]
    await asyncio.sleep(SWAPS * scale.swap_pause_s)
    seen = swapping
    for number in range(1, SWAPS + 1):
        loads.append(await engine.load(f"copy-{number:04d}", paths[number]))
        live = f"copy-{number:04d}"
        await asyncio.sleep(scale.swap_pause_s)
        if number > 2:  # the live one, the one before it and a candidate stay
            await engine.http.post("/v1/unload_lora_adapter", json={"lora_name": f"copy-{number - 3:04d}"})
    done = True
    await asyncio.gather(*clients)
    say(
        {
            "swaps": SWAPS,
            "clients": scale.swap_clients,
            "requests": swapping.asked,
            "failed": calm.failed + swapping.failed,
            "wrong_version": swapping.wrong_version if told_apart else None,
            "wrong_version_without": calm.wrong_version if told_apart else None,
            "unclear": swapping.unclear,
            "versions_told_apart_by_text": told_apart,
            "load_ms_p50": round(1000 * statistics.median(loads), 1),
            "load_ms_max": round(1000 * max(loads), 1),
            "first_token_p99_ms": swapping.percentile(0.99),
            "first_token_p99_ms_without": calm.percentile(0.99),
        }
    )


async def sleep(engine: Served, adapter: str, round_command: str) -> None:
    """Sleep, a round on the freed memory, wake, and the first answer after it."""
    began = time.monotonic()
    (await engine.http.post("/sleep", params={"level": "1"})).raise_for_status()
    slept = time.monotonic() - began
    said = await asyncio.to_thread(subprocess.run, round_command, shell=True, capture_output=True, text=True)
    trained = time.monotonic() - began - slept
    woken = time.monotonic()
    (await engine.http.post("/wake_up")).raise_for_status()
    waking = time.monotonic() - woken
    await engine.ask(adapter, 1)
    lines = said.stdout.strip().splitlines() or said.stderr.strip().splitlines() or [""]
    say(
        {
            "sleep_s": round(slept, 2),
            "round_s": round(trained, 1),
            "round_rc": said.returncode,
            "round": lines[-1][:400],
            "wake_s": round(waking, 2),
            "first_answer_after_s": round(time.monotonic() - woken, 2),
        }
    )


def with_transformers(model: str, adapter: Path, scale: Scale) -> None:
    """transformers' own generate with PEFT's adapter, as many prompts at once."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if has_bf16() else torch.float32)
    network = PeftModel.from_pretrained(base, adapter, autocast_adapter_dtype=False).eval()
    for prompts in scale.concurrencies:
        turns = [[{"role": "user", "content": f"{number}. {PROMPT}"}] for number in range(prompts)]
        batch: Any = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", padding=True, return_dict=True
        )
        began = time.monotonic()
        with torch.inference_mode():
            network.generate(**batch, max_new_tokens=1, do_sample=False)
            first = time.monotonic() - began
            began = time.monotonic()
            network.generate(**batch, max_new_tokens=scale.tokens, min_new_tokens=scale.tokens, do_sample=False)
        seconds = time.monotonic() - began
        say(
            {
                "engine": "transformers",
                "concurrency": prompts,
                "tok_s": round(prompts * scale.tokens / seconds, 1),
                "first_token_p50_ms": round(1000 * first, 1),
            }
        )


def say(figure: dict[str, Any]) -> None:
    print(json.dumps(figure), flush=True)


async def measure(model: str, folder: Path, scale: Scale, extra: Iterable[str], round_command: str) -> Path:
    contents = write_adapters(model, folder)
    # A full collection over all that torch brought stops the clients for 0.3 s, which would read as the engine's.
    gc.collect()
    gc.freeze()
    began = time.monotonic()
    async with Served(model, folder, tuple(extra)) as engine:
        say({"ready_s": round(time.monotonic() - began, 1)})
        await engine.load("copy-9999", contents[0])
        await engine.ask("copy-9999", 4)
        await compare(engine, "copy-9999", scale)
        await swap(engine, contents, folder, scale)
        if round_command:
            await sleep(engine, "copy-9999", round_command)
    return contents[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast versions are served, and what a swap costs.")
    parser.add_argument("--gpu", metavar="MODEL_DIR", default="", help="a GPU, and weights made up in this shape")
    parser.add_argument("--round", default="", help="with --gpu: the command that trains while the engine sleeps")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="copydesk-bench-") as folder:
        _measure_all(parser, arguments, Path(folder))


def _measure_all(parser: argparse.ArgumentParser, arguments: argparse.Namespace, folder: Path) -> None:
    if arguments.gpu:
        extra = ("--load-format", "dummy", "--enable-sleep-mode")
        asyncio.run(measure(arguments.gpu, folder, GPU, extra, arguments.round))
        return
    if not has_cpu_build():
        parser.error("this machine has the build for GPUs: python -m serving.bench --gpu MODEL_DIR")
    from serving.model import base_model_path
    from serving.settings import read_settings

    model = base_model_path(read_settings())
    adapter = asyncio.run(measure(model, folder, HERE, (), ""))
    with_transformers(model, adapter, HERE)


if __name__ == "__main__":
    main()
