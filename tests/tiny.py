"""A tiny model of the real architecture with the real tokenizer, and a few pairs for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from serving.exchange import starter_pairs
from serving.records import Pair, PairSource, PairStatus, Split, Task
from trainer import lora
from trainer.dataset import TrainingData, training_data
from trainer.judgements import Choice, Judgements, Opinion
from trainer.objective import Objective
from trainer.recipe import DEFAULT, Preference, Recipe

EXACT = replace(DEFAULT, precision="fp32", epochs=1, max_tokens=256, batch_pairs=8, min_steps=0)


def save_tiny(base_model: Path, path: Path) -> None:
    """Two layers with random weights and grouped heads, and the embedded model's tokenizer and chat template."""
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(path)


def pair(id: int, output: str, instruction: str = "Write product copy for Alder lamp.", input: str = "") -> Pair:
    task = Task(instruction, input)
    return Pair(id, task, output, PairSource.IMPORT, PairStatus.ACTIVE, Split.TRAIN, "", None, "")


def objective(model_path: Path, recipe: Recipe) -> Objective:
    return Objective(lora.load_model(str(model_path), recipe), recipe, pad=2)


def starter_data(tokenizer: PreTrainedTokenizerBase, count: int = 6) -> TrainingData:
    pairs = [replace(pair(id, new.output), task=new.task) for id, new in enumerate(starter_pairs("en")[:count], 1)]
    return training_data(pairs, tokenizer, EXACT.max_tokens)


# Preferences

GOOD = "The Alder lamp gives a warm, steady glow that keeps any desk calm until late."
BAD = "Introducing the best lamp ever!!! Buy it now and change your life forever with this lamp."


def dpo(**changes: Any) -> Recipe:
    return replace(EXACT, name="dpo", preference=Preference("dpo", **changes))


def kto(**changes: Any) -> Recipe:
    return replace(EXACT, name="kto", preference=Preference("kto", **changes))


def items(count: int = 4) -> list[Task]:
    return [Task(f"Write product copy for lamp {n}.") for n in range(count)]


def choices(count: int = 4) -> Judgements:
    return Judgements(choices=tuple(Choice(n, task, f"{GOOD} {n}", BAD[n:]) for n, task in enumerate(items(count))))


def judged(count: int = 4) -> Judgements:
    return Judgements(
        opinions=tuple(Opinion(n, task, f"{GOOD if n else BAD} {n}", n > 0) for n, task in enumerate(items(count)))
    )
