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
