"""Exact attention over pairs that lie end to end in one row, without padding.

Each pair attends to itself alone: on a GPU through torch's variable-length kernel, on a CPU pair by pair. Importing
this module makes the function known to transformers under the name SEGMENTS.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from serving.records import CopydeskError

SEGMENTS = "copydesk_segments"


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
    if query.is_cuda and query.dtype != torch.float32:
        return _by_kernel(query, key, value, segments, scaling), None
    grouped = query.shape[1] != key.shape[1]
    # The CPU kernel is 1.8 times as fast in fp32 as in bf16, both conversions counted.
    rows = (torch.split(tensor.float(), list(segments), 2) for tensor in (query, key, value))
    parts = [
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in zip(*rows, strict=True)
    ]
    return torch.cat(parts, 2).transpose(1, 2).to(query.dtype), None


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, segments: tuple[int, ...], scaling: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    offsets = torch.tensor([0, *accumulate(segments)], dtype=torch.int32, device=query.device)
    longest = max(segments)
    heads = query.shape[1]
    # The kernel takes grouped heads from torch 2.12 on only; repeating them costs little beside the matrix products.
    q, k, v = (
        tensor[0].repeat_interleave(heads // tensor.shape[1], 0).transpose(0, 1).contiguous()
        for tensor in (query, key, value)
    )
    out = varlen_attn(q, k, v, offsets, offsets, longest, longest, scale=scaling, window_size=(-1, 0))
    assert isinstance(out, Tensor)
    return out[None]


def _no_mask(*args: Any, **options: Any) -> None:
    return None


AttentionInterface.register(SEGMENTS, segment_attention)
AttentionMaskInterface.register(SEGMENTS, _no_mask)
