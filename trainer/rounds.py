"""One round: collect pairs, train from the base, publish the adapter's directory, register the version.

Every step leaves a state that the next start understands. The files are written under a hidden name and renamed when
they are whole; the row comes last. A process that is killed leaves either nothing, or a whole directory that the next
start registers.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from transformers import PreTrainedTokenizerBase

from serving.held_out import suite_keys
from serving.jobs import Jobs
from serving.model import base_model_path
from serving.records import CopydeskError, Pair, Round, RoundState, Split, Version
from serving.registry import digest_of
from serving.settings import Settings
from serving.store import Store
from trainer import lora
from trainer.card import card, draw_losses
from trainer.dataset import TrainingData, training_data
from trainer.hygiene import clean, counts, refuse_held_out, warnings
from trainer.lora import Progress
from trainer.recipe import Recipe

FREE_DISK = 1 << 30  # an adapter of a 7B base takes 80-320 MB, the tokenizer's files up to 20 MB
FACTS = "round.json"
PACKAGES = ("torch", "transformers", "peft")


@dataclass(frozen=True)
class Outcome:
    """What a round made."""

    version: Version
    round: Round


def run_round(
    settings: Settings,
    store: Store,
    recipe: Recipe,
    *,
    language: str | None = None,
    max_pairs: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Train a version on the active pairs of the training split and register it.

    Args:
        language: pairs of this language only; None takes all.
        max_pairs: the newest so many.

    Raises:
        CopydeskError: another round is running, there is nothing to train on, or training failed; the round's row
            then says why.
    """
    adapters = settings.adapters.resolve()
    adapters.mkdir(parents=True, exist_ok=True)
    with only_round(adapters):
        close_dead_rounds(store, adapters, settings.copydesk_model)
        free = shutil.disk_usage(adapters).free
        if free < FREE_DISK:
            raise CopydeskError(f"A round needs 1 GB of free disk at {adapters}; {free >> 20} MB are free.")
        base = base_model_path(settings)
        tokenizer = lora.load_tokenizer(base)
        data = prepare(store, tokenizer, recipe, language, max_pairs)
        round = store.start_round(recipe.to_mapping(), (pair.id for pair in data.pairs), data.digest)
        Jobs(store).exclude(round.id, ((skipped.pair_id, skipped.reason) for skipped in data.skipped))
        with _failure_recorded(store, round):
            facts = _train(adapters, round, recipe, data, base, tokenizer, on_progress)
            version = register(store, adapters, round, facts, settings.copydesk_model)
        return Outcome(version, store.round(round.id))


def collect(store: Store, language: str | None, max_pairs: int | None) -> list[Pair]:
    """The active pairs of the training split, by id."""
    pairs = store.pairs(split=Split.TRAIN, language=language)
    return pairs if max_pairs is None else pairs[-max_pairs:] if max_pairs > 0 else []


def prepare(
    store: Store, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, language: str | None, max_pairs: int | None
) -> TrainingData:
    """The pairs that train, as tokens, with those that were left out.

    Raises:
        CopydeskError: nothing is left to train on, or a held-out pair came through.
    """
    cleaned = clean(collect(store, language, max_pairs), store.pairs(split=Split.HELD_OUT), suite_keys())
    data = training_data(cleaned.pairs, tokenizer, recipe.max_tokens)
    skipped = tuple(sorted((*cleaned.skipped, *data.skipped), key=lambda skipped: skipped.pair_id))
    if not data.pairs:
        why = f" ({len(skipped)} left out, the first: {skipped[0]})" if skipped else ""
        raise CopydeskError(f"No pairs to train on{why}; correct drafts, or run: python -m trainer starter")
    refuse_held_out(data.pairs, suite_keys())
    return replace(data, skipped=skipped)


@contextmanager
def only_round(adapters: Path) -> Iterator[None]:
    """Raises CopydeskError while another process trains. The lock goes with its process, however that ends."""
    lock = FileLock(adapters / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CopydeskError("A round is running already; wait for it to end: copydesk round list") from error
    try:
        yield
    finally:
        lock.release()


def close_dead_rounds(store: Store, adapters: Path, base_model: str) -> None:
    """What a killed process left: whole files become their version, the rest is removed. Call it under the lock."""
    for leftover in adapters.glob(".copy-*"):
        shutil.rmtree(leftover)
    for round in store.rounds():
        if round.state is not RoundState.RUNNING:
            continue
        facts_file = adapters / round.version / FACTS
        if facts_file.is_file():
            register(store, adapters, round, json.loads(facts_file.read_text(encoding="utf-8")), base_model)
        else:
            store.fail_round(round.id, "killed before it was done; run it again: copydesk round run")


@contextmanager
def _failure_recorded(store: Store, round: Round) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        store.fail_round(round.id, "stopped by hand")
        raise
    except CopydeskError as error:
        store.fail_round(round.id, str(error))
        raise
    except (OSError, RuntimeError, MemoryError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        message = f"Training failed: {lines[0][:300]}"
        store.fail_round(round.id, message)
        raise CopydeskError(f"{message} (round {round.id}; copydesk round show {round.id})") from error


def _train(
    adapters: Path,
    round: Round,
    recipe: Recipe,
    data: TrainingData,
    base: str,
    tokenizer: Any,
    on_progress: Callable[[Progress], None],
) -> dict[str, Any]:
    target = adapters / round.version
    if target.exists():
        raise CopydeskError(f"{target} is there already but is no version of this desk; move it away and run again.")
    model = lora.load_model(base, recipe)
    fitted = lora.fit(model, data, recipe, pad=tokenizer.pad_token_id or 0, on_progress=on_progress)
    facts = {
        "pairs": len(data.pairs),
        "answer_tokens": data.answer_tokens,
        **fitted.facts,
        "peak_rss_gib": lora.peak_rss_gib(),
        "skipped": [str(skipped) for skipped in data.skipped],
        "categories": counts(data.pairs),
        "warnings": list(warnings(data.pairs)),
        "packages": {name: package_version(name) for name in PACKAGES},
        "python": platform.python_version(),
    }
    working = adapters / f".{round.version}.{os.getpid()}"
    lora.save(model, tokenizer, recipe, working)
    draw_losses(fitted.losses, working / "loss.png")
    (working / "README.md").write_text(card(round, recipe, facts, Path(base).name), encoding="utf-8")
    (working / FACTS).write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    publish(working, target)
    return facts


def publish(working: Path, target: Path) -> None:
    """Every byte reaches the disk before the name does."""
    for path in working.iterdir():
        _sync(path)
    _sync(working)
    working.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def register(store: Store, adapters: Path, round: Round, facts: dict[str, Any], base_model: str) -> Version:
    path = adapters / round.version
    return store.finish_round(round.id, facts, path=str(path), digest=digest_of(path), base_model=base_model)
