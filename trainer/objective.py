"""The loss of each row, on the fastest path that computes it exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainer.dataset import IGNORED, Row
from trainer.recipe import Recipe
from trainer.trunk import Trunk, summed_by_row


class Objective:
    """The cross-entropy of rows' answers given their prompts.

    One for a model: the trunk lays the weights out anew.

    Args:
        model: a PEFT model.
        pad: the token that fills rows where the recipe pads.

    Attributes:
        trunk: None where the model's own layers are used.
    """

    def __init__(self, model: torch.nn.Module, recipe: Recipe, pad: int) -> None:
        self.model, self.recipe, self.pad = model, recipe, pad
        fits = recipe.batching == "packed" and recipe.dropout == 0 and Trunk.fits(model, recipe.max_tokens)
        self.trunk = Trunk(model) if fits else None

    def checkpoint(self) -> None:
        """From now on keep each layer's input only, and compute the rest again on the way back."""
        if self.trunk:
            self.trunk.checkpointed = True
        else:
            cast(Any, self.model).gradient_checkpointing_enable({"use_reentrant": False})

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """Summed over each row's answer tokens, [rows], fp32."""
        return self.trunk.losses(rows) if self.trunk else self.plain(rows)

    def plain(self, rows: Sequence[Row]) -> Tensor:
        """The same through the model's own layers."""
        device = next(self.model.parameters()).device
        inputs, labels = packed(rows) if self.recipe.batching == "packed" else self._padded(rows)
        # What follows a position is what it must predict; the last position predicts nothing.
        targets = torch.cat([labels[:, 1:], torch.full((len(labels), 1), IGNORED)], 1)
        columns = (targets != IGNORED).any(0).nonzero()[:, 0]
        tensors = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
        logits = self.model(**tensors, logits_to_keep=columns.to(device), use_cache=False).logits
        wanted = targets[:, columns].to(device)
        each = cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED, reduction="none")
        if "segments" not in inputs:
            return each.view_as(wanted).sum(1)
        return summed_by_row(each, inputs["segments"], columns.to(device))

    def _padded(self, rows: Sequence[Row]) -> tuple[dict[str, Any], Tensor]:
        """Rows one below the other, [rows, longest]."""
        longest = max(len(row["input_ids"]) for row in rows)
        width = self.recipe.max_tokens if self.recipe.batching == "padded" else longest
        ids = [row["input_ids"] + [self.pad] * (width - len(row["input_ids"])) for row in rows]
        mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
        labels = [row["labels"] + [IGNORED] * (width - len(row["labels"])) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}, torch.tensor(labels)


def packed(rows: Sequence[Row]) -> tuple[dict[str, Any], Tensor]:
    """Rows end to end, [1, tokens]. A row's first label is always IGNORED, so none is predicted by its neighbour."""
    segments = tuple(len(row["input_ids"]) for row in rows)
    inputs = {
        "input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]]),
        "position_ids": torch.cat([torch.arange(length) for length in segments])[None],
        "segments": segments,
    }
    return inputs, torch.tensor([[label for row in rows for label in row["labels"]]])
