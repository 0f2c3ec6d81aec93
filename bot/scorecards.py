"""A scorecard as a message: verdict, figures beside those of the baseline, worst samples. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bot.blocks import JSON, actions, button, context, plain, section
from bot.charts import Step, bars, trend
from bot.markup import escape
from bot.texts import Words
from serving.canary import SHARE_PERCENT, Canary, Liked, Trial
from serving.card import (
    LABELS_NEEDED,
    Agreement,
    Arm,
    Card,
    Caveat,
    Difference,
    Duel,
    Estimate,
    Judged,
    Metric,
    Rate,
    Reason,
)
from serving.counts import SIGNIFICANT
from serving.records import Decision, Promotion, Scorecard
from serving.shares import hundredths, percent, points, reason_figures, with_interval

APPROVE, REJECT, ROLL_BACK = "approve", "reject", "roll_back"
TRY, END_TRIAL = "try", "end_trial"
GRADE, COMPARE, CLOSE_VOTES, MORE = "grade_blind", "compare_blind", "close_votes", "more"
WORST_SHOWN = 3
FEWEST_RATERS = 5  # of each version of a trial, before they are compared
SHOWN_METRICS = ("bleu", "rougeL", "chrf", "distinct2")


def headline(card: Card, words: Words) -> str:
    return words(f"card_{card.verdict}", version=card.version, language=words(f"language_{card.language}"))


def reason_sentence(card: Card, words: Words) -> str:
    figures = {key: escape(value) for key, value in reason_figures(card).items()}
    return words(f"why_{card.reason}", baseline=words.version(card.baseline), **figures)


def table_rows(card: Card, words: Words) -> list[list[str]]:
    """Header and one row a figure: name, baseline, candidate, difference (of shares in points), n."""
    new, old = card.candidate, card.live
    rows = [
        [
            words("col_figure"),
            words.version(card.baseline),
            card.version,
            words("col_difference"),
            "n",
        ],
        _rate_row(card, words, "excellent", old.excellent if old else None, new.excellent, card.excellent_difference),
        _rate_row(card, words, "acceptable", old.acceptable if old else None, new.acceptable),
    ]
    if card.people and card.people.candidate.total:
        rows.append(_rate_row(card, words, "excellent_by_people", card.people.live, card.people.candidate))
    rows.append(
        [
            words("stability", k=card.repeats),
            _share(old.stability, card, words) if old else "–",
            _share(new.stability, card, words),
            points(card.stability_difference if new.briefs else None),
            f"{len(new.briefs)} × {card.repeats}" if new.briefs else "0",
        ]
    )
    for metric in new.metrics:
        if metric.name in SHOWN_METRICS:
            difference = hundredths(card.bleu_difference) if metric.name == "bleu" else "–"
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


def _rate_row(
    card: Card, words: Words, key: str, old: Rate | None, new: Rate, difference: Difference | None = None
) -> list[str]:
    before = _share(old, card, words) if old else "–"
    return [words(key), before, _share(new, card, words), points(difference), str(new.total)]


def _share(value: Rate | Estimate | None, card: Card, words: Words) -> str:
    return with_interval(value, card.bar, words("not_measured"))


def _metric(arm: Arm | None, name: str) -> str:
    return "–" if arm is None else f"{arm.metric(name).value:.2f}"


def _metric_name(metric: Metric, words: Words) -> str:
    shown = {"bleu": "BLEU", "rougeL": "ROUGE-L", "chrf": "chrF", "distinct2": "distinct-2"}[metric.name]
    ceiling = words("not_measured") if metric.ceiling is None else f"{metric.ceiling:.2f}"
    return words("with_ceiling", name=shown, ceiling=ceiling)


def fallback_text(card: Card, words: Words) -> str:
    """The card without blocks: for notifications and screen readers."""
    new = card.candidate
    figures = words(
        "card_fallback",
        excellent=_share(new.excellent, card, words),
        stability=_share(new.stability, card, words),
    )
    return f"{headline(card, words)} {reason_sentence(card, words)} {figures}"


def card_blocks(
    scorecard: Scorecard,
    card: Card,
    words: Words,
    decision: Promotion | None = None,
    history: Sequence[Step] = (),
    trial: Trial | None = None,
    running: Canary | None = None,
) -> list[JSON]:
    """The whole message. Once decided, who, when and why stand where the buttons were.

    Args:
        trial: the version's newest, with figures.
        running: the one trial that runs now, of whatever version.
    """
    rows = [[{"type": "raw_text", "text": cell} for cell in row] for row in table_rows(card, words)]
    blocks: list[JSON] = [
        {"type": "header", "text": plain(headline(card, words))},
        section(reason_sentence(card, words)),
        {"type": "table", "rows": rows, "column_settings": [{"is_wrapped": True}, *[{"align": "right"}] * 4]},
        context(words("card_context", items=card.items, suite=card.suite, seed=card.seed)),
    ]
    blocks += [bars(card, words), *trend(history, words, card.bar)]
    if repeated := repetitions(card, words):
        blocks.append(context(repeated))
    caveats = [caveat for caveat in card.caveats if not (card.memorised and caveat is Caveat.MEMORISED)]
    if caveats:
        blocks.append(context(" · ".join(words(f"caveat_{caveat}") for caveat in caveats)))
    if said := said_by_people(card, words):
        blocks.append(section("\n".join(said)))
    for sample in card.worst[:WORST_SHOWN]:
        reasons = escape(" ".join(sample.reasons))
        quoted = escape(sample.text[:400]).replace("\n", "\n&gt; ") or "–"
        blocks.append(section(f"{words('worst', product=escape(sample.product), reasons=reasons)}\n&gt; {quoted}"))
    if trial:
        blocks.append(section(trial_text(trial, words)))
    blocks.append(actions(*_evidence_buttons(scorecard, card, words, decision)))
    if decision is None:
        blocks.append(actions(*_lead_buttons(scorecard, card, words, running)))
    else:
        blocks.append(section(decided(decision, words)))
    return blocks


def repetitions(card: Card, words: Words) -> str:
    """How much is copied from training and how many briefs get nearly one text each time; "" where neither is."""
    said = []
    if card.memorised:
        said.append(words("memorised", count=card.memorised.count, total=card.memorised.total))
    if similar := sum(brief.too_similar for brief in card.candidate.briefs):
        said.append(words("too_similar", count=similar, total=len(card.candidate.briefs)))
    return " ".join(said)


def _lead_buttons(scorecard: Scorecard, card: Card, words: Words, running: Canary | None) -> list[JSON]:
    value = json.dumps({"card": scorecard.id, "version": card.version, "digest": card.digest})
    buttons = [button(words("approve"), APPROVE, value, "primary"), button(words("reject"), REJECT, value, "danger")]
    if running is None:
        buttons.append(button(words("try", share=percent(SHARE_PERCENT / 100)), TRY, value))
    elif running.version == card.version:
        buttons.append(button(words("end_trial"), END_TRIAL, str(running.id)))
    return buttons


def _evidence_buttons(scorecard: Scorecard, card: Card, words: Words, decision: Promotion | None) -> list[JSON]:
    """Ways to know more about a version."""
    value = str(scorecard.id)
    buttons = [button(words("grade_blind"), GRADE, value)]
    if card.live:
        buttons.append(button(words("compare_blind"), COMPARE, value))
    if card.people and card.people.voting:
        buttons.append(button(words("close_votes"), CLOSE_VOTES, value))
    if card.reason is Reason.TOO_FEW and card.items < card.suite_size and decision is None:
        buttons.append(button(words("more"), MORE, value))
    return buttons


def said_by_people(card: Card, words: Words) -> list[str]:
    """What people and a judge found, a sentence or two each."""
    said = []
    if people := card.people:
        if people.graders:
            said.append(words("people_graded", n=people.graders, agree=agreement_text(people.checks, words)))
        if people.duel:
            said.append(duel_sentence(people.duel, card.version, card.baseline, words))
        if people.voting:
            said.append(words("voting", n=people.voting))
    return [*said, judge_sentence(card.judged, card, words)] if card.judged else said


def agreement_text(found: Agreement, words: Words, counted: str = "n_texts") -> str:
    """Cohen's kappa in words (Landis and Koch 1977)."""
    labels = words(counted, n=found.labels)
    if found.kappa is None:
        return words("agree_unknown", n=labels)
    level = sum(found.kappa >= bound for bound in (0.2, 0.4, 0.6, 0.8))
    return words("agree", how=words(f"agree_{level}"), kappa=f"{found.kappa:.2f}", n=labels)


