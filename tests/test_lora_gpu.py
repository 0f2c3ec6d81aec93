"""An adapter beneath its base's weight computes what base and adapter compute apart. Triton's interpreter runs the
kernel here, on any processor."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from serving import lora_gpu

RANK, SLOTS, WIDTH = 16, 2, 32  # in fp16: the interpreter multiplies no bf16


class Layer:
    """What vLLM's layer is, seen from the functions under test."""

    def __init__(self, sizes: tuple[int, ...], bias: bool) -> None:
        rows = sum(sizes)
        room = SLOTS * RANK * len(sizes)
        weight = torch.empty(rows + room, WIDTH, dtype=torch.float16)[:rows].normal_()
        self.base_layer = SimpleNamespace(weight=weight, bias=torch.randn(rows, dtype=torch.float16) if bias else None)
        self.output_slices = sizes
        self.lora_a_stacked = tuple(torch.zeros(SLOTS, 1, RANK, WIDTH, dtype=torch.float16) for _ in sizes)
        self.lora_b_stacked = tuple(torch.zeros(SLOTS, 1, size, RANK, dtype=torch.float16) for size in sizes)

    def fill(self, slot: int) -> None:
        """As vLLM does: into the views, wherever they lead."""
        for part in (*self.lora_a_stacked, *self.lora_b_stacked):
            part[slot, 0].copy_(torch.randn_like(part[slot, 0]) / 4)

    def expected(self, x: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        out = x.double() @ self.base_layer.weight.double().T
        if self.base_layer.bias is not None:
            out += self.base_layer.bias.double()
        for row, slot in enumerate(slots.tolist()):
            if 0 <= slot < SLOTS:
                parts = zip(self.lora_a_stacked, self.lora_b_stacked, strict=True)
                out[row] += torch.cat([b[slot, 0].double() @ (a[slot, 0].double() @ x[row].double()) for a, b in parts])
        return out


def check_kernel() -> None:
    from serving.lora_kernel import adapted

    torch.manual_seed(1)
    for sizes in ((64,), (128, 128), (192, 64, 64)):
        for bias in (False, True):
            layer = Layer(sizes, bias)
            base = layer.base_layer.weight.clone()
            assert lora_gpu.fits(layer)
            lora_gpu.join(layer)
            for slot in range(SLOTS):
                layer.fill(slot)
            assert torch.equal(layer.base_layer.weight, base)
            for tokens in (1, 19, 70):
                x = torch.randn(tokens, WIDTH, dtype=torch.float16)
                slots = torch.tensor([0, 1, -1, 77] * 18, dtype=torch.int32)[:tokens]  # padding may hold any number
                for nobody in (False, True):
                    given = torch.full_like(slots, -1) if nobody else slots
                    flag = torch.tensor([nobody])
                    bias_rows = layer.joined_bias
                    found = adapted(x, layer.joined, bias_rows, layer.second, list(sizes), slots, flag)
                    torch.testing.assert_close(found.double(), layer.expected(x, given), rtol=2e-2, atol=0.15)
                assert (layer.expected(x, slots) - layer.expected(x, torch.full_like(slots, -1))).abs().max() > 1


def test_a_mixed_batch_gets_each_token_its_adapter() -> None:
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", "import test_lora_gpu; test_lora_gpu.check_kernel()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_the_kernel_does_not_know_stays_as_it_is() -> None:
    assert lora_gpu.fits(Layer((64, 64), bias=False))
    assert not lora_gpu.fits(Layer((64, 32), bias=False))
    assert not lora_gpu.fits(Layer((64, 64, 64, 64), bias=False))
    whole = Layer((64,), bias=False)
    whole.base_layer.weight = whole.base_layer.weight.clone()  # no room beneath it
    assert not lora_gpu.fits(whole)
    small = Layer((64,), bias=False)
    small.lora_a_stacked = tuple(part[:, :, :8] for part in small.lora_a_stacked)
    assert not lora_gpu.fits(small)
