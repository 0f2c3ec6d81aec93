"""Each of trainer.kernels in few passes over a CPU's memory, by the loops of trainer.loops, for fp32 and bf16."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

import numba
import numpy as np
import torch
from torch import Tensor

from trainer import loops
from trainer.attention import LONGEST, Segments

ALIKE = 0.75  # of the longest segment's length, from which on others are padded to it


def add_norm(hidden: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return cast(tuple[Tensor, Tensor], _AddNorm.apply(hidden, delta, weight, epsilon))


def attended(
    qkv: Tensor, cos: Tensor, sin: Tensor, heads: tuple[int, int], size: int, segments: Segments
) -> Tensor | None:
    """None for long segments: they are better off with a kernel that keeps no probabilities."""
    if segments.longest > LONGEST:
        return None
    return cast(Tensor, _Attended.apply(qkv, cos, sin, heads, size, batches(segments.lengths)))


def gated(gate_up: Tensor) -> Tensor:
    return cast(Tensor, _Gated.apply(gate_up))


def loss_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient overwrites the logits."""
    loss = torch.empty(len(logits))
    _run(loops.cross_entropy, logits, targets, loss)
    return loss, logits


class Batch(NamedTuple):
    """Segments of about the same length, padded to the longest.

    Attributes:
        starts: their first tokens, [segments].
        lengths: in tokens, [segments], the longest first.
    """

    starts: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]


@lru_cache(maxsize=64)  # each layer asks again
def batches(lengths: Sequence[int]) -> tuple[Batch, ...]:
    starts = np.cumsum([0, *lengths])
    groups: list[list[int]] = []
    for segment in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if groups and lengths[segment] >= ALIKE * lengths[groups[-1][0]]:
            groups[-1].append(segment)
        else:
            groups.append([segment])
    sizes = np.array(lengths)
    return tuple(Batch(starts[group], sizes[group]) for group in groups)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> Any:
        total = hidden if delta is None else torch.empty_like(hidden)
        normed, scale = torch.empty_like(hidden), torch.empty(len(hidden))
        added = hidden if delta is None else delta
        _run(loops.norm, hidden, added, weight, total, normed, scale, delta is not None, np.float32(epsilon))
        ctx.save_for_backward(total, weight, scale)
        ctx.adds = delta is not None
        return hidden.view_as(hidden) if delta is None else total, normed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        total, weight, scale = ctx.saved_tensors
        out = torch.empty_like(total)
        _run(loops.norm_backward, *grads, total, weight, scale, out)
        return out, out if ctx.adds else None, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        out = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
        _run(loops.gate, gate_up, out)
        ctx.save_for_backward(gate_up)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        out = torch.empty_like(gate_up)
        _run(loops.gate_backward, gate_up, *grads, out)
        return out


class _Attended(torch.autograd.Function):
    """Batches of padded segments through batched products, which are the fastest that a CPU has for bf16: what they
    compute in vain beyond a token costs less than products segment by segment.

    States of a batch are [segments * key heads, queries of a key head * width, size].
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, heads: tuple[int, int], size: int, parts: tuple[Batch, ...]
    ) -> Tensor:
        ctx.shape = heads, size, parts
        kept = []
        mixed = qkv.new_empty(len(qkv), heads[0] * size)
        for part in parts:
            count, width, each = len(part.starts) * heads[1], int(part.lengths[0]), heads[0] // heads[1]
            query = qkv.new_empty(count, each * width, size)
            key, value = qkv.new_empty(count, width, size), qkv.new_empty(count, width, size)
            _run(
                loops.take_rotated, qkv, cos, sin, part.starts, part.lengths, query, key, value, np.float32(size**-0.5)
            )
            shares = torch.bmm(query, key.transpose(1, 2))
            _run(loops.softmax, shares, part.lengths)
            _run(loops.give_heads, torch.bmm(shares, value), part.starts, part.lengths, mixed)
            kept += [query, key, value, shares]
        ctx.save_for_backward(cos, sin, *kept)
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        heads, size, parts = ctx.shape
        cos, sin, *kept = ctx.saved_tensors
        out = grads[0].new_empty(len(cos), (heads[0] + 2 * heads[1]) * size)
        for number, part in enumerate(parts):
            query, key, value, shares = kept[4 * number : 4 * number + 4]
            grad = torch.empty_like(query)
            _run(loops.take_heads, grads[0], part.starts, part.lengths, grad)
            grad_value = torch.bmm(shares.transpose(1, 2), grad)
            grad_scores = torch.bmm(grad, value.transpose(1, 2))
            _run(loops.softmax_backward, shares, part.lengths, grad_scores)
            grad_query, grad_key = torch.bmm(grad_scores, key), torch.bmm(grad_scores.transpose(1, 2), query)
            scale = np.float32(size**-0.5)
            states = (grad_query, grad_key, grad_value)
            _run(loops.give_rotated, *states, cos, sin, part.starts, part.lengths, scale, out)
        return out, None, None, None, None, None


def _run(kernel: Callable[..., None], first: Tensor, *others: Any) -> None:
    prepare(first.dtype)
    numba.set_num_threads(_threads(torch.get_num_threads()))
    kernel(*(_array(given) if isinstance(given, Tensor) else given for given in (first, *others)))


@cache
def prepare(dtype: torch.dtype) -> None:
    """Compile the loops for a type, once on a machine and in some 20 seconds."""
    stored = "bf16" if dtype is torch.bfloat16 else "fp32"
    # Code that Numba reads from its files computes other last bits than code that it has just compiled, and a round
    # that is taken up again must end in the same bytes: so another process compiles.
    subprocess.run([sys.executable, "-c", f"from trainer import loops; loops.prepare({stored!r})"], check=False)
    loops.prepare(stored)


@cache
def _threads(wanted: int) -> int:
    return min(wanted, int(numba.config.NUMBA_NUM_THREADS))


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    plain = tensor.detach().contiguous()
    return (plain.view(torch.uint16) if plain.dtype is torch.bfloat16 else plain).numpy()
