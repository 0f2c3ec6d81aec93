"""What a round may learn from: duplicates, conflicts, held-out briefs, damaged texts, and what was left out of it."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.leaks import keys
from evals.suite import read_suite, suite_names
from serving.exchange import starter_pairs
from serving.held_out import suite_keys
from serving.jobs import Exclusion, Jobs
from serving.records import CopydeskError, Pair, PairSource, PairStatus, Requirements, Split, Task
from serving.store import NewPair, Store, split_of
from trainer.hygiene import ENOUGH_PAIRS, Clean, clean, refuse_held_out, warnings

LAMP = "Alder lamp warms the corner where you read, dims with one touch and folds flat when the desk is needed."
OTHER = "Put down the phone: this light makes pages glow, and the arm bends as far as your chair goes."


def brief(name: str = "Alder lamp") -> Task:
    """A brief that is not held out."""
    return next(task for n in range(99) if split_of(task := Task(f"Write about {name}, {n}.")) is Split.TRAIN)


def pair(id: int, output: str, task: Task | None = None, **changes: Any) -> Pair:
    new = Pair(
        id, task or brief(), output, PairSource.IMPORT, PairStatus.ACTIVE, Split.TRAIN, "", None, f"2026-01-{id:02}"
    )
    return replace(new, **changes)


def cleaned(*pairs: Pair, held_out: tuple[Pair, ...] = ()) -> Clean:
    return clean(pairs, held_out, suite_keys())


def reasons(found: Clean) -> list[str]:
    return [str(skipped) for skipped in found.skipped]


def test_letters_come_in_one_encoding() -> None:
    found = cleaned(pair(1, unicodedata.normalize("NFD", "Crème brûlée.")))
    assert found.pairs[0].output == "Crème brûlée."


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("", "the output is empty"),
        (" \u3000\n\t", "the output is empty"),
        ("\u200b\ufeff", "the output is empty"),
        ("Caf\ufffd", "the output was read in a wrong encoding; import it again as UTF-8"),
        ("CafÃ© crÃ¨me", "the output was read in a wrong encoding; import it again as UTF-8"),
    ],
)
def test_a_text_that_nobody_could_learn_from_is_left_out(output: str, reason: str) -> None:
    found = cleaned(pair(1, output), pair(2, "Café, “crème”, naïve – fine."))
    assert reasons(found) == [f"pair 1: {reason}"]
    assert [kept.id for kept in found.pairs] == [2]


def test_a_pair_without_an_instruction_is_left_out() -> None:
    assert reasons(cleaned(pair(1, LAMP, Task(" \u200b")))) == ["pair 1: the instruction is empty"]


def test_of_equal_pairs_the_latest_stays() -> None:
    found = cleaned(pair(1, "Glows."), pair(2, "glows. "), pair(3, "Glows softly."))
    assert reasons(found) == ["pair 1: the same as pair 2"]


def test_of_nearly_equal_texts_the_latest_stays_and_a_correction_before_all() -> None:
    texts = LAMP, f"{LAMP} Yes.", f"{LAMP} So."
    one, two, three = (pair(id, text, brief(f"lamp {id}")) for id, text in enumerate(texts, 1))
    assert reasons(cleaned(one, two, three)) == [
        "pair 1: nearly the text of pair 3",
        "pair 2: nearly the text of pair 3",
    ]
    corrected = replace(one, source=PairSource.CORRECTION)
    assert [kept.id for kept in cleaned(corrected, two, three).pairs] == [1]


def test_chinese_texts_are_compared_too() -> None:
    text = "云朵保温杯陪你从清晨到深夜，保温十二小时，单手一按就能开盖，通勤路上喝一口热水就安心。"
    found = cleaned(
        pair(1, text, brief("a")), pair(2, text.replace("安心", "踏实"), brief("b")), pair(3, OTHER, brief("c"))
    )
    assert reasons(found) == ["pair 1: nearly the text of pair 2"]


@pytest.mark.parametrize(
    ("slogan", "again", "other"),
    [
        ("Light, folded.", "light,  FOLDED.", "Light, held."),
        ("暖光，一折即收。", "暖光， 一折即收。", "暖光，一按即亮。"),
    ],
)
def test_short_texts_are_compared_whole(slogan: str, again: str, other: str) -> None:
    found = cleaned(pair(1, slogan, brief("a")), pair(2, again, brief("b")), pair(3, other, brief("c")))
    assert reasons(found) == ["pair 1: nearly the text of pair 2"]
    held = pair(9, again, split=Split.HELD_OUT)
    found = cleaned(pair(1, slogan, brief("a")), pair(3, other, brief("c")), held_out=(held,))
    assert reasons(found) == ["pair 1: nearly the text of pair 9, which is held out"]


def test_the_search_for_near_duplicates_misses_none() -> None:
    """Against a comparison of every text with every other."""
    from trainer.hygiene import NEAR, jaccard, shingles

    words = LAMP.split()
    texts = [" ".join(words[:cut] + ["quiet"] * (cut % 4) + words[cut + 1 :]) for cut in range(len(words))]
    pairs = [pair(id, text, brief(str(id))) for id, text in enumerate(texts, 1)]
    kept: list[Pair] = []
    for new in reversed(pairs):
        if all(jaccard(shingles(new.output), shingles(old.output)) < NEAR for old in kept):
            kept.append(new)
    assert 1 < len(kept) < len(pairs)
    assert {p.id for p in cleaned(*pairs).pairs} == {p.id for p in kept}


def test_a_brief_that_people_answer_differently_keeps_the_newest_correction() -> None:
    anna = pair(1, LAMP, source=PairSource.CORRECTION, author="U_ANNA")
    liwei = pair(2, OTHER, source=PairSource.CORRECTION, author="U_LIWEI")
    imported = pair(3, "Nothing but a lamp. It stands on a table and it shines.", created_at="2025")
    assert reasons(cleaned(anna, liwei, imported)) == [
        "pair 1: pair 2 answers the same brief in another way and is the later judgement",
        "pair 3: pair 2 answers the same brief in another way and is the later judgement",
    ]


def test_several_answers_of_one_person_or_liked_by_several_are_no_conflict() -> None:
    anna = [pair(id, text, source=PairSource.CORRECTION, author="U_ANNA") for id, text in enumerate((LAMP, OTHER), 1)]
    assert reasons(cleaned(*anna)) == []
    liked = [replace(p, source=PairSource.ACCEPTED, author=f"U{p.id}") for p in anna]
    assert reasons(cleaned(*liked)) == []
    later = replace(liked[1], author="U_LIWEI")
    assert reasons(cleaned(anna[0], later)) == []


def test_held_out_briefs_and_texts_never_train() -> None:
    held_task = next(task for n in range(99) if split_of(task := Task(f"Held {n}.")) is Split.HELD_OUT)
    held = pair(9, LAMP, held_task, split=Split.HELD_OUT)
    found = cleaned(
        pair(1, OTHER, held_task),
        pair(2, LAMP.replace("one", "a")),
        replace(pair(3, OTHER), split=Split.HELD_OUT),
        held_out=(held,),
    )
    assert reasons(found) == [
        "pair 1: its brief is held out",
        "pair 2: nearly the text of pair 9, which is held out",
        "pair 3: its brief is held out",
    ]
    with pytest.raises(CopydeskError, match=r"Pair 1 must not train \(its brief is held out\); nothing was trained"):
        refuse_held_out([pair(1, OTHER, held_task)], suite_keys())


def test_briefs_and_references_of_the_suites_never_train() -> None:
    items = [item for item in read_suite("en").items if split_of(item.task) is Split.TRAIN]
    found = cleaned(pair(1, OTHER, items[0].task), pair(2, items[1].references[0].upper()))
    assert reasons(found) == [
        "pair 1: its brief is one of an evaluation suite",
        "pair 2: its output is a reference of an evaluation suite",
    ]


def test_the_keys_are_those_of_the_suites() -> None:
    """After a change of the suites: python -m evals keys > serving/suite_keys.txt"""
    assert suite_keys() == {key for name in suite_names() for key in keys(read_suite(name).items)}


def test_without_the_keys_nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    suite_keys.cache_clear()
    monkeypatch.setattr("serving.held_out.FILE", "gone.txt")
    with pytest.raises(CopydeskError, match="install Copydesk again"):
        suite_keys()


def test_no_starter_pair_is_left_out_but_those_held_out() -> None:
    new = [*starter_pairs("en"), *starter_pairs("zh")]
    pairs = [pair(id, p.output, p.task, split=split_of(p.task), created_at="") for id, p in enumerate(new, 1)]
    found = clean(pairs, [], suite_keys())
    assert {skipped.reason for skipped in found.skipped} == {"its brief is held out"}


def test_small_categories_are_told_in_one_sentence() -> None:
    pairs = [pair(id, f"Text {id}.", replace(brief(), category="food")) for id in (1, 2)]
    assert warnings(pairs) == (f"Fewer than {ENOUGH_PAIRS} pairs, so style may not settle: food en 2.",)


def test_a_category_with_mixed_styles_is_told() -> None:
    def styled(id: int, marks: bool) -> Pair:
        task = replace(brief(str(id)), category="home", requirements=Requirements(emoji=(0, 0)))
        return pair(id, f"Sit down{'!' if marks else '.'}", task)

    assert "Mixed styles in home en: 50% of 24 texts use exclamation marks." in warnings(
        [styled(id, id % 2 == 0) for id in range(1, 25)]
    )
    assert len(warnings([styled(id, id == 1) for id in range(1, 25)])) == 1


def test_which_versions_saw_a_pair_and_which_rounds_left_it_out(store: Store, tmp_path: Path) -> None:
    store.add_pairs([NewPair(brief(name), name, PairSource.IMPORT) for name in ("a", "b")])
    jobs = Jobs(store)
    for number, pairs in enumerate(([1], [1, 2], [2]), 1):
        round = store.start_round({"name": "default"}, pairs, "digest")
        jobs.exclude(round.id, [(id, "too long") for id in (1, 2) if id not in pairs])
        if number < 3:
            store.finish_round(round.id, {}, path=str(tmp_path), digest="d", base_model="m")
    assert jobs.versions_that_saw(1) == ["copy-0001", "copy-0002"]
    assert jobs.versions_that_saw(2) == ["copy-0002"]  # the third round made none
    assert jobs.exclusions(pair_id=2) == [Exclusion(1, 2, "too long")]
    assert jobs.exclusions(round_id=3) == [Exclusion(3, 1, "too long")]
