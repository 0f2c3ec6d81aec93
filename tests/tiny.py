"""A tiny model of the real architecture with the real tokenizer, and a few pairs for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from serving.exchange import starter_pairs
from serving.records import Pair, PairSource, PairStatus, Split, Task
from trainer.dataset import TrainingData, training_data
from trainer.recipe import DEFAULT

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


def starter_data(tokenizer: PreTrainedTokenizerBase, count: int = 6) -> TrainingData:
    pairs = [replace(pair(id, new.output), task=new.task) for id, new in enumerate(starter_pairs("en")[:count], 1)]
    return training_data(pairs, tokenizer, EXACT.max_tokens)
