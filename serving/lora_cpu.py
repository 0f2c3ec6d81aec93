"""LoRA on vLLM's CPU path at the speed of the base model. A vLLM plugin (see pyproject.toml).

vLLM's own code copies the adapter's weights once for every token (`weights[indices]`), which moves hundreds of
megabytes a layer for one prompt. Here a batch whose tokens all have the same adapter, the usual case, is computed with
weights into which the adapter was merged, as many operations as without one: on a small model each further
operation costs more for waking the threads than for its arithmetic. A mixed batch costs two products a projection for
each adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import psutil

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

NONE = -1  # vLLM's own sign for no adapter
MIXED = -2  # no single adapter
RESERVE_BYTES = 2 << 30  # what merged weights leave free on the machine


def register() -> None:
    """Put these in the place of vLLM's; called by vLLM in each of its processes. A GPU has kernels of its own."""
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for function in (bgmv_shrink, bgmv_expand, bgmv_expand_slice):
        # The sgmv_* functions call these by their name in the one module, the wrapper in the other.
        setattr(lora_ops, function.__name__, function)
        setattr(punica_cpu, function.__name__, function)
    teach_wrapper(punica_cpu.PunicaWrapperCPU)
    teach_layer(BaseLinearLayerWithLoRA)


def teach_wrapper(wrapper: Any) -> None:
    """Let the class look once a batch, not once a projection, at which adapters it holds."""
    update_metadata = wrapper.update_metadata

    def update(self: Any, *arguments: Any, **options: Any) -> None:
        update_metadata(self, *arguments, **options)
        self.only_slot = single_slot(self.token_lora_indices)

    wrapper.update_metadata, wrapper.only_slot = update, MIXED


def teach_layer(layer: Any) -> None:
    """Let the class keep a merged linear a slot, made when a batch first needs it, dropped when the slot gets
    another adapter."""
    apply, reset = layer._apply_sync, layer.reset_lora

    def apply_sync(self: Any, x: Tensor, bias: Tensor | None = None) -> Any:
        slot = self.punica_wrapper.only_slot
        if slot == MIXED:
            return apply(self, x, bias)
        if slot == NONE:
            return self._get_quant_method().apply(self.base_layer, x, bias)
        made = self.__dict__.setdefault("merged", {})
        if slot not in made:
            made[slot] = merged(self, slot)
        linear = made[slot]
        return linear.cpu_linear(x, linear.weight, bias) if linear else apply(self, x, bias)

    def reset_lora(self: Any, index: int) -> None:
        self.__dict__.setdefault("merged", {}).pop(index, None)
        reset(self, index)

    layer._apply_sync, layer.reset_lora = apply_sync, reset_lora


def merged(layer: Any, slot: int) -> Module | None:
    """The layer's linear with a slot's adapter in its weights; None for a quantised base or where memory is short."""
    import torch
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    method, base = layer._get_quant_method(), layer.base_layer
    if not isinstance(method, UnquantizedLinearMethod):
        return None
    a, b = layer.lora_a_stacked, layer.lora_b_stacked
    if not any(up[slot].any() for up in b):
        return cast("Module", base)  # this adapter leaves the projection alone
    # vLLM packs a weight for the processor and throws the original away; the identity brings it back, bit by bit.
    identity = torch.eye(a[0].shape[-1], dtype=a[0].dtype)
    weight = method.apply(base, identity, None).T.float()
    if psutil.virtual_memory().available < RESERVE_BYTES + 2 * weight.nbytes:
        return None
    weight += torch.cat([up[slot, 0].float() @ down[slot, 0].float() for down, up in zip(a, b, strict=True)])
    linear = torch.nn.Module()
    # What packs small weights for AMX takes rows that lie one after the other; the transposed product has columns.
    linear.weight = torch.nn.Parameter(weight.to(identity.dtype).contiguous(), requires_grad=False)
    dispatch_cpu_unquantized_gemm(linear, remove_weight=True)
    return linear


def single_slot(indices: Tensor) -> int:
    """The slot that all tokens have; NONE if none has an adapter, MIXED otherwise."""
    if not len(indices):
        return MIXED
    low, high = (int(bound) for bound in indices.aminmax())
    return low if low == high else MIXED


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
