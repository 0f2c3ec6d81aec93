"""How fast a card is made, as JSON lines. Run: python -m evals.bench [score] [card]"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from dataclasses import replace

from evals.leaks import leaked
from evals.lint import read_starter
from evals.plan import Plan
from evals.scorecard import Subject, make_card
from evals.suite import read_suite
from serving.records import Sample

LANGUAGES = ("en", "zh")
SCORED_ITEMS, SCORED_BRIEFS = 750, 350  # with 5 repeats 2,500 samples an arm, two arms a language


def bench_score() -> dict[str, object]:
    """Checks, metrics, memorisation, leaks and bootstraps of 10,000 stored samples: an English and a Chinese card."""
    work = []
    for language in LANGUAGES:
        plan, starter = _large_plan(language), read_starter(language)
        subjects = [_subject(name, plan, seed) for seed, name in enumerate(("candidate", "live"))]
        work.append((plan, starter, subjects))
    samples = sum(len(subject.samples) for _, _, subjects in work for subject in subjects)
    started = time.perf_counter()
    for plan, starter, (candidate, live) in work:
        pairs = [(pair.task, pair.output) for pair in starter]
        leaks = leaked(plan.suite.items, pairs)
        make_card(plan, candidate, live, base_model="", training=[output for _, output in pairs], leaks=leaks)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "bench": "score",
        "samples": samples,
        "samples_per_s": round(samples / seconds),
        "seconds": round(seconds, 2),
        "peak_gib": round(peak, 2),
    }


def _large_plan(language: str) -> Plan:
    """The shipped briefs, each under several ids."""
    suite = read_suite(language)
    copies = -(-SCORED_ITEMS // len(suite.items))
    items = tuple(replace(item, id=f"{item.id}-{n}") for n in range(copies) for item in suite.items)
    return Plan(replace(suite, items=items), SCORED_ITEMS, SCORED_BRIEFS)


def _subject(name: str, plan: Plan, seed: int) -> Subject:
    """Texts as a model near its references writes them: a reference with three words in other places."""
    rng = random.Random(f"{name} {seed}")
    samples = {}
    for call in plan.calls():
        reference = rng.choice(call.item.references)
        words = reference.split(" ") if plan.suite.language == "en" else list(reference)
        for _ in range(3):
            words.insert(rng.randrange(len(words)), words.pop(rng.randrange(len(words))))
        text = (" " if plan.suite.language == "en" else "").join(words)
        samples[call.key] = Sample(0, 0, call.item.id, call.part, call.repeat, text, "", {}, "")
    return Subject(name, "", samples)


def main(names: list[str]) -> None:
    for name, bench in {"score": bench_score}.items():
        if not names or name in names:
            print(json.dumps(bench()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
