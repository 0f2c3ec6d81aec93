"""LoRA on vLLM's CUDA path with one more kernel a projection in place of three. A vLLM plugin (see pyproject.toml).

vLLM clears a buffer, multiplies by an adapter's first factor and then by its second: three kernels of some five
microseconds beside each product of the base, which for one token of a 7B model takes ten to forty. Here the first
factors of all slots are rows beneath the base's weight, so that its one product yields them too; a kernel adds the
second. What this does not know (quantised weights, sharded adapters, odd widths) stays as vLLM has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PARTS = 3  # projections in one weight, at most: query, key and value
LEAST_RANK = 16  # that tensor cores take
COLUMNS = 64  # of the output, at least, that one program of the kernel computes


def register() -> None:
    """Put this in the place of vLLM's; called by vLLM in each of its processes."""
    from vllm import envs
    from vllm.platforms import current_platform

    if current_platform.is_cuda() and not envs.VLLM_LORA_ENABLE_DUAL_STREAM:
        teach_vllm()


def teach_vllm() -> None:
    from vllm.config import get_current_vllm_config
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
    from vllm.lora.layers.column_parallel_linear import MergedColumnParallelLinearWithLoRA
    from vllm.model_executor.layers import linear
    from vllm.utils.torch_utils import direct_register_custom_op

    from serving.lora_kernel import adapted, adapted_shape

    layers = (BaseLinearLayerWithLoRA, MergedColumnParallelLinearWithLoRA)
    bases = (linear.ColumnParallelLinear, linear.RowParallelLinear, linear.ReplicatedLinear)

    def known(layer: Any) -> bool:
        """Whether neither the layer nor its base computes in a way of its own, as sharded and some fused ones do."""
        return (
            any(type(layer).apply is other.apply for other in layers)
            and any(type(layer.base_layer).forward is other.forward for other in bases)
            and isinstance(layer.base_layer.quant_method, linear.UnquantizedLinearMethod)
        )

    direct_register_custom_op("copydesk_adapted", adapted, fake_impl=adapted_shape)
    leave_room(linear.UnquantizedLinearMethod, lambda: get_current_vllm_config().lora_config)
    for layer in layers:
        teach_layer(layer, known)


def leave_room(method: Any, lora_config: Any) -> None:
    """Let the class make weights that have room for the adapters' rows beneath them, for nothing is moved later."""
    create = method.create_weights

    def create_weights(
        self: Any,
        layer: Any,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        *more: Any,
        **options: Any,
    ) -> None:
        create(self, layer, input_size_per_partition, output_partition_sizes, *more, **options)
        config = lora_config()
        if config is not None:
            rows, weight = sum(output_partition_sizes), layer.weight
            room = config.max_loras * config.max_lora_rank * len(output_partition_sizes)
            weight.data = weight.data.new_empty(rows + room, input_size_per_partition)[:rows]

    method.create_weights = create_weights


def teach_layer(layer: Any, known: Callable[[Any], bool]) -> None:
    """Let the class keep its adapters beneath its weight, where it can, and compute with both at once."""
    import torch

    create, apply = layer.create_lora_weights, layer.apply

    def create_lora_weights(self: Any, *arguments: Any, **options: Any) -> None:
        create(self, *arguments, **options)
        if known(self) and fits(self):
            join(self)

    def apply_joined(self: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if not hasattr(self, "joined"):
            plain: Tensor = apply(self, x, bias)
            return plain
        rows = x.flatten(0, -2)
        meta = self.punica_wrapper.token_mapping_meta
        out: Tensor = torch.ops.vllm.copydesk_adapted(
            rows,
            self.joined,
            self.joined_bias if bias is not None else None,
            self.second,
            list(self.output_slices),
            meta.token_lora_mapping[: rows.shape[0]],
            meta.no_lora_flag_cpu,
        )
        return out.view(*x.shape[:-1], out.shape[1])

    layer.create_lora_weights, layer.apply = create_lora_weights, apply_joined


def fits(layer: Any) -> bool:
    """Whether the weight has room beneath it, and the kernel knows widths, rank and type."""
    weight = layer.base_layer.weight
    slots, _, rank, width = layer.lora_a_stacked[0].shape
    room = slots * rank * len(layer.lora_a_stacked)
    return (
        weight.is_contiguous()
        and weight.storage_offset() == 0
        and weight.untyped_storage().nbytes() >= (len(weight) + room) * width * weight.element_size()
        and weight.dtype == layer.lora_a_stacked[0].dtype
        and weight.element_size() == 2
        and weight.shape[1] == width
        and sum(layer.output_slices) == len(weight)
        and len(layer.output_slices) == len(layer.lora_a_stacked) <= PARTS
        and all(size % COLUMNS == 0 for size in layer.output_slices)
        and rank >= LEAST_RANK
        and rank & (rank - 1) == 0
    )


def join(layer: Any) -> None:
    """The adapters' tensors, by which vLLM fills slots, become views: the first factors into the rows beneath the
    weight, the second ones into one tensor [slots, out, rank]."""
    import torch

    weight, bias = layer.base_layer.weight, layer.base_layer.bias
    slots, _, rank, width = layer.lora_a_stacked[0].shape
    parts, rows = len(layer.lora_a_stacked), len(weight)
    room = slots * rank * parts
    layer.joined = weight.data.as_strided((rows + room, width), (width, 1))
    layer.joined[rows:] = 0
    layer.joined_bias = None if bias is None else torch.cat([bias.data, bias.new_zeros(room)])
    layer.second = weight.new_zeros(slots, rows, rank)
    layer.lora_a_stacked = tuple(layer.joined[rows:].view(parts, slots, 1, rank, width))
    layer.lora_b_stacked = tuple(part[:, None] for part in layer.second.split(list(layer.output_slices), 1))
