"""One round: collect pairs, train from the base, publish the adapter's directory, register the version.

Every step leaves a state that the next start understands. The files are written under a hidden name and renamed when
they are whole; the row comes last. After a kill the next run takes the same round up: from its files if they are whole,
else from its last checkpoint; where its pairs, recipe or base have changed, a new round begins.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from serving.handover import Memory
from serving.held_out import suite_keys
from serving.jobs import Jobs, cancelled_message
from serving.lock import only_round
from serving.model import base_model_path
from serving.records import CopydeskError, Pair, Round, RoundState, Split, Version
from serving.registry import digest_of
from serving.settings import Settings
from serving.store import Store
from trainer import lora
from trainer.base import Base, describe
from trainer.card import card, draw_losses
from trainer.checkpoint import EVERY_S, Checkpoints
from trainer.dataset import TrainingData, training_data
from trainer.group import ALONE, Group
from trainer.hygiene import clean, counts, refuse_held_out, warnings
from trainer.lora import Fit, Progress
from trainer.objective import Objective
from trainer.preference import judgements_for, preference_stage
from trainer.recipe import Recipe

FREE_DISK = 1 << 30  # an adapter of a 7B base takes 80-320 MB, the tokenizer's files up to 20 MB
CHECKPOINT_BYTES = 12  # a trained parameter and its two moments in fp32
FACTS = "round.json"
PACKAGES = ("torch", "transformers", "peft")
REPORT_S = 1.0
MAKE_ROOM_S = 900.0  # an engine that is just starting gives way when it is ready
KILLED = "killed before it was done; run it again: copydesk round run"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a round made."""

    version: Version
    round: Round


