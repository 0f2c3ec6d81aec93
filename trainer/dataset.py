"""Pairs as token ids: the prompt as vLLM renders it, labels on the answer alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import GenerationConfig, PreTrainedTokenizerBase

from serving.prompt import task_messages
from serving.records import CopydeskError, Pair, Task
from trainer.hygiene import Skipped
from trainer.judgements import Judgements

IGNORED = -100  # what torch's cross-entropy leaves out

Row = dict[str, list[int]]  # input_ids and labels of a pair, both [tokens]


@dataclass(frozen=True)
class TrainingData:
    """What a round learns from.

    Attributes:
        pairs: those that train, in the order of `rows`.
        rows: input_ids and labels of equal length; labels are IGNORED on the prompt.
        tokens: of one epoch, prompt and answer.
        answer_tokens: those of them that are learned.
        judgements: what a preference stage learns from.
    """

    pairs: tuple[Pair, ...]
    rows: Dataset
    skipped: tuple[Skipped, ...]
    tokens: int
    answer_tokens: int
    judgements: Judgements = field(default_factory=Judgements)

    @property
    def digest(self) -> str:
        """Of all that trains."""
        pairs = digest_of_pairs(self.pairs)
        if not (self.judgements.choices or self.judgements.opinions):
            return pairs
        return hashlib.sha256(f"{pairs} {self.judgements.digest}".encode()).hexdigest()


def training_data(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> TrainingData:
    """Tokenise pairs that trainer.hygiene let through; those that are too long are left out by name.

    Raises:
        CopydeskError: the model has no chat template.
    """
    end = end_token(tokenizer)
    kept: list[Pair] = []
    rows: list[Row] = []
    skipped: list[Skipped] = []
    for pair in pairs:
        row = row_of(pair.task, pair.output, tokenizer, end)
        if reason := too_long(row, tokenizer, max_tokens):
            skipped.append(Skipped(pair.id, reason))
            continue
        kept.append(pair)
        rows.append(row)
    tokens = sum(len(row["input_ids"]) for row in rows)
    answer_tokens = sum(label != IGNORED for row in rows for label in row["labels"])
    return TrainingData(tuple(kept), Dataset.from_list(rows), tuple(skipped), tokens, answer_tokens)


def row_of(task: Task, answer: str, tokenizer: PreTrainedTokenizerBase, end: int) -> Row:
    """A brief and its answer; `end` is what `end_token` says."""
    prompt_ids = prompt_tokens(task, tokenizer)
    answer_ids = [*tokenizer(answer.strip(), add_special_tokens=False)["input_ids"], end]
    return {"input_ids": prompt_ids + answer_ids, "labels": [IGNORED] * len(prompt_ids) + answer_ids}


def too_long(row: Row, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> str:
    """Why a row does not fit, or ""."""
    context, length = tokenizer.model_max_length, len(row["input_ids"])
    limit, taker = (context, "base model") if context < max_tokens else (max_tokens, "recipe")
    return f"{length} tokens, and the {taker} takes {limit}" if length > limit else ""


def prompt_tokens(task: Task, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What vLLM feeds the model for a brief: the chat template, open for the assistant's turn."""
    ids = tokenizer.apply_chat_template(task_messages(task), add_generation_prompt=True, return_dict=False)
    return list(ids)


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token after which the chat template ends an answer and generation stops.

    Raises:
        CopydeskError: the model has no chat template, or none of its tokens ends an answer.
    """
    if not tokenizer.chat_template:
        raise CopydeskError("The base model has no chat template; take an instruct model as COPYDESK_MODEL.")
    probe = "Copydesk."
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": probe}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    tail = tokenizer(text.rpartition(probe)[2], add_special_tokens=False)["input_ids"]
    stops = _stop_tokens(tokenizer)
    end = next((token for token in tail if token in stops), tokenizer.eos_token_id)
    if end is None:
        raise CopydeskError("The base model names no end-of-text token; take another COPYDESK_MODEL.")
    return int(end)


def _stop_tokens(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    try:
        eos = GenerationConfig.from_pretrained(tokenizer.name_or_path).eos_token_id
    except OSError:
        eos = None
    named: list[Any] = eos if isinstance(eos, list) else [eos]
    return {int(token) for token in [*named, tokenizer.eos_token_id] if token is not None}


def digest_of_pairs(pairs: Sequence[Pair]) -> str:
    """sha256 over what the pairs say and who they are, one canonical JSON line each, by id."""
    digest = hashlib.sha256()
    for pair in sorted(pairs, key=lambda pair: pair.id):
        line = [pair.id, pair.task.language, pair.task.instruction, pair.task.input, pair.output]
        digest.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
