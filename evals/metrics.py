"""How near a text is to what people wrote, how varied it is, and how much of it is the training data. 0..1 all.

BLEU splits Han characters (sacrebleu's `zh`), which on English equals its default `13a`; ROUGE reads Latin words and
Han characters, where rouge_score's own tokenizer drops every Han character.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from importlib.metadata import version

from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from evals.text import tokens

ROUGE = ("rouge1", "rouge2", "rougeL")
MEMORISED_RUN = 13  # words or Han characters in a row that say "copied"


@dataclass(frozen=True)
class Quality:
    """Corpus BLEU and chrF, mean best ROUGE F1, each 0..1, with signatures in sacrebleu's form."""

    values: dict[str, float]
    signatures: dict[str, str]


class _Tokenizer:
    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


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
    bleu, chrf = BLEU(tokenize="zh"), CHRF()
    values = {
        "bleu": bleu.corpus_score(list(texts), columns(references)).score / 100,
        "chrf": chrf.corpus_score(list(texts), columns(references)).score / 100,
        **rouge(texts, references),
    }
    # ROUGE's own signature, in the form of the others.
    own = f"nrefs:{_spread(references)}|case:lc|tok:latin+han|stem:no|version:{version('rouge_score')}"
    signatures = {
        "bleu": str(bleu.get_signature()),
        "chrf": str(chrf.get_signature()),
        **dict.fromkeys(ROUGE, own),
    }
    return Quality({name: min(1.0, value) for name, value in values.items()}, signatures)


def _spread(references: Sequence[Sequence[str]]) -> str:
    counts = {len(texts) for texts in references}
    return str(counts.pop()) if len(counts) == 1 else "var"


def rouge(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean over the items of the best F1 against any reference."""
    scorer = rouge_scorer.RougeScorer(list(ROUGE), tokenizer=_Tokenizer())
    sums = dict.fromkeys(ROUGE, 0.0)
    for text, own in zip(texts, references, strict=True):
        best = scorer.score_multi(list(own), text)
        for name in ROUGE:
            sums[name] += best[name].fmeasure
    return {name: total / len(texts) for name, total in sums.items()}


def human_ceiling(references: Sequence[Sequence[str]]) -> dict[str, float] | None:
    """What one person's text scores against the others', averaged over the persons; None with single references."""
    shared = min(len(texts) for texts in references)
    if shared < 2:
        return None
    runs = [
        quality(
            [texts[i] for texts in references],
            [[text for j, text in enumerate(texts) if j != i] for texts in references],
        ).values
        for i in range(shared)
    ]
    return {name: sum(run[name] for run in runs) / len(runs) for name in runs[0]}


def chrf(text: str, other: str) -> float:
    """Similarity of two texts by character n-grams; needs no tokens, so it reads every language."""
    if not text.strip() or not other.strip():
        return float(text.strip() == other.strip())
    return float(min(1.0, _PAIRWISE.sentence_score(text, [other]).score / 100))


_PAIRWISE = CHRF(eps_smoothing=True)


def distinct(texts: Iterable[str], n: int) -> float:
    """distinct-n: different n-grams over all n-grams of all the texts. 0 where there are none."""
    grams = [gram for text in texts for gram in _ngrams(tokens(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str]) -> float:
    """Mean sentence BLEU of each text against all the others (Zhu et al. 2018); 1.0 where all are one text.

    The others' clipping counts are the two largest of the corpus, so the time grows with the corpus, not its square.
    """
    if len(texts) < 2:
        return 0.0
    split = [_BLEU.tokenizer(text).split() for text in texts]
    grams = [Counter(gram for n in range(1, 5) for gram in _ngrams(words, n)) for words in split]
    top: dict[tuple[str, ...], tuple[int, int]] = {}
    for counts in grams:
        for gram, count in counts.items():
            first, second = top.get(gram, (0, 0))
            top[gram] = (max(first, count), min(first, max(second, count)))
    lengths = sorted(len(words) for words in split)
    scores = []
    for words, counts in zip(split, grams, strict=True):
        correct, total = [0] * 4, [max(0, len(words) - n) for n in range(4)]
        for gram, count in counts.items():
            first, second = top[gram]
            correct[len(gram) - 1] += min(count, second if count == first else first)
        nearest = _nearest_other(lengths, len(words))
        scores.append(BLEU.compute_bleu(correct, total, len(words), nearest, "exp", effective_order=True).score)
    return float(min(1.0, sum(scores) / len(scores) / 100))


def _nearest_other(lengths: Sequence[int], own: int) -> int:
    """The length next to `own` among the other texts, the shorter of two that are equally near."""
    place = bisect_left(lengths, own)
    near = [*lengths[max(0, place - 1) : place], *lengths[place + 1 : place + 2]]
    return min(near, key=lambda length: (abs(length - own), length))


_BLEU = BLEU(tokenize="zh", effective_order=True)


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


class Memory:
    """The training outputs of a round, to look for in what it writes."""

    def __init__(self, outputs: Iterable[str]) -> None:
        self._outputs = [tokens(output) for output in outputs]
        self._grams = {gram for output in self._outputs for gram in _ngrams(output, MEMORISED_RUN)}

    def holds(self, text: str) -> bool:
        """Whether 13 words or Han characters in a row come from one training output."""
        return any(gram in self._grams for gram in _ngrams(tokens(text), MEMORISED_RUN))

    def longest_run(self, text: str) -> int:
        """The longest common substring with any training output, in words or Han characters."""
        words = tokens(text)
        return max(
            (
                SequenceMatcher(None, words, output, autojunk=False).find_longest_match().size
                for output in self._outputs
            ),
            default=0,
        )
