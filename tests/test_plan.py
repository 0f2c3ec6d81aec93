"""What a fit will hold in memory, decided before it starts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from serving.records import CopydeskError
from trainer.plan import GIB, memory_plan, token_bytes
from trainer.recipe import DEFAULT

SHAPE_7B = SimpleNamespace(
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    intermediate_size=11008,
    vocab_size=32000,
)


class Model(torch.nn.Module):
    """As much as a plan looks at: a configuration and two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(get_text_config=lambda: SHAPE_7B)
        self.base = torch.nn.Parameter(torch.empty(8, dtype=torch.bfloat16), requires_grad=False)
        self.adapter = torch.nn.Parameter(torch.empty(8, dtype=torch.bfloat16))


def plan_with(gib: float, longest: int = 400, shrink: int = 1):  # type: ignore[no-untyped-def]
    return memory_plan(Model(), DEFAULT, longest=longest, step_tokens=9000, shrink=shrink, free=int(gib * GIB))


def test_a_token_of_a_7b_shape_takes_what_was_measured() -> None:
    whole, kept = token_bytes(SHAPE_7B, DEFAULT, 2)
    assert whole == pytest.approx(4.22e6, rel=0.05)
    assert kept == 4096 * 32 * 2
    narrow, _ = token_bytes(SHAPE_7B, replace(DEFAULT, targets=("q_proj", "v_proj")), 2)
    assert narrow < 0.85 * whole


def test_nothing_is_computed_twice_where_memory_allows() -> None:
    assert not plan_with(24).checkpointed


def test_little_memory_turns_checkpointing_on() -> None:
    plan = plan_with(1.5)
    assert plan.checkpointed
    assert 400 <= plan.row_tokens <= 1280
    assert "each layer computed twice" in str(plan)


def test_after_memory_ran_out_fewer_tokens_are_held() -> None:
    assert plan_with(24, longest=100, shrink=2).row_tokens <= plan_with(24, longest=100).row_tokens // 2


def test_a_pair_that_fits_no_way_is_refused_before_training() -> None:
    with pytest.raises(CopydeskError, match="take recipe qlora, a smaller base model"):
        plan_with(0.6, longest=2000)
