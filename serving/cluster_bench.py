"""Two engines against one, on a Ray cluster of local machines that are processes. Run: python -m serving.cluster_bench

Prints a JSON line for each layout of the same cores: {"machines": 2, "cores_each": 1, "ready_s": …, "tok_s": …,
"first_token_p50_ms": …, "failed": 0}. On one real machine two engines share what one had: no gain is expected, and
what is seen is the price of the way over Ray.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from serving import cluster
from serving.client import Completion, EngineUnavailable, ModelClient, Sampling
from serving.prompt import task_messages, task_of
from serving.records import Requirements
from serving.settings import Settings, read_settings
from serving.store import BASE

CLIENTS = 8
REQUESTS = 32
TOKENS = 48
LAMP = task_of(Requirements(product="Alder lamp", selling_points=(("warm light",),), length=(30, 40)), "en", "home")


async def load(settings: Settings) -> dict[str, Any]:
    """CLIENTS ask at once until REQUESTS are answered."""
    turns = asyncio.Semaphore(CLIENTS)
    async with ModelClient.of(settings) as client:

        async def one() -> Completion | None:
            async with turns:
                try:
                    async for part in client.stream(task_messages(LAMP), BASE, Sampling(max_tokens=TOKENS)):
                        if isinstance(part, Completion):
                            return part
                except EngineUnavailable:
                    pass
            return None

        await asyncio.gather(*(one() for _ in range(2)))  # each engine's first request is slower
        began = time.monotonic()
        answers = await asyncio.gather(*(one() for _ in range(REQUESTS)))
        seconds = time.monotonic() - began
    whole = [answer for answer in answers if answer is not None]
    first = [answer.first_token_s for answer in whole if answer.first_token_s is not None]
    return {
        "tok_s": round(sum(answer.completion_tokens for answer in whole) / seconds, 1),
        "first_token_p50_ms": round(statistics.median(first) * 1000) if first else None,
        "failed": len(answers) - len(whole),
    }


def measure(settings: Settings, machines: int, cores: int) -> dict[str, Any]:
    from ray.cluster_utils import Cluster

    local = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "include_dashboard": False})
    try:
        for _ in range(machines - 1):
            local.add_node(num_cpus=cores)
        settings = settings.model_copy(update={"copydesk_ray_address": local.address})
        began = time.monotonic()
        cluster.deploy(settings)
        ready = time.monotonic() - began
        figures = asyncio.run(load(settings))
    finally:
        local.shutdown()
    return {"machines": machines, "cores_each": cores, "clients": CLIENTS, "ready_s": round(ready, 1), **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description="Two engines against one, on a local Ray cluster.")
    parser.add_argument("--layouts", default="1x2,2x1", help="machines x cores of each, with commas between")
    layouts = [tuple(map(int, layout.split("x"))) for layout in parser.parse_args().layouts.split(",")]
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
    with tempfile.TemporaryDirectory() as home:
        here = read_settings()
        (Path(home) / "models").symlink_to(here.models.resolve())
        settings = here.model_copy(update={"copydesk_ray_port": 8123, "copydesk_home": Path(home)})
        for machines, cores in layouts:
            print(json.dumps(measure(settings, machines, cores)), flush=True)


if __name__ == "__main__":
    main()
