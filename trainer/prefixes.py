"""Rows that begin alike, held once.

Every brief opens with the desk's system line, and one that was corrected twice with all of its prompt. A token's hidden
state depends on the tokens up to it alone, so states of a common beginning need their matrix products only once a step.
Attention, a small part of the work, still sees every row whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

WORTH = 0.05  # share of the tokens below which copying states to and fro costs more than the products that it saves


class Prefixes(NamedTuple):
    """The tokens of some rows as a tree. A node is a token after a certain beginning, and rows are paths.

    Attributes:
        ids: the token of every node, [nodes].
        nodes: the node of every token of the rows, end to end, [tokens]; it is `arange` where nothing is shared.
        firsts: the first token at every node, [nodes].
        repeated: nodes with more than one token, [repeated].
        repeats: tokens at those nodes, the first ones too, [repeats].
        slots: which of `repeated` each of `repeats` is at, [repeats].
    """

    ids: Tensor
    nodes: Tensor
    firsts: Tensor
    repeated: Tensor
    repeats: Tensor
    slots: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Prefixes:
        known: dict[tuple[int, int], int] = {}
        ids: list[int] = []
        nodes: list[int] = []
        firsts: list[int] = []
        for row in rows:
            node = -1
            for token in row:
                node = known.setdefault((node, token), len(ids))
                if node == len(ids):
                    ids.append(token)
                    firsts.append(len(nodes))
                nodes.append(node)
        if len(ids) > (1 - WORTH) * len(nodes):
            ids = [token for row in rows for token in row]
            nodes = firsts = list(range(len(ids)))
        at = torch.tensor(nodes, dtype=torch.long)
        counts = at.bincount(minlength=len(ids))
        repeats = (counts[at] > 1).nonzero()[:, 0]
        repeated, slots = torch.unique(at[repeats], return_inverse=True)
        return cls(torch.tensor(ids), at, torch.tensor(firsts), repeated, repeats, slots)

    @property
    def shared(self) -> bool:
        return len(self.ids) < len(self.nodes)

    def spread(self, states: Tensor) -> Tensor:
        """States of nodes, [nodes, width], as states of tokens, [tokens, width]."""
        return cast(Tensor, _Spread.apply(states, self)) if self.shared else states

    def gathered(self, states: Tensor) -> Tensor:
        """The other way: what a beginning's tokens have is the same in every row, so one of them is taken."""
        return states.index_select(0, self.firsts) if self.shared else states


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, prefixes: Prefixes) -> Tensor:
        ctx.prefixes = prefixes
        return states.index_select(0, prefixes.nodes)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        """A node's gradient is the sum of its tokens', added up in fp32 since there may be many of them."""
        (grad,) = grads
        prefixes: Prefixes = ctx.prefixes
        sums = torch.zeros(len(prefixes.repeated), grad.shape[1], dtype=torch.float32, device=grad.device)
        sums.index_add_(0, prefixes.slots, grad.index_select(0, prefixes.repeats).float())
        out = grad.index_select(0, prefixes.firsts)
        return out.index_copy_(0, prefixes.repeated, sums.to(grad.dtype)), None
