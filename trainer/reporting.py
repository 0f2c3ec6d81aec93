"""A round's curve in TensorBoard, MLflow, Weights & Biases and what else accelerate knows, for those who have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from serving.records import CopydeskError
from trainer.lora import Progress
from trainer.recipe import Recipe


@contextmanager
def reported(name: str, folder: Path, run: str, recipe: Recipe) -> Iterator[Callable[[Progress], None]]:
    """Yields what takes each step's progress.

    Args:
        name: of the tracker, such as "tensorboard".
        folder: where trackers that write files do so.
        run: how the curve is called there.

    Raises:
        CopydeskError: there is no such tracker, or its package is not installed.
    """
    if name not in LOGGER_TYPE_TO_CLASS:
        raise CopydeskError(f"Nothing is called {name}; there are {', '.join(LOGGER_TYPE_TO_CLASS)}.")
    if name not in {str(found) for found in get_available_trackers()}:
        raise CopydeskError(f"{name} is not installed; install its package, or leave --report-to out.")
    kind = LOGGER_TYPE_TO_CLASS[name]
    tracker = kind(run, logging_dir=folder) if kind.requires_logging_directory else kind(run)
    PartialState()  # trackers log through accelerate, which wants to know its processes first
    tracker.start()
    tracker.store_init_configuration(_flat(recipe))

    def report(progress: Progress) -> None:
        tracker.log({"loss": progress.loss, "tokens_per_s": progress.tokens_per_s}, step=progress.step)

    try:
        yield report
    finally:
        tracker.finish()


def _flat(recipe: Recipe) -> dict[str, str | int | float]:
    """Trackers take no lists and no nested objects as hyper-parameters."""
    return {k: v if isinstance(v, str | int | float) else str(v) for k, v in recipe.to_mapping().items()}
