"""An adapter beneath its base's weight computes what base and adapter compute apart. Triton's interpreter runs the
kernel here, on any processor."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from serving import lora_gpu

RANK, SLOTS, WIDTH = 16, 2, 32
DTYPE = torch.float16  # the interpreter multiplies no bf16
NO_TRITON = pytest.mark.skipif(not find_spec("triton"), reason="no Triton")


class Layer:
    """What vLLM's layer is, seen from the functions under test."""

    def __init__(self, sizes: tuple[int, ...], bias: bool) -> None:
        rows = sum(sizes)
        room = SLOTS * RANK * len(sizes)
        weight = torch.empty(rows + room, WIDTH, dtype=DTYPE)[:rows].normal_()
        self.base_layer = SimpleNamespace(weight=weight, bias=torch.randn(rows, dtype=DTYPE) if bias else None)
        self.output_slices = sizes
        self.lora_a_stacked = tuple(torch.zeros(SLOTS, 1, RANK, WIDTH, dtype=DTYPE) for _ in sizes)
        self.lora_b_stacked = tuple(torch.zeros(SLOTS, 1, size, RANK, dtype=DTYPE) for size in sizes)

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
                x = torch.randn(tokens, WIDTH, dtype=DTYPE)
                slots = torch.tensor([0, 1, -1, 77] * 18, dtype=torch.int32)[:tokens]  # padding may hold any number
                for nobody in (False, True):
                    given = torch.full_like(slots, -1) if nobody else slots
                    flag = torch.tensor([nobody])
                    bias_rows = layer.joined_bias
                    found = adapted(x, layer.joined, bias_rows, layer.second, list(sizes), slots, flag)
                    torch.testing.assert_close(found.double(), layer.expected(x, given), rtol=2e-2, atol=0.15)
                assert (layer.expected(x, slots) - layer.expected(x, torch.full_like(slots, -1))).abs().max() > 1


def check_vllms_layers() -> None:
    """The real classes of the installed vLLM, on a CPU: what is loaded, mixed and compiled is what it should be."""
    import tempfile

    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.config.lora import LoRAConfig
    from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
    from vllm.lora.layers import column_parallel_linear as column
    from vllm.lora.layers import row_parallel_linear as row
    from vllm.model_executor.layers import linear

    torch.manual_seed(1)
    lora_gpu.teach_vllm()
    config = VllmConfig()
    config.lora_config = LoRAConfig(max_loras=SLOTS, max_lora_rank=RANK, lora_dtype=DTYPE)
    with set_current_vllm_config(config), tempfile.TemporaryDirectory() as folder:
        init_distributed_environment(1, 0, f"file://{folder}/rendezvous", 0, "gloo")
        ensure_model_parallel_initialized(1, 1)
        for made, base in (
            (column.MergedQKVParallelLinearWithLoRA, linear.QKVParallelLinear(64, 64, 3, 1, params_dtype=DTYPE)),
            (
                column.MergedColumnParallelLinearWithLoRA,
                linear.MergedColumnParallelLinear(64, [128, 128], False, params_dtype=DTYPE),
            ),
            (row.RowParallelLinearWithLoRA, linear.RowParallelLinear(192, 64, False, params_dtype=DTYPE)),
        ):
            base.weight.data.normal_(std=0.1)
            if base.bias is not None:
                base.bias.data.normal_()
            check_layer(made(base), config.lora_config)
        quantised = linear.RowParallelLinear(192, 64, False, params_dtype=torch.float32)
        layer = row.RowParallelLinearWithLoRA(quantised)
        layer.create_lora_weights(SLOTS, config.lora_config, None)
        assert not hasattr(layer, "joined")  # its type is not the adapters'


def check_layer(layer: Any, lora_config: Any) -> None:
    base = layer.base_layer
    layer.create_lora_weights(SLOTS, lora_config, None)
    assert hasattr(layer, "joined"), type(layer)
    mapping = torch.empty(64, dtype=torch.int32)
    meta = SimpleNamespace(token_lora_mapping=mapping, no_lora_flag_cpu=torch.tensor([False]))
    layer.punica_wrapper = SimpleNamespace(token_mapping_meta=meta)
    sizes, width = layer.output_slices, base.weight.shape[1]
    adapters = []
    for slot in range(SLOTS):
        first = [torch.randn(8, width, dtype=DTYPE) / 4 for _ in sizes]  # a lower rank than the slot's
        second = [torch.randn(size, 8, dtype=DTYPE) / 4 for size in sizes]
        layer.set_lora(slot, *(parts if len(sizes) > 1 else parts[0] for parts in (first, second)))
        adapters.append(torch.cat([b.double() @ a.double() for a, b in zip(first, second, strict=True)]))
    compiled = torch.compile(layer.forward, backend="eager", fullgraph=True)
    for forward in (layer.forward, compiled):
        for slots in ([0, 1, -1, 0], [1, 1], [-1, -1, -1]):
            mapping[: len(slots)] = torch.tensor(slots)
            meta.no_lora_flag_cpu[0] = max(slots) < 0
            x = torch.randn(len(slots), width, dtype=DTYPE)
            expected = torch.stack(
                [
                    (base.weight.double() + (adapters[slot] if slot >= 0 else 0)) @ row.double()
                    for row, slot in zip(x, slots, strict=True)
                ]
            )
            expected += 0 if base.bias is None else base.bias.double()
            torch.testing.assert_close(forward(x)[0].double(), expected, rtol=2e-2, atol=5e-2)
    layer.reset_lora(0)
    assert not layer.joined[base.weight.shape[0] :].view(len(sizes), SLOTS, -1)[:, 0].any()


def run_interpreted(check: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", f"import test_lora_gpu; test_lora_gpu.{check}()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@NO_TRITON
def test_a_mixed_batch_gets_each_token_its_adapter() -> None:
    run_interpreted("check_kernel")


@NO_TRITON
@pytest.mark.skipif(not find_spec("vllm"), reason="no vLLM")
def test_vllms_own_layers_load_mix_and_compile() -> None:
    run_interpreted("check_vllms_layers")


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
