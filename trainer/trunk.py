"""The decoder layers of Llama-like models, with frozen projections that share an input fused into one matrix.

The same arithmetic as the model's own forward with its adapter, in fewer and larger matrix products: q, k and v are one
product, gate and up another, and the adapters of both read their input once. On a GPU each layer's element-wise work is
compiled, and the products go straight to the library, each adding onto its adapter's part where that lies already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import linear, silu
from torch.utils.checkpoint import checkpoint

from trainer.attention import Segments, segments_attended
from trainer.dataset import IGNORED

Row = dict[str, list[int]]

GROUPS = (("self_attn", ("q_proj", "k_proj", "v_proj")), ("self_attn", ("o_proj",)))
GROUPS += (("mlp", ("gate_proj", "up_proj")), ("mlp", ("down_proj",)))
NORMS = ("input_layernorm", "post_attention_layernorm")
HEAD_ROWS = 2048  # answer positions whose logits exist at once


@torch.library.custom_op("copydesk::adapted", mutates_args=())
def adapted(x: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x @ weightᵀ + (x @ aᵀ) @ bᵀ, and x @ aᵀ. x: [tokens, in], weight: [out, in], a: [rank, in], b: [out, rank]."""
    inner = x @ a.t()
    out = inner @ b.t()
    # The product adds onto what is there, so the adapter's part costs no pass over memory of its own.
    return out.addmm_(x, weight.t()), inner


@adapted.register_fake
def _(x: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], weight.shape[0]), x.new_empty(x.shape[0], a.shape[0])


@torch.library.custom_op("copydesk::adapted_backward", mutates_args=())
def adapted_backward(
    grad: Tensor, x: Tensor, inner: Tensor, weight: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, a and b."""
    through = grad @ b
    grad_x = (through @ a).addmm_(grad, weight)
    return grad_x, through.t() @ x, grad.t() @ inner


@adapted_backward.register_fake
def _(grad: Tensor, x: Tensor, inner: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(a), torch.empty_like(b)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, a, b = inputs
    ctx.save_for_backward(x, output[1], weight, a, b)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
    x, inner, weight, a, b = ctx.saved_tensors
    grad_x, grad_a, grad_b = adapted_backward(grad.contiguous(), x, inner, weight, a, b)
    return grad_x, None, grad_a, grad_b


torch.library.register_autograd("copydesk::adapted", _backward, setup_context=_save)


class Projection:
    """Projections that read the same input, as one frozen weight and one adapter.

    Attributes:
        weight: [out, in], frozen; the modules' own weights become views of it.
        adapters: per module, its LoRA A [rank, in], B [out, rank] and scaling, or None.
    """

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        bases = [cast(torch.nn.Linear, getattr(module, "base_layer", module)) for module in modules]
        self.sizes = [base.out_features for base in bases]
        self.adapters = [_adapter(module) for module in modules]
        biases = [base.bias for base in bases]
        self.bias = None if biases[0] is None else torch.cat([bias.detach() for bias in biases])
        self.weight = bases[0].weight.detach()
        if len(bases) > 1:
            self.weight = torch.cat([base.weight.detach() for base in bases])
            for base, part in zip(bases, self.weight.split(self.sizes), strict=True):
                base.weight = torch.nn.Parameter(part, requires_grad=False)

    @property
    def tensors(self) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Weight, bias, A [all ranks, in] and scaled B [out, all ranks]; B is block-diagonal."""
        if not any(self.adapters):
            return self.weight, self.bias, None, None
        blocks = []
        for size, adapter in zip(self.sizes, self.adapters, strict=True):
            blocks.append(adapter[1] * adapter[2] if adapter else self.weight.new_zeros(size, 0))
        a = [adapter[0] for adapter in self.adapters if adapter]
        if len(blocks) == 1:
            return self.weight, self.bias, a[0], blocks[0]
        return self.weight, self.bias, torch.cat(a), torch.block_diag(*blocks)


def _adapter(module: torch.nn.Module) -> tuple[Tensor, Tensor, float] | None:
    if not hasattr(module, "lora_A"):
        return None
    (name,) = cast(Any, module).active_adapters
    wrapped = cast(Any, module)
    return wrapped.lora_A[name].weight, wrapped.lora_B[name].weight, float(wrapped.scaling[name])


Tensors = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]


