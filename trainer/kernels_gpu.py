"""Each of trainer.kernels in one pass over a GPU's memory, in Triton."""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor


def add_norm(hidden: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return cast(tuple[Tensor, Tensor], _AddNorm.apply(hidden, delta, weight, epsilon))


def rotate(qkv: Tensor, cos: Tensor, sin: Tensor, heads: tuple[int, int], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of `qkv`, which nobody must need as it was."""
    return cast(tuple[Tensor, Tensor, Tensor], _Rotate.apply(qkv, cos, sin, heads, size))


def gated(gate_up: Tensor) -> Tensor:
    return cast(Tensor, _Gated.apply(gate_up))


def loss_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient overwrites the logits."""
    loss = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    _cross_entropy[(len(logits),)](logits, targets, loss, logits.shape[1], BLOCK=4096, num_warps=16)
    return loss, logits


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> Any:
        rows, width = hidden.shape
        total = hidden if delta is None else torch.empty_like(hidden)
        normed = torch.empty_like(hidden)
        scale = torch.empty(rows, dtype=torch.float32, device=hidden.device)
        block = triton.next_power_of_2(width)
        arguments = (hidden, hidden if delta is None else delta, weight, total, normed, scale, width, epsilon)
        _norm[(rows,)](*arguments, ADDS=delta is not None, BLOCK=block, num_warps=8)
        ctx.save_for_backward(total, weight, scale)
        ctx.adds = delta is not None
        if delta is None:
            return hidden.view_as(hidden), normed
        return total, normed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        total, weight, scale = ctx.saved_tensors
        grad_total, grad_normed = grads
        out = torch.empty_like(total)
        block = triton.next_power_of_2(total.shape[1])
        arguments = (grad_total.contiguous(), grad_normed.contiguous(), total, weight, scale, out, total.shape[1])
        _norm_backward[(len(total),)](*arguments, BLOCK=block, num_warps=8)
        return out, out if ctx.adds else None, None, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, heads: tuple[int, int], size: int) -> Any:
        ctx.save_for_backward(cos, sin)
        parts = qkv.unflatten(1, (-1, size)).split((heads[0], heads[1], heads[1]), 1)
        for part in parts[:2]:
            _turn(part, part, cos, sin, 1.0)
        return parts

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        cos, sin = ctx.saved_tensors
        heads = [grad.shape[1] for grad in grads]
        out = grads[0].new_empty(len(cos), sum(heads), grads[0].shape[2])
        for part, grad, direction in zip(out.split(heads, 1), grads, (-1.0, -1.0, 0.0), strict=True):
            _turn(grad.contiguous(), part, cos, sin, direction)
        return out.flatten(1), None, None, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        rows, width = len(gate_up), gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, width)
        _gate[(rows, triton.cdiv(width, 1024))](gate_up, out, width, BLOCK=1024)
        ctx.save_for_backward(gate_up)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        rows, width = len(gate_up), gate_up.shape[1] // 2
        out = torch.empty_like(gate_up)
        _gate_backward[(rows, triton.cdiv(width, 1024))](gate_up, grads[0].contiguous(), out, width, BLOCK=1024)
        return out


def _turn(x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, direction: float) -> None:
    """Heads [tokens, heads, size] turned by their angles, back by -1, or copied by 0."""
    rows, heads, size = x.shape
    half = size // 2
    assert x.stride()[1:] == out.stride()[1:] == (size, 1)
    block = {"HEADS": triton.next_power_of_2(heads), "HALF": triton.next_power_of_2(half)}
    _rotary[(rows,)](x, out, cos, sin, x.stride(0), out.stride(0), heads, half, direction, **block, num_warps=8)


@triton.jit
def _norm(hidden, delta, weight, total, normed, scale, width, epsilon, ADDS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(hidden + row * width + column, mask=inside, other=0.0)
    if ADDS:
        x += tl.load(delta + row * width + column, mask=inside, other=0.0)
        tl.store(total + row * width + column, x, mask=inside)
    wide = x.to(tl.float32)
    share = 1 / tl.sqrt(tl.sum(wide * wide, 0) / width + epsilon)
    tl.store(scale + row, share)
    w = tl.load(weight + column, mask=inside, other=0.0)
    tl.store(normed + row * width + column, (wide * share).to(x.dtype) * w, mask=inside)


@triton.jit
def _norm_backward(grad_total, grad_normed, total, weight, scale, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    at = row * width + column
    share = tl.load(scale + row)
    unit = tl.load(total + at, mask=inside, other=0.0).to(tl.float32) * share
    w = tl.load(weight + column, mask=inside, other=0.0)
    grad = (tl.load(grad_normed + at, mask=inside, other=0.0) * w).to(tl.float32)
    through = share * (grad - unit * tl.sum(grad * unit, 0) / width)
    residual = tl.load(grad_total + at, mask=inside, other=0.0)
    tl.store(out + at, (through + residual).to(residual.dtype), mask=inside)


@triton.jit
def _rotary(x, out, cos, sin, pitch, out_pitch, heads, half, direction, HEADS: tl.constexpr, HALF: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < half)
    # Both halves of a head turn by the same angles.
    c = tl.load(cos + row * 2 * half + column, mask=column < half, other=0.0).to(tl.float32)
    s = tl.load(sin + row * 2 * half + column, mask=column < half, other=0.0).to(tl.float32) * direction
    c = tl.where(direction == 0, 1.0, c)
    at = head * 2 * half + column
    a = tl.load(x + row * pitch + at, mask=inside, other=0.0)
    b = tl.load(x + row * pitch + at + half, mask=inside, other=0.0)
    tl.store(out + row * out_pitch + at, (a * c - b * s).to(a.dtype), mask=inside)
    tl.store(out + row * out_pitch + at + half, (b * c + a * s).to(a.dtype), mask=inside)


@triton.jit
def _gate(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    tl.store(out + row * width + column, (wide * tl.sigmoid(wide)).to(up.dtype) * up, mask=inside)


@triton.jit
def _gate_backward(gate_up, grad, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    at = row * 2 * width + column
    gate = tl.load(gate_up + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + at + width, mask=inside, other=0.0)
    wide = tl.load(grad + row * width + column, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    slope = share * (1 + gate * (1 - share))
    tl.store(out + at, (wide * up.to(tl.float32) * slope).to(up.dtype), mask=inside)
    tl.store(out + at + width, (wide * gate * share).to(up.dtype), mask=inside)


@triton.jit
def _cross_entropy(logits, targets, loss, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    logits += row * width
    target = tl.load(targets + row)
    wanted = tl.load(logits + target).to(tl.float32)
    column = tl.arange(0, BLOCK)
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        x = tl.load(logits + start + column, mask=start + column < width, other=float("-inf")).to(tl.float32)
        new = tl.maximum(highest, x)
        # A lane that has seen nothing yet holds -inf on both sides, whose difference is no number.
        total = tl.where(new == float("-inf"), 0.0, total * tl.exp(highest - new) + tl.exp(x - new))
        highest = new
    top = tl.max(highest, 0)
    total = tl.sum(tl.where(highest == float("-inf"), 0.0, total * tl.exp(highest - top)), 0)
    tl.store(loss + row, tl.log(total) + top - wanted)
    for start in range(0, width, BLOCK):
        inside = start + column < width
        x = tl.load(logits + start + column, mask=inside, other=float("-inf")).to(tl.float32)
        share = tl.exp(x - top) / total - tl.where(start + column == target, 1.0, 0.0)
        tl.store(logits + start + column, share.to(logits.dtype.element_ty), mask=inside)
