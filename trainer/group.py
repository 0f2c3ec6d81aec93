"""One round on several processes: `torchrun --nproc-per-node 2 -m trainer run`, or the same with accelerate launch.

A step keeps its pairs whatever the number of processes; each takes its share of them, and the adapters' gradients are
summed. The first process alone reads the store and writes; the others are told what to train.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from serving.processes import end_with_parent

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes of a round; alone, each method changes nothing."""

    rank: int = 0
    size: int = 1

    def share(self, items: Sequence[T]) -> list[T]:
        """Those that this process works on."""
        return list(items[self.rank :: self.size])

    def same(self, value: T) -> T:
        """The first process's value."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def total(self, value: float) -> float:
        """The sum over all processes."""
        if self.size == 1:
            return value
        box = torch.tensor(value, dtype=torch.float64, device=_device())
        dist.all_reduce(box)
        return float(box)

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, of a number that need not be known yet: a GPU is not waited for."""
        if self.size == 1:
            return value
        box = value.double()
        dist.all_reduce(box)
        return box

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give every process the whole step's gradients; one without a share of its own counts as zero."""
        if self.size == 1:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([grad.float().flatten() for grad in grads])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)


ALONE = Group()


@contextmanager
def joined(environment: Mapping[str, str]) -> Iterator[Group]:
    """The group that a launcher set up in the environment; ALONE where none did."""
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    # A launcher that is killed ends nobody: its processes would train on and hold the lock.
    end_with_parent(signal.SIGKILL)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(environment["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    yield Group(int(environment["RANK"]), size)
    # Not after an error: the launcher ends those that wait for a process that is gone.
    dist.destroy_process_group()


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
