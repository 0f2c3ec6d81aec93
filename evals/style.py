"""Do texts sound alike: the small words and the punctuation that make a style, whatever the product is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

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
    read = comparable(text)
    words = Counter(() if language == "zh" else latin_words(read))
    counts = [words[mark] if mark.isalpha() and language != "zh" else read.count(mark) for mark in _marks(language)]
    profile: np.ndarray = np.sqrt(np.array(counts, dtype=float))
    return profile / max(float(np.linalg.norm(profile)), 1e-12)


@cache
def _marks(language: str) -> tuple[str, ...]:
    lines = (DATA / f"style_{language}.txt").read_text(encoding="utf-8").split("\n")
    return tuple(mark for line in lines if not line.startswith("# ") for mark in line.split())
