"""The operator of serving.lora_gpu and its kernel. Imported by vLLM's processes alone: it needs torch and Triton."""

from __future__ import annotations

from itertools import accumulate

import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import linear

FEW_TOKENS, MANY_TOKENS = 16, 64  # that one program computes, of a small batch and of a large one


def adapted(
    x: Tensor, joined: Tensor, bias: Tensor | None, second: Tensor, sizes: list[int], slots: Tensor, nobody: Tensor
) -> Tensor:
    """A projection of each token, with the adapter of the token's slot.

    Args:
        x: [tokens, in].
        joined: [out + parts * slots * rank, in], the base's weight and all first factors.
        bias: [out + parts * slots * rank], zeros at the end.
        second: [slots, out, rank].
        sizes: of the parts, one to three; their sum is out.
        slots: of each token, [tokens]; any number that is no slot means the base alone.
        nobody: on the processor, [1]; true where no token has an adapter.

    Returns:
        [tokens, out].
    """
    width = second.shape[1]
    if nobody.item():
        return linear(x, joined[:width], None if bias is None else bias[:width])
    return with_second(linear(x, joined, bias), second, sizes, slots)


def adapted_shape(
    x: Tensor, joined: Tensor, bias: Tensor | None, second: Tensor, sizes: list[int], slots: Tensor, nobody: Tensor
) -> Tensor:
    """What `adapted` returns, without values; for torch.compile."""
    return x.new_empty(x.shape[0], second.shape[1])


def with_second(full: Tensor, second: Tensor, sizes: list[int], slots: Tensor) -> Tensor:
    """[tokens, out] from [tokens, out + parts * slots * rank]: each token's first products times its second factor."""
    count, width, rank = second.shape
    tokens = len(full)
    out = full.new_empty(tokens, width)
    ends = [*accumulate(sizes), width, width]
    # Narrow outputs are cut finer, so that all of a card's processors have work.
    columns = 128 if width > 8192 and all(size % 128 == 0 for size in sizes) else 64
    block = FEW_TOKENS if tokens <= 4 * FEW_TOKENS else MANY_TOKENS
    grid = (width // columns, triton.cdiv(tokens, block))
    _add_second[grid](
        full, second, slots, out, tokens, width, full.shape[1], ends[0], ends[1],
        SLOTS=count, RANK=rank, TOKENS=block, COLUMNS=columns, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _add_second(
    full, second, slots, out, tokens, width, pitch, end_of_first, end_of_second,
    SLOTS: tl.constexpr, RANK: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program computes some columns, all of one part, of some tokens; a slot that none of them has is not read."""
    start = tl.program_id(0) * COLUMNS
    column = start + tl.arange(0, COLUMNS)[None, :]
    rank = tl.arange(0, RANK)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    inside = token < tokens
    own = tl.load(slots + token, mask=inside, other=-1)
    row = token.to(tl.int64)[:, None]
    total = tl.load(full + row * pitch + column, mask=inside[:, None], other=0.0).to(tl.float32)
    part = (start >= end_of_first).to(tl.int32) + (start >= end_of_second).to(tl.int32)
    for slot in tl.static_range(SLOTS):
        mine = inside & (own == slot)
        if tl.max(mine.to(tl.int32), 0) > 0:
            at = width + (part * SLOTS + slot) * RANK
            inner = tl.load(full + row * pitch + at + rank[None, :], mask=mine[:, None], other=0.0)
            up = tl.load(second + (slot * width + column) * RANK + rank[:, None])
            total += tl.dot(inner, up)
    tl.store(out + row * width + column, total.to(out.dtype.element_ty), mask=inside[:, None])
