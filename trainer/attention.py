"""Exact attention over pairs that lie end to end in one row, without padding.

Each pair attends to itself alone: on a GPU through torch's variable-length kernel, on a CPU pair by pair. Importing
this module makes the function known to transformers under the name SEGMENTS.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from serving.records import CopydeskError

SEGMENTS = "copydesk_segments"
LONGEST = 512  # tokens of a segment whose probabilities trainer.kernels_cpu keeps for the way back


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: tuple[int, ...],
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each segment.

    Args:
        query: [1, heads, tokens, head size]; key and value may have fewer heads.
        segments: lengths in tokens, in order; their sum is the row's length.

    Returns:
        [1, tokens, heads, head size], and no weights.

    Raises:
        CopydeskError: the model caps its scores or looks through a window that a segment exceeds.
    """
    window = options.get("sliding_window")
    if options.get("softcap") or (window and max(segments) > window):
        raise CopydeskError('This base model cannot train packed; take a recipe with batching "bucketed".')
    row = Segments.of(segments, query.device)
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    return segments_attended(query, key, value, row, scaling)[None], None


class Segments(NamedTuple):
    """Where the pairs of a row lie.

    Attributes:
        lengths: in tokens, in order.
        offsets: int32, [segments + 1], the first is 0 and the last the row's length.
        longest: no segment is longer; the kernel gives NaN if one is.
    """

    lengths: tuple[int, ...]
    offsets: Tensor
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Segments:
        offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, pin_memory=device.type == "cuda")
        offsets = offsets.to(device, non_blocking=True)
        return cls(tuple(lengths), offsets, max(lengths))


def segments_attended(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None = None
) -> Tensor:
    """The same over [tokens, heads, head size], which is also what it returns."""
    if query.is_cuda and query.dtype != torch.float32:
        from torch.nn.attention.varlen import varlen_attn

        _, offsets, longest = segments
        # The kernel takes grouped heads from torch 2.12 on only; repeating them costs little beside the products.
        if (group := query.shape[1] // key.shape[1]) > 1:
            key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        return cast(
            Tensor,
            varlen_attn(query, key, value, offsets, offsets, longest, longest, scale=scaling, window_size=(-1, 0)),
        )
    grouped = query.shape[1] != key.shape[1]
    # The CPU kernel is 1.8 times as fast in fp32 as in bf16, both conversions counted.
    rows = (torch.split(part.transpose(0, 1).float(), list(segments.lengths), 1) for part in (query, key, value))
    parts = [
        scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, scale=scaling, enable_gqa=grouped)[0]
        for q, k, v in zip(*rows, strict=True)
    ]
    return torch.cat(parts, 1).transpose(0, 1).to(query.dtype)


def _no_mask(*args: Any, **options: Any) -> None:
    return None


AttentionInterface.register(SEGMENTS, segment_attention)
AttentionMaskInterface.register(SEGMENTS, _no_mask)
