"""LoRA on vLLM's CPU path, as matrix products with the adapter's weights. A vLLM plugin (see pyproject.toml).

vLLM's own code copies the adapter's weights once for every token (`weights[indices]`), which moves hundreds of
megabytes a layer for one prompt. Here a batch whose tokens all have the same adapter, the usual case, costs two
products a projection, in the types that PEFT computes in; a mixed one costs two for each adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MIXED = -2  # no single adapter; -1 is vLLM's own sign for none


def register() -> None:
    """Put these in the place of vLLM's; called by vLLM in each of its processes. A GPU has kernels of its own."""
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    for function in (bgmv_shrink, bgmv_expand, bgmv_expand_slice):
        # The sgmv_* functions call these by their name in the one module, the wrapper in the other.
        setattr(lora_ops, function.__name__, function)
        setattr(punica_cpu, function.__name__, function)
    _teach(punica_cpu.PunicaWrapperCPU)


def _teach(wrapper: Any) -> None:
    """Let the class look once a batch, not once a projection, at which adapters it holds."""
    update_metadata, add_lora_linear = wrapper.update_metadata, wrapper.add_lora_linear

    def update(self: Any, *arguments: Any, **options: Any) -> None:
        update_metadata(self, *arguments, **options)
        self.only_slot = single_slot(self.token_lora_indices)

    def add(
        self: Any,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **options: Any,
    ) -> None:
        slot = getattr(self, "only_slot", MIXED)
        if slot == MIXED:
            add_lora_linear(self, y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, **options)
        elif slot >= 0:
            add_one(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, slot)

    wrapper.update_metadata, wrapper.add_lora_linear = update, add


def single_slot(indices: Tensor) -> int:
    """The slot that all tokens have; -1 if none has an adapter, MIXED otherwise."""
    if not len(indices):
        return MIXED
    low, high = (int(bound) for bound in indices.aminmax())
    return low if low == high else MIXED


def add_one(
    y: Tensor,
    x: Tensor,
    lora_a_stacked: tuple[Tensor, ...],
    lora_b_stacked: tuple[Tensor, ...],
    scale: float,
    output_slices: tuple[int, ...],
    slot: int,
) -> None:
    """x [tokens, in] through one adapter onto y [tokens, sum of the slices]."""
    at = 0
    for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
        inner = x @ a[slot, 0].T
        y[:, at : at + size].addmm_(inner, b[slot, 0].T, alpha=scale)
        at += size


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
