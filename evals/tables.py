"""Cards and comparisons as tables on a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from evals.comparison import Comparison
from evals.scorecard import BAR
from serving.card import Agreement, Arm, Card, Rate
from serving.records import Scorecard
from serving.shares import UNMEASURED, percent, points, reason_figures, with_interval


def print_list(cards: list[Scorecard]) -> None:
    if not cards:
        Console().print("There is no scorecard yet: copydesk eval run")
        return
    columns = ("id", "version", "against", "suite", "verdict", "excellent", "all repeats meet", "BLEU", "when")
    table = Table(*columns, box=None)
    for row in cards:
        card = Card.from_json(row.body or {})
        own = card.candidate
        table.add_row(
            str(row.id),
            row.version,
            row.baseline,
            card.suite,
            card.verdict.value,
            _rate(own.excellent),
            percent(own.stability.value, card.bar) if own.stability else UNMEASURED,
            f"{own.metric('bleu').value:.2f}",
            row.created_at[:16],
        )
    Console().print(table)


def print_comparison(found: Comparison) -> None:
    """The second card minus the first."""
    console = Console()
    first, second = found.first, found.second
    table = Table("", *(f"{side.version} ({side.scorecard})" for side in (first, second)), "difference", "p", box=None)
    for name, old, new, difference in (
        ("excellent", first.excellent, second.excellent, found.excellent),
        ("acceptable or better", first.acceptable, second.acceptable, found.acceptable),
    ):
        table.add_row(name, _rate(old), _rate(new), points(difference), f"{difference.p:.3f}")
    was, now = (with_interval(side.pass_k, BAR) for side in (first, second))
    table.add_row("all repeats meet", was, now, points(found.pass_k), "")
    table.add_row("samples that meet their brief", "", "", points(found.meeting), "")
    bleu = found.bleu
    spread = f"{bleu.value:+.3f} ({bleu.low:+.3f} to {bleu.high:+.3f})"
    table.add_row("BLEU", f"{first.bleu:.3f}", f"{second.bleu:.3f}", spread, f"{bleu.p:.3f}")
    console.print(table)
    changed = f"excellent: {found.excellent.gained} briefs gained, {found.excellent.lost} lost"
    common = f"in common {found.items} briefs and {found.briefs} × {found.k}"
    console.print(
        f"suite {found.suite} {found.suite_digest[:12]}; {common}; {changed}; "
        "p: exact McNemar; differences of rates: Tango's score interval; else draws of whole briefs",
        style="dim",
        highlight=False,
    )


def _rate(rate: Rate) -> str:
    return f"{rate.successes}/{rate.total}  {with_interval(rate, BAR)}" if rate.total else UNMEASURED


def print_card(scorecard: Scorecard) -> None:
    card = Card.from_json(scorecard.body or {})
    console = Console()
    values = ", ".join(f"{name} {value}" for name, value in reason_figures(card).items())
    console.print(f"\n[bold]{card.version}: {card.verdict}[/bold]  {card.reason} ({values})", highlight=False)
    arms = [card.live, card.candidate] if card.live else [card.candidate]
    table = Table("", *(arm.version for arm in arms if arm), box=None)
    for label, tell in _LINES.items():
        table.add_row(label, *(tell(arm) for arm in arms if arm))
    for name in card.candidate.requirements:
        table.add_row(
            f"  {name}", *(_rate(arm.requirements[name]) if name in arm.requirements else "" for arm in arms if arm)
        )
    console.print(table)
    for sample in card.worst:
        console.print(f"{sample.item_id} ({sample.grade}): {' '.join(sample.reasons)}", highlight=False, markup=False)
    console.print(
        f"suite {card.suite} {card.suite_digest[:12]}, seed {card.seed}; "
        f"{card.candidate.metric('bleu').signature}; caveats: {', '.join(card.caveats) or 'none'}",
        style="dim",
        highlight=False,
    )
    print_people(card)


def _metric(name: str, arm: Arm) -> str:
    metric = arm.metric(name)
    return f"{metric.value:.3f}  (human {UNMEASURED if metric.ceiling is None else format(metric.ceiling, '.3f')})"


_LINES: dict[str, Callable[[Arm], str]] = {
    "excellent": lambda arm: _rate(arm.excellent),
    "excellent, loosely read": lambda arm: _rate(arm.loose) if arm.loose else "",
    "acceptable or better": lambda arm: _rate(arm.acceptable),
    "pass^1 … pass^k": lambda arm: "  ".join(f"{one.value:.2f}" for one in arm.pass_k) if arm.briefs else UNMEASURED,
    "BLEU": lambda arm: _metric("bleu", arm),
    "ROUGE-L": lambda arm: _metric("rougeL", arm),
    "chrF": lambda arm: _metric("chrf", arm),
    "distinct-2": lambda arm: _metric("distinct2", arm),
    "stable briefs": lambda arm: (
        f"{sum(brief.stable for brief in arm.briefs)} of {len(arm.briefs)}" if arm.briefs else UNMEASURED
    ),
    "mean length": lambda arm: f"{arm.mean_length:.1f}",
    "tokens, seconds": lambda arm: f"{arm.tokens}, {arm.seconds:.0f}",
}


def print_people(card: Card) -> None:
    """What people and the judge said; nothing where nobody has."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if people := card.people:
        if people.graders:
            rates = f"excellent {_rate(people.candidate)}, {card.baseline} {_rate(people.live)}"
            console.print(f"people: {rates}; {people.graders} graded")
            console.print(f"people and checks: {_kappa(people.checks)}")
        if duel := people.duel:
            needed = f"{duel.needed} of {duel.wins + duel.losses} wins needed" if duel.needed else "too few to tell"
            early = ", ended early" if duel.closed_early else ""
            console.print(
                f"compared blind: {duel.wins} wins, {duel.ties} ties, {duel.losses} losses; "
                f"sign test p = {duel.p:.3f}, {needed}{early}"
            )
    if judged := card.judged:
        state = "calibrated" if judged.calibrated else "uncalibrated"
        console.print(
            f"judge {judged.judge} ({state}): excellent {_rate(judged.candidate)}, "
            f"{card.baseline} {_rate(judged.live)}; against {card.baseline} {judged.wins} wins, {judged.ties} ties, "
            f"{judged.losses} losses; questions without an answer {judged.unscored}"
        )
        console.print(f"judge and people: {_kappa(judged.people)}")
        if judged.votes.labels:
            console.print(f"judge and people, compared blind: {_kappa(judged.votes, 'pairs')}")


def _kappa(found: Agreement, counted: str = "texts") -> str:
    return f"kappa {UNMEASURED if found.kappa is None else format(found.kappa, '.2f')} on {found.labels} {counted}"
