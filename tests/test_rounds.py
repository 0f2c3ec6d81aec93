"""A round that is killed, cancelled, starved of memory or of its data, on a tiny model of the real architecture."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import full_disk
from round_process import RECIPE, start, warm_server
from tiny import EXACT, objective, starter_data
from transformers import PreTrainedTokenizerBase

from serving.engine import has_cpu_build
from serving.exchange import starter_pairs
from serving.jobs import Jobs
from serving.records import CopydeskError, RoundState, Split
from serving.registry import verify
from serving.settings import Settings
from serving.store import Store
from trainer import lora, rounds
from trainer.checkpoint import Checkpoints, Moment
from trainer.dataset import Row
from trainer.lora import Progress
from trainer.objective import Objective
from trainer.rounds import run_round

HERE = Path(__file__).parent

pytestmark = pytest.mark.usefixtures("one_thread")


class PulledPlugError(Exception):
    pass


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_fit_that_is_taken_up_again_ends_in_the_same_bytes(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, precision: str, dropout: float
) -> None:
    recipe = replace(EXACT, precision=precision, dropout=dropout, epochs=3, batch_pairs=2, warm_up=0.3)
    file = tmp_path / "checkpoint.safetensors"

    def trained(
        checkpoints: Checkpoints | None = None, until: int | None = None
    ) -> tuple[lora.Fit, list[torch.Tensor]]:
        def pull(progress: Progress) -> None:
            if progress.step == until:
                raise PulledPlugError

        ours = objective(tiny_model, recipe)
        fitted = lora.fit(ours, starter_data(tokenizer), pull, checkpoints)
        return fitted, [p.detach() for p in ours.model.parameters() if p.requires_grad]

    whole, expected = trained()
    for until in (4, 8):
        with pytest.raises(PulledPlugError):
            trained(Checkpoints(file, "same", every_s=0), until)
    resumed, found = trained(Checkpoints(file, "same", every_s=0))
    assert resumed.losses == whole.losses
    assert resumed.tokens == whole.tokens
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_checkpoint_of_another_round_or_a_torn_one_is_not_taken_up(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    assert Checkpoints(file, "one").take_up() is None
    Checkpoints(file, "one").save(Moment([0.5], 7, 1.0), {"0.master": torch.ones(3)})
    moment, tensors = Checkpoints(file, "one").take_up() or pytest.fail("no checkpoint")
    assert moment == Moment([0.5], 7, 1.0)
    assert tensors["0.master"].tolist() == [1, 1, 1]
    assert Checkpoints(file, "other").take_up() is None
    file.write_bytes(file.read_bytes()[:-9])
    assert Checkpoints(file, "one").take_up() is None
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


# Kills


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return warm_server()


@pytest.fixture(scope="module")
def uninterrupted(processes: ForkServerContext, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the adapter that a round makes when nothing stops it."""
    settings = Settings(_env_file=None, copydesk_home=tmp_path_factory.mktemp("whole"), copydesk_model=str(tiny_model))
    store = Store(settings.database)
    store.add_pairs(starter_pairs("en")[:24])
    return run_round(settings, store, RECIPE).version.digest


def whole_versions(desk: Settings, store: Store) -> list[str]:
    """The versions' names; every one of them has the files that were registered, and nothing else lies about."""
    versions = store.versions()
    for version in versions:
        verify(version)
    return [version.name for version in versions]


@pytest.mark.parametrize(
    ("moment", "name", "registered"),
    [
        ("before", "_train", 0),
        ("after", "_fit", 0),
        ("before", "draw_losses", 0),
        ("before", "publish", 0),
        ("after", "publish", 0),
        ("before", "register", 0),
        ("after", "register", 1),
    ],
)
def test_a_kill_leaves_one_whole_version_or_none_and_the_next_run_ends_it(
    desk: Settings,
    filled: Store,
    processes: ForkServerContext,
    uninterrupted: str,
    moment: str,
    name: str,
    registered: int,
) -> None:
    reached = processes.Event()
    process = start(processes, desk.copydesk_home, desk.copydesk_model, **{moment: name}, reached=reached)
    assert reached.wait(120)
    process.kill()
    process.join()
    assert len(whole_versions(desk, filled)) == registered

    outcome = run_round(desk, filled, RECIPE)

    assert outcome.version.digest == uninterrupted
    # A round that was registered is over; the next run is another one.
    assert outcome.version.name == ("copy-0002" if registered else "copy-0001")
    assert len(whole_versions(desk, filled)) == 1 + registered
    assert {path.name for path in desk.adapters.iterdir()} - {".lock"} == set(whole_versions(desk, filled))


