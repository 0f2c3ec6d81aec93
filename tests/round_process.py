"""Rounds in processes of their own, to be killed. They are forked from a server that has torch loaded already."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import matplotlib.backends.backend_agg  # noqa: F401  (loading it in every process would take a second)
import torch

from serving.settings import Settings
from serving.store import Store
from trainer import rounds
from trainer.recipe import DEFAULT

RECIPE = replace(DEFAULT, precision="fp32", epochs=1, max_tokens=256, batch_pairs=4, min_steps=0)


def warm_server() -> ForkServerContext:
    """Started once for all tests; the first process waits until torch is loaded."""
    os.environ["OMP_NUM_THREADS"] = "1"
    # The server passes over modules that it does not find, and does not look where this process looks.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["round_process"])
    return context


def start(context: ForkServerContext, home: Path, model: str, **options: Any) -> ForkServerProcess:
    process = context.Process(target=one_round, args=(home, model), kwargs=options)
    process.start()
    return process


def one_round(
    home: Path, model: str, before: str = "", after: str = "", reached: Event | None = None, checkpoint_s: float = 0.0
) -> None:
    """Run a round; stand still before or after one of its functions and say so."""
    torch.set_num_threads(1)

    def halt() -> None:
        assert reached is not None
        reached.set()
        multiprocessing.Event().wait()

    if before:
        setattr(rounds, before, lambda *arguments, **options: halt())
    if after:
        step = getattr(rounds, after)
        setattr(rounds, after, lambda *arguments, **options: (step(*arguments, **options), halt()))
    settings = Settings(_env_file=None, copydesk_home=home, copydesk_model=model)
    rounds.run_round(settings, Store(settings.database), RECIPE, checkpoint_s=checkpoint_s)
