"""A scorecard as a message: verdict, figures beside those of the live version, worst samples. Pure."""

from __future__ import annotations

import json

from bot.blocks import JSON, actions, button, context, plain, section
from bot.markup import escape
from bot.texts import Words
from serving.card import Arm, Card, Difference, Estimate, Metric, Rate
from serving.records import Decision, Promotion, Scorecard
from serving.store import BASE

APPROVE, REJECT, ROLL_BACK = "approve", "reject", "roll_back"
WORST_SHOWN = 3
SHOWN_METRICS = ("bleu", "rougeL", "chrf", "distinct2")


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def interval(low: float, high: float) -> str:
    return f"[{100 * low:.0f}, {100 * high:.0f}]"


def points(difference: Difference | Estimate | None) -> str:
    if difference is None:
        return "–"
    return f"{100 * difference.value:+.0f} [{100 * difference.low:+.0f}, {100 * difference.high:+.0f}]"


def name_of(version: str, words: Words) -> str:
    return words("base_model") if version == BASE else version


def headline(card: Card, words: Words) -> str:
    return words(f"card_{card.verdict}", version=card.version)


def reason_sentence(card: Card, words: Words) -> str:
    values = {
        key: percent(value) if isinstance(value, float) and key in ("bar", "low", "high") else value
        for key, value in card.reason_values.items()
    }
    return words(f"why_{card.reason}", **{key: escape(str(value)) for key, value in values.items()})


def table_rows(card: Card, words: Words) -> list[list[str]]:
    """Header and one row a figure: name, live, candidate, difference in points, n."""
    new, old = card.candidate, card.live
    k = len(new.pass_k)
    rows = [
        [
            words("col_figure"),
            name_of(card.baseline, words),
            card.version,
            words("col_difference"),
            "n",
        ],
        _rate_row(words("excellent"), old.excellent if old else None, new.excellent, card.excellent_difference),
        _rate_row(words("acceptable"), old.acceptable if old else None, new.acceptable, None),
    ]
    if new.pass_k:
        rows.append(
            [
                words("stability", k=k),
                _estimate(old.pass_k[-1]) if old and old.pass_k else "–",
                _estimate(new.pass_k[-1]),
                points(card.stability_difference),
                f"{len(new.briefs)} × {card.repeats}",
            ]
        )
    for metric in new.metrics:
        if metric.name in SHOWN_METRICS:
            difference = points(card.bleu_difference) if metric.name == "bleu" else "–"
            rows.append(
                [
                    _metric_name(metric, words),
                    _metric(old, metric.name),
                    f"{metric.value:.2f}",
                    difference,
                    str(card.items),
                ]
            )
    rows.append(
        [
            words("forbidden"),
            str(old.forbidden_claims) if old else "–",
            str(new.forbidden_claims),
            "–",
            str(new.samples),
        ]
    )
    return rows


def _rate_row(name: str, old: Rate | None, new: Rate, difference: Difference | None) -> list[str]:
    return [name, _rate(old) if old else "–", _rate(new), points(difference), str(new.total)]


def _rate(rate: Rate) -> str:
    return f"{percent(rate.share)} {interval(rate.low, rate.high)}"


def _estimate(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} {interval(estimate.low, estimate.high)}"


def _metric(arm: Arm | None, name: str) -> str:
    return "–" if arm is None else f"{arm.metric(name).value:.2f}"


def _metric_name(metric: Metric, words: Words) -> str:
    shown = {"bleu": "BLEU", "rougeL": "ROUGE-L", "chrf": "chrF", "distinct2": "distinct-2"}[metric.name]
    return shown if metric.ceiling is None else words("with_ceiling", name=shown, ceiling=f"{metric.ceiling:.2f}")


def fallback_text(card: Card, words: Words) -> str:
    """The card without blocks: for notifications and screen readers."""
    new = card.candidate
    figures = words(
        "card_fallback", excellent=_rate(new.excellent), stability=_estimate(new.pass_k[-1]) if new.pass_k else "–"
    )
    return f"{headline(card, words)} {reason_sentence(card, words)} {figures}"


def card_blocks(
    scorecard: Scorecard, card: Card, words: Words, decision: Promotion | None = None, picture: str = ""
) -> list[JSON]:
    """The whole message. Once decided, who, when and why stand where the buttons were."""
    rows = [[{"type": "raw_text", "text": cell} for cell in row] for row in table_rows(card, words)]
    blocks: list[JSON] = [
        {"type": "header", "text": plain(headline(card, words))},
        section(reason_sentence(card, words)),
        {"type": "table", "rows": rows, "column_settings": [{"is_wrapped": True}, *[{"align": "right"}] * 4]},
        context(words("card_context", items=card.items, suite=card.suite, seed=card.seed)),
    ]
    if picture:
        blocks.append({"type": "image", "slack_file": {"id": picture}, "alt_text": fallback_text(card, words)[:1900]})
    if caveats := [words(f"caveat_{caveat}") for caveat in card.caveats]:
        blocks.append(context(" · ".join(caveats)))
    for sample in card.worst[:WORST_SHOWN]:
        reasons = escape("; ".join(sample.reasons))
        quoted = escape(sample.text[:400]).replace("\n", "\n&gt; ") or "–"
        blocks.append(section(f"{words('worst', product=escape(sample.product), reasons=reasons)}\n&gt; {quoted}"))
    if decision is None:
        value = json.dumps({"card": scorecard.id, "version": card.version, "digest": card.digest})
        blocks.append(
            actions(
                button(words("approve"), APPROVE, value, "primary"),
                button(words("reject"), REJECT, value, "danger"),
            )
        )
    else:
        blocks.append(section(decided(decision, words)))
    return blocks


def decided(decision: Promotion, words: Words) -> str:
    key = "was_approved" if decision.decision is Decision.APPROVED else "was_rejected"
    who = words("command_line") if decision.user == "cli" else f"<@{decision.user}>"
    text = words(key, who=who, version=decision.version, when=decision.created_at[:16].replace("T", " "))
    return f"{text} {words('because', reason=escape(decision.reason))}" if decision.reason else text
