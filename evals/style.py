"""Do texts sound alike: the small words and the punctuation that make a style, whatever the product is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evals.text import comparable, latin_words

ENOUGH = 3  # texts that a category needs before its style is worth a figure
DATA = Path(__file__).parent / "data"


def consistency(texts: Sequence[str], language: str) -> float:
    """Mean pairwise cosine of the texts' profiles, 0..1; 0 where no two can be compared."""
    if len(texts) < 2:
        return 0.0
    profiles = np.stack([_profile(text, language) for text in texts])
    # The sum over all pairs is that of the products with the sum of all, without each one's with itself.
    pairs = float(np.square(profiles.sum(axis=0)).sum() - np.square(profiles).sum())
    return max(0.0, pairs / (len(texts) * (len(texts) - 1)))


def _profile(text: str, language: str) -> np.ndarray:
    """How often each mark of style stands in the text, square roots so that no comma rules, of length 1 or 0."""
    read, marks = comparable(text), _marks(language)
    said = Counter(latin_words(read) if marks.words else ())
    counts = [*(said.get(word, 0) for word in marks.words), *map(read.count, marks.anywhere)]
    profile: np.ndarray = np.sqrt(np.array(counts, dtype=float))
    return profile / max(float(np.linalg.norm(profile)), 1e-12)


class _Marks(NamedTuple):
    words: tuple[str, ...]  # counted where they stand whole
    anywhere: tuple[str, ...]


@cache
def _marks(language: str) -> _Marks:
    lines = (DATA / f"style_{language}.txt").read_text(encoding="utf-8").split("\n")
    marks = [mark for line in lines if not line.startswith("# ") for mark in line.split()]
    words = tuple(mark for mark in marks if mark.isalpha() and language != "zh")
    return _Marks(words, tuple(mark for mark in marks if mark not in words))
