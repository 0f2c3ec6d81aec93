"""Metrics and statistics against published or independently computed values."""

from __future__ import annotations

from itertools import combinations
from math import sqrt

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from evals import metrics, statistics
from evals.checks import score
from evals.overlap import Reading, bleu_words, overlap, overlaps
from evals.stability import brief_stability, pass_curve
from evals.suite import Item
from evals.text import tokens
from serving.card import BriefStability, WorstRepeat
from serving.counts import Z, paired_difference
from serving.prompt import task_of
from serving.records import Requirements


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        (16, 20, 0.584, 0.919),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, total: int, low: float, high: float) -> None:
    rate = statistics.wilson(successes, total)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=6e-5 if total != 20 or not successes else 6e-4)


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (6, 0, 0.03125), (5, 0, 0.0625), (1, 9, 0.021484375), (4, 4, 1.0)]
)
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int, p: float) -> None:
    assert statistics.mcnemar(gained, lost) == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize(("passes", "total"), [(20, 20), (29, 30), (46, 50), (88, 100)])
def test_the_counts_that_show_more_than_four_fifths(passes: int, total: int) -> None:
    assert statistics.wilson(passes, total).low >= 0.8
    assert statistics.wilson(passes - 1, total).low < 0.8


@given(met=st.lists(st.integers(0, 5), min_size=1, max_size=8), k=st.integers(1, 5))
def test_pass_k_is_the_share_of_draws_that_all_pass(met: list[int], k: int) -> None:
    shares = []
    for count in met:
        draws = list(combinations([True] * count + [False] * (5 - count), k))
        shares.append(sum(all(draw) for draw in draws) / len(draws))
    assert statistics.pass_k(met, 5, k) == pytest.approx(sum(shares) / len(shares))


@given(total=st.integers(1, 300), data=st.data())
def test_wilson_holds_the_share_and_stays_within_bounds(total: int, data: st.DataObject) -> None:
    rate = statistics.wilson(data.draw(st.integers(0, total)), total)
    assert 0 <= rate.low <= rate.share <= rate.high <= 1


def test_paired_rates_get_tangos_published_interval() -> None:
    found = paired_difference(1, 7, 21)  # Fagerland, Lydersen and Laake 2014: airway hyper-responsiveness
    assert (found.low, found.high) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert found.value == pytest.approx(-6 / 21)


@pytest.mark.parametrize("total", [1, 20, 120])
def test_briefs_that_all_agree_leave_room_for_a_difference(total: int) -> None:
    same = statistics.paired_rates([True] * total, [True] * total)
    assert (same.value, same.p) == (0.0, 1.0)
    assert (same.low, same.high) == pytest.approx((-Z * Z / (total + Z * Z), Z * Z / (total + Z * Z)))
    steady = statistics.by_brief([1.0, 0.0] * total, [1.0, 0.0] * total, seed=1)
    assert steady.low < 0.0 < steady.high


@given(data=st.data(), total=st.integers(1, 200))
def test_a_paired_interval_judges_as_mcnemars_score_test_does(data: st.DataObject, total: int) -> None:
    gained = data.draw(st.integers(0, total))
    lost = data.draw(st.integers(0, total - gained))
    found, turned = paired_difference(gained, lost, total), paired_difference(lost, gained, total)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert (found.low <= 0 <= found.high) == (abs(gained - lost) <= Z * sqrt(gained + lost))


@given(gained=st.integers(0, 60), lost=st.integers(0, 60))
def test_mcnemar_does_not_know_which_side_is_which(gained: int, lost: int) -> None:
    assert statistics.mcnemar(gained, lost) == statistics.mcnemar(lost, gained)
    assert 0 < statistics.mcnemar(gained, lost) <= 1


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=20), seed=st.integers(0, 99))
def test_a_bootstrap_repeats_with_its_seed_and_holds_the_mean(values: list[float], seed: int) -> None:
    found = statistics.bootstrap(values, seed)
    assert found == statistics.bootstrap(values, seed)
    assert found.low <= found.value <= found.high


ENGLISH = ["The mug keeps tea warm for hours.", "A soft scarf for cold mornings.", "Order yours this week."]
OTHERS = ["This mug keeps your tea warm.", "A warm scarf for cold days.", "Order one this week."]


