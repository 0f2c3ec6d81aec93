"""What lies between a layer's matrix products: in plain torch, or in fewer passes where a compiler is installed.

The kernels of trainer.kernels_gpu and trainer.kernels_cpu compute what plain torch does.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from trainer.attention import Segments, segments_attended

COMPILED = {"cuda": ("trainer.kernels_gpu", "triton"), "cpu": ("trainer.kernels_cpu", "numba")}
TYPES = (torch.bfloat16, torch.float32)  # and fp16 on a GPU


def add_norm(hidden: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The residual stream with `delta` added, and its RMS norm; in fp32, rounded before the weight, as models do it.

    Args:
        hidden, delta: [tokens, hidden size].
    """
    if own := _kernels(hidden, "add_norm"):
        total, normed = own(hidden, delta, weight, epsilon)
        return total, normed
    total = hidden if delta is None else hidden + delta
    wide = total.float()
    normed = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)).to(total.dtype)
    return total, weight * normed


def attended(qkv: Tensor, cos: Tensor, sin: Tensor, heads: tuple[int, int], size: int, segments: Segments) -> Tensor:
    """Causal attention inside each segment, with rotary positions.

    Args:
        qkv: [tokens, all heads * size], query, key and value; on a GPU nobody must need it as it was.
        cos, sin: [tokens, size].
        heads: of the query, and of key and value each.

    Returns:
        [tokens, heads of the query * size].
    """
    if own := _kernels(qkv, "attended"):
        mixed: Tensor | None = own(qkv, cos, sin, heads, size, segments)
        if mixed is not None:
            return mixed
    return segments_attended(*rotate(qkv, cos, sin, heads, size), segments).flatten(1)


def rotate(qkv: Tensor, cos: Tensor, sin: Tensor, heads: tuple[int, int], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of `attended`, the first two with rotary positions: [tokens, heads, size] each."""
    if own := _kernels(qkv, "rotate"):
        query, key, value = own(qkv, cos, sin, heads, size)
    else:
        query, key, value = qkv.unflatten(1, (-1, size)).split((heads[0], heads[1], heads[1]), 1)
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
    return query, key, value


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat((-right, left), -1) * sin[:, None]


def gated(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [tokens, 2 * width]."""
    if own := _kernels(gate_up, "gated"):
        out: Tensor = own(gate_up)
        return out
    gate, up = gate_up.chunk(2, -1)
    return silu(gate) * up


def loss_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every position, fp32, and the gradient of their sum, which may overwrite the logits."""
    if own := _kernels(logits, "loss_and_gradient"):
        loss, gradient = own(logits, targets)
        return loss, gradient
    gradient = logits.softmax(-1, dtype=torch.float32)
    # The log of the sum of exponentials, by way of the largest one: its share of the sum is never too small for a log.
    total = logits.amax(-1).float() - gradient.amax(-1).log()
    loss = total - logits.gather(1, targets[:, None])[:, 0].float()
    gradient[torch.arange(len(targets), device=targets.device), targets] -= 1
    return loss, gradient.to(logits.dtype)


def prepare(x: Tensor) -> None:
    """Compile what tensors like this one need, where that takes time."""
    if own := _kernels(x, "prepare"):
        own(x.dtype)


def _kernels(x: Tensor, name: str) -> Any:
    """The function of this name for where a tensor lies; None where there is none."""
    return getattr(compiled(x.device.type), name, None) if x.is_cuda or x.dtype in TYPES else None


@cache
def compiled(device: str) -> Any:
    """The module of kernels for a kind of device; None where its compiler is missing. Takes time once in a process."""
    module, compiler = COMPILED.get(device, ("", ""))
    return import_module(module) if compiler and find_spec(compiler) else None
