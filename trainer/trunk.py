"""The decoder layers of Llama-like models over packed rows: the same arithmetic as the model's own, in fewer passes.

Projections that read the same input are one matrix product, forward and backward, and it adds onto what lies there
already, so that the adapter's part costs no pass over memory of its own. Between the products stand trainer.kernels.
What several rows begin with goes through the products once (trainer.prefixes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainer.attention import Segments
from trainer.dataset import IGNORED, Row
from trainer.kernels import add_norm, attended, gated, loss_and_gradient, prepare
from trainer.prefixes import Prefixes

ATTENTION = ("q_proj", "k_proj", "v_proj")
FAMILIES = ("llama", "mistral", "qwen2")  # RMS norms, rotary positions, a gated SiLU, and nothing else
HEAD_ROWS = {"cuda": 2048, "cpu": 128}  # answer positions whose logits exist at once; a CPU's cache holds 128 rows'
BLOCK = 64  # weights that share a scale in 4-bit blocks, bitsandbytes' own choice


class Projection:
    """Frozen projections that read the same input, as one weight, with the adapters of those that have one.

    The modules' own weights become views of the one weight, so that nothing is held twice.
    """

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        bases = [cast(Any, getattr(module, "base_layer", module)) for module in modules]
        self.sizes = [int(base.out_features) for base in bases]
        self.width = int(bases[0].in_features)
        self.adapters = [_adapter(module) for module in modules]
        biases = [base.bias for base in bases]
        self.bias = None if biases[0] is None else torch.cat([bias.detach() for bias in biases])
        self.weight: Tensor = bases[0].weight.data
        self.scales: Tensor | None = None
        if packed := hasattr(bases[0].weight, "quant_state"):
            self.scales = torch.cat([base.weight.quant_state.absmax for base in bases])
        if len(bases) > 1:
            self.weight = torch.cat([base.weight.data for base in bases])
            parts = torch.split(self.weight, [len(base.weight) for base in bases])
            for base, part in zip(bases, parts, strict=True):
                base.weight.data = part
            if packed:
                counts = [len(base.weight.quant_state.absmax) for base in bases]
                scales = torch.split(cast(Tensor, self.scales), counts)
                for base, own in zip(bases, scales, strict=True):
                    base.weight.quant_state.absmax = own

    def dense(self, dtype: torch.dtype) -> Tensor:
        """[out, in]; 4-bit blocks are unpacked for one product and forgotten."""
        if self.scales is None:
            return self.weight
        shape = (sum(self.sizes), self.width)
        unpack = torch.ops.bitsandbytes.dequantize_4bit
        return cast(Tensor, unpack(self.weight, self.scales, BLOCK, "nf4", shape, dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """[tokens, in] to [tokens, out]."""
        trained = [part for adapter in self.adapters if adapter for part in adapter[:2]]
        out: Tensor = _Adapted.apply(x, self, *trained)
        return out if self.bias is None else out + self.bias

    def joint(self) -> tuple[Tensor, Tensor]:
        """All adapters as one: [ranks, in], and [out, ranks] with a block for each, scaled."""
        adapters = [adapter for adapter in self.adapters if adapter]
        blocks = [
            adapter[1] * adapter[2] if adapter else adapters[0][1].new_empty(size, 0)
            for size, adapter in zip(self.sizes, self.adapters, strict=True)
        ]
        return torch.cat([first for first, _, _ in adapters]), torch.block_diag(*blocks)

    def apart(self, grad_first: Tensor, grad_second: Tensor) -> list[Tensor]:
        """Gradients of the adapters from those of the joint ones."""
        grads = []
        column = row = 0
        for size, adapter in zip(self.sizes, self.adapters, strict=True):
            if adapter:
                ranks = slice(column, column + len(adapter[0]))
                grads += [grad_first[ranks], grad_second[row : row + size, ranks] * adapter[2]]
                column = ranks.stop
            row += size
        return grads


def _adapter(module: torch.nn.Module) -> tuple[Tensor, Tensor, float] | None:
    if not hasattr(module, "lora_A"):
        return None
    wrapped = cast(Any, module)
    (name,) = wrapped.active_adapters
    return wrapped.lora_A[name].weight, wrapped.lora_B[name].weight, float(wrapped.scaling[name])


class _Adapted(torch.autograd.Function):
    """x @ weightᵀ + (x @ firstᵀ) @ secondᵀ, where x is [tokens, in] and weight [out, in]; see Projection.joint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, projection: Projection, *trained: Tensor) -> Tensor:
        weight = projection.dense(x.dtype)
        ctx.projection = projection
        ctx.adapted = bool(trained)
        if not ctx.adapted:
            return x @ weight.t()
        first, second = projection.joint()
        inner = x @ first.t()
        ctx.save_for_backward(x, inner, first, second)
        return (inner @ second.t()).addmm_(x, weight.t())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        grad = grads[0].contiguous()
        weight = ctx.projection.dense(grad.dtype) if ctx.needs_input_grad[0] else None
        if not ctx.adapted:
            return None if weight is None else grad @ weight, None
        x, inner, first, second = ctx.saved_tensors
        through = grad @ second
        grad_x = None if weight is None else (through @ first).addmm_(grad, weight)
        return grad_x, None, *ctx.projection.apart(through.t() @ x, grad.t() @ inner)


class Packed(NamedTuple):
    """Rows end to end, as every layer sees them.

    Attributes:
        cos, sin: rotary positions, [tokens, head size].
        kept: tokens whose successor is to be predicted, [kept].
    """

    prefixes: Prefixes
    segments: Segments
    cos: Tensor
    sin: Tensor
    kept: Tensor


