"""What a fit will hold in memory, decided before it starts: how many tokens at once, and what is computed twice."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, cast

import psutil
import torch

from serving.records import CopydeskError
from serving.registry import ATTENTION, MLP
from trainer.attention import LONGEST
from trainer.recipe import Recipe
from trainer.trunk import HEAD_ROWS

GIB = 1 << 30
OPTIMISER_BYTES = 20  # a trained parameter: itself and its gradient, both once more in fp32, and AdamW's two moments
MARGIN = 0.92  # of the free memory; allocators need room to move
# Few tokens at once stay in a CPU's caches; a GPU's matrix products gain nothing beyond so many.
WANTED = {"cpu": 1280, "cuda": 16384}
WORTHWHILE = 2048  # tokens; with fewer at once, computing layers twice over longer rows is faster on a GPU
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, LARGEST = -1, -3, 32 << 20  # glibc's numbers, and the most it takes


@dataclass(frozen=True)
class MemoryPlan:
    """Sizes in GiB.

    Attributes:
        row_tokens: tokens whose activations are held at once.
        checkpointed: keep each layer's input only, and compute the rest again on the way back.
        weights: of the base and the adapter, as they lie in memory now.
    """

    row_tokens: int
    checkpointed: bool
    weights: float
    optimiser: float
    activations: float
    free: float

    def __str__(self) -> str:
        how = "each layer computed twice, to save memory" if self.checkpointed else "nothing computed twice"
        return (
            f"Memory: {self.weights:.1f} GiB weights, {self.optimiser:.1f} optimiser, {self.activations:.1f} "
            f"activations of up to {self.row_tokens:,} tokens at once ({how}); {self.free:.1f} GiB were free."
        )


def memory_plan(
    model: torch.nn.Module, recipe: Recipe, *, longest: int, step_tokens: int, shrink: int = 1, free: int | None = None
) -> MemoryPlan:
    """The fastest way that fits.

    Args:
        longest: tokens of the longest pair, which must fit whole.
        step_tokens: of the largest optimiser step; more at once would serve nothing.
        shrink: plan for so many times less, after memory ran out.
        free: bytes to plan with; None asks the device.

    Raises:
        CopydeskError: not even the longest pair fits.
    """
    config = cast(Any, model).config.get_text_config()
    parameters = list(model.parameters())
    device = parameters[0].device
    if free is None:
        free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available
    weights = sum(p.numel() * p.element_size() for p in parameters)
    optimiser = sum(p.numel() for p in parameters if p.requires_grad) * OPTIMISER_BYTES
    element = parameters[0].element_size()
    head = 3 * HEAD_ROWS[device.type] * config.vocab_size * element
    room = free * MARGIN / shrink - optimiser - head
    seen = longest if device.type == "cpu" and longest <= LONGEST else 0
    whole, kept = token_bytes(config, recipe, element, seen)
    wanted = max(longest, min(WANTED[device.type], step_tokens) // shrink)
    enough = min(wanted, WORTHWHILE) if device.type == "cuda" else longest
    if room >= whole * max(enough, longest):
        tokens, checkpointed, used = min(wanted, int(room // whole)), False, whole
    else:
        # The layer that is computed again is held whole beside the inputs of all.
        again = kept + whole / config.num_hidden_layers
        tokens, checkpointed, used = min(wanted, int(room // again)), True, again
    if tokens < longest:
        raise CopydeskError(
            f"A pair of {longest} tokens needs {(optimiser + head + used * longest) / GIB:.1f} GiB beside the weights "
            f"and {free / GIB:.1f} are free; take recipe qlora, a smaller base model, or a larger machine."
        )
    activations = used * tokens + head
    return MemoryPlan(tokens, checkpointed, weights / GIB, optimiser / GIB, activations / GIB, free / GIB)


def keep_freed_memory() -> None:
    """Keep what a step on a CPU has freed for the next one, which needs as much, instead of having the system clear it
    anew each time: worth 3 to 12 % of a round. Other allocators than glibc's are left as they are.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_MMAP_THRESHOLD, LARGEST)


def token_bytes(config: Any, recipe: Recipe, element: int, seen: int = 0) -> tuple[float, float]:
    """Activations of a token that all layers keep for the way back, and the layers' inputs alone.

    Args:
        seen: tokens for which attention keeps its probabilities, as it does on a CPU.

    Counted from what trainer.trunk saves. Measured on an H100 with 8,141 tokens of a 7B shape: 4.2 MB a token, and this
    says 4.3.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    size = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    query, keys = config.num_attention_heads * size, (config.num_key_value_heads or config.num_attention_heads) * size
    values = 2 * hidden + 2 * query + 2 * keys + 2 * config.intermediate_size + config.num_attention_heads * seen
    if set(recipe.targets) & set(ATTENTION[:3]):
        values += hidden
    if set(recipe.targets) & set(MLP[:2]):
        values += hidden
    if "down_proj" in recipe.targets:
        values += config.intermediate_size
    return element * layers * values, element * layers * hidden