def test_corpus_bleu_is_sacrebleus_own() -> None:
    references = [[other, text.upper()] for text, other in zip(ENGLISH, OTHERS, strict=True)]
    own = sacrebleu.corpus_bleu(ENGLISH, metrics.columns(references), tokenize="13a").score / 100
    found = metrics.quality(ENGLISH, references)
    assert found.values["bleu"] == pytest.approx(own, abs=1e-6)
    assert "tok:zh" in found.signatures["bleu"]


def test_identical_chinese_scores_one_everywhere() -> None:
    texts = ["露米喷雾细细落下，放得进包。", "今晚泡一壶茶慢慢喝。"]
    values = metrics.quality(texts, [[text] for text in texts]).values
    assert values == pytest.approx(dict.fromkeys(values, 1.0))


def test_chinese_that_shares_only_a_latin_word_is_not_alike() -> None:
    assert metrics.quality(["iPhone手机壳"], [["完全不同iPhone文本"]]).values["rouge1"] < 0.6


def test_items_may_have_different_numbers_of_references() -> None:
    one = metrics.quality(ENGLISH, [[other] for other in OTHERS]).values["bleu"]
    more = metrics.quality(ENGLISH, [[OTHERS[0], ENGLISH[0]], [OTHERS[1]], [OTHERS[2]]]).values["bleu"]
    assert more > one


def test_the_human_ceiling_compares_people_with_people() -> None:
    ceiling = metrics.human_ceiling([[text, other] for text, other in zip(ENGLISH, OTHERS, strict=True)])
    assert ceiling is not None
    assert 0 < ceiling["bleu"] < 1
    assert metrics.human_ceiling([["alone"]]) is None


def test_memorised_text_is_recognised_by_thirteen_words() -> None:
    output = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen."
    memory = metrics.Memory([output, "另外一段训练用的文字"])
    assert memory.holds("Well: two three four five six seven eight nine ten eleven twelve thirteen fourteen!")
    assert not memory.holds("two three four five six seven eight nine ten eleven twelve thirteen but no further")
    copied = memory.run("zero. two three four five six seven eight nine ten eleven twelve thirteen fourteen x")
    assert (len(copied), copied[0], copied[-1]) == (13, "two", "fourteen")
    assert memory.run("two three four") == metrics.Memory([]).run("anything") == ()


@pytest.mark.parametrize("before", range(14))
def test_thirteen_words_are_recognised_wherever_they_stand(before: int) -> None:
    copied = [f"w{n}" for n in range(13)]
    memory = metrics.Memory([" ".join(["start", *copied, "end"])])
    own = [f"x{n}" for n in range(before)]
    text = " ".join([*own, *copied, "y"])
    assert memory.holds(text)
    assert memory.run(text) == tuple(copied)
    assert not memory.holds(" ".join([*own, *copied[:12], "y"]))


def test_words_that_python_hashes_alike_are_different_words() -> None:
    assert hash("og") == hash("杯")
    assert metrics.quality(["og"], [["杯"]]).values["rouge1"] == 0.0


def test_variety_counts_different_ngrams() -> None:
    assert metrics.distinct(["a b a b"], 1) == 0.5
    assert metrics.distinct(["a b", "a c"], 2) == 1.0
    assert metrics.distinct([""], 2) == 0.0