def test_twenty_kills_at_random_moments_leave_one_version_or_none_and_the_round_ends_the_same(
    desk: Settings, filled: Store, processes: ForkServerContext, uninterrupted: str
) -> None:
    dice = random.Random(4)
    ended = 0
    for _ in range(20):
        process = start(processes, desk.copydesk_home, desk.copydesk_model)
        process.join(dice.uniform(0.05, 2.5))
        process.kill()
        process.join()
        ended += process.exitcode == 0
        names = whole_versions(desk, filled)
        assert len(names) <= len(filled.rounds())
        assert all(version.digest == uninterrupted for version in filled.versions())
    outcome = run_round(desk, filled, RECIPE)
    assert outcome.version.digest == uninterrupted
    assert len(whole_versions(desk, filled)) >= 1
    assert {path.name for path in desk.adapters.iterdir()} - {".lock"} == set(whole_versions(desk, filled))
    assert all(round.state is not RoundState.RUNNING for round in filled.rounds())
    assert all(round.facts["loss_last"] for round in filled.rounds() if round.state is RoundState.DONE)


def killed_in_training(desk: Settings, processes: ForkServerContext) -> None:
    reached = processes.Event()
    process = start(processes, desk.copydesk_home, desk.copydesk_model, after="_fit", reached=reached)
    assert reached.wait(120)
    process.kill()
    process.join()


def test_a_round_goes_on_from_its_checkpoint(desk: Settings, filled: Store, processes: ForkServerContext) -> None:
    killed_in_training(desk, processes)
    assert Jobs(filled).running() is None
    assert Jobs(filled).interrupted() == filled.round(1)
    steps: list[int] = []
    notes: list[str] = []
    outcome = run_round(desk, filled, RECIPE, on_progress=lambda p: steps.append(p.step), on_note=notes.append)
    assert len(steps) == 1  # the last one, after which nothing was saved
    assert outcome.round.id == 1
    assert notes[0] == (f"copy-0001 was interrupted at step {steps[0]} of {steps[0]}; it goes on from its last save.")


def test_a_round_whose_data_changed_begins_anew_and_says_so(
    desk: Settings, filled: Store, processes: ForkServerContext
) -> None:
    killed_in_training(desk, processes)
    gone = filled.pairs(split=Split.TRAIN)[0]
    filled.withdraw_pair(gone.id)
    notes: list[str] = []
    outcome = run_round(desk, filled, RECIPE, on_note=notes.append)
    assert notes[0] == "copy-0001 was interrupted, and its pairs, recipe or base have changed: a new round begins."
    assert outcome.version.name == "copy-0002"
    assert gone.id not in {pair.id for pair in filled.round_pairs(2)}
    assert filled.round(1).state is RoundState.FAILED
    assert filled.round(1).message == "killed before it was done; run it again: copydesk round run"


def test_a_whole_round_that_was_killed_before_it_was_registered_is_not_trained_twice(
    desk: Settings, filled: Store, processes: ForkServerContext
) -> None:
    reached = processes.Event()
    process = start(processes, desk.copydesk_home, desk.copydesk_model, before="register", reached=reached)
    assert reached.wait(120)
    process.kill()
    process.join()
    steps: list[int] = []
    outcome = run_round(desk, filled, RECIPE, on_progress=lambda p: steps.append(p.step))
    assert (outcome.version.name, steps) == ("copy-0001", [])
    assert outcome.round.facts["pairs"] == outcome.round.pairs


# Cancelled, out of memory, out of disk