class Layer:
    """One decoder layer over rows that lie end to end."""

    def __init__(self, layer: torch.nn.Module, epsilon: float) -> None:
        own = cast(Any, layer)
        attention, mlp = own.self_attn, own.mlp
        self.norms: tuple[Tensor, Tensor] = (own.input_layernorm.weight, own.post_attention_layernorm.weight)
        self.epsilon = epsilon
        self.size = int(attention.head_dim)
        self.qkv = Projection([getattr(attention, name) for name in ATTENTION])
        self.out = Projection([attention.o_proj])
        self.gate_up = Projection([mlp.gate_proj, mlp.up_proj])
        self.down = Projection([mlp.down_proj])

    def __call__(
        self, hidden: Tensor, delta: Tensor | None, packed: Packed, *, last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The residual stream [nodes, hidden size], and what is to be added to it next.

        Args:
            delta: what the layer before adds.
            last: return the states of `packed.kept` alone, [kept, hidden size]; nobody looks at others.
        """
        hidden, x = add_norm(hidden, delta, self.norms[0], self.epsilon)
        query, key, _ = (size // self.size for size in self.qkv.sizes)
        qkv = packed.prefixes.spread(self.qkv(x))
        mixed = attended(qkv, packed.cos, packed.sin, (query, key), self.size, packed.segments)
        if last:
            mixed = mixed.index_select(0, packed.kept)
            hidden = hidden.index_select(0, packed.prefixes.nodes[packed.kept])
        else:
            mixed = packed.prefixes.gathered(mixed)
        hidden, x = add_norm(hidden, self.out(mixed), self.norms[1], self.epsilon)
        return hidden, self.down(gated(self.gate_up(x)))


class Trunk:
    """A model's layers, ready to train its adapter on packed rows.

    Args:
        model: a PEFT model over a Llama-like one.

    Attributes:
        checkpointed: keep each layer's input only and compute the rest again on the way back.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        inner = cast(Any, model).get_base_model()
        self.body = inner.model
        self.epsilon = float(inner.config.get_text_config().rms_norm_eps)
        self.head: Tensor = inner.get_output_embeddings().weight.detach()
        self.layers = [Layer(layer, self.epsilon) for layer in self.body.layers]
        self.checkpointed = False
        prepare(self.head)  # now, and not in the first step

    @staticmethod
    def fits(model: torch.nn.Module, longest: int) -> bool:
        """Whether this is all that the model's layers do to pairs of up to so many tokens."""
        config = cast(Any, model).get_base_model().config
        return config.model_type in FAMILIES and (getattr(config, "sliding_window", None) or longest) >= longest

    def losses(self, rows: Sequence[Row]) -> Tensor:
        """Cross-entropy summed over the answer tokens of each of some pairs, [rows], fp32."""
        device = self.head.device
        prefixes = Prefixes.of([row["input_ids"] for row in rows])
        # What follows a position is what it must predict; a pair's first label is IGNORED, so none predicts the next.
        labels = torch.tensor([*(label for row in rows for label in row["labels"]), IGNORED][1:])
        lengths = [len(row["input_ids"]) for row in rows]
        positions = torch.cat([torch.arange(length) for length in lengths])
        kept = (labels != IGNORED).nonzero()[:, 0]
        targets, kept, positions = (_moved(part, device) for part in (labels[kept], kept, positions))
        prefixes = Prefixes(*(_moved(part, device) for part in prefixes))
        hidden = self.body.embed_tokens(prefixes.ids)
        cos, sin = (part[0] for part in self.body.rotary_emb(hidden[None], positions[None]))
        hidden = self.hidden(hidden, Packed(prefixes, Segments.of(lengths, device), cos, sin, kept))
        return summed_by_row(_Losses.apply(hidden, self.head, targets), lengths, kept)

    def hidden(self, hidden: Tensor, packed: Packed) -> Tensor:
        """From embedded tokens, [nodes, hidden size], to normed states of those that are kept, [kept, hidden size]."""
        delta: Tensor | None = None
        for layer in self.layers:
            last = layer is self.layers[-1]
            if self.checkpointed:
                hidden = cast(Tensor, checkpoint(_summed, layer, hidden, packed, last, use_reentrant=False))
            else:
                hidden, delta = layer(hidden, delta, packed, last=last)
        return add_norm(hidden, delta, self.body.norm.weight, self.epsilon)[1]


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Through pinned memory, since any other copy to a GPU waits until all its work is done."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _summed(layer: Layer, hidden: Tensor, packed: Packed, last: bool) -> Tensor:
    hidden, delta = layer(hidden, None, packed, last=last)
    return hidden + delta


def summed_by_row(each: Tensor, lengths: Sequence[int], at: Tensor) -> Tensor:
    """[rows] from values at some tokens of rows that lie end to end. each and at: [values]."""
    rows = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return each.new_zeros(len(lengths)).index_add(0, _moved(rows, at.device)[at], each)


class _Losses(torch.autograd.Function):
    """The head is frozen, so its gradient is known together with the loss, and no logits outlive their chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        losses = []
        size = HEAD_ROWS[hidden.device.type]
        for at in range(0, len(hidden), size):
            rows = slice(at, at + size)
            loss, grad_logits = loss_and_gradient(hidden[rows] @ head.t(), targets[rows])
            losses.append(loss)
            if grad is not None:
                torch.mm(grad_logits, head, out=grad[rows])
        ctx.save_for_backward(grad)
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0][:, None].to(grad.dtype), None, None
