"""Whatever is packed, shared or computed twice: loss and gradients are the plain model's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import EXACT, objective, starter_data
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from trainer.dataset import IGNORED
from trainer.objective import Objective
from trainer.prefixes import Prefixes
from trainer.recipe import DEFAULT, Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

Found = tuple[float, dict[str, torch.Tensor]]


def loss_and_gradients(tiny_model: Path, recipe: Recipe, loss_of: Callable[[Objective], torch.Tensor]) -> Found:
    ours = objective(tiny_model, recipe)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in ours.model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide what reaches lora_A
            parameter.data.normal_(std=0.05, generator=generator)
    loss = loss_of(ours).sum()
    loss.backward()
    return loss.item(), {n: p.grad for n, p in ours.model.named_parameters() if p.grad is not None}


def assert_same(one: Found, other: Found) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        # Of a sum over hundreds of tokens; entries where they cancel have the rounding of those where they don't.
        largest = float(gradient.abs().max())
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=max(1e-4, 1e-5 * largest))


def test_every_batching_gives_the_loss_and_gradients_of_the_plain_model(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = list(starter_data(tokenizer).rows)
    padded, *others = (
        loss_and_gradients(tiny_model, replace(EXACT, batching=batching), lambda ours: ours.plain(rows))
        for batching in ("padded", "bucketed", "packed")
    )
    assert len(padded[1]) == 2 * 2 * len(DEFAULT.targets)
    for other in others:
        assert_same(other, padded)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("rows", ["one prompt each", "one prompt, two answers", "twice the same", "nothing in common"])
def test_the_trunk_gives_the_loss_and_gradients_of_the_plain_model(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, rows: str, checkpointed: bool
) -> None:
    some = list(starter_data(tokenizer).rows)
    if rows == "nothing in common":
        some = [{name: values[index:] for name, values in row.items()} for index, row in enumerate(some)]
    elif rows == "one prompt, two answers":
        prompt = some[0]["labels"].count(IGNORED)
        answers = [{name: values[prompt + 9 :] for name, values in row.items()} for row in some]
        some += [{name: [*some[0][name][: prompt + 4], *answer[name]] for name in answer} for answer in answers]
    elif rows == "twice the same":
        some = [*some, *some]
    recipe = replace(EXACT, batching="packed")
    shared = Prefixes.of([row["input_ids"] for row in some]).shared
    assert shared is (rows != "nothing in common")

    def through_the_trunk(ours: Objective) -> torch.Tensor:
        assert ours.trunk
        if checkpointed:
            ours.checkpoint()
        return ours(some)

    plain = loss_and_gradients(tiny_model, recipe, lambda ours: ours.plain(some))
    ours = loss_and_gradients(tiny_model, recipe, through_the_trunk)
    assert_same(ours, plain)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8))
def test_a_beginning_that_rows_share_is_held_once(rows: list[list[int]]) -> None:
    prefixes = Prefixes.of(rows)
    assert prefixes.ids[prefixes.nodes].tolist() == [token for row in rows for token in row]
    paths = [tuple(row[: length + 1]) for row in rows for length in range(len(row))]
    if prefixes.shared:
        assert len(prefixes.ids) == len(set(paths))
        assert len(set(zip(paths, prefixes.nodes.tolist(), strict=True))) == len(set(paths))
    states = torch.arange(len(prefixes.ids), dtype=torch.float32)[:, None].requires_grad_()
    spread = prefixes.spread(states)
    assert torch.equal(prefixes.gathered(spread), states)
    spread.sum().backward()
    assert states.grad is not None
    assert torch.equal(states.grad[:, 0], prefixes.nodes.bincount().float())


def test_the_loss_is_that_of_transformers_on_the_answer_alone(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    data = starter_data(tokenizer, 1)
    (row,) = data.rows
    ours = objective(tiny_model, EXACT)([row]).item()
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    theirs = plain(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss.item()
    assert ours / data.answer_tokens == pytest.approx(theirs, rel=1e-4)


def test_a_pair_in_a_packed_row_does_not_see_its_neighbours(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    ours = objective(tiny_model, EXACT)
    rows = list(starter_data(tokenizer).rows)[:3]
    for loss_of in (ours, ours.plain):
        together = loss_of(rows)
        torch.testing.assert_close(together, torch.cat([loss_of([row]) for row in rows]), rtol=1e-5, atol=1e-4)
