"""The kernels say what plain torch says: the CPU's here, the GPU's on one or in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from trainer import kernels
from trainer.attention import Segments

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = torch.cuda.is_available()
NO_NUMBA = pytest.mark.skipif(not find_spec("numba"), reason="no Numba")
NO_GPU = pytest.mark.skipif(not find_spec("triton") or not (GPU or INTERPRETED), reason="no GPU")


class Device:
    """A kind of device with its kernels."""

    def __init__(self, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self.dtype, self.monkeypatch = name, dtype, monkeypatch
        self.place = "cuda" if name == "cuda" and GPU else "cpu"
        self.module = import_module(kernels.COMPILED[name][0])

    def tensor(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self.place).to(self.dtype)

    def use(self, module: Any) -> None:
        self.monkeypatch.setattr(kernels, "compiled", lambda device: module)

    def check(self, work: Callable[..., Any], *inputs: torch.Tensor) -> None:
        """Outputs and gradients, by the kernels and by plain torch."""
        found = []
        for module in (self.module, None):
            self.use(module)
            torch.manual_seed(1)
            leaves = [given.clone().requires_grad_() for given in inputs]
            outputs = work(*(leaf * 1 for leaf in leaves))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            sum((output.float() * torch.randn_like(output.float())).sum() for output in outputs).backward()
            found.append([*outputs, *(leaf.grad for leaf in leaves)])
        self.assert_close(*found)

    def assert_close(self, ours: Any, theirs: Any) -> None:
        tolerance = 3e-2 if self.dtype is torch.bfloat16 else 1e-5
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.float(), other.float(), rtol=tolerance, atol=tolerance)

    def angles(self, tokens: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        angles = torch.rand(tokens, size // 2, device=self.place).repeat(1, 2)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


@pytest.fixture(
    params=[
        pytest.param(("cpu", torch.float32), marks=NO_NUMBA, id="cpu-fp32"),
        pytest.param(("cpu", torch.bfloat16), marks=NO_NUMBA, id="cpu-bf16"),
        pytest.param(("cuda", torch.bfloat16 if GPU else torch.float32), marks=NO_GPU, id="gpu"),
    ]
)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    torch.manual_seed(2)
    return Device(*request.param, monkeypatch)


def test_norm_after_an_addition(device: Device) -> None:
    weight = device.tensor(96)
    add = lambda hidden, delta: kernels.add_norm(hidden, delta, weight, 1e-5)  # noqa: E731
    device.check(add, device.tensor(7, 96), device.tensor(7, 96))


def test_norm_alone(device: Device) -> None:
    weight = device.tensor(96)
    device.check(lambda hidden: kernels.add_norm(hidden, None, weight, 1e-5), device.tensor(7, 96))


@pytest.mark.parametrize("heads", [(4, 4), (3, 1)])
def test_rotary_positions(device: Device, heads: tuple[int, int]) -> None:
    cos, sin = device.angles(7, 16)
    rotate = lambda qkv: kernels.rotate(qkv, cos, sin, heads, 16)  # noqa: E731
    device.check(rotate, device.tensor(7, (heads[0] + 2 * heads[1]) * 16))


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("lengths", [(9,), (1, 17, 16, 3, 40)])
def test_attention_inside_segments(device: Device, heads: tuple[int, int], lengths: tuple[int, ...]) -> None:
    cos, sin = device.angles(sum(lengths), 16)
    segments = Segments.of(lengths, torch.device(device.place))
    attend = lambda qkv: kernels.attended(qkv, cos, sin, heads, 16, segments)  # noqa: E731
    device.check(attend, device.tensor(sum(lengths), (heads[0] + 2 * heads[1]) * 16))


def test_gate(device: Device) -> None:
    device.check(kernels.gated, device.tensor(7, 2 * 1100))


def test_cross_entropy_and_its_gradient(device: Device) -> None:
    logits = device.tensor(5, 9001) * 4
    targets = torch.tensor([0, 9000, 17, 4096, 5], device=device.place)
    device.use(device.module)
    ours = kernels.loss_and_gradient(logits.clone(), targets)
    device.use(None)
    device.assert_close(ours, kernels.loss_and_gradient(logits.clone(), targets))


@NO_NUMBA
def test_long_segments_are_left_to_a_kernel_that_keeps_no_probabilities() -> None:
    from trainer import kernels_cpu

    segments = Segments.of((kernels_cpu.LONGEST + 1,), torch.device("cpu"))
    qkv = torch.randn(kernels_cpu.LONGEST + 1, 48)
    assert kernels_cpu.attended(qkv, torch.ones(len(qkv), 16), torch.zeros(len(qkv), 16), (1, 1), 16, segments) is None


@NO_NUMBA
def test_a_number_that_is_none_stays_one() -> None:
    """By it the round sees that its loss diverged."""
    hidden = torch.full((1, 8), float("nan"), dtype=torch.bfloat16)
    total, normed = kernels.add_norm(hidden, hidden, torch.ones(8, dtype=torch.bfloat16), 1e-5)
    assert total.isnan().all()
    assert normed.isnan().all()
    loss, _ = kernels.loss_and_gradient(torch.full((1, 8), float("nan")), torch.tensor([3]))
    assert loss.isnan().all()


@pytest.mark.skipif(INTERPRETED or GPU or not find_spec("triton"), reason="they ran already, or there is no Triton")
def test_the_gpus_kernels_say_it_in_tritons_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", __file__, "-k", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