def duel_sentence(duel: Duel, version: str, baseline: str, words: Words) -> str:
    """Who was preferred, and whether that is more than chance."""
    values = {"version": words.version(version), "baseline": words.version(baseline)}
    counted = words("duel", wins=duel.wins, ties=duel.ties, losses=duel.losses, voters=duel.voters, **values)
    proven = "duel_open" if duel.p >= SIGNIFICANT else "duel_better" if duel.wins > duel.losses else "duel_worse"
    if duel.needed is None:
        proven = "duel_few"
    judged = words(
        proven,
        needed=duel.needed,
        decided=duel.wins + duel.losses,
        p="p < 0.001" if duel.p < 0.001 else f"p = {duel.p:.3f}",
        **values,
    )
    return " ".join([counted, judged, *([words("duel_early")] if duel.closed_early else [])])


def judge_sentence(judged: Judged, card: Card, words: Words) -> str:
    state = "calibrated" if judged.calibrated else "uncalibrated"
    baseline = words.version(card.baseline)
    said = [
        words(
            "judge_said",
            judge=escape(judged.judge),
            state=words(state, labels=judged.people.labels, needed=LABELS_NEEDED),
            candidate=_share(judged.candidate, card, words),
            live=_share(judged.live, card, words),
            baseline=baseline,
        )
    ]
    if judged.wins + judged.ties + judged.losses:
        counts = {"wins": judged.wins, "ties": judged.ties, "losses": judged.losses}
        said.append(words("judge_compared", baseline=baseline, **counts))
    said.append(words("judge_agrees", agree=agreement_text(judged.people, words)))
    if judged.votes.labels:
        said.append(words("judge_votes", agree=agreement_text(judged.votes, words, "n_pairs")))
    if judged.unscored:
        said.append(words("judge_unscored", n=judged.unscored))
    return " ".join(said)


