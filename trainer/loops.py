"""The loops of trainer.kernels_cpu, compiled by Numba for bf16 or fp32 when `prepare` is told which.

NumPy knows no bf16: its numbers come as their 16 bits, the upper half of an fp32, and are computed with as fp32.
Threads take rows, and no two threads add to one number: what comes out does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

# What a signature's letters stand for; a number after one is an array's dimensions, x what is stored.
LETTERS = {"f": types.float32, "i": types.int64, "b": types.boolean}
STORED = {"bf16": types.uint16, "fp32": types.float32}
_KERNELS: list[tuple[Any, str]] = []  # and their signatures


def prepare(stored: str) -> None:
    """Compile all loops for one of STORED, or read what another process compiled."""
    letters = LETTERS | {"x": STORED[stored]}
    for made, signature in _KERNELS:
        made.compile(tuple(_type(letters[word[0]], word[1:]) for word in signature.split()))


def _type(number: Any, dimensions: str) -> Any:
    return types.Array(number, int(dimensions), "C") if dimensions else number


def kernel(signature: str) -> Callable[[Callable[..., None]], Any]:
    def compiled(function: Callable[..., None]) -> Any:
        options = {"parallel": True, "fastmath": True, "nogil": True, "error_model": "numpy"}
        try:
            made = njit(cache=True, **options)(function)
        except RuntimeError:  # there is no folder to keep the compiled code in
            made = njit(**options)(function)
        _KERNELS.append((made, signature))
        return made

    return compiled


def wide(x):
    """A stored number as fp32. Only compiled."""


def narrow(x, like):
    """An fp32 rounded to what an array stores, halves to even. Only compiled."""


@overload(wide, inline="always")
def _wide(x):
    if isinstance(x, types.Integer):
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: x


@overload(narrow, inline="always")
def _narrow(x, like):
    def upper_half(x, like):
        bits = np.float32(x).view(np.uint32)
        odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    return upper_half if isinstance(like.dtype, types.Integer) else lambda x, like: np.float32(x)


@njit(inline="always", fastmath=True)
def exp(x):
    """In vectors, where the library's works number by number. Cephes' expf: x = n ln 2 + r, and a polynomial of r."""
    x = max(x, np.float32(-87.0))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1)
    return p * np.uint32(np.uint32(np.int32(n) + np.int32(127)) << np.uint32(23)).view(np.float32)


@kernel("x2 x2 x1 x2 x2 f1 b f")
def norm(hidden, delta, weight, total, normed, scale, adds, epsilon):
    rows, width = hidden.shape
    for row in prange(rows):
        if adds:
            for i in range(width):
                total[row, i] = narrow(wide(hidden[row, i]) + wide(delta[row, i]), total)
        squares = np.float32(0)
        for i in range(width):
            squares += wide(total[row, i]) ** 2
        share = np.float32(1) / np.sqrt(squares / np.float32(width) + epsilon)
        scale[row] = share
        for i in range(width):
            unit = wide(narrow(wide(total[row, i]) * share, normed))
            normed[row, i] = narrow(unit * wide(weight[i]), normed)


@kernel("x2 x2 x2 x1 f1 x2")
def norm_backward(grad_total, grad_normed, total, weight, scale, out):
    rows, width = total.shape
    for row in prange(rows):
        share = scale[row]
        along = np.float32(0)
        for i in range(width):
            along += wide(grad_normed[row, i]) * wide(weight[i]) * wide(total[row, i])
        along *= share * share / np.float32(width)
        for i in range(width):
            through = share * (wide(grad_normed[row, i]) * wide(weight[i]) - along * wide(total[row, i]))
            out[row, i] = narrow(through + wide(grad_total[row, i]), out)


@kernel("x2 x2")
def gate(gate_up, out):
    rows, width = out.shape
    for row in prange(rows):
        for i in range(width):
            gate = wide(gate_up[row, i])
            silu = wide(narrow(gate / (np.float32(1) + exp(-gate)), out))
            out[row, i] = narrow(silu * wide(gate_up[row, width + i]), out)


@kernel("x2 x2 x2")
def gate_backward(gate_up, grad, out):
    rows, width = grad.shape
    for row in prange(rows):
        for i in range(width):
            gate, through = wide(gate_up[row, i]), wide(grad[row, i])
            share = np.float32(1) / (np.float32(1) + exp(-gate))
            slope = share * (np.float32(1) + gate * (np.float32(1) - share))
            out[row, i] = narrow(through * wide(gate_up[row, width + i]) * slope, out)
            out[row, width + i] = narrow(through * gate * share, out)


@kernel("x2 x2 x2 i1 i1 x3 x3 x3 f")
def take_rotated(qkv, cos, sin, starts, lengths, query, key, value, scale):
    count, width, size = key.shape
    keys = count // len(starts)
    each, half = query.shape[1] // width, size // 2
    for node in prange(len(starts) * width):
        segment, token = node // width, node % width
        row = starts[segment] + token
        inside = token < lengths[segment]
        for head in range(keys):
            at = segment * keys + head
            if not inside:
                for number in range(each):
                    query[at, number * width + token] = 0
                key[at, token] = 0
                value[at, token] = 0
                continue
            for number in range(each):
                start = (head * each + number) * size
                for i in range(half):
                    c, s = wide(cos[row, i]) * scale, wide(sin[row, i]) * scale
                    left, right = wide(qkv[row, start + i]), wide(qkv[row, start + half + i])
                    query[at, number * width + token, i] = narrow(left * c - right * s, query)
                    query[at, number * width + token, half + i] = narrow(right * c + left * s, query)
            start = (keys * each + head) * size
            for i in range(half):
                c, s = wide(cos[row, i]), wide(sin[row, i])
                left, right = wide(qkv[row, start + i]), wide(qkv[row, start + half + i])
                key[at, token, i] = narrow(left * c - right * s, key)
                key[at, token, half + i] = narrow(right * c + left * s, key)
            start += keys * size
            for i in range(size):
                value[at, token, i] = qkv[row, start + i]


@kernel("x3 x3 x3 x2 x2 i1 i1 f x2")
def give_rotated(query, key, value, cos, sin, starts, lengths, scale, out):
    count, width, size = key.shape
    keys = count // len(starts)
    each, half = query.shape[1] // width, size // 2
    for node in prange(len(starts) * width):
        segment, token = node // width, node % width
        row = starts[segment] + token
        if token < lengths[segment]:
            for head in range(keys):
                at = segment * keys + head
                for number in range(each):
                    start = (head * each + number) * size
                    for i in range(half):
                        c, s = wide(cos[row, i]) * scale, wide(sin[row, i]) * scale
                        left = wide(query[at, number * width + token, i])
                        right = wide(query[at, number * width + token, half + i])
                        out[row, start + i] = narrow(left * c + right * s, out)
                        out[row, start + half + i] = narrow(right * c - left * s, out)
                start = (keys * each + head) * size
                for i in range(half):
                    c, s = wide(cos[row, i]), wide(sin[row, i])
                    left, right = wide(key[at, token, i]), wide(key[at, token, half + i])
                    out[row, start + i] = narrow(left * c + right * s, out)
                    out[row, start + half + i] = narrow(right * c - left * s, out)
                start += keys * size
                for i in range(size):
                    out[row, start + i] = value[at, token, i]


@kernel("x2 i1 i1 x3")
def take_heads(mixed, starts, lengths, out):
    count, rows, size = out.shape
    keys = count // len(starts)
    each = mixed.shape[1] // size // keys
    width = rows // each
    for node in prange(len(starts) * width):
        segment, token = node // width, node % width
        for head in range(keys * each):
            at, to = segment * keys + head // each, head % each * width + token
            if token < lengths[segment]:
                for i in range(size):
                    out[at, to, i] = mixed[starts[segment] + token, head * size + i]
            else:
                out[at, to] = 0


@kernel("x3 i1 i1 x2")
def give_heads(states, starts, lengths, mixed):
    count, rows, size = states.shape
    keys = count // len(starts)
    each = mixed.shape[1] // size // keys
    width = rows // each
    for node in prange(len(starts) * width):
        segment, token = node // width, node % width
        if token < lengths[segment]:
            for head in range(keys * each):
                at, to = segment * keys + head // each, head % each * width + token
                for i in range(size):
                    mixed[starts[segment] + token, head * size + i] = states[at, to, i]


@kernel("x3 i1")
def softmax(scores, lengths):
    """Over the tokens up to each one's own; zero beyond, and for what pads a segment."""
    count, rows, width = scores.shape
    keys = count // len(lengths)
    for node in prange(count * rows):
        at, row = node // rows, node % rows
        token = row % width
        seen = token + 1 if token < lengths[at // keys] else 0
        if seen:
            powers = np.empty(width, np.float32)
            highest = wide(scores[at, row, 0])
            for i in range(seen):
                highest = max(highest, wide(scores[at, row, i]))
            total = np.float32(0)
            for i in range(seen):
                powers[i] = exp(wide(scores[at, row, i]) - highest)
                total += powers[i]
            for i in range(seen):
                scores[at, row, i] = narrow(powers[i] / total, scores)
        for i in range(seen, width):
            scores[at, row, i] = 0


@kernel("x3 i1 x3")
def softmax_backward(shares, lengths, grad):
    count, rows, width = shares.shape
    keys = count // len(lengths)
    for node in prange(count * rows):
        at, row = node // rows, node % rows
        token = row % width
        seen = token + 1 if token < lengths[at // keys] else 0
        mean = np.float32(0)
        for i in range(seen):
            mean += wide(shares[at, row, i]) * wide(grad[at, row, i])
        for i in range(seen):
            grad[at, row, i] = narrow(wide(shares[at, row, i]) * (wide(grad[at, row, i]) - mean), grad)
        for i in range(seen, width):
            grad[at, row, i] = 0


@kernel("x2 i1 f1")
def cross_entropy(logits, targets, loss):
    rows, width = logits.shape
    for row in prange(rows):
        highest = wide(logits[row, 0])
        for i in range(width):
            highest = max(highest, wide(logits[row, i]))
        total = np.float32(0)
        for i in range(width):
            total += exp(wide(logits[row, i]) - highest)
        target = targets[row]
        loss[row] = np.log(total) + highest - wide(logits[row, target])
        share = exp(wide(logits[row, target]) - highest) / total
        for i in range(width):
            logits[row, i] = narrow(exp(wide(logits[row, i]) - highest) / total, logits)
        logits[row, target] = narrow(share - np.float32(1), logits)
