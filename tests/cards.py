"""Realistic scorecards for tests that show or decide about them."""

from __future__ import annotations

from dataclasses import replace

from serving.card import (
    Arm,
    BriefStability,
    Card,
    Caveat,
    Difference,
    Estimate,
    Metric,
    Rate,
    Reason,
    Verdict,
    WorstSample,
)

PRODUCTS = ("Luma Dew face mist", "Harrow oat bars", "Tindle desk lamp", "Oakmere rain shell", "Pell key finder")


def example_arm(version: str, excellent: int, met: tuple[int, ...], bleu: float) -> Arm:
    """Twenty briefs, of which so many are excellent and three more acceptable; five briefs asked five times."""
    acceptable = min(20, excellent + 3)
    return Arm(
        version=version,
        digest="" if version == "base" else "3f" * 32,
        grades={"excellent": excellent, "acceptable": acceptable - excellent, "fail": 20 - acceptable},
        excellent=Rate(excellent, 20, max(0.0, excellent / 20 - 0.2), min(1.0, excellent / 20 + 0.13)),
        acceptable=Rate(acceptable, 20, max(0.0, acceptable / 20 - 0.2), min(1.0, acceptable / 20 + 0.1)),
        requirements={
            "answer": Rate(20, 20, 0.839, 1.0),
            "product": Rate(19, 20, 0.764, 0.991),
            "selling_points": Rate(acceptable, 20, 0.3, 0.95),
            "length": Rate(acceptable, 20, 0.3, 0.95),
            "emoji": Rate(excellent, 20, 0.2, 0.9),
        },
        metrics=(
            Metric("bleu", bleu, 0.114, "nrefs:2|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0"),
            Metric("rouge1", bleu + 0.25, 0.36, "nrefs:2|case:lc|tok:latin+han|stem:no|version:0.1.2"),
            Metric("rouge2", bleu + 0.04, 0.13, "nrefs:2|case:lc|tok:latin+han|stem:no|version:0.1.2"),
            Metric("rougeL", bleu + 0.15, 0.27, "nrefs:2|case:lc|tok:latin+han|stem:no|version:0.1.2"),
            Metric("chrf", bleu + 0.3, 0.41, "nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"),
            Metric("distinct1", 0.44, 0.61, "tok:latin+han"),
            Metric("distinct2", 0.83, 0.95, "tok:latin+han"),
        ),
        pass_k=tuple(Estimate(share, max(0.0, share - 0.2), min(1.0, share + 0.2)) for share in _curve(met)),
        briefs=tuple(
            BriefStability(f"en-{n:03}", PRODUCTS[n], count, 5, count == 5, 0.46, 0.31, 0.12, False)
            for n, count in enumerate(met)
        ),
        mean_length=38.4,
        forbidden_claims=0,
        samples=20 + 5 * len(met),
        tokens=3920,
        seconds=71.0,
    )


def _curve(met: tuple[int, ...]) -> list[float]:
    return [sum(count >= k for count in met) / len(met) for k in range(1, 6)]


def example_card(verdict: Verdict = Verdict.INCONCLUSIVE) -> Card:
    """copy-0001 against base on the English suite."""
    card = Card(
        version="copy-0001",
        digest="3f" * 32,
        base_model="SmolLM2-135M-Instruct",
        baseline="base",
        verdict=Verdict.INCONCLUSIVE,
        reason=Reason.TOO_FEW,
        reason_values={"bar": 0.8, "low": 0.55, "high": 0.88, "n": 20},
        bar=0.8,
        suite="en",
        suite_digest="9c" * 32,
        suite_size=120,
        seed=1,
        items=20,
        item_ids=tuple(f"en-{n:03}" for n in range(20)),
        repeats=5,
        sampling={"temperature": 0.7, "top_p": 0.9, "max_tokens": 160},
        candidate=example_arm("copy-0001", 15, (5, 5, 4, 5, 3), 0.121),
        live=example_arm("base", 2, (0, 1, 0, 2, 0), 0.034),
        excellent_difference=Difference(0.65, 0.4, 0.85, 0.0002, 13, 0),
        bleu_difference=Difference(0.087, 0.051, 0.124, 0.001),
        stability_difference=Estimate(0.6, 0.2, 1.0),
        worst=(
            WorstSample(
                "en-007",
                "following",
                "Tindle desk lamp",
                "A lamp for your desk that glows and glows and glows.",
                "fail",
                ("The product is not named: Tindle desk lamp.", "Too short: 11 words, the brief asks for 30-42."),
            ),
            WorstSample(
                "en-012",
                "stability",
                "Harrow oat bars",
                "Harrow oat bars ride along in your jacket. Eat one now.",
                "fail",
                ("Selling points missing: baked in small batches.",),
            ),
            WorstSample(
                "en-019",
                "following",
                "Pell key finder",
                "Pell key finder rings from under the couch, lasts a year on one cell, and clips on with one hand.",
                "acceptable",
                ("The last sentence does not ask the reader to act.",),
            ),
        ),
        caveats=(Caveat.SMALL_SAMPLE, Caveat.CEILING_ONE_FEWER, Caveat.BLEU_BAND),
        chart="scorecards/1.png",
    )
    if verdict is Verdict.PASS:
        values = {"bar": 0.8, "low": 0.84, "high": 1.0, "n": 20}
        return replace(card, verdict=verdict, reason=Reason.MEETS_BAR, reason_values=values)
    if verdict is Verdict.FAIL:
        values = {"count": 2, "total": 70, "claim": "best", "item": "en-012", "product": "Harrow oat bars"}
        return replace(card, verdict=verdict, reason=Reason.FORBIDDEN_CLAIM, reason_values=values)
    return card
