"""The state of a round between two steps, in one file that is whole or not there.

It holds tensors and JSON, no pickles. A round that is taken up again on a CPU ends in the same bytes as one that never
stopped.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

EVERY_S = 60.0


@dataclass(frozen=True)
class Moment:
    """How far a fit has come.

    Attributes:
        losses: of every step so far.
        tokens: trained on so far, as `Fit` counts them.
        seconds: spent so far, over all processes that worked on it.
        scaler: the state of the loss scaler; empty without fp16.
    """

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    scaler: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The last moment of one round.

    Args:
        path: of the file.
        fingerprint: of all that decides the result; a file with another one is not taken up.
        every_s: how often `due` says yes.
    """

    def __init__(self, path: Path, fingerprint: str, every_s: float = EVERY_S) -> None:
        self.path = path
        self._fingerprint = fingerprint
        self._every_s = every_s
        self._last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every_s

    def save(self, moment: Moment, tensors: dict[str, Tensor]) -> None:
        """Replace the file by this moment and the state of the random generators."""
        tensors = {**tensors, "random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        working = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        metadata = {"fingerprint": self._fingerprint, "moment": json.dumps(asdict(moment))}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, working, metadata)
        with working.open("rb") as file:
            os.fsync(file.fileno())
        working.replace(self.path)
        self._last = time.monotonic()

    def take_up(self) -> tuple[Moment, dict[str, Tensor]] | None:
        """The saved moment, with the random generators set back to it; None where there is none of this round."""
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):
            return None
        if metadata.get("fingerprint") != self._fingerprint:
            return None
        torch.set_rng_state(tensors.pop("random.cpu"))
        if torch.cuda.is_available() and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors.pop("random.cuda"))
        return Moment(**json.loads(metadata["moment"])), tensors
