"""What texts share: the n-gram counts behind BLEU, ROUGE and chrF, with each text read once.

The figures equal sacrebleu's and rouge_score's own, which read a text anew for every comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, chain, pairwise

import numpy as np
import regex
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp
from sacrebleu.tokenizers.tokenizer_zh import _UCODE_RANGES

from evals.text import blocks, tokens

BLEU_ORDER, CHRF_ORDER, ROUGE_ORDER = 4, 6, 2
_CHARACTERS = slice(BLEU_ORDER, BLEU_ORDER + CHRF_ORDER)  # the orders of characters in Reading.all
ROUGE = ("rouge1", "rouge2", "rougeL")
CORPUS_BLEU = BLEU(tokenize="zh")
CORPUS_CHRF, PAIR_CHRF = CHRF(), CHRF(eps_smoothing=True)


def _character_class() -> str:
    # sacrebleu writes the planes beyond the first as two characters, and compares them as such.
    ranges = ((ord(low[0]) + (len(low) > 1), ord(high[0])) for low, high in _UCODE_RANGES)
    return "".join(f"\\u{low:04x}-\\u{high:04x}" for low, high in ranges)


# 60 bits of a polynomial's value tell any two n-grams of these lengths apart, but for one chance in 10**18. The others
# are the order: sorted, n-grams of one order stand together.
_BASE, _VALUE = np.uint64(0x9E3779B97F4A7C15), np.uint64(2**60 - 1)
_ORDERS = np.arange(2**4, dtype=np.uint64) << np.uint64(60)
_CHINESE = regex.compile(f"[{_character_class()}]+")
# sacrebleu's first rule sets single characters apart, most of them spaces; a table does it ten times as fast.
_APART, *_RULES = TokenizerRegexp()._re
_SET_APART = {n: f" {chr(n)} " for n in range(128) if _APART[0].match(chr(n))}


def bleu_words(text: str) -> list[str]:
    """The words that sacrebleu's `zh` tokenizer gives."""
    line = text if text.isascii() else _CHINESE.sub(lambda run: f" {' '.join(run[0])} ", text)
    # Its rules look at neighbours, white space among them: between two of these, a run of characters stands for itself.
    runs = line.split()
    if len(runs) < 2:
        return list(_apart(*runs)) if runs else []
    first, *inner, last = runs
    return list(chain.from_iterable(map(_apart, [f"{first} ", *(f" {run} " for run in inner), f" {last}"])))


@lru_cache(maxsize=65_536)
def _apart(run: str) -> tuple[str, ...]:
    """The words of a run whose Chinese characters stand apart already, with the white space that it has around it."""
    line = run.translate(_SET_APART)
    for pattern, replacement in _RULES:
        line = pattern.sub(replacement, line)
    return tuple(line.split())


@dataclass(frozen=True)
class Grams:
    """The n-grams of one text, orders 1 to n.

    Attributes:
        ids: one number a different n-gram, ascending, and so by order.
        counts: how often each stands in the text.
        bounds: where the ids of each order begin, and where the last ones end, [orders + 1].
        sizes: how many n-grams of each order the text has.
    """

    ids: np.ndarray
    counts: np.ndarray
    bounds: np.ndarray
    sizes: list[int]

    def first(self, orders: int) -> Grams:
        """Only the n-grams of the first so many orders."""
        end = self.bounds[orders]
        return Grams(self.ids[:end], self.counts[:end], self.bounds[: orders + 1], self.sizes[:orders])

    def by_order(self, counts: np.ndarray) -> list[int]:
        """The sum of the counts of each order."""
        sums: list[int] = _sums(counts, self.bounds).tolist()
        return sums


