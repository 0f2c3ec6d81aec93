"""Does a text go in circles, as models do that were trained too long."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from evals.text import tokens

LONGEST_UNIT = 6  # tokens: Latin words or Han characters
TIMES = 4  # in a row; people's texts in suites and starter pairs have 2 at most
LAUGHTER = 6  # of one Han character: people write 哈哈哈哈
# Different pairs of neighbours over all pairs. The lowest of 1,080 texts by people is 0.94 in English and 0.92 in
# Chinese; counted in windows, because it falls with the length of any text.
FEWEST_DIFFERENT = 0.7
WINDOW = 100
FEWEST_PAIRS = 20


def repeats(text: str) -> str | None:
    """The words that stand many times in a row, "" where the same comes again otherwise, None where a text moves on."""
    words = tokens(text)
    pairs = list(pairwise(words))
    different = len(set(pairs))
    if len(pairs) - different < 2:  # a unit that stands four times leaves more
        return None
    return _in_a_row(words) or ("" if _dull(pairs) else None)


def _in_a_row(words: Sequence[str]) -> str:
    for size in range(1, LONGEST_UNIT + 1):
        run = 0
        for at, (word, later) in enumerate(zip(words, words[size:], strict=False)):
            run = run + 1 if word == later else 0
            times = LAUGHTER if size == 1 and not word.isascii() else TIMES
            if run == (times - 1) * size:
                unit = words[at + 1 : at + 1 + size]
                return (" " if word.isascii() else "").join(unit)
    return ""


def _dull(pairs: Sequence[tuple[str, str]]) -> bool:
    windows = (pairs[at : at + WINDOW] for at in range(0, len(pairs), WINDOW))
    return any(len(some) >= FEWEST_PAIRS and len(set(some)) < FEWEST_DIFFERENT * len(some) for some in windows)