def trial_text(trial: Trial, words: Words) -> str:
    """Who tries a version since when, and how often each version was liked meanwhile."""
    canary = trial.canary
    opening = words(
        "trial_over" if canary.ended_by else "trial_on",
        version=canary.version,
        share=percent(canary.share),
        who=words.who(canary.ended_by or canary.started_by),
        since=_minute(canary.created_at),
        until=_minute(canary.ended_at or ""),
    )
    rates = [f"• {_liked_text(liked, words)}" for liked in trial.liked]
    return "\n".join([opening, *rates, words(_trial_verdict(trial), version=canary.version, people=FEWEST_RATERS)])


def _liked_text(liked: Liked, words: Words) -> str:
    version, up = words.version(liked.version), liked.up
    if not up.total:
        return words("trial_unrated", version=version)
    values = {"share": percent(up.share), "low": percent(up.low), "high": percent(up.high)}
    return words("trial_rate", version=version, up=up.successes, total=up.total, people=liked.people, **values)


def _trial_verdict(trial: Trial) -> str:
    """Whether the intervals part: stricter than a test, since figures are looked at while they come in.

    The intervals take ratings for independent, and one person's are not: below FEWEST_RATERS nothing is said.
    """
    rated = [liked for liked in trial.liked[1:] if liked.people >= FEWEST_RATERS]
    if trial.liked[0].people < FEWEST_RATERS or not rated:
        return "trial_few"
    candidate, others = trial.liked[0].up, [liked.up for liked in rated]
    if all(candidate.low > other.high for other in others):
        return "trial_better"
    return "trial_worse" if all(candidate.high < other.low for other in others) else "trial_open"


def _minute(when: str) -> str:
    return when[:16].replace("T", " ")


def decided(decision: Promotion, words: Words) -> str:
    key = "was_approved" if decision.decision is Decision.APPROVED else "was_rejected"
    when = _minute(decision.created_at)
    text = words(key, who=words.who(decision.user), version=decision.version, when=when)
    return f"{text} {words('because', reason=escape(decision.reason))}" if decision.reason else text
