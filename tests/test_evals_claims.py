"""Which claims product copy must not make, and which words are innocent."""

from __future__ import annotations

import pytest

from evals.claims import DATA, claims_in
from serving.prompt import task_of
from serving.records import Requirements, Task


def brief(language: str, product: str = "Luma Dew") -> Task:
    return task_of(Requirements(product=product), language, "beauty")


def test_what_the_brief_itself_says_is_no_claim() -> None:
    assert claims_in("Best Foot socks are warm.", brief("en", "Best Foot socks")) == []


@pytest.mark.parametrize("phrase", ["最后", "最近", "第一次"])
def test_innocent_chinese_words_are_no_claims(phrase: str) -> None:
    assert claims_in(f"早高峰{phrase}", brief("zh")) == []


@pytest.mark.parametrize("claim", ["最好", "顶级", "唯一", "100%", "国家级"])
def test_absolute_chinese_terms_are_claims(claim: str) -> None:
    assert claims_in(f"{claim}的喷雾", brief("zh"))


def test_claims_files_hold_no_term_twice() -> None:
    for language in ("en", "zh"):
        lines = (DATA / f"claims_{language}.txt").read_text("utf-8").splitlines()
        terms = [line for line in lines if line and not line.startswith("# ")]
        assert len(terms) == len(set(terms))
