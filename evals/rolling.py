"""The suite that grows: held-out briefs of real requests, with what people wrote for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from evals.checks import score
from evals.leaks import leaked
from evals.suite import Item, Suite, suite_of
from serving.prompt import brief_key
from serving.records import CopydeskError, Pair, PairSource, Split
from serving.store import Store

PREFIX = "rolling-"
GROWN = 20  # briefs: fewer would say "too few to tell" each time
# What a person wrote. A draft that was accepted is a model's text: as a reference it would favour that model.
WRITTEN = (PairSource.CORRECTION, PairSource.IMPORT)


def grown_suite(store: Store, language: str) -> tuple[Suite, ...]:
    """The rolling suite, where it holds enough briefs for a scorecard of its own."""
    try:
        suite = rolling_suite(store, language)
    except CopydeskError:
        return ()
    return (suite,) if len(suite.items) >= GROWN else ()


def rolling_suite(store: Store, language: str) -> Suite:
    """The held-out briefs of a language, with every text that people wrote for them and that does what they ask.

    Briefs whose texts stand in a training pair are left out: they are held out by name only. So are those that ask
    nothing that can be checked, where any text would be excellent, and those that no person's text meets.

    Raises:
        CopydeskError: there are none yet.
    """
    pairs = [pair for pair in store.pairs() if pair.task.language == language]
    training = [(pair.task, pair.output) for pair in pairs if pair.split is Split.TRAIN]
    briefs: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.split is Split.HELD_OUT and pair.source in WRITTEN:
            briefs.setdefault(brief_key(pair.task), []).append(pair)
    items = [_item(own) for pairs in briefs.values() if (own := [pair for pair in pairs if _usable(pair)])]
    lost = leaked(items, training)
    rows = [_row(item) for item in items if item.id not in lost]
    if not rows:
        raise CopydeskError(
            f"There is no {PREFIX}{language} yet: it needs corrections of held-out briefs (one brief in ten is held "
            "out). Until then: --suite " + language
        )
    return suite_of(PREFIX + language, "".join(row + "\n" for row in rows).encode())


def _usable(pair: Pair) -> bool:
    asked = pair.task.requirements
    checkable = bool(asked.product or asked.selling_points or asked.length)
    return checkable and score(pair.output, pair.task).meets


def _item(pairs: Sequence[Pair]) -> Item:
    return Item(f"pair-{pairs[0].id}", pairs[0].task, tuple(dict.fromkeys(pair.output for pair in pairs)))


def _row(item: Item) -> str:
    task = item.task
    row = {
        "id": item.id,
        "language": task.language,
        "category": task.category,
        "instruction": task.instruction,
        "input": task.input,
        "requirements": asdict(task.requirements),
        "references": item.references,
    }
    return json.dumps(row, ensure_ascii=False)
