"""How a draft fares beside a round on the same cores. Run: python -m serving.beside_bench

A JSON line a turn: {"round": "none"|"equal"|"ours", "draft_tok_s": […], "steps_per_s": …, "steps_per_s_between": …}.
One engine answers some drafts one after the other, then rests, while one round trains on the starter pairs. By turns
the round is scheduled like every process ("equal") and as it schedules itself ("ours", see trainer.priority). It lives
in a temporary folder, and is then ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from serving.client import ModelClient, Sampling
from serving.engine import Engine, has_cpu_build
from serving.exchange import starter_pairs
from serving.jobs import Jobs
from serving.model import base_model_path
from serving.prompt import messages
from serving.records import CopydeskError
from serving.settings import Settings, read_settings
from serving.store import BASE, Store

TURNS = 3
DRAFTS = 6
TOKENS = 16
REST_S = 15
STEPS_FIRST = 2  # of the round, before the first turn


@dataclass(frozen=True)
class Rank:
    """How a process and its session are scheduled; the niceness of a session is None where sessions are no groups."""

    policy: int
    session: int | None

    @classmethod
    def of(cls, pid: int) -> Rank:
        group = Path(f"/proc/{pid}/autogroup")
        return cls(os.sched_getscheduler(pid), int(group.read_text().split()[-1]) if group.exists() else None)

    def give(self, pid: int) -> None:
        """To all threads that the process has, and to its session."""
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(thread.name), self.policy, os.sched_param(0))
        if self.session is not None:
            Path(f"/proc/{pid}/autogroup").write_text(str(self.session))


async def drafts(client: ModelClient, numbers: count[int]) -> list[float]:
    """Tokens a second of some drafts, one after the other; no prompt begins like another, so no cache helps."""
    rates = []
    for _ in range(DRAFTS):
        prompt = messages(f"{next(numbers)}. Write sixty words of product copy for the Alder lamp.")
        answer = await client.complete(prompt, BASE, Sampling(max_tokens=TOKENS, temperature=0.7))
        rates.append(round(answer.completion_tokens / answer.total_s, 1))
    return rates


def step_of(store: Store) -> int:
    running = Jobs(store).running()
    return running[1].step if running else 0


@contextmanager
def steps(store: Store) -> Iterator[list[float]]:
    """The list gets the round's steps a second meanwhile."""
    step, began = step_of(store), time.monotonic()
    rate: list[float] = []
    yield rate
    rate.append(round((step_of(store) - step) / (time.monotonic() - began), 2))


async def measure(settings: Settings) -> None:
    store = Store(settings.database)
    store.add_pairs(starter_pairs("en"))
    stop = asyncio.Event()
    engine = Engine(settings, store)
    serving = asyncio.create_task(engine.run(stop))
    await engine.wait_ready()
    command = [sys.executable, "-m", "trainer", "run", "--json"]
    desk = {"COPYDESK_HOME": str(settings.copydesk_home), "COPYDESK_MODEL": settings.copydesk_model}
    numbers = count()
    async with ModelClient.of(settings) as client:
        await drafts(client, numbers)  # the first is slower
        say("none", await drafts(client, numbers))
        with (settings.copydesk_home / "round.log").open("w+") as log:
            training = subprocess.Popen(  # noqa: ASYNC220  (a bench has nothing else to do meanwhile)
                command,
                env={**os.environ, **desk},
                stdout=log,
                stderr=log,
            )
            try:
                while step_of(store) < STEPS_FIRST:
                    if training.poll() is not None:
                        log.seek(0)
                        raise CopydeskError(f"The round did not start: {log.read()[-2000:]}")
                    await asyncio.sleep(0.5)
                ours = Rank.of(training.pid)
                equal = Rank(os.SCHED_OTHER, None if ours.session is None else 0)
                for _ in range(TURNS):
                    for name, rank in (("equal", equal), ("ours", ours)):
                        rank.give(training.pid)
                        with steps(store) as beside:
                            rates = await drafts(client, numbers)
                        with steps(store) as between:
                            await asyncio.sleep(REST_S)
                        say(name, rates, *beside, *between)
            finally:
                training.terminate()
                training.wait()
    stop.set()
    await serving


def say(name: str, rates: list[float], beside: float | None = None, between: float | None = None) -> None:
    figures = {"round": name, "draft_tok_s": rates, "steps_per_s": beside, "steps_per_s_between": between}
    print(json.dumps(figures), flush=True)


def main() -> None:
    if not (has_cpu_build() and hasattr(os, "SCHED_IDLE")):
        raise SystemExit("This bench is for Linux machines without a GPU, where engine and round share the cores.")
    with tempfile.TemporaryDirectory(prefix="copydesk-bench-") as home:
        here = read_settings()
        asyncio.run(
            measure(here.model_copy(update={"copydesk_model": base_model_path(here), "copydesk_home": Path(home)}))
        )


if __name__ == "__main__":
    main()