def test_a_cancelled_round_stops_at_its_next_step_and_leaves_nothing(desk: Settings, filled: Store) -> None:
    def cancel(progress: Progress) -> None:
        if progress.step == 1:
            Jobs(filled).cancel("U_MARA")

    with pytest.raises(CopydeskError, match="cancelled by U_MARA"):
        run_round(desk, filled, EXACT, on_progress=cancel)
    assert filled.rounds()[0].state is RoundState.FAILED
    assert filled.rounds()[0].message == "cancelled by U_MARA"
    assert {path.name for path in desk.adapters.iterdir()} == {".lock"}
    with pytest.raises(CopydeskError, match="No round is running"):
        Jobs(filled).cancel("U_MARA")


def test_a_killed_round_that_is_cancelled_is_not_taken_up(
    desk: Settings, filled: Store, processes: ForkServerContext
) -> None:
    killed_in_training(desk, processes)
    assert Jobs(filled).cancel("cli").state is RoundState.FAILED
    assert run_round(desk, filled, RECIPE).version.name == "copy-0002"


def test_progress_is_there_for_others_to_see(desk: Settings, filled: Store) -> None:
    seen = []

    def look(progress: Progress) -> None:
        if progress.step == 2:
            running = Jobs(filled).running()
            assert running is not None
            seen.append((running[0].id, running[1].step, running[1].steps))

    run_round(desk, filled, EXACT, on_progress=look)
    assert seen == [(1, 1, 3)]
    job = Jobs(filled).job(1)
    assert job is not None
    assert (job.step, job.steps) == (3, 3)
    assert Jobs(filled).running() is None


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine whose memory holds a part of 700 tokens and no more; the list says how large the parts were."""
    sizes: list[int] = []
    inner = Objective.__call__

    def limited(self: Objective, part: list[Row]) -> torch.Tensor:
        sizes.append(sum(len(row["input_ids"]) for row in part))
        if sizes[-1] > 700:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return inner(self, part)

    monkeypatch.setattr(Objective, "__call__", limited)
    return sizes


def test_out_of_memory_is_tried_once_more_with_half_as_much(
    desk: Settings, filled: Store, short_of_memory: list[int]
) -> None:
    notes: list[str] = []
    outcome = run_round(desk, filled, EXACT, on_note=notes.append)
    first, said, second = notes
    assert said == "Out of memory; once more with half as many tokens at a time."
    assert (first[:7], second[:7]) == ("Memory:", "Memory:")
    assert outcome.round.facts["notes"] == notes
    assert short_of_memory[0] > 700
    assert max(short_of_memory[1:]) <= 700


def test_out_of_memory_twice_says_what_to_change(
    desk: Settings, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*arguments: object, **options: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(lora, "fit", exhausted)
    with pytest.raises(CopydeskError, match="take a smaller base model or rank"):
        run_round(desk, filled, EXACT)
    assert filled.versions() == []


def test_a_full_disk_is_told_before_anything_is_read(
    desk: Settings, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "FREE_DISK", 1 << 60)
    with pytest.raises(CopydeskError, match=r"A round needs .* GB of free disk"):
        run_round(desk, filled, EXACT)
    assert filled.rounds() == []


def test_a_disk_that_fills_while_the_adapter_is_written_fails_the_round_and_leaves_nothing(
    desk: Settings, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = lora.save

    def save_on_a_full_disk(*arguments: Any) -> None:
        with full_disk(4096):
            save(*arguments)

    monkeypatch.setattr(lora, "save", save_on_a_full_disk)
    with pytest.raises(CopydeskError, match=r"Training failed: .*File too large"):
        run_round(desk, filled, EXACT)
    assert filled.rounds()[0].state is RoundState.FAILED
    assert {path.name for path in desk.adapters.iterdir()} == {".lock"}


@pytest.mark.skipif(not (hasattr(os, "SCHED_IDLE") and has_cpu_build()), reason="Linux without a GPU only")
@pytest.mark.parametrize("leads", [False, True])
def test_a_round_on_a_cpu_stands_behind_every_other_process(leads: bool) -> None:
    code = """if True:
        import os
        from pathlib import Path
        from trainer.priority import give_way
        give_way()
        group = Path("/proc/self/autogroup")
        nice = int(group.read_text().split()[-1]) if group.exists() else 19
        print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.getsid(0) == os.getpid(), nice)
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=HERE.parent,
        start_new_session=leads,
    )
    assert done.stdout.split() == ["True", "True", "19"]
