"""How many tokens a text may take: what its brief asks for, within what the engine takes."""

from __future__ import annotations

import math

from serving.client import Sampling
from serving.prompt import task_messages
from serving.records import Task

MAX_MODEL_LEN = 2048  # tokens of a prompt and its answer
TEMPLATE = 64  # tokens that a chat template adds
# By SmolLM2's tokenizer the longest of 540 references a language took 1.75 and 2.57.
PER_UNIT = {"en": 2.0, "zh": 2.6}  # tokens an English word, and a Han character


def tokens_for(task: Task, least: int = Sampling.max_tokens) -> int:
    """The most tokens that an answer may take: enough for the longest text that the brief accepts, and `least`."""
    if task.requirements.length is None:
        return least
    asked = math.ceil(task.requirements.length[1] * PER_UNIT[task.language])
    prompt = sum(_at_most(message["content"]) for message in task_messages(task))
    return max(least, min(asked, MAX_MODEL_LEN - TEMPLATE - prompt))


def _at_most(text: str) -> int:
    """Tokens of a brief, rather too many: two ASCII characters each, and every other byte."""
    ascii = sum(map(str.isascii, text))
    return math.ceil(ascii / 2) + len(text.encode()) - ascii
