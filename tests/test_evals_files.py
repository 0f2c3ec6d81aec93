"""Metrics of plain text files, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU
from typer.testing import CliRunner

from evals.__main__ import app
from evals.metrics import columns, self_bleu
from evals.outputs import file_metrics
from evals.overlap import Reading
from serving.records import CopydeskError

CHINESE = "露米喷雾细细落下，放得进包。\n今晚泡一壶茶慢慢喝。\niPhone手机壳很轻。\n"
ENGLISH = "The mug keeps tea warm for hours.\nA soft scarf for cold mornings.\nOrder yours this week.\n"
OTHER = "This mug keeps your tea warm.\nA warm scarf for cold days.\nOrder one this week.\n"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_identical_chinese_files_score_one(tmp_path: Path) -> None:
    hyp, ref = write(tmp_path / "hyp.txt", CHINESE), write(tmp_path / "ref.txt", CHINESE)
    printed = CliRunner().invoke(app, ["metrics", "--hyp", str(hyp), "--ref", str(ref), "--json"])
    found = json.loads(printed.stdout)
    assert [found[name] for name in ("bleu", "rouge1", "rouge2", "rougeL", "chrf")] == pytest.approx([1.0] * 5)
    assert found["n"] == 3
    assert "tok:zh" in found["signature"]


def test_a_shared_latin_word_is_not_a_shared_text(tmp_path: Path) -> None:
    hyp, ref = write(tmp_path / "hyp.txt", "iPhone手机壳"), write(tmp_path / "ref.txt", "完全不同iPhone文本")
    assert float(file_metrics(hyp, [ref])["rouge1"]) < 0.6


@pytest.mark.parametrize("references", [[OTHER], [OTHER, ENGLISH.upper()]])
def test_bleu_is_sacrebleus_own(tmp_path: Path, references: list[str]) -> None:
    hyp = write(tmp_path / "hyp.txt", ENGLISH)
    refs = [write(tmp_path / f"ref{n}.txt", text) for n, text in enumerate(references)]
    own = sacrebleu.corpus_bleu(ENGLISH.splitlines(), [text.splitlines() for text in references]).score / 100
    assert file_metrics(hyp, refs)["bleu"] == pytest.approx(own, abs=1e-6)


def test_chinese_bleu_is_sacrebleus_own(tmp_path: Path) -> None:
    other = CHINESE.replace("细细", "轻轻").replace("慢慢", "热热")
    hyp, ref = write(tmp_path / "hyp.txt", CHINESE), write(tmp_path / "ref.txt", other)
    own = sacrebleu.corpus_bleu(CHINESE.splitlines(), [other.splitlines()], tokenize="zh").score / 100
    assert file_metrics(hyp, [ref])["bleu"] == pytest.approx(own, abs=1e-6)


def test_windows_lines_a_byte_order_mark_and_odd_separators_change_nothing(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref.txt", "one line\u2028of two\nand another")
    hyp = write(tmp_path / "hyp.txt", b"\xef\xbb\xbf" + "one line\u2028of two\r\nand another\r\n".encode())
    assert file_metrics(hyp, [ref])["rouge1"] == 1.0


def test_an_empty_output_counts_and_is_worth_nothing(tmp_path: Path) -> None:
    hyp, ref = write(tmp_path / "hyp.txt", "tea\n\n"), write(tmp_path / "ref.txt", "tea\ncoffee\n")
    assert file_metrics(hyp, [ref])["rouge1"] == 0.5


@pytest.mark.parametrize(
    ("hyp", "ref", "said"),
    [
        (b"a\nb\n", b"a\n", "1 lines"),
        (b"a\n", "名".encode("gb18030"), "not UTF-8 at byte 0"),
        (b"a\n", None, "cannot be read"),
        (b"", b"a\n", "is empty"),
        (b"a\nb\n", b"a\n \n", "Line 2 has no reference"),
    ],
)
def test_files_that_cannot_be_compared_are_one_clear_error(
    tmp_path: Path, hyp: bytes, ref: bytes | None, said: str
) -> None:
    paths = write(tmp_path / "hyp.txt", hyp), tmp_path / "ref.txt"
    if ref is not None:
        write(paths[1], ref)
    with pytest.raises(CopydeskError, match=said) as error:
        file_metrics(paths[0], [paths[1]])
    assert "\n" not in str(error.value)


TEXTS = st.lists(
    st.lists(st.sampled_from(["tea", "mug", "茶", "杯", "warm", ",", "for"]), max_size=9).map(" ".join), min_size=2
)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS)
def test_self_bleu_is_the_mean_sentence_bleu_against_the_others(texts: list[str]) -> None:
    bleu = BLEU(tokenize="zh", effective_order=True)
    slow = [bleu.sentence_score(text, texts[:n] + texts[n + 1 :]).score / 100 for n, text in enumerate(texts)]
    assert self_bleu([Reading(text).words for text in texts]) == pytest.approx(sum(slow) / len(slow), abs=1e-9)


def test_self_bleu_of_one_text_again_and_again_is_one() -> None:
    assert self_bleu([Reading("A mug of tea for you.").words] * 4) == pytest.approx(1.0)
    assert self_bleu([Reading("alone").words]) == 0.0
    assert columns([["a"], ["b", "c"]]) == [["a", "b"], [None, "c"]]
