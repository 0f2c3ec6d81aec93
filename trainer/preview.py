"""A pair as the model meets it: every token, and which of them are learned. Pure, but for the tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text
from transformers import PreTrainedTokenizerBase

from serving.records import Pair
from trainer.dataset import IGNORED, training_data
from trainer.hygiene import in_nfc

UNDECODED = "\ufffd"


@dataclass(frozen=True)
class Piece:
    """Tokens that make whole characters together, nearly always one.

    Attributes:
        learned: the round's loss counts them.
    """

    ids: tuple[int, ...]
    text: str
    learned: bool


def pieces_of(pair: Pair, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> tuple[Piece, ...]:
    """The tokens of one pair; empty where it is too long to train."""
    rows = training_data([in_nfc(pair)], tokenizer, max_tokens).rows
    return pieces(rows[0]["input_ids"], rows[0]["labels"], tokenizer) if len(rows) else ()


def pieces(ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[Piece, ...]:
    found: list[Piece] = []
    waiting: list[int] = []
    for at, token in enumerate(ids):
        waiting.append(token)
        text = str(tokenizer.decode(waiting, clean_up_tokenization_spaces=False))
        learned = labels[at] != IGNORED
        last = at + 1 == len(ids) or (labels[at + 1] != IGNORED) != learned
        # A character of several tokens is shown when it is whole.
        if UNDECODED not in text or last:
            found.append(Piece(tuple(waiting), text, learned))
            waiting = []
    return tuple(found)


def shown(pieces: Iterable[Piece], *, colour: bool) -> Text:
    """Learned tokens in green, every second one underlined, or in [brackets] where there is no colour."""
    text = Text()
    for number, piece in enumerate(pieces):
        visible = piece.text.replace("\n", "⏎\n")
        if not piece.learned:
            text.append(visible, style="dim")
        elif colour:
            text.append(visible, style="bold green underline" if number % 2 else "bold green")
        else:
            text.append(f"[{visible}]")
    return text