def test_bleu_differences_are_paired_and_signed() -> None:
    same_words, others = (
        [overlap(Reading(text), [reference]) for text, reference in zip(texts * 7, ENGLISH * 7, strict=True)]
        for texts in (ENGLISH, OTHERS)
    )
    better = statistics.paired_bleu(same_words, others, seed=1)
    worse = statistics.paired_bleu(others, same_words, seed=1)
    same = statistics.paired_bleu(others, others, seed=1)
    assert better.value == pytest.approx(-worse.value)
    assert better.low > 0 > worse.high
    assert better.p < 0.05
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    few = statistics.paired_bleu(same_words[:1], others[:1], seed=1)
    assert (few.value > 0, few.low, few.high, few.p) == (True, -1.0, 1.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_briefs_that_all_agree_prove_no_more_than_their_number(value: float) -> None:
    one, ten = (statistics.bootstrap_share([value] * n, seed=1) for n in (1, 10))
    for found in (one, ten):
        assert found.low <= found.value == value <= found.high
    assert one.high - one.low > ten.high - ten.low > 0.2


MUG = Item("mug", task_of(Requirements(product="Mug", length=(2, 6)), "en"), ("A reference.",))


def brief(texts: list[str]) -> BriefStability:
    return brief_stability(MUG, texts, [score(text, MUG.task) for text in texts])


def test_one_missed_repeat_makes_a_brief_unstable() -> None:
    steady = brief(["Mug keeps tea hot.", "Your Mug, always warm.", "Mug stays on the desk."])
    shaky = brief(["Mug keeps tea hot.", "Your cup, always warm.", ""])
    assert (steady.met, steady.stable, steady.too_similar) == (3, True, False)
    assert (shaky.met, shaky.stable, shaky.chrf_min) == (1, False, 0.0)
    curve = pass_curve([steady, shaky], 3, seed=1)
    assert [estimate.value for estimate in curve] == pytest.approx([2 / 3, 0.5, 0.5])


def test_a_brief_names_its_worst_repeat_and_of_equally_bad_ones_the_first() -> None:
    good, unnamed, long = "Mug keeps tea hot.", "Your cup, always warm.", "Your cup stays warm all day long, really."
    assert brief([good, unnamed, long, unnamed]).worst == WorstRepeat(2, "fail", "The product is not named: Mug.")
    assert brief([good, unnamed, unnamed]).worst == WorstRepeat(1, "fail", "The product is not named: Mug.")
    assert brief([long, "", good]).worst == WorstRepeat(1, "fail", "The answer is empty.")
    assert brief([good, good]).worst == WorstRepeat(0, "excellent", "")


def test_repeats_that_are_one_text_are_called_too_similar() -> None:
    same = brief(["Mug keeps tea hot."] * 5)
    assert same.too_similar
    assert same.length_variation == 0.0


def test_five_empty_repeats_are_no_crash() -> None:
    assert brief([""] * 5).met == 0


WORDS = st.sampled_from(
    ["tea", "Tea", "mug", "茶", "杯", "３", "1,5", "warm.", "-", "for,", "20-hour", "𠀀", "☕", "\u3000", "é"]
)
TEXTS = st.one_of(st.lists(WORDS, max_size=14).map(" ".join), st.lists(WORDS, max_size=14).map("".join), st.text())
CORPUS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_words_are_those_of_sacrebleus_tokenizer(text: str) -> None:
    assert " ".join(bleu_words(text)) == BLEU(tokenize="zh").tokenizer(text.rstrip())


@settings(max_examples=200, deadline=None)
@given(corpus=CORPUS)
def test_corpus_bleu_and_chrf_are_sacrebleus_own_for_any_text(corpus: list[tuple[str, list[str]]]) -> None:
    texts, references = [text for text, _ in corpus], [own for _, own in corpus]
    found = metrics.quality(texts, references)
    for name, metric in (("bleu", BLEU(tokenize="zh")), ("chrf", CHRF())):
        own = metric.corpus_score(texts, metrics.columns(references))
        assert found.values[name] == pytest.approx(min(1.0, own.score / 100), abs=1e-6)
        counts = {len(own) for own in references}
        assert len(counts) > 1 or found.signatures[name] == str(metric.get_signature())


class Tokenizer:
    def tokenize(self, text: str) -> list[str]:
        return list(tokens(text))


@settings(max_examples=200, deadline=None)
@given(corpus=CORPUS)
def test_rouge_is_rouge_scores_own_for_any_text(corpus: list[tuple[str, list[str]]]) -> None:
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Tokenizer())
    best = [scorer.score_multi(own, text) for text, own in corpus]
    found = metrics.quality([text for text, _ in corpus], [own for _, own in corpus]).values
    for name in ("rouge1", "rouge2", "rougeL"):
        assert found[name] == pytest.approx(sum(one[name].fmeasure for one in best) / len(best), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(corpus=CORPUS)
def test_texts_read_together_are_as_those_read_alone(corpus: list[tuple[str, list[str]]]) -> None:
    for (text, references), together in zip(corpus, overlaps(corpus), strict=True):
        alone = overlap(Reading(text), references)
        assert (together.bleu, together.chrf, together.rouge) == (alone.bleu, alone.chrf, alone.rouge)
        for field in ("ids", "counts", "bounds"):
            assert getattr(together.words, field).tolist() == getattr(alone.words, field).tolist()
    texts = [text for text, _ in corpus]
    assert metrics.chrf_of_pairs(texts) == [metrics.chrf(one, other) for one, other in combinations(texts, 2)]


@settings(max_examples=100, deadline=None)
@given(one=TEXTS, other=TEXTS)
def test_chrf_of_two_texts_is_a_share_and_of_equal_ones_is_one(one: str, other: str) -> None:
    assert 0.0 <= metrics.chrf(one, other) <= 1.0
    assert metrics.chrf(one, one) == pytest.approx(1.0) or len("".join(one.split())) < 6
