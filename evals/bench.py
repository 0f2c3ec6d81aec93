"""How fast a card is made, as JSON lines. Run: python -m evals.bench [score] [card]"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

from evals.leaks import leaked
from evals.lint import read_starter
from evals.plan import Call, Plan
from evals.runner import IN_FLIGHT
from evals.scorecard import Subject, make_card
from evals.suite import read_suite
from serving.client import ModelClient
from serving.engine import Engine
from serving.model import base_model_path
from serving.prompt import task_messages
from serving.records import Sample
from serving.settings import read_settings
from serving.store import BASE, Store

LANGUAGES = ("en", "zh")
SCORED_ITEMS, SCORED_BRIEFS = 750, 350  # with 5 repeats 2,500 samples an arm, two arms a language


def bench_score() -> dict[str, object]:
    """Checks, metrics, memorisation, leaks and bootstraps of 10,000 stored samples.

    An English and a Chinese card, each in a process of its own; starting those and making the texts is not timed.
    """
    context = get_context("spawn")
    together = context.Barrier(len(LANGUAGES))
    with ProcessPoolExecutor(len(LANGUAGES), context, initializer=_start_at, initargs=(together,)) as pool:
        done = list(pool.map(_score, LANGUAGES))
    samples = sum(one.samples for one in done)
    seconds = max(one.ended for one in done) - min(one.started for one in done)
    return {
        "bench": "score",
        "samples": samples,
        "samples_per_s": round(samples / seconds),
        "processes": len(done),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(sum(one.cpu_seconds for one in done), 2),
        "peak_gib": round(sum(one.peak_gib for one in done), 2),
    }


@dataclass(frozen=True)
class _Scored:
    """What one process did; times are of the machine's monotonic clock, which processes share."""

    samples: int
    started: float
    ended: float
    cpu_seconds: float
    peak_gib: float


_start: list[Barrier] = []  # in a process of the pool, what it and the others wait for to start at one time


def _start_at(barrier: Barrier) -> None:
    _start.append(barrier)


def _score(language: str) -> _Scored:
    plan, starter = _large_plan(language), read_starter(language)
    candidate, live = (_subject(name, plan, seed) for seed, name in enumerate(("candidate", "live")))
    _start[0].wait()
    started, cpu = time.monotonic(), time.process_time()
    pairs = [(pair.task, pair.output) for pair in starter]
    leaks = leaked(plan.suite.items, pairs)
    make_card(plan, candidate, live, base_model="", training=[output for _, output in pairs], leaks=leaks)
    ended, cpu = time.monotonic(), time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return _Scored(len(candidate.samples) + len(live.samples), started, ended, cpu, peak)


def _large_plan(language: str) -> Plan:
    """The shipped briefs, each under several ids."""
    suite = read_suite(language)
    copies = -(-SCORED_ITEMS // len(suite.items))
    items = tuple(replace(item, id=f"{item.id}-{n}") for n in range(copies) for item in suite.items)
    return Plan(replace(suite, items=items), SCORED_ITEMS, SCORED_BRIEFS)


def _subject(name: str, plan: Plan, seed: int) -> Subject:
    """Texts as a model near its references writes them: a reference with three words in other places."""
    rng = random.Random(f"{name} {seed}")
    samples = {}
    for call in plan.calls():
        reference = rng.choice(call.item.references)
        words = reference.split(" ") if plan.suite.language == "en" else list(reference)
        for _ in range(3):
            words.insert(rng.randrange(len(words)), words.pop(rng.randrange(len(words))))
        text = (" " if plan.suite.language == "en" else "").join(words)
        samples[call.key] = Sample(0, 0, call.item.id, call.part, call.repeat, text, "", {}, "")
    return Subject(name, "", samples)


async def bench_card() -> dict[str, object]:
    """The requests of a small card, all in flight and then one after the other, to one engine with the base model."""
    own = read_settings()
    model = str(base_model_path(own))
    plan = Plan(read_suite("en"), items=8, briefs=4, repeats=4)
    with tempfile.TemporaryDirectory() as folder:
        changes = {"copydesk_home": Path(folder), "copydesk_model": model, "copydesk_endpoint": ""}
        settings = own.model_copy(update=changes)
        stop = asyncio.Event()
        engine = Engine(settings, Store(settings.database))
        running = asyncio.create_task(engine.run(stop))
        ready = asyncio.create_task(engine.wait_ready())
        try:
            await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
            async with ModelClient(settings.endpoint) as client:
                # In this order a cache of prompts could help the sequential run only.
                together = await _timed(client, plan, IN_FLIGHT)
                sequential = await _timed(client, plan, 1)
        finally:
            ready.cancel()
            stop.set()
            await running
    return {
        "bench": "card",
        "card": "8 briefs + 4 x 4",
        "requests": len(plan.calls()),
        "max_tokens": plan.sampling.max_tokens,
        "sequential_s": round(sequential[0], 1),
        "sequential_tokens": sequential[1],
        "card_s": round(together[0], 1),
        "card_tokens": together[1],
        "ratio": round(sequential[0] / together[0], 2),
        "ratio_tokens_per_s": round(sequential[0] / sequential[1] * together[1] / together[0], 2),
    }


async def _timed(client: ModelClient, plan: Plan, in_flight: int) -> tuple[float, int]:
    """Seconds and generated tokens of all requests of a plan."""
    gate = asyncio.Semaphore(in_flight)

    async def one(call: Call) -> int:
        async with gate:
            return (await client.complete(task_messages(call.item.task), BASE, plan.sampling)).completion_tokens

    started = time.perf_counter()
    tokens = await asyncio.gather(*map(one, plan.calls()))
    return time.perf_counter() - started, sum(tokens)


def main(names: list[str]) -> None:
    benches: dict[str, Callable[[], dict[str, object]]] = {
        "score": bench_score,
        "card": lambda: asyncio.run(bench_card()),
    }
    for name, bench in benches.items():
        if not names or name in names:
            print(json.dumps(bench()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
