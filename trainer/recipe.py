"""A round's hyper-parameters: frozen, checked before anything is loaded, saved with the round."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from serving.records import CopydeskError
from serving.registry import TARGETS

Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["bf16", "fp16", "fp32"]
Batching = Literal["padded", "bucketed", "packed"]
Kind = Literal["dpo", "kto"]

RANKS = (1, 8, 16)  # what vLLM takes, up to the --max-lora-rank that the engine starts with

SIZE_EXPONENT = 0.78
OPTIONAL = {"max_grad_norm", "min_steps", "reference_hidden", "preference", "bits"}


@dataclass(frozen=True)
class Preference:
    """A second stage that learns from what people preferred; its reference is the adapter as the first stage left it.

    Attributes:
        kind: "dpo" takes corrections over their drafts (Rafailov et al., 2023), "kto" takes 👍 and 👎 (Ethayarajh et
            al., 2024).
        beta: how dearly the model pays for moving away from the reference.
        rate: times the recipe's learning rate.
        batch: judgements in an optimiser step.
        answers: weight of the chosen texts' own cross-entropy, which keeps DPO from lowering the likelihood of both
            sides (Pang et al., 2024); "kto" has none.

    Raises:
        CopydeskError: a value that cannot train.
    """

    kind: Kind
    beta: float = 0.1
    rate: float = 0.1
    epochs: int = 1
    batch: int = 8
    answers: float = 1.0

    def __post_init__(self) -> None:
        checks = (
            (self.kind in get_args(Kind), f"kind must be one of {_list(get_args(Kind))}"),
            (self.beta > 0, f"beta must be positive, not {self.beta}"),
            (0 < self.rate <= 1, f"rate is a share of the learning rate in (0, 1], not {self.rate}"),
            (self.epochs >= 1, f"epochs must be at least 1, not {self.epochs}"),
            (self.batch >= 2, f"batch must be at least 2, not {self.batch}"),
            (self.answers >= 0, f"answers must not be negative, but is {self.answers}"),
        )
        if wrong := [message for holds, message in checks if not holds]:
            raise CopydeskError(f"Preference stage: {'; '.join(wrong)}.")


@dataclass(frozen=True)
class Recipe:
    """What a round does with its pairs.

    Attributes:
        alpha: the update is scaled by alpha / rank.
        learning_rate: the highest. With `reference_hidden` it is that of a base of this hidden size, and falls with
            the size of the base by (reference / hidden) ** 0.78, which was fitted on Llama shapes.
        batch_pairs: pairs in an optimiser step, whatever the batching.
        min_steps: smaller batches are taken where the pairs would give fewer optimiser steps; 0 takes any number.
        warm_up: share of the steps in which the learning rate rises.
        max_tokens: longer pairs (prompt and answer) are left out by name.
        batching: "padded" fills every pair up to max_tokens, "bucketed" batches pairs of like length and pads to
            the longest, "packed" lays the pairs of a step end to end without padding; the loss is the same.
        preference: a further stage; None ends with the pairs.
        bits: of a base weight while training; 4 takes a quarter of the memory, on an NVIDIA GPU.

    Raises:
        CopydeskError: a value that cannot train, or that vLLM could not serve.
    """

    name: str
    rank: int
    alpha: int
    targets: tuple[str, ...]
    dropout: float
    learning_rate: float
    epochs: int
    batch_pairs: int
    warm_up: float
    schedule: Schedule
    max_tokens: int
    seed: int
    precision: Precision
    batching: Batching
    max_grad_norm: float = 1.0
    min_steps: int = 0
    reference_hidden: int | None = None
    preference: Preference | None = None
    bits: int = 16

    def __post_init__(self) -> None:
        unknown = set(self.targets) - set(TARGETS)
        checks = (
            (self.rank in RANKS, f"rank {self.rank} cannot be served by vLLM; take one of {_list(RANKS)}"),
            (not unknown, f"unknown target modules {_list(sorted(unknown))}; there are {_list(TARGETS)}"),
            (bool(self.targets), f"no target modules; take some of {_list(TARGETS)}"),
            (self.alpha > 0, f"alpha must be positive, not {self.alpha}"),
            (0 <= self.dropout < 1, f"dropout must be in [0, 1), not {self.dropout}"),
            (0 < self.learning_rate < 1, f"learning_rate must be in (0, 1), not {self.learning_rate}"),
            (self.epochs >= 1, f"epochs must be at least 1, not {self.epochs}"),
            (self.batch_pairs >= 1, f"batch_pairs must be at least 1, not {self.batch_pairs}"),
            (0 <= self.warm_up < 1, f"warm_up is a share of the steps in [0, 1), not {self.warm_up}"),
            (self.max_tokens >= 16, f"max_tokens must be at least 16, not {self.max_tokens}"),
            (self.bits in (4, 16), f"bits must be 4 or 16, not {self.bits}"),
            (self.min_steps >= 0, f"min_steps must not be negative, but is {self.min_steps}"),
            ((self.reference_hidden or 1) > 0, f"reference_hidden must be positive, not {self.reference_hidden}"),
            (
                self.preference is None or self.batching == "packed",
                f'a preference stage needs batching "packed", not "{self.batching}"',
            ),
            (self.max_grad_norm > 0, f"max_grad_norm must be positive, not {self.max_grad_norm}"),
            *(
                (getattr(self, field) in get_args(kind), f"{field} must be one of {_list(get_args(kind))}")
                for field, kind in (("schedule", Schedule), ("precision", Precision), ("batching", Batching))
            ),
        )
        wrong = [message for holds, message in checks if not holds]
        if wrong:
            raise CopydeskError(f"Recipe {self.name}: {'; '.join(wrong)}.")

    def pairs_a_step(self, pairs: int) -> int:
        """Pairs in an optimiser step when a round has so many."""
        most = pairs * self.epochs // self.min_steps if self.min_steps else self.batch_pairs
        return max(1, min(self.batch_pairs, most))

    def learning_rate_for(self, hidden_size: int) -> float:
        """The highest learning rate on a base of this hidden size."""
        if self.reference_hidden is None:
            return self.learning_rate
        return self.learning_rate * float((self.reference_hidden / hidden_size) ** SIZE_EXPONENT)

    def to_mapping(self) -> dict[str, Any]:
        return {**asdict(self), "targets": list(self.targets)}

    @classmethod
    def from_mapping(cls, data: dict[str, Any]) -> Recipe:
        """Raises CopydeskError naming keys that are unknown or missing."""
        fields = set(cls.__dataclass_fields__)
        if unknown := set(data) - fields:
            raise CopydeskError(f"A recipe has no {_list(sorted(unknown))}; it has {_list(sorted(fields))}.")
        if missing := fields - set(data) - OPTIONAL:
            raise CopydeskError(f"The recipe lacks {_list(sorted(missing))}.")
        preference = Preference(**data["preference"]) if data.get("preference") else None
        return cls(**{**data, "targets": tuple(data["targets"]), "preference": preference})


def _list(values: object) -> str:
    assert isinstance(values, tuple | list)
    return ", ".join(map(str, values))


# The starting point of the project, as published for Llama-2-7B: kept to compare with.
ARTICLE = Recipe(
    name="article",
    rank=8,
    alpha=32,
    targets=("q_proj", "v_proj"),
    dropout=0.05,
    learning_rate=2e-5,
    epochs=3,
    batch_pairs=2,
    warm_up=0.0,
    schedule="linear",
    max_tokens=512,
    seed=42,
    precision="fp16",
    batching="padded",
)

# Chosen on 272 starter pairs by what the versions wrote for 148 other briefs: at equal time, more and smaller steps
# at a higher rate fulfilled twice as many briefs as batches of eight. Large sets reach sixteen pairs a step.
DEFAULT = Recipe(
    name="default",
    rank=16,
    alpha=32,
    targets=TARGETS,
    dropout=0.0,
    learning_rate=2e-3,
    epochs=2,
    batch_pairs=16,
    warm_up=0.05,
    schedule="linear",
    max_tokens=1024,
    seed=42,
    precision="bf16",
    batching="packed",
    min_steps=136,
    reference_hidden=576,
)

# The default first, then what people preferred. See docs/recipes.md for what was measured.
DPO = replace(DEFAULT, name="dpo", preference=Preference("dpo"))
KTO = replace(DEFAULT, name="kto", preference=Preference("kto"))
# The default over a base in 4-bit blocks (Dettmers et al., 2023), for small cards.
QLORA = replace(DEFAULT, name="qlora", bits=4)

RECIPES = {recipe.name: recipe for recipe in (DEFAULT, ARTICLE, DPO, KTO, QLORA)}


def recipe_named(name: str) -> Recipe:
    """Raises CopydeskError naming the recipes that there are."""
    if name not in RECIPES:
        raise CopydeskError(f"There is no recipe {name}; there are {_list(list(RECIPES))}.")
    return RECIPES[name]
