"""LoRA on vLLM's CPU path, one matrix product for each adapter in the batch. A vLLM plugin (see pyproject.toml).

vLLM's own code copies the adapter's weights once for every token (`weights[indices]`), which moves hundreds of
megabytes a layer for one prompt. Grouping the tokens by adapter computes the same with the weights read once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def register() -> None:
    """Put these in the place of vLLM's; called by vLLM in each of its processes. A GPU has kernels of its own."""
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    for function in (bgmv_shrink, bgmv_expand, bgmv_expand_slice):
        # The sgmv_* functions call these by their name in the one module, the wrapper in the other.
        setattr(lora_ops, function.__name__, function)
        setattr(punica_cpu, function.__name__, function)


def bgmv_shrink(
    inputs: Tensor, lora_b_weights: Tensor, output_tensor: Tensor, lora_indices_tensor: Tensor, scaling: float = 1.0
) -> None:
    """inputs [tokens, in] → output [tokens, rank], overwritten."""
    outputs = _product(inputs, lora_b_weights, lora_indices_tensor, output_tensor)
    output_tensor[:, : outputs.shape[1]] = scaling * outputs


def bgmv_expand(
    inputs: Tensor, lora_b_weights: Tensor, output_tensor: Tensor, lora_indices_tensor: Tensor, add_inputs: bool = True
) -> None:
    """inputs [tokens, rank] → output [tokens, out]; adapter and model may be padded differently."""
    outputs = _product(inputs, lora_b_weights, lora_indices_tensor, output_tensor)
    rows = 1 if outputs.shape[0] == 1 else output_tensor.shape[0]
    width = min(outputs.shape[1], output_tensor.shape[1])
    _put(output_tensor[:, :width], outputs[:rows, :width], add_inputs)


def bgmv_expand_slice(
    inputs: Tensor,
    lora_b_weights: Tensor,
    output_tensor: Tensor,
    lora_indices_tensor: Tensor,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """inputs [tokens, rank] → a slice of output [tokens, out], as fused projections have it."""
    outputs = _product(inputs, lora_b_weights, lora_indices_tensor, output_tensor)
    _put(output_tensor[:, slice_offset : slice_offset + slice_size], outputs, add_inputs)


def _put(target: Tensor, outputs: Tensor, add: bool) -> None:
    if add:
        target += outputs
    else:
        target[:] = outputs


def _product(inputs: Tensor, weights: Tensor, indices: Tensor, like: Tensor) -> Tensor:
    """Each token times the weights of its adapter, in the output's type; a token without an adapter (-1) gives zeros.

    Args:
        weights: [slots, out, in] or [slots, 1, out, in].
        indices: [tokens], the slot of each token.
    """
    if weights.dim() == 4:
        weights = weights.squeeze(1)
    inputs = inputs.to(like.dtype)
    low, high = (int(bound) for bound in indices.aminmax())
    if low == high >= 0:  # the usual case: everybody is served by the live version
        return inputs @ weights[low].to(like.dtype).T
    outputs = inputs.new_zeros((inputs.shape[0], weights.shape[1]))
    for slot in range(max(low, 0), high + 1):
        tokens = indices == slot
        if tokens.any():
            outputs[tokens] = inputs[tokens] @ weights[slot].to(like.dtype).T
    return outputs
