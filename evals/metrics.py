"""How near a text is to what people wrote, how varied it is, and how much of it is the training data. 0..1 all.

BLEU splits Han characters (sacrebleu's `zh`), which on English equals its default `13a`; ROUGE reads Latin words and
Han characters, where rouge_score's own tokenizer drops every Han character.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import combinations

import numpy as np
from sacrebleu.metrics import BLEU

from evals.overlap import (
    CHRF_ORDER,
    CORPUS_BLEU,
    CORPUS_CHRF,
    PAIR_CHRF,
    ROUGE,
    Grams,
    Overlap,
    Reading,
    chrf_rows,
    overlap,
    read,
    self_matches,
)
from evals.text import tokens

MEMORISED_RUN = 13  # words or Han characters in a row that say "copied"
_PART = (MEMORISED_RUN + 1) // 2  # of a text cut in such parts, any run of 13 has one whole


@dataclass(frozen=True)
class Quality:
    """Corpus BLEU and chrF, mean best ROUGE F1, each 0..1, with signatures in sacrebleu's form."""

    values: dict[str, float]
    signatures: dict[str, str]


def columns(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References by position, as sacrebleu wants them; None where an item has fewer."""
    most = max(len(texts) for texts in references)
    return [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]


def quality(texts: Sequence[str], references: Sequence[Sequence[str]]) -> Quality:
    """All reference metrics of a corpus.

    Args:
        texts: one hypothesis an item.
        references: the references of each item, at least one.
    """
    return quality_of(
        [overlap(Reading(text), own) for text, own in zip(texts, references, strict=True)], spread(references)
    )


def quality_of(overlaps: Sequence[Overlap], references: str) -> Quality:
    """The corpus's metrics from its texts' counts.

    Args:
        references: how many an item has, "var" where they differ; for the signatures.
    """
    sacre, own = version("sacrebleu"), f"case:lc|tok:latin+han|stem:no|version:{version('rouge_score')}"
    signatures = {
        "bleu": f"nrefs:{references}|case:mixed|eff:no|tok:zh|smooth:exp|version:{sacre}",
        "chrf": f"nrefs:{references}|case:mixed|eff:yes|nc:{CHRF_ORDER}|nw:0|space:no|version:{sacre}",
        **dict.fromkeys(ROUGE, f"nrefs:{references}|{own}"),
    }
    return Quality(_values(overlaps), signatures)


def _values(overlaps: Sequence[Overlap]) -> dict[str, float]:
    bleu = CORPUS_BLEU._compute_score_from_stats(totals([one.bleu for one in overlaps])).score / 100
    chrf = CORPUS_CHRF._compute_f_score(totals([one.chrf for one in overlaps])) / 100
    rouge = np.mean([one.rouge for one in overlaps], axis=0).tolist()
    values = {"bleu": bleu, "chrf": chrf, **dict(zip(ROUGE, rouge, strict=True))}
    return {name: min(1.0, value) for name, value in values.items()}


def totals(rows: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]


def spread(references: Sequence[Sequence[str]]) -> str:
    """How many references an item has, for a signature."""
    counts = {len(texts) for texts in references}
    return str(counts.pop()) if len(counts) == 1 else "var"


def human_ceiling(references: Sequence[Sequence[str]]) -> dict[str, float] | None:
    """What one person's text scores against the others', averaged over the persons; None with single references."""
    shared = min(len(texts) for texts in references)
    if shared < 2:
        return None
    runs = [_values([_against_others(tuple(texts), i) for texts in references]) for i in range(shared)]
    return {name: sum(run[name] for run in runs) / len(runs) for name in runs[0]}


@lru_cache(maxsize=2048)  # every card of a suite asks again
def _against_others(texts: tuple[str, ...], i: int) -> Overlap:
    return overlap(read(texts[i]), [*texts[:i], *texts[i + 1 :]])


def chrf(text: str, other: str) -> float:
    """Similarity of two texts by character n-grams; needs no tokens, so it reads every language."""
    return chrf_of_pairs((text, other))[0]


def chrf_of_pairs(texts: Sequence[str]) -> list[float]:
    """That of each two texts, as itertools.combinations orders them."""
    if len(texts) < 2:
        return []
    blank = [not text.strip() for text in texts]
    rows = chrf_rows(texts)
    return [
        float(blank[one] and blank[two])
        if blank[one] or blank[two]
        else float(min(1.0, PAIR_CHRF._compute_f_score(row) / 100))
        for (one, two), row in zip(combinations(range(len(texts)), 2), rows, strict=True)
    ]


def distinct(texts: Iterable[str], n: int) -> float:
    """distinct-n: different n-grams over all n-grams of all the texts. 0 where there are none."""
    grams = [gram for text in texts for gram in _ngrams(tokens(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(grams: Sequence[Grams]) -> float:
    """Mean sentence BLEU of each text against all the others (Zhu et al. 2018); 1.0 where all are one text.

    The others' clipping counts are the two largest of the corpus, so the time grows with the corpus, not its square.

    Args:
        grams: `Reading.words` of each text.
    """
    if len(grams) < 2:
        return 0.0
    lengths = sorted(one.sizes[0] for one in grams)
    scores = [
        BLEU.compute_bleu(
            correct,
            list(one.sizes),
            one.sizes[0],
            _nearest_other(lengths, one.sizes[0]),
            "exp",
            effective_order=True,
        ).score
        for one, correct in zip(grams, self_matches(grams), strict=True)
    ]
    return float(min(1.0, sum(scores) / len(scores) / 100))


def _nearest_other(lengths: Sequence[int], own: int) -> int:
    """The length next to `own` among the other texts, the shorter of two that are equally near."""
    place = bisect_left(lengths, own)
    near = [*lengths[max(0, place - 1) : place], *lengths[place + 1 : place + 2]]
    return min(near, key=lambda length: (abs(length - own), length))


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


class Memory:
    """The training outputs of a round, to look for in what it writes."""

    def __init__(self, outputs: Iterable[str]) -> None:
        read = [tokens(output) for output in outputs]
        self._grams = {gram for words in read for gram in _ngrams(words, MEMORISED_RUN)}
        self._parts = {gram for words in read for gram in _ngrams(words, _PART)}

    def run(self, text: str) -> tuple[str, ...]:
        """The longest stretch of which every 13 words or Han characters stand in a training output; () without one."""
        words = tokens(text)
        best = start = 0
        run: tuple[str, ...] = ()
        for place, gram in enumerate(self._to_look_for(words)):
            if gram not in self._grams:
                start = place + 1
            elif place - start + MEMORISED_RUN > best:
                best = place - start + MEMORISED_RUN
                run = words[start : start + best]
        return run

    def holds(self, text: str) -> bool:
        """Whether 13 words or Han characters in a row come from one training output."""
        return not self._grams.isdisjoint(self._to_look_for(tokens(text)))

    def _to_look_for(self, words: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The text's n-grams of 13, each of which has one of its parts; none where no part stands in an output."""
        parts = (words[start : start + _PART] for start in range(0, len(words), _PART))
        return [] if self._parts.isdisjoint(parts) else _ngrams(words, MEMORISED_RUN)
