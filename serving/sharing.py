"""One memory for the engine and a round: whether both fit, and what the engine does during a round if they do not."""

from __future__ import annotations

import json
import logging
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from serving.processor import has_bf16

log = logging.getLogger(__name__)

Mode = Literal["together", "sleep", "stop"]

GB = 10**9
BF16, FP32 = 2, 4  # bytes
MARGIN = 0.92  # of a memory; allocators, and whoever else is there, need room
MOST = 0.9  # of a GPU that the engine takes where it may
SEATS = 8  # drafts of full length whose keys and values a GPU must at least hold
GPU_PROCESS = 3 * GB  # context, captured graphs and activations of vLLM
CPU_PROCESS = 2 * GB  # vLLM's processes before the first weight
CPU_COPIES = 3  # the base's weights, and the live version's and the candidate's with their adapters merged in
ROUND_PROCESS = 1 * GB  # torch and its context
ROUND_TOKENS = {"cpu": 640, "gpu": 2048}  # at once; a round takes more where there is more, and fewer only slow it down
HEAD_ROWS = 2048  # answer positions whose logits a round holds three times
OPTIMISER_BYTES = 20  # a trained parameter, its gradient and AdamW's moments


@dataclass(frozen=True)
class Machine:
    """Bytes. `gpu` is 0 without one, where engine and rounds share the machine's memory; None: it does not say."""

    gpu: int | None
    ram: int


@dataclass(frozen=True)
class Limits:
    """What the engine is started with."""

    rank: int
    tokens: int
    cpu_cache: int  # bytes of keys and values


@dataclass(frozen=True)
class Needs:
    """Bytes of the shared memory; the base model's `weights` are part of both."""

    weights: int
    engine: int
    round: int


@dataclass(frozen=True)
class Plan:
    """What the engine does during a round.

    Attributes:
        gpu: whether the memory is a GPU's.
        share: of the GPU that the engine takes; 0 leaves it to vLLM.
        why: the line that a person reads.
    """

    mode: Mode
    gpu: bool
    share: float
    why: str

    @property
    def pauses(self) -> bool:
        return self.mode != "together"

    @property
    def starts_alone(self) -> bool:
        """A GPU is divided when the engine starts: a round that filled it without an engine must end first."""
        return self.pauses or self.gpu

    def arguments(self) -> list[str]:
        """vLLM's."""
        sleeps = ["--enable-sleep-mode"] if self.mode == "sleep" else []
        return [*sleeps, *(["--gpu-memory-utilization", f"{self.share:.2f}"] if self.share else [])]

    def environment(self) -> dict[str, str]:
        # The routes that put vLLM to sleep are for developers; nobody but us reaches its socket.
        return {"VLLM_SERVER_DEV_MODE": "1"} if self.mode == "sleep" else {}


def plan(machine: Machine, needs: Needs | None, forced: Mode | Literal[""] = "") -> Plan:
    """What fits, or what a person says.

    Args:
        needs: None while the model's size is not known.
    """
    memory, gpu = machine.gpu or machine.ram, machine.gpu != 0
    if forced == "sleep" and not gpu:
        forced = "stop"  # vLLM sleeps on a GPU only
    if needs is None or machine.gpu is None:
        mode: Mode = forced or ("sleep" if gpu else "together")
        return Plan(mode, gpu, 0.0, f"{_SAYS[mode]}; what they need is not known")
    fits = needs.engine + needs.round <= MARGIN * memory
    # The weights of a sleeping engine wait in the machine's memory, through which a round loads its own.
    sleeps = gpu and 2 * needs.weights + CPU_PROCESS + ROUND_PROCESS <= MARGIN * machine.ram
    mode = forced or ("together" if fits else "sleep" if sleeps else "stop")
    share = min(MOST, MARGIN - needs.round / memory) if gpu and mode == "together" and fits else 0.0
    reason = ", as COPYDESK_ROUND_ENGINE says" if forced else "" if fits else ", because both do not fit"
    figures = f"engine {needs.engine / GB:.1f} GB, round {needs.round / GB:.1f} GB"
    what = "of GPU memory" if gpu else "of memory"
    return Plan(mode, gpu, share, f"{_SAYS[mode]}{reason}: {memory / GB:.0f} GB {what}, {figures}")


_SAYS: dict[Mode, str] = {
    "together": "a round and the engine run together",
    "sleep": "the engine sleeps during rounds",
    "stop": "the engine stops during rounds",
}


def needs_of(model: Path, limits: Limits, *, gpu: bool) -> Needs | None:
    """Estimated from the shape of the model in a directory; None where it is not there yet, or of an unusual shape."""
    if not (model / "config.json").is_file():
        return None
    whole = json.loads((model / "config.json").read_text(encoding="utf-8"))
    try:
        return _needs_of_shape(whole.get("text_config", whole), _weights(model), limits, gpu=gpu)
    except (KeyError, TypeError):  # a key that this family leaves out, or gives as a list
        return None


def _weights(model: Path) -> int:
    """Bytes, of one format where a directory holds the model in two."""
    sizes = [sum(file.stat().st_size for file in model.glob(kind)) for kind in ("model*.safetensors", "*.safetensors")]
    return next(filter(None, sizes), 0) or sum(file.stat().st_size for file in model.glob("*.bin"))


def _needs_of_shape(config: dict[str, Any], weights: int, limits: Limits, *, gpu: bool) -> Needs:
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    query, keys = heads * size, (config.get("num_key_value_heads") or heads) * size
    number = BF16 if gpu or has_bf16() else FP32
    weights = weights * number // BF16
    if gpu:
        engine = weights + 2 * keys * layers * BF16 * SEATS * limits.tokens + GPU_PROCESS
    else:
        engine = CPU_COPIES * weights + limits.cpu_cache + CPU_PROCESS
    adapter = limits.rank * layers * (2 * (hidden + query) + 2 * (hidden + keys) + 3 * (hidden + inner))
    # Of a token, as trainer.plan counts them for an adapter on all linear layers.
    activations = layers * (4 * hidden + 2 * query + 2 * keys + 3 * inner) * number
    tokens = ROUND_TOKENS["gpu" if gpu else "cpu"]
    head = 3 * min(HEAD_ROWS, tokens) * config["vocab_size"] * number
    round = weights + adapter * OPTIMISER_BYTES + activations * tokens + head + ROUND_PROCESS
    return Needs(weights, engine, round)


def this_machine(*, gpu: bool) -> Machine:
    return Machine(_gpu_memory() if gpu else 0, psutil.virtual_memory().total)


def _gpu_memory() -> int | None:
    """Of the first GPU, the one that engine and rounds use. Some share the machine's memory and name no size."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return int(said.split()[0]) << 20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        log.warning("nvidia-smi does not tell the GPU's memory (%s); the engine sleeps during rounds.", error)
        return None
