"""One round on two processes, on a tiny model of the real architecture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from safetensors.torch import load_file
from tiny import EXACT, choices, dpo, judged, kto, objective, starter_data
from transformers import AutoTokenizer

from serving.processes import lives
from serving.settings import Settings
from serving.store import Store
from trainer import lora
from trainer.checkpoint import Checkpoints
from trainer.group import ALONE, Group, joined
from trainer.preference import preference_stage
from trainer.recipe import Recipe

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
RECIPES = {
    "pairs": replace(EXACT, epochs=2, batch_pairs=3),  # six pairs: shares of two and one
    "dpo": replace(dpo(batch=3), batch_pairs=4),
    "kto": replace(kto(batch=3), batch_pairs=4),
}


def fitted(model_path: Path, recipe: Recipe, group: Group) -> tuple[lora.Fit, dict[str, torch.Tensor]]:
    """What the round found, and by how much it moved each adapter weight."""
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    ours = objective(model_path, recipe)
    before = {name: p.detach().clone() for name, p in ours.model.named_parameters() if p.requires_grad}
    of = judged() if recipe.name == "kto" else choices()
    stage = preference_stage(ours, of, tokenizer, group, 1) if recipe.preference else None
    found = lora.fit(ours, starter_data(tokenizer), group=group, then=stage)
    after = dict(ours.model.named_parameters())
    return found, {name: after[name].detach() - start for name, start in before.items()}


def one_process(rank: int, size: int, model_path: Path, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=size)
    for name, recipe in RECIPES.items():
        found, moves = fitted(model_path, recipe, Group(rank, size))
        torch.save((found.losses, found.preference_losses, moves), out / f"{name}.{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def on_two(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    processes.spawn(one_process, args=(2, tiny_model, out), nprocs=2)
    return out


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", list(RECIPES))
def test_two_processes_give_the_losses_and_weights_of_one(tiny_model: Path, on_two: Path, name: str) -> None:
    alone, expected = fitted(tiny_model, RECIPES[name], ALONE)
    for rank in (0, 1):
        losses, preference_losses, moves = torch.load(on_two / f"{name}.{rank}")
        assert losses == pytest.approx(alone.losses, rel=1e-4)
        assert preference_losses == pytest.approx(alone.preference_losses, rel=1e-4)
        for key, move in expected.items():
            # As a whole: Adam's step for a weight whose gradient is all but zero has rounding's sign, not the data's.
            apart = torch.linalg.vector_norm(moves[key] - move) / torch.linalg.vector_norm(move)
            assert apart < 1e-2, key


@dataclass(frozen=True)
class Recorded(Group):
    """A process among two, beside one that has no pairs, which notes what all do together."""

    calls: list[str] = field(default_factory=list)

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        self.calls.append("loss")
        return value

    def total(self, value: float) -> float:
        self.calls.append("total")
        return value

    def same(self, value: T) -> T:
        self.calls.append("same")
        return value

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.calls.append("gradients")


@pytest.mark.usefixtures("one_thread")
def test_processes_do_what_they_do_together_in_one_order_though_one_writes_checkpoints(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On GPUs the first process would wait for a loss before a checkpoint that the others look at a step later."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "made up")
    recipe, tokenizer = RECIPES["pairs"], AutoTokenizer.from_pretrained(tiny_model)
    first, second = Recorded(0, 2), Recorded(1, 2)
    for group, checkpoints in ((first, Checkpoints(tmp_path / "last", "", every_s=0)), (second, None)):
        lora.fit(objective(tiny_model, recipe), starter_data(tokenizer), group=group, checkpoints=checkpoints)
    assert (tmp_path / "last").exists()
    assert first.calls == second.calls


def test_without_a_launcher_a_round_is_alone() -> None:
    with joined({}) as group:
        assert group is ALONE
        assert group.share([1, 2, 3]) == [1, 2, 3]


def test_shares_cover_a_step_once() -> None:
    assert [Group(rank, 3).share("abcde") for rank in range(3)] == [["a", "d"], ["b", "e"], ["c"]]


def test_processes_end_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "process.py"
    script.write_text(
        "import os, pathlib, time\n"
        "from trainer.group import joined\n"
        "with joined(os.environ) as group:\n"
        f"    pathlib.Path({str(tmp_path)!r}, str(group.rank)).symlink_to(str(os.getpid()))\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    launcher = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    names = [tmp_path / "0", tmp_path / "1"]  # links, which appear with what they say
    wait_until(lambda: all(name.is_symlink() for name in names), 120)
    ranks = [psutil.Process(int(name.readlink().name)) for name in names]
    started = [process.create_time() for process in ranks]
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not any(lives(one.pid, at) for one, at in zip(ranks, started, strict=True)), 10)


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_a_launcher_registers_one_version(desk: Settings, filled: Store, launcher: str) -> None:
    # For several processes on CPUs, accelerate itself wants MPI; --multi_gpu starts them as it does on GPUs.
    module = {
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "trainer"],
        "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "-m", "trainer"],
    }[launcher]
    environment = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        **{"COPYDESK_HOME": str(desk.copydesk_home), "COPYDESK_MODEL": desk.copydesk_model},
    }
    command = [sys.executable, "-m", *module, "run", "--max-pairs", "9", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *steps, last = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(steps) == last["steps"]
    assert last["processes"] == 2
    assert [version.name for version in filled.versions()] == ["copy-0001"]
    assert load_file(Path(last["path"]) / "adapter_model.safetensors")
