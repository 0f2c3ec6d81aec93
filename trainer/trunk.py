"""The decoder layers of Llama-like models over packed rows: the same arithmetic as the model's own, in fewer passes.

Projections that read the same input share one operation: their adapters read it once, and each matrix product adds
onto what lies there already, the adapter's part on the way forward and the other projections' gradients on the way
back. On a GPU the element-wise work between the products is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint

from trainer.attention import Segments, segments_attended
from trainer.dataset import IGNORED

Row = dict[str, list[int]]

GROUPS = (
    ("self_attn", ("q_proj", "k_proj", "v_proj")),
    ("self_attn", ("o_proj",)),
    ("mlp", ("gate_proj", "up_proj")),
    ("mlp", ("down_proj",)),
)
NORMS = ("input_layernorm", "post_attention_layernorm")
FAMILIES = ("llama", "mistral", "qwen2")  # RMS norms, rotary positions, a gated SiLU, and nothing else
HEAD_ROWS = 2048  # answer positions whose logits exist at once


@torch.library.custom_op("copydesk::adapted", mutates_args=())
def adapted(x: Tensor, weights: list[Tensor], scales: list[Tensor], a: Tensor, b: list[Tensor]) -> list[Tensor]:
    """Per projection x @ weightᵀ + (x @ aᵀ) @ bᵀ, and last x @ aᵀ.

    Args:
        x: [tokens, in].
        weights: frozen, [out, in] each, or 4-bit blocks with their `scales`.
        a: the adapters of all projections, [all ranks, in].
        b: [out, rank] each; rank 0 where a projection has no adapter.
    """
    inner = x @ a.t()
    outs, at = [], 0
    for index, up in enumerate(b):
        weight, rank = _dense(x, weights, scales, b, index), up.shape[1]
        if rank:
            outs.append((inner[:, at : at + rank] @ up.t()).addmm_(x, weight.t()))
        else:
            outs.append(x @ weight.t())
        at += rank
    return [*outs, inner]


@adapted.register_fake
def _(x: Tensor, weights: list[Tensor], scales: list[Tensor], a: Tensor, b: list[Tensor]) -> list[Tensor]:
    return [x.new_empty(x.shape[0], part.shape[0]) for part in (*b, a)]


@torch.library.custom_op("copydesk::adapted_backward", mutates_args=())
def adapted_backward(
    grads: list[Tensor],
    x: Tensor,
    inner: Tensor,
    weights: list[Tensor],
    scales: list[Tensor],
    a: Tensor,
    b: list[Tensor],
) -> list[Tensor]:
    """The gradients of x, of a and of each b."""
    through = torch.cat([grad @ up for grad, up in zip(grads, b, strict=True)], 1)
    grad_x = through @ a
    grad_b, at = [], 0
    for index, (grad, up) in enumerate(zip(grads, b, strict=True)):
        grad_x.addmm_(grad, _dense(x, weights, scales, b, index))
        grad_b.append(grad.t() @ inner[:, at : at + up.shape[1]])
        at += up.shape[1]
    return [grad_x, through.t() @ x, *grad_b]


@adapted_backward.register_fake
def _(
    grads: list[Tensor],
    x: Tensor,
    inner: Tensor,
    weights: list[Tensor],
    scales: list[Tensor],
    a: Tensor,
    b: list[Tensor],
) -> list[Tensor]:
    return [torch.empty_like(part, memory_format=torch.contiguous_format) for part in (x, a, *b)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, weights, scales, a, b = inputs
    ctx.counts = (len(weights), len(scales))
    ctx.save_for_backward(x, output[-1], a, *weights, *scales, *b)


def _backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    x, inner, a, *rest = ctx.saved_tensors
    products, scaled = ctx.counts
    weights, scales, b = rest[:products], rest[products : products + scaled], rest[products + scaled :]
    grad_x, grad_a, *grad_b = adapted_backward(
        [grad.contiguous() for grad in grads[:-1]], x, inner, weights, scales, a, b
    )
    return grad_x, [None] * products, [None] * scaled, grad_a, grad_b


torch.library.register_autograd("copydesk::adapted", _backward, setup_context=_save)


def _dense(x: Tensor, weights: list[Tensor], scales: list[Tensor], b: list[Tensor], index: int) -> Tensor:
    """A frozen weight as a matrix; 4-bit blocks are unpacked for one product and forgotten."""
    if not scales:
        return weights[index]
    shape = (b[index].shape[0], x.shape[1])
    return cast(
        Tensor,
        torch.ops.bitsandbytes.dequantize_4bit(weights[index], scales[index], BLOCK, "nf4", shape, x.dtype),
    )


BLOCK = 64  # weights that share a scale, bitsandbytes' own choice


class Projections(NamedTuple):
    """Frozen projections that read the same input, with their adapters; see `adapted`."""

    weights: list[Tensor]
    scales: list[Tensor]
    biases: list[Tensor | None]
    a: Tensor
    b: list[Tensor]

    @classmethod
    def of(cls, modules: Sequence[torch.nn.Module]) -> Projections:
        """From linear modules, plain or wrapped by PEFT. To be made anew for each row, since it holds A and B."""
        bases = [cast(Any, getattr(module, "base_layer", module)) for module in modules]
        adapters = [_adapter(module) for module in modules]
        a = [adapter[0] for adapter in adapters if adapter]
        like = next((part for part in a), bases[0].weight)
        return cls(
            weights=[base.weight.data for base in bases],
            scales=[base.weight.quant_state.absmax for base in bases if hasattr(base.weight, "quant_state")],
            biases=[base.bias for base in bases],
            a=torch.cat(a) if a else like.new_empty(0, bases[0].in_features),
            b=[
                adapter[1] * adapter[2] if adapter else like.new_empty(base.out_features, 0)
                for adapter, base in zip(adapters, bases, strict=True)
            ],
        )

    def outputs(self, x: Tensor) -> list[Tensor]:
        *outs, _ = adapted(x, self.weights, self.scales, self.a, self.b)
        return [out if bias is None else out + bias for out, bias in zip(outs, self.biases, strict=True)]


def _adapter(module: torch.nn.Module) -> tuple[Tensor, Tensor, float] | None:
    if not hasattr(module, "lora_A"):
        return None
    wrapped = cast(Any, module)
    (name,) = wrapped.active_adapters
    return wrapped.lora_A[name].weight, wrapped.lora_B[name].weight, float(wrapped.scaling[name])


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """In fp32, rounded before the weight, as the models do it."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)).to(x.dtype)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions. x: [tokens, heads, head size]; cos and sin: [tokens, 1, head size], sin negative in the first
    half, so that swapping the halves is an index and no copy."""
    return x * cos + x.unflatten(-1, (2, -1)).flip(-2).flatten(-2) * sin


def decoder_layer(
    hidden: Tensor,
    norms: tuple[Tensor, Tensor],
    projections: tuple[Projections, Projections, Projections, Projections],
    cos: Tensor,
    sin: Tensor,
    segments: Segments,
    head_size: int,
    epsilon: float,
    kept: Tensor | None,
) -> Tensor:
    """One layer over segments that lie end to end.

    Args:
        hidden: [tokens, hidden size].
        kept: positions that anybody looks at afterwards; None keeps all.
    """
    qkv, out, gate_up, down = projections
    query, key, value = (
        part.unflatten(-1, (-1, head_size)) for part in qkv.outputs(rms_norm(hidden, norms[0], epsilon))
    )
    mixed = segments_attended(rotated(query, cos, sin), rotated(key, cos, sin), value, segments).flatten(1)
    if kept is not None:
        mixed, hidden = mixed[kept], hidden[kept]
    hidden = hidden + out.outputs(mixed)[0]
    gate, up = gate_up.outputs(rms_norm(hidden, norms[1], epsilon))
    return hidden + down.outputs(silu(gate) * up)[0]


class Trunk:
    """A model's layers, ready to train its adapter on packed rows.

    Args:
        model: a PEFT model over a Llama-like one.
        compiled: compile the layers' element-wise work; pays on a GPU, and takes some seconds at the first row.
        checkpointed: keep each layer's input only and compute the rest again on the way back.
    """

    def __init__(self, model: torch.nn.Module, *, compiled: bool = False, checkpointed: bool = False) -> None:
        inner = cast(Any, model).get_base_model()
        self.body = inner.model
        self.epsilon = float(inner.config.get_text_config().rms_norm_eps)
        self.head: Tensor = inner.get_output_embeddings().weight.detach()
        self.head_size = int(self.body.layers[0].self_attn.head_dim)
        self.checkpointed = checkpointed
        self.layer: Callable[..., Tensor] = torch.compile(decoder_layer, dynamic=True) if compiled else decoder_layer
        self.head_loss = torch.compile(_head_loss, dynamic=True) if compiled else _head_loss

    @staticmethod
    def fits(model: torch.nn.Module, longest: int) -> bool:
        """Whether this is all that the model's layers do to pairs of up to so many tokens."""
        config = cast(Any, model).get_base_model().config
        return config.model_type in FAMILIES and (getattr(config, "sliding_window", None) or longest) >= longest

    def loss(self, rows: Sequence[Row], longest: int) -> Tensor:
        """Cross-entropy summed over the answer tokens of some pairs, none of which is longer than `longest`."""
        device = self.head.device
        ids = torch.tensor([token for row in rows for token in row["input_ids"]])
        # What follows a position is what it must predict; a pair's first label is IGNORED, so none predicts the next.
        labels = torch.tensor([*(label for row in rows for label in row["labels"]), IGNORED][1:])
        lengths = [len(row["input_ids"]) for row in rows]
        positions = torch.cat([torch.arange(length) for length in lengths])
        segments = Segments.of(lengths, device, longest)
        if device.type == "cuda":
            segments = segments._replace(lengths=())
        kept = (labels != IGNORED).nonzero()[:, 0]
        hidden = self.hidden(ids.to(device), positions.to(device), segments, kept.to(device))
        return cast(Tensor, _SummedLoss.apply(hidden, self.head, labels[kept].to(device), self.head_loss))

    def hidden(self, ids: Tensor, positions: Tensor, segments: Segments, kept: Tensor) -> Tensor:
        """The normed hidden states at some positions, [kept, hidden size]. ids and positions: [tokens]."""
        hidden: Tensor = self.body.embed_tokens(ids)
        cos, sin = self.body.rotary_emb(hidden[None], positions[None])
        cos, sin = cos[0, :, None], sin[0, :, None].clone()
        sin[..., : self.head_size // 2].neg_()
        for layer in self.body.layers:
            arguments = (
                tuple(getattr(layer, norm).weight for norm in NORMS),
                tuple(
                    Projections.of([getattr(getattr(layer, part), name) for name in names]) for part, names in GROUPS
                ),
                *(cos, sin, segments, self.head_size, self.epsilon),
                # Nobody looks at the prompt's outputs of the last layer, so they are not computed.
                kept if layer is self.body.layers[-1] else None,
            )
            if self.checkpointed:
                hidden = cast(Tensor, checkpoint(self.layer, hidden, *arguments, use_reentrant=False))
            else:
                hidden = self.layer(hidden, *arguments)
        return rms_norm(hidden, self.body.norm.weight, self.epsilon)


def _head_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The summed loss and its gradient with respect to the logits [positions, vocabulary]."""
    wide = logits.float()
    loss = wide.logsumexp(-1) - wide.gather(1, targets[:, None])[:, 0]
    wanted = torch.arange(logits.shape[1], device=logits.device)[None] == targets[:, None]
    return loss.sum(), (wide.softmax(-1) - wanted.to(wide.dtype)).to(logits.dtype)


class _SummedLoss(torch.autograd.Function):
    """The head is frozen, so its gradient is known together with the loss, and no logits outlive their chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, head_loss: Any) -> Tensor:
        grad = torch.empty_like(hidden)
        total = hidden.new_zeros((), dtype=torch.float32)
        for at in range(0, len(hidden), HEAD_ROWS):
            rows = slice(at, at + HEAD_ROWS)
            loss, grad_logits = head_loss(hidden[rows] @ head.t(), targets[rows])
            total += loss
            torch.mm(grad_logits, head, out=grad[rows])
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0], None, None, None
