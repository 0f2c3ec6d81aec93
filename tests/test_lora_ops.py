"""Grouping tokens by adapter computes what vLLM's own CPU functions compute."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vllm.lora.ops.torch_ops", reason="the CPU build of vLLM is not installed")

from vllm.lora.ops.torch_ops import lora_ops as original

from serving import lora_ops

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
        getattr(lora_ops, name)(*arguments, found, indices, *more)
        torch.testing.assert_close(found, expected, msg=name)


def test_a_token_without_an_adapter_is_left_as_the_base_model_has_it() -> None:
    indices = torch.tensor([0, -1, 0])
    before = torch.randn(3, 6)
    after = before.clone()
    lora_ops.bgmv_expand(torch.randn(3, 4), torch.randn(2, 6, 4), after, indices)
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[0], before[0])


def test_one_adapter_for_all_gives_what_peft_gives() -> None:
    torch.manual_seed(1)
    x = torch.randn(5, 24, dtype=torch.bfloat16)
    a = tuple(torch.randn(3, 1, 8, 24, dtype=torch.bfloat16) for _ in range(2))
    b = tuple(torch.randn(3, 1, size, 8, dtype=torch.bfloat16) for size in (16, 4))
    base = torch.randn(5, 20, dtype=torch.bfloat16)
    found = base.clone()
    lora_ops.add_one(found, x, a, b, 2.0, (16, 4), slot=1)
    wide = [part.double() for part in (x, a[0][1, 0], b[0][1, 0], a[1][1, 0], b[1][1, 0])]
    expected = base.double() + 2 * torch.cat((wide[0] @ wide[1].T @ wide[2].T, wide[0] @ wide[3].T @ wide[4].T), 1)
    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=0.3)


@pytest.mark.parametrize(("indices", "slot"), [((1, 1), 1), ((-1, -1), -1), ((0, 1), -2), ((-1, 0), -2), ((), -2)])
def test_a_batch_with_one_adapter_is_known(indices: tuple[int, ...], slot: int) -> None:
    assert lora_ops.single_slot(torch.tensor(indices, dtype=torch.long)) == slot


def test_vllms_wrapper_takes_the_short_way_and_the_long_one() -> None:
    class Wrapper:
        token_lora_indices = torch.empty(0, dtype=torch.long)

        def update_metadata(self, indices: torch.Tensor) -> None:
            self.token_lora_indices = indices

        def add_lora_linear(self, y: torch.Tensor, *rest: object) -> None:
            y += 100

    lora_ops._teach(Wrapper)
    wrapper = Wrapper()
    weights = ((torch.ones(2, 1, 1, 3),), (torch.ones(2, 1, 2, 1),), 1.0, (2,))
    for indices, expected in (((1, 1), 3.0), ((-1, -1), 0.0), ((0, 1), 100.0)):
        y = torch.zeros(2, 2)
        wrapper.update_metadata(torch.tensor(indices))
        wrapper.add_lora_linear(y, torch.ones(2, 3), *weights)
        assert torch.equal(y, torch.full((2, 2), expected))
