"""The kernel of serving.lora_gpu, apart since Triton looks at a kernel's module when it is imported."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_second(
    full, second, slots, out, tokens, width, pitch, end_of_first, end_of_second,
    SLOTS: tl.constexpr, RANK: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out = full[:, :width] + each token's row of first factors, which stands in full beyond width, times its second.

    A program computes some columns, all of one part, of some tokens; a slot that none of them has costs no reading.
    """
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