def project(x: Tensor, tensors: Tensors) -> Tensor:
    weight, bias, a, b = tensors
    if a is None or b is None:
        return linear(x, weight, bias)
    out, _ = adapted(x, weight, a, b)
    return out if bias is None else out + bias


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """In fp32, rounded before the weight, as the models do it."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)).to(x.dtype)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions. x: [tokens, heads, head size]; cos and sin: [tokens, 1, head size]."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin


def decoder_layer(
    hidden: Tensor,
    norms: tuple[Tensor, Tensor],
    projections: tuple[Tensors, Tensors, Tensors, Tensors],
    cos: Tensor,
    sin: Tensor,
    segments: Segments,
    heads: tuple[int, int, int],
    epsilon: float,
    kept: Tensor | None,
) -> Tensor:
    """One layer over segments that lie end to end.

    Args:
        hidden: [tokens, hidden size].
        heads: query heads, key-value heads, head size.
        kept: positions that anybody looks at afterwards; None keeps all.
    """
    queries, keys, size = heads
    qkv = project(rms_norm(hidden, norms[0], epsilon), projections[0]).unflatten(-1, (queries + 2 * keys, size))
    query, key, value = qkv.split((queries, keys, keys), 1)
    mixed = segments_attended(rotated(query, cos, sin), rotated(key, cos, sin), value, segments).flatten(1)
    if kept is not None:
        mixed, hidden = mixed[kept], hidden[kept]
    hidden = hidden + project(mixed, projections[1])
    gate, up = project(rms_norm(hidden, norms[1], epsilon), projections[2]).chunk(2, -1)
    return hidden + project(silu(gate) * up, projections[3])


class Trunk:
    """A model's layers, ready to train its adapter on packed rows.

    Args:
        model: a PEFT model over a Llama-like one; its projections' weights become views of fused ones.
        compiled: compile the layers' element-wise work; pays on a GPU, and takes some seconds at the first row.
        checkpointed: keep each layer's input only and compute the rest again on the way back.
    """

    def __init__(self, model: torch.nn.Module, *, compiled: bool = False, checkpointed: bool = False) -> None:
        inner = cast(Any, model).get_base_model()
        self.body = inner.model
        self.config = inner.config.get_text_config()
        self.head: Tensor = inner.get_output_embeddings().weight.detach()
        self.checkpointed = checkpointed
        self.layers = [
            (
                tuple(getattr(layer, norm).weight for norm in NORMS),
                tuple(Projection([getattr(getattr(layer, part), name) for name in names]) for part, names in GROUPS),
            )
            for layer in self.body.layers
        ]
        attention = self.body.layers[0].self_attn
        size = int(attention.head_dim)
        self.heads = (self.config.num_attention_heads, self.config.num_key_value_heads, size)
        self.layer = torch.compile(decoder_layer, dynamic=True) if compiled else decoder_layer
        self.head_loss = torch.compile(_head_loss, dynamic=True) if compiled else _head_loss

    @staticmethod
    def fits(model: torch.nn.Module) -> bool:
        """Whether the layers are what this module computes: RMS norms, rotary positions, a gated SiLU."""
        inner = cast(Any, model).get_base_model()
        layers = getattr(getattr(inner, "model", None), "layers", [])
        return inner.config.model_type in ("llama", "mistral", "qwen2") and len(layers) > 0

    def loss(self, rows: Sequence[Row], longest: int) -> Tensor:
        """Cross-entropy summed over the answer tokens of some pairs, none of which is longer than `longest`."""
        device = self.head.device
        ids = torch.tensor([token for row in rows for token in row["input_ids"]])
        # What follows a position is what it must predict; a pair's first label is IGNORED, so no pair predicts the next.
        labels = torch.tensor([label for row in rows for label in row["labels"]][1:] + [IGNORED])
        lengths = [len(row["input_ids"]) for row in rows]
        positions = torch.cat([torch.arange(length) for length in lengths])
        segments = Segments.of(lengths, device, longest)
        if device.type == "cuda":
            segments = segments._replace(lengths=())
        kept = (labels != IGNORED).nonzero()[:, 0]
        hidden = self.hidden(ids.to(device), positions.to(device), segments, kept.to(device))
        return self.summed_loss(hidden, labels[kept].to(device))

    def hidden(self, ids: Tensor, positions: Tensor, segments: Segments, kept: Tensor) -> Tensor:
        """The normed hidden states at some positions, [kept, hidden size]. ids and positions: [tokens]."""
        embedded = self.body.embed_tokens(ids)
        cos, sin = self.body.rotary_emb(embedded[None], positions[None])
        cos, sin = cos[0, :, None], sin[0, :, None]
        hidden, last = embedded, len(self.layers) - 1
        for index, (norms, projections) in enumerate(self.layers):
            tensors = tuple(projection.tensors for projection in projections)
            # Nobody looks at the prompt's outputs of the last layer, so they are not computed.
            arguments = (norms, tensors, cos, sin, segments, self.heads, self.config.rms_norm_eps)
            looked_at = kept if index == last else None
            if self.checkpointed:
                hidden = checkpoint(self.layer, hidden, *arguments, looked_at, use_reentrant=False)
            else:
                hidden = self.layer(hidden, *arguments, looked_at)
        return rms_norm(hidden, self.body.norm.weight, self.config.rms_norm_eps)

    def summed_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy over the vocabulary, summed; the logits of HEAD_ROWS positions exist at once."""
        return cast(Tensor, _SummedLoss.apply(hidden, self.head, targets, self.head_loss))


def _head_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The summed loss and its gradient with respect to the logits [positions, vocabulary]."""
    wide = logits.float()
    shares = wide.softmax(-1)
    loss = wide.logsumexp(-1) - wide.gather(1, targets[:, None])[:, 0]
    columns = torch.arange(logits.shape[1], device=logits.device)
    grad = shares - (columns[None] == targets[:, None]).to(shares.dtype)
    return loss.sum(), grad.to(logits.dtype)


class _SummedLoss(torch.autograd.Function):
    """The head is frozen, so its gradient is known with the loss and the logits never outlive it."""

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