@dataclass(frozen=True)
class Work:
    """What a round stands on."""

    adapters: Path
    recipe: Recipe
    data: TrainingData
    base: Base
    tokenizer: PreTrainedTokenizerBase

    @property
    def fingerprint(self) -> str:
        """Of all that decides the result: under the same one, a killed round is taken up again."""
        facts = [
            self.recipe.to_mapping(),
            self.data.digest,
            self.base.path,
            self.base.revision,
            _packages(),
            torch.cuda.is_available(),
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def run_round(
    settings: Settings,
    store: Store,
    recipe: Recipe,
    *,
    language: str | None = None,
    max_pairs: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Tell = lambda note: None,
    checkpoint_s: float = EVERY_S,
    group: Group = ALONE,
) -> Outcome:
    """Train a version on the active pairs of the training split and register it, or end a round that was killed.

    Args:
        language: pairs of this language only; None takes all.
        max_pairs: the newest so many.
        on_note: told what a person should know while it runs, a sentence at a time.
        checkpoint_s: seconds between two checkpoints.
        group: the processes that share the work; this is the first of them, the others `follow`.

    Raises:
        CopydeskError: another round is running, there is nothing to train on, or training failed or was cancelled; the
            round's row then says why.
    """
    adapters = settings.adapters.resolve()
    adapters.mkdir(parents=True, exist_ok=True)
    with only_round(adapters):
        require_disk(adapters, FREE_DISK)
        whole = register_whole(store, adapters, settings.copydesk_model)
        base = describe(base_model_path(settings))
        tokenizer = lora.load_tokenizer(base.path)
        data = prepare(store, tokenizer, recipe, language, max_pairs)
        work = Work(adapters, recipe, data, base, tokenizer)
        jobs = Jobs(store)
        remove_leftovers(store, adapters)
        if whole and (job := jobs.job(whole.round.id)) and job.fingerprint == work.fingerprint:
            on_note(f"{whole.version.name} was trained already when its process was killed; it is registered now.")
            return whole
        round = take_up(store, jobs, work.fingerprint, on_note)
        if round is None:
            round = store.start_round(recipe.to_mapping(), (pair.id for pair in data.pairs), data.digest)
            jobs.exclude(round.id, ((skipped.pair_id, skipped.reason) for skipped in data.skipped))
            jobs.hear(round.id, data.judgements.used, ((one.draft_id, one.reason) for one in data.judgements.left_out))
        jobs.begin(round.id, work.fingerprint)
        try:
            with _failure_recorded(store, round), _memory_taken(settings, jobs, round, on_note):
                facts = _train(round, work, _watched(jobs, round, on_progress), on_note, checkpoint_s, group)
                version = register(store, adapters, round, facts, settings.copydesk_model)
        finally:
            remove_leftovers(store, adapters)
        return Outcome(version, store.round(round.id))


def require_disk(adapters: Path, needed: int) -> None:
    free = shutil.disk_usage(adapters).free
    if free < needed:
        raise CopydeskError(
            f"A round needs {needed / 1e9:.1f} GB of free disk at {adapters}; {free >> 20} MB are free."
        )


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
    data = replace(data, skipped=skipped)
    return replace(data, judgements=judgements_for(recipe, store, data, tokenizer, language))


def register_whole(store: Store, adapters: Path, base_model: str) -> Outcome | None:
    """Register the round whose process was killed after its files were whole. Call it under the lock."""
    outcome = None
    for round in store.rounds():
        facts_file = adapters / round.version / FACTS
        if round.state is RoundState.RUNNING and facts_file.is_file():
            facts = json.loads(facts_file.read_text(encoding="utf-8"))
            outcome = Outcome(register(store, adapters, round, facts, base_model), store.round(round.id))
    return outcome


def take_up(store: Store, jobs: Jobs, fingerprint: str, on_note: Tell) -> Round | None:
    """The round that was killed and would come out the same today; others that were killed are closed."""
    found = None
    for round in store.rounds():
        if round.state is not RoundState.RUNNING:
            continue
        job = jobs.job(round.id)
        if job and job.cancelled_by:
            store.fail_round(round.id, cancelled_message(job.cancelled_by))
        elif found is None and job and job.fingerprint == fingerprint:
            on_note(
                f"{round.version} was interrupted at step {job.step} of {job.steps}; it goes on from its last save."
            )
            found = round
        else:
            on_note(f"{round.version} was interrupted, and its pairs, recipe or base have changed: a new round begins.")
            store.fail_round(round.id, KILLED)
    return found


def remove_leftovers(store: Store, adapters: Path) -> None:
    """Half-written directories, and checkpoints of rounds that are over."""
    open_rounds = {f".{round.version}.safetensors" for round in store.rounds() if round.state is RoundState.RUNNING}
    for leftover in adapters.glob(".copy-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        elif leftover.name not in open_rounds:
            leftover.unlink()


def _watched(jobs: Jobs, round: Round, on_progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Progress that others see too; raises CopydeskError when one of them wants the round to end."""
    last = float("-inf")

    def watch(progress: Progress) -> None:
        nonlocal last
        on_progress(progress)
        if time.monotonic() - last >= REPORT_S or progress.step == progress.steps:
            last = time.monotonic()
            user = jobs.report(round.id, progress.step, progress.steps, progress.seconds_left)
            if user is not None:
                raise CopydeskError(cancelled_message(user), code="cancelled")

    return watch


@contextmanager
def _memory_taken(settings: Settings, jobs: Jobs, round: Round, on_note: Tell) -> Iterator[None]:
    """Where engine and round do not fit together, the engine gives its memory up as soon as it sees the round's job."""
    memory = Memory(settings)
    if not memory.take():
        on_note("The engine finishes its drafts and makes room.")
    deadline = time.monotonic() + MAKE_ROOM_S
    while not memory.take():
        if time.monotonic() > deadline:
            raise CopydeskError(
                f"The memory was not free after {MAKE_ROOM_S / 60:.0f} min: an engine that does not see this round "
                "holds it, in another container or left over; end that one, then: copydesk round run"
            )
        job = jobs.job(round.id)
        if job and job.cancelled_by:
            raise CopydeskError(cancelled_message(job.cancelled_by), code="cancelled")
        time.sleep(REPORT_S)
    yield
    # After an exception its traceback still holds the model: then the lock goes with this process.
    gc.collect()
    torch.cuda.empty_cache()
    memory.release()


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
    except (OSError, RuntimeError, MemoryError, ValueError, SafetensorError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        message = f"Training failed: {lines[0][:300]}"
        store.fail_round(round.id, message)
        raise CopydeskError(f"{message} (round {round.id}; copydesk round show {round.id})") from error


def _train(
    round: Round,
    work: Work,
    on_progress: Callable[[Progress], None],
    on_note: Tell,
    checkpoint_s: float,
    group: Group,
) -> dict[str, Any]:
    target = work.adapters / round.version
    if target.exists():
        raise CopydeskError(f"{target} is there already but is no version of this desk; move it away and run again.")
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        on_note(text)

    checkpoints = Checkpoints(work.adapters / f".{round.version}.safetensors", work.fingerprint, checkpoint_s)
    if work.data.judgements.too_few:
        note(f"Pairs only: {work.data.judgements.too_few}.")
    group.same(work)
    model, fitted = _fit(work, checkpoints, on_progress, note, group)
    facts = {
        "pairs": len(work.data.pairs),
        "answer_tokens": work.data.answer_tokens,
        **fitted.facts,
        "peak_rss_gib": lora.peak_rss_gib(),
        "skipped": [str(skipped) for skipped in work.data.skipped],
        "judgements": {name: ids for name, ids in work.data.judgements.used.items() if ids},
        "judgements_left_out": [str(one) for one in work.data.judgements.left_out],
        "processes": group.size,
        "categories": counts(work.data.pairs),
        "languages": sorted({pair.task.language for pair in work.data.pairs}),
        "warnings": list(warnings(work.data.pairs)),
        "notes": notes,
        "base": {"name": work.base.name, "revision": work.base.revision, "license": work.base.license},
        "packages": _packages(),
        "python": platform.python_version(),
    }
    working = work.adapters / f".{round.version}.{os.getpid()}"
    lora.save(model, work.tokenizer, work.recipe, working)
    draw_losses(fitted.losses, working / "loss.png")
    (working / FACTS).write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    text = card(round, work.recipe, facts, digest_of(working))
    (working / "README.md").write_text(text, encoding="utf-8")
    publish(working, target)
    return facts


def _fit(
    work: Work,
    checkpoints: Checkpoints | None,
    on_progress: Callable[[Progress], None],
    note: Tell,
    group: Group,
) -> tuple[torch.nn.Module, Fit]:
    """Train; where memory does not suffice, once more with half as many tokens at a time."""
    pad = int(work.tokenizer.pad_token_id or 0)
    for shrink in (1, 2):
        try:
            objective = Objective(lora.load_model(work.base.path, work.recipe), work.recipe, pad)
            trained = sum(p.numel() for p in objective.model.parameters() if p.requires_grad)
            require_disk(work.adapters, 2 * CHECKPOINT_BYTES * trained)
            fitted = lora.fit(
                objective,
                work.data,
                on_progress,
                checkpoints,
                shrink,
                group,
                preference_stage(objective, work.data.judgements, work.tokenizer, group, shrink),
                on_plan=lambda plan: note(str(plan)),
            )
            return objective.model, fitted
        except (RuntimeError, MemoryError) as error:
            # Processes that share a step cannot turn back one by one.
            if not out_of_memory(error) or group.size > 1:
                raise
            objective = None
        # Only here is the error gone, and with it the tensors of the frames that it held.
        gc.collect()
        torch.cuda.empty_cache()
        if shrink == 1:
            note("Out of memory; once more with half as many tokens at a time.")
    raise CopydeskError("Out of memory, also with half as many tokens at a time; take a smaller base model or rank.")


def follow(group: Group) -> None:
    """Train along with the first process, which alone reads and writes."""
    _fit(group.same(cast(Work, None)), None, lambda progress: None, lambda note: None, group)


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _packages() -> dict[str, str]:
    return {name: package_version(name) for name in PACKAGES}


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
