"""The stage after the pairs: learn what people preferred, DPO from corrections or KTO from 👍 and 👎.

The reference is the adapter as the pairs left it, so that a correction which the pairs taught already gives no reason
to move on. Its log-probabilities are computed once, before the first step; no second model is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedTokenizerBase

from serving.held_out import suite_keys
from serving.store import Store
from trainer.dataset import IGNORED, Row, TrainingData, end_token, row_of, too_long
from trainer.group import Group
from trainer.judgements import Judgements, corrections, opinions
from trainer.lora import batches, hidden_size
from trainer.objective import Objective
from trainer.plan import memory_plan
from trainer.recipe import Recipe


def judgements_for(
    recipe: Recipe, store: Store, data: TrainingData, tokenizer: PreTrainedTokenizerBase, language: str | None
) -> Judgements:
    """What the recipe's preference stage learns from; those that may not train or do not fit are left out by name."""
    if recipe.preference is None:
        return Judgements()
    if recipe.preference.kind == "dpo":
        found = corrections(store, data.pairs, data.skipped)
    else:
        found = opinions(store, data.pairs, data.skipped, suite_keys(), language)
    end = end_token(tokenizer)
    texts = [(one.draft_id, one.task, one.rejected) for one in found.choices]
    texts += [(one.draft_id, one.task, one.text) for one in found.opinions]
    long = {
        draft_id: reason
        for draft_id, task, text in texts
        if (reason := too_long(row_of(task, text, tokenizer, end), tokenizer, recipe.max_tokens))
    }
    return found.without(long).if_enough()


def preference_stage(
    objective: Objective, judgements: Judgements, tokenizer: PreTrainedTokenizerBase, group: Group, shrink: int
) -> Preferences | None:
    """The stage of a recipe, if it has one and there are judgements for it."""
    if judgements.choices or judgements.opinions:
        return Preferences(objective, judgements, tokenizer, group, shrink)
    return None