def _sums(counts: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """[..., ids] to [..., orders]; with bounds of several texts, [texts, orders + 1], to [..., texts, orders]."""
    before = np.zeros((*counts.shape[:-1], counts.shape[-1] + 1), counts.dtype)
    counts.cumsum(axis=-1, out=before[..., 1:])
    at = before[..., bounds]
    return at[..., 1:] - at[..., :-1]


def grams(texts: Sequence[Sequence[np.ndarray]], longest: Sequence[int]) -> list[Grams]:
    """The n-grams of texts that are given as one number a unit, such as a word or a character; together in less time.

    Args:
        texts: for each, the units of each kind.
        longest: of each kind, how long its longest n-grams are. The kinds stand after each other in `bounds`.
    """
    values: list[list[np.ndarray]] = [[] for _ in texts]
    for codes, orders in zip(zip(*texts, strict=True), longest, strict=True):
        spans = list(pairwise(accumulate(map(len, codes), initial=0)))
        units = value = np.concatenate(codes)
        for n in range(orders):
            if n:
                value = value[:-1] * _BASE + units[n:]
            for own, (start, end) in zip(values, spans, strict=True):
                own.append(value[start : max(start, end - n)])  # without what reaches into the next text
    sizes = [list(map(len, own)) for own in values]
    ids = np.concatenate(list(chain.from_iterable(values)))
    ids &= _VALUE
    ids |= np.tile(_ORDERS[: sum(longest)], len(texts)).repeat(list(chain.from_iterable(sizes)))
    starts = list(accumulate(map(sum, sizes), initial=0))
    for start, end in pairwise(starts):
        ids[start:end].sort()
    differs = np.empty(len(ids) + 1, bool)
    np.not_equal(ids[1:], ids[:-1], out=differs[1:-1])
    differs[starts] = True
    edges = differs.nonzero()[0]
    ids, counts = ids[edges[:-1]], edges[1:] - edges[:-1]
    found = []
    for size, (start, end) in zip(sizes, pairwise(edges.searchsorted(starts).tolist()), strict=True):
        mine = ids[start:end]
        found.append(Grams(mine, counts[start:end], mine.searchsorted(_ORDERS[: len(size) + 1]), size))
    return found


def _word_codes(words: Sequence[str]) -> np.ndarray:
    # Of the word's bytes in UTF-8: Python hashes the bytes that a string has in memory, which "og" and "杯" share.
    return np.fromiter(map(_word_code, words), np.int64, len(words)).view(np.uint64)


@lru_cache(maxsize=65_536)
def _word_code(word: str) -> int:
    return hash(word.encode("utf-8", "surrogatepass"))


class Reading:
    """One text, taken apart as each metric wants it, and only when it does."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """For ROUGE."""
        return tokens(self.text)

    @property
    def words(self) -> Grams:
        """For BLEU."""
        return self.all.first(BLEU_ORDER)

    @cached_property
    def all(self) -> Grams:
        """For BLEU, chrF and ROUGE at once: orders 1 to 4 of words, 1 to 6 of characters, 1 and 2 of tokens."""
        return all_grams([self])[0]

    @cached_property
    def places(self) -> dict[str, int]:
        """For each token, the bits of the places where it stands."""
        found: dict[str, int] = {}
        for place, token in enumerate(self.tokens):
            found[token] = found.get(token, 0) | 1 << place
        return found


def all_grams(texts: Sequence[Reading]) -> list[Grams]:
    """`Reading.all` of each."""
    units = [(_word_codes(bleu_words(one.text)), _characters(one.text), _word_codes(one.tokens)) for one in texts]
    return grams(units, (BLEU_ORDER, CHRF_ORDER, ROUGE_ORDER))


def _characters(text: str) -> np.ndarray:
    # chrF reads no white space.
    return np.frombuffer("".join(text.split()).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)


@lru_cache(maxsize=2048)  # references are read again for every sample of their brief
def read(text: str) -> Reading:
    return Reading(text)


@dataclass(frozen=True)
class Overlap:
    """One text against its references.

    Attributes:
        bleu: sacrebleu's row: own length, nearest reference length, then matches and n-grams for each order.
        chrf: sacrebleu's row of the best reference: own n-grams, its n-grams, matches for each order.
        rouge: the best F1 for each of ROUGE.
        words: the text's own, to compare it with the other texts.
    """

    bleu: list[int]
    chrf: list[int]
    rouge: tuple[float, ...]
    words: Grams


def overlap(own: Reading, references: Sequence[str]) -> Overlap:
    return _overlap(own, own.all, _references(tuple(references)))


def overlaps(written: Sequence[tuple[str, Sequence[str]]]) -> list[Overlap]:
    """`overlap` of many texts, in less time."""
    found: list[Overlap] = []
    for block in blocks(written):
        readings = [Reading(text) for text, _ in block]
        found += [
            _overlap(own, counted, _references(tuple(references)))
            for own, counted, (_, references) in zip(readings, all_grams(readings), block, strict=True)
        ]
    return found


def _overlap(own: Reading, mine: Grams, references: _References) -> Overlap:
    others, shared = references.texts, references.shared(mine)
    counts: list[list[int]] = _sums(shared, mine.bounds).tolist()
    rows = [_chrf_row(mine, other.all, both) for other, both in zip(others, counts, strict=True)]
    rouges = [_rouge(own, other, both) for other, both in zip(others, counts, strict=True)]
    length = mine.sizes[0]
    nearest = min((other.all.sizes[0] for other in others), key=lambda other: (abs(length - other), other))
    words = mine.first(BLEU_ORDER)
    matches = words.by_order(shared[:, : len(words.ids)].max(axis=0))
    return Overlap(
        [length, nearest, *matches, *words.sizes],
        max(rows, key=CORPUS_CHRF._compute_f_score),
        tuple(max(values) for values in zip(*rouges, strict=True)),
        words,
    )


@dataclass(frozen=True)
class _References:
    """All references of a brief, looked up at once."""

    texts: list[Reading]
    ids: np.ndarray
    counts: np.ndarray

    def shared(self, own: Grams) -> np.ndarray:
        """For each reference, how often it and the text both have each of the text's n-grams, [references, n-grams]."""
        if not len(self.ids):
            return np.zeros((len(self.texts), len(own.ids)), self.counts.dtype)
        place = self.ids.searchsorted(own.ids)
        place[place == len(self.ids)] = 0
        both: np.ndarray = np.minimum(self.counts.take(place, axis=1), own.counts)
        both *= self.ids[place] == own.ids
        return both


@lru_cache(maxsize=1024)
def _references(texts: tuple[str, ...]) -> _References:
    readings = [read(text) for text in texts]
    return _References(readings, *_table([one.all for one in readings]))


def _chrf_row(mine: Grams, theirs: Grams, both: Sequence[int]) -> list[int]:
    return _row(mine.sizes[_CHARACTERS], theirs.sizes[_CHARACTERS], both[_CHARACTERS])


def chrf_rows(texts: Sequence[str]) -> list[list[int]]:
    """sacrebleu's row of each two texts, as itertools.combinations orders them: own n-grams, the other's, and those
    that both have, for each order."""
    own = grams([(_characters(text),) for text in texts], (CHRF_ORDER,))
    ids, counts = _table(own)
    first, second = _pairs(len(own))
    both = _sums(np.minimum(counts[first], counts[second]), ids.searchsorted(_ORDERS[: CHRF_ORDER + 1])).tolist()
    pairs = zip(first.tolist(), second.tolist(), both, strict=True)
    return [_row(own[one].sizes, own[two].sizes, shared) for one, two, shared in pairs]


@lru_cache(maxsize=16)
def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first and the second of each two, as itertools.combinations orders them."""
    return np.triu_indices(count, 1)


def _table(texts: Sequence[Grams]) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams of all texts, [ids] ascending, and how often each text has each, [texts, ids]."""
    every = np.concatenate([one.ids for one in texts])
    order = every.argsort(kind="stable")  # which joins runs that are sorted already, and these are
    every = every[order]
    new = np.ones(len(every), bool)
    np.not_equal(every[1:], every[:-1], out=new[1:])
    ids = every[new]
    column = np.empty(len(order), np.intp)
    column[order] = new.cumsum() - 1
    counts = np.zeros((len(texts), len(ids)), np.int32)
    end = 0
    for row, one in zip(counts, texts, strict=True):
        start, end = end, end + len(one.ids)
        row[column[start:end]] = one.counts
    return ids, counts


def _row(mine: Sequence[int], theirs: Sequence[int], both: Sequence[int]) -> list[int]:
    return [n for one, two, same in zip(mine, theirs, both, strict=True) for n in (one if two else 0, two, same)]


def _rouge(own: Reading, other: Reading, both: Sequence[int]) -> tuple[float, float, float]:
    singles, doubles = both[-ROUGE_ORDER:]
    one, two = len(own.tokens), len(other.tokens)
    longest = longest_common_subsequence(own, other)
    return _f1(singles, one, two), _f1(doubles, one - 1, two - 1), _f1(longest, one, two)


def _f1(shared: int, mine: int, theirs: int) -> float:
    return 2 * shared / (mine + theirs) if shared else 0.0


def longest_common_subsequence(own: Reading, other: Reading) -> int:
    """Its length in tokens, a row of the table at a time as the bits of one number (Hyyrö 2004)."""
    full = (1 << len(other.tokens)) - 1
    row, places = full, other.places
    for token in own.tokens:
        met = row & places.get(token, 0)
        row = ((row + met) | (row - met)) & full
    return len(other.tokens) - row.bit_count()


def self_matches(texts: Sequence[Grams]) -> list[list[int]]:
    """For each text and order, its n-grams clipped at the most that any one other text has."""
    if not any(len(one.ids) for one in texts):
        return [[0] * len(one.sizes) for one in texts]
    ids = np.concatenate([one.ids for one in texts])
    counts = np.concatenate([one.counts for one in texts])
    order = np.lexsort((-counts, ids))
    ids, counts = ids[order], counts[order]
    first = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    sizes = np.diff(np.r_[first, len(ids)])
    largest = np.repeat(counts[first], sizes)
    second = np.repeat(np.where(sizes > 1, counts[np.minimum(first + 1, len(counts) - 1)], 0), sizes)
    clipped = np.empty_like(counts)
    clipped[order] = np.minimum(counts, np.where(counts == largest, second, largest))
    starts = list(accumulate((len(one.ids) for one in texts[:-1]), initial=0))
    sums: list[list[int]] = _sums(clipped, np.stack([one.bounds for one in texts]) + np.array(starts)[:, None]).tolist()
    return sums
