"""The kernels say what plain torch says. They need an NVIDIA GPU, or Triton's interpreter (TRITON_INTERPRET=1)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainer import kernels

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(
    kernels.triton is None or not (torch.cuda.is_available() or INTERPRETED), reason="no GPU and no Triton"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if torch.cuda.is_available() else torch.float32


def tensor(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE).to(DTYPE)


def both(
    monkeypatch: pytest.MonkeyPatch, work: Callable[..., Any], *inputs: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Outputs and gradients, by the kernels and by plain torch."""
    found = []
    for fused in (True, False):
        monkeypatch.setattr(kernels, "_fused", lambda x, fused=fused: fused)
        torch.manual_seed(1)
        leaves = [given.clone().requires_grad_() for given in inputs]
        outputs = work(*(leaf * 1 for leaf in leaves))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        sum((output.float() * torch.randn_like(output.float())).sum() for output in outputs).backward()
        found.append([*outputs, *(leaf.grad for leaf in leaves)])
    return list(zip(*found, strict=True))


def assert_close(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    tolerance = 3e-2 if DTYPE is torch.bfloat16 else 1e-5
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=tolerance, atol=tolerance)


def test_norm_after_an_addition(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = tensor(96)
    add = lambda hidden, delta: kernels.add_norm(hidden, delta, weight, 1e-5)  # noqa: E731
    assert_close(both(monkeypatch, add, tensor(7, 96), tensor(7, 96)))


def test_norm_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = tensor(96)
    assert_close(both(monkeypatch, lambda hidden: kernels.add_norm(hidden, None, weight, 1e-5), tensor(7, 96)))


@pytest.mark.parametrize("heads", [(4, 4), (3, 1)])
def test_rotary_positions(monkeypatch: pytest.MonkeyPatch, heads: tuple[int, int]) -> None:
    angles = torch.rand(7, 8, device=DEVICE).repeat(1, 2)
    cos, sin = angles.cos().to(DTYPE), angles.sin().to(DTYPE)
    rotate = lambda qkv: kernels.rotate(qkv, cos, sin, heads, 16)  # noqa: E731
    assert_close(both(monkeypatch, rotate, tensor(7, (heads[0] + 2 * heads[1]) * 16)))


def test_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_close(both(monkeypatch, kernels.gated, tensor(7, 2 * 1100)))


def test_cross_entropy_and_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = tensor(5, 9001) * 4, torch.tensor([0, 9000, 17, 4096, 5], device=DEVICE)
    monkeypatch.setattr(kernels, "_fused", lambda x: True)
    ours = kernels.loss_and_gradient(logits.clone(), targets)
    monkeypatch.setattr(kernels, "_fused", lambda x: False)
    assert_close(list(zip(ours, kernels.loss_and_gradient(logits.clone(), targets), strict=True)))