class Preferences:
    """A `trainer.lora.Stage` over judgements. Each is two rows: what people wrote and the draft for DPO; for KTO the
    draft and the judgement before's draft under this one's brief, which tells how far the model has moved anyway.
    """

    def __init__(
        self,
        objective: Objective,
        judgements: Judgements,
        tokenizer: PreTrainedTokenizerBase,
        group: Group,
        shrink: int,
    ) -> None:
        recipe = objective.recipe
        assert recipe.preference is not None
        self.objective = objective
        self.how = recipe.preference
        self.group = group
        end = end_token(tokenizer)
        self.rows: list[tuple[Row, Row]]
        if self.how.kind == "dpo":
            self.rows = [
                (row_of(one.task, one.chosen, tokenizer, end), row_of(one.task, one.rejected, tokenizer, end))
                for one in judgements.choices
            ]
        else:
            all = judgements.opinions
            self.rows = [
                (row_of(one.task, one.text, tokenizer, end), row_of(one.task, other.text, tokenizer, end))
                for one, other in zip(all, [*all[-1:], *all[:-1]], strict=True)
            ]
        self.liked = torch.tensor([one.liked for one in judgements.opinions])
        firsts = [first for first, _ in self.rows]
        self.plan = batches(firsts, replace(recipe, epochs=self.how.epochs, batch_pairs=self.how.batch, min_steps=0))
        self.rate = recipe.learning_rate_for(hidden_size(objective.model)) * self.how.rate
        sizes = [self.tokens([index]) for index in range(len(self.rows))]
        step_tokens = max(sum(sizes[index] for index in batch) for batch in self.plan)
        # The model's own layers and whole logits hold up to twice what the plan counts for trainer.trunk.
        shrink = shrink if objective.trunk else 2 * shrink
        self.memory = memory_plan(objective.model, recipe, longest=max(sizes), step_tokens=step_tokens, shrink=shrink)
        if self.memory.checkpointed:
            objective.checkpoint()
        self.reference = torch.empty(0)
        self.margins: list[float] = []  # of every judgement since the start, in the order of training

    def begin(self) -> None:
        everything = [self._log_probs(part) for part in self._parts(range(len(self.rows)))]
        self.reference = torch.cat(everything) if everything else self.reference

    def state(self) -> dict[str, Tensor]:
        return {"reference": self.reference, "margins": torch.tensor(self.margins)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.reference = tensors.pop("reference")
        self.margins = tensors.pop("margins", torch.empty(0)).tolist()  # checkpoints of the first release had none

    def tokens(self, batch: Sequence[int]) -> int:
        return sum(len(row["input_ids"]) for index in batch for row in self.rows[index])

    def losses(self, batch: Sequence[int]) -> Iterator[Tensor]:
        """Rafailov et al. (2023), eq. 7, with the chosen texts' cross-entropy; Ethayarajh et al. (2024), eq. 8."""
        mine = self.group.share(batch)
        drift = self._drift(mine, len(batch)) if self.how.kind == "kto" else 0.0
        answers = sum(answer_tokens(self.rows[index][0]) for index in batch)
        for part in self._parts(mine):
            reference = self.reference[part]
            if self.how.kind == "dpo":
                log_probs = self._both(part)
                ratios = log_probs - reference.to(log_probs)
                margins = self.how.beta * (ratios[:, 0] - ratios[:, 1])
                loss = -logsigmoid(margins).sum() / len(batch) - self.how.answers * log_probs[:, 0].sum() / answers
            else:
                log_probs = -self.objective([self.rows[index][0] for index in part])
                liked = self.liked[part].to(log_probs.device)
                ratios = log_probs - reference[:, 0].to(log_probs)
                margins = self.how.beta * torch.where(liked, ratios - drift, drift - ratios)
                loss = (self._weights(liked) * (1 - margins.sigmoid())).sum() / len(batch)
            self.margins += margins.detach().tolist()
            yield loss

    @property
    def facts(self) -> dict[str, Any]:
        """Margins are β times log-ratios: how much more than the reference the model agrees with people."""
        last = self.margins[-len(self.rows) :]
        return {
            "preference_steps": len(self.plan),
            "preference_rate": self.rate,
            "preference_margin_last": round(sum(last) / len(last), 4),
            "preference_agrees": round(sum(margin > 0 for margin in last) / len(last), 4),
        }

    def _weights(self, liked: Tensor) -> Tensor:
        """The rarer side counts so much more that both weigh the same."""
        likes = int(self.liked.sum())
        dislikes = len(self.liked) - likes
        most = max(likes, dislikes)
        return torch.where(liked, most / likes, most / dislikes)

    def _drift(self, mine: Sequence[int], size: int) -> float:
        """The mean log-ratio of other briefs' drafts over the whole step, at least 0."""
        moved = sum(
            (self._log_probs(part)[:, 1] - self.reference[part][:, 1]).sum().item() for part in self._parts(mine)
        )
        return max(0.0, self.group.total(moved) / size)

    @torch.no_grad()
    def _log_probs(self, part: Sequence[int]) -> Tensor:
        """Of both rows of some judgements, [judgements, 2], without dropout."""
        model = self.objective.model
        was = model.training
        model.eval()
        found = self._both(part).cpu()
        model.train(was)
        return found

    def _both(self, part: Sequence[int]) -> Tensor:
        """The same, with gradients."""
        return -self.objective([row for index in part for row in self.rows[index]]).view(-1, 2)

    def _parts(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """Judgements in order, cut where their rows would need too much memory at once."""
        part: list[int] = []
        for index in indices:
            if part and self.tokens([*part, index]) > self.memory.row_tokens:
                yield part
                part = []
            part.append(index)
        if part:
            yield part


def answer_tokens(row: Row) -> int:
    return sum(label != IGNORED for label in row["labels"][1:])
