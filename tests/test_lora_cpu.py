"""Grouping tokens by adapter computes what vLLM's own CPU functions compute."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vllm.lora.ops.torch_ops", reason="the CPU build of vLLM is not installed")

from vllm.lora.ops.torch_ops import lora_ops as original
from vllm.model_executor.layers import utils
from vllm.model_executor.layers.linear import UnquantizedLinearMethod

from serving import lora_cpu

ORIGINAL = {name: getattr(original, name) for name in ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")}


@pytest.mark.parametrize("slots", [(0,), (1,), (0, 1), (2, 0, 1)])
@pytest.mark.parametrize("dims", [3, 4])
@pytest.mark.parametrize("add", [True, False])
def test_every_function_gives_what_vllms_gives(slots: tuple[int, ...], dims: int, add: bool) -> None:
    torch.manual_seed(1)
    tokens, rank, width = 11, 8, 24
    indices = torch.tensor([slots[n % len(slots)] for n in range(tokens)])
    shape = (3, 1) if dims == 4 else (3,)
    a, b = torch.randn(*shape, rank, width), torch.randn(*shape, width, rank)
    x, low = torch.randn(tokens, width), torch.randn(tokens, rank)
    for name, arguments, out in (
        ("bgmv_shrink", (x, a), (tokens, rank)),
        ("bgmv_expand", (low, b), (tokens, width)),
        ("bgmv_expand_slice", (low, b), (tokens, 2 * width)),
    ):
        more = (0.5,) if name == "bgmv_shrink" else (width, width, add) if name.endswith("slice") else (add,)
        expected = torch.randn(out)
        found = expected.clone()
        ORIGINAL[name](*arguments, expected, indices, *more)
        getattr(lora_cpu, name)(*arguments, found, indices, *more)
        torch.testing.assert_close(found, expected, msg=name)


def test_a_token_without_an_adapter_is_left_as_the_base_model_has_it() -> None:
    indices = torch.tensor([0, -1, 0])
    before = torch.randn(3, 6)
    after = before.clone()
    lora_cpu.bgmv_expand(torch.randn(3, 4), torch.randn(2, 6, 4), after, indices)
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[0], before[0])


@pytest.mark.parametrize(("indices", "slot"), [((1, 1), 1), ((-1, -1), -1), ((0, 1), -2), ((-1, 0), -2), ((), -2)])
def test_a_batch_with_one_adapter_is_known(indices: tuple[int, ...], slot: int) -> None:
    assert lora_cpu.single_slot(torch.tensor(indices, dtype=torch.long)) == slot


class Wrapper:
    token_lora_indices = torch.empty(0, dtype=torch.long)

    def update_metadata(self, indices: torch.Tensor) -> None:
        self.token_lora_indices = indices


class Layer:
    """What vLLM's layer is, seen from the functions under test: a packed base, adapters in slots, the slow way."""

    def __init__(self, weight: torch.Tensor, slots: int, rank: int, sizes: tuple[int, ...]) -> None:
        self.base_layer = torch.nn.Module()
        self.base_layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
        self.base_layer.quant_method = UnquantizedLinearMethod()
        self.base_layer.quant_method.process_weights_after_loading(self.base_layer)
        self.lora_a_stacked = tuple(torch.zeros(slots, 1, rank, weight.shape[1], dtype=weight.dtype) for _ in sizes)
        self.lora_b_stacked = tuple(torch.zeros(slots, 1, size, rank, dtype=weight.dtype) for size in sizes)
        self.punica_wrapper = Wrapper()

    def _get_quant_method(self) -> UnquantizedLinearMethod:
        return self.base_layer.quant_method

    def _apply_sync(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return torch.full((len(x), sum(b.shape[2] for b in self.lora_b_stacked)), 100.0)

    def reset_lora(self, index: int) -> None:
        for part in (*self.lora_a_stacked, *self.lora_b_stacked):
            part[index] = 0

    def fill(self, slot: int) -> None:
        for part in (*self.lora_a_stacked, *self.lora_b_stacked):
            part[slot] = torch.randn_like(part[slot]) / 8

    def answer(self, x: torch.Tensor, *indices: int) -> torch.Tensor:
        self.punica_wrapper.update_metadata(torch.tensor(indices))
        return self._apply_sync(x).double()


lora_cpu.teach_wrapper(Wrapper)
lora_cpu.teach_layer(Layer)


@pytest.fixture(params=["as this processor does", "as one with AMX does"])
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM has two ways to hold a small weight; the second runs on any AVX-512 and is chosen only where AMX is."""
    if request.param == "as one with AMX does":
        if not hasattr(torch.ops._C, "convert_weight_packed"):
            pytest.skip("this build of vLLM has no AMX")
        monkeypatch.setattr(utils, "check_cpu_sgl_kernel", lambda n, k, dtype: True)


@pytest.mark.usefixtures("packing")
def test_one_adapter_for_all_is_merged_into_what_the_processor_holds() -> None:
    torch.manual_seed(1)
    weight = torch.randn(48, 64, dtype=torch.bfloat16) / 8
    layer = Layer(weight, slots=2, rank=8, sizes=(32, 16))
    layer.fill(1)
    x = torch.randn(2, 64, dtype=torch.bfloat16)
    delta = torch.cat(
        [b[1, 0].double() @ a[1, 0].double() for a, b in zip(layer.lora_a_stacked, layer.lora_b_stacked, strict=True)]
    )
    base, exact = x.double() @ weight.double().T, x.double() @ (weight.double() + delta).T
    noise = 4 * (layer.answer(x, -1, -1) - base).abs().max()
    assert (exact - base).abs().max() > 10 * noise
    torch.testing.assert_close(layer.answer(x, 1, 1), exact, rtol=0, atol=float(noise))
    torch.testing.assert_close(layer.answer(x, 0, 0), layer.answer(x, -1, -1), rtol=0, atol=0)
    assert (layer.answer(x, 0, 1) == 100).all()


@pytest.mark.usefixtures("packing")
def test_a_slots_next_adapter_takes_the_place_of_the_one_before() -> None:
    layer = Layer(torch.randn(48, 64, dtype=torch.bfloat16), slots=1, rank=8, sizes=(48,))
    x = torch.randn(2, 64, dtype=torch.bfloat16)
    layer.fill(0)
    before = layer.answer(x, 0, 0)
    layer.reset_lora(0)
    assert torch.equal(layer.answer(x, 0, 0), layer.answer(x, -1, -1))
    layer.reset_lora(0)
    layer.fill(0)
    assert not torch.equal(layer.answer(x, 0, 0), before)


def test_where_memory_is_short_an_adapter_is_served_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer(torch.randn(48, 64, dtype=torch.bfloat16), slots=1, rank=8, sizes=(48,))
    layer.fill(0)
    monkeypatch.setattr(lora_cpu, "RESERVE_BYTES", 1 << 60)
    assert (layer.answer(torch.randn(2, 64, dtype=torch.bfloat16), 0, 0) == 100).all()
