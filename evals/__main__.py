"""Scorecards from the command line. Run: python -m evals run [VERSION …]"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from evals.leaks import keys as suite_keys_of
from evals.lint import lint as findings
from evals.lint import read_starter
from evals.outputs import file_metrics
from evals.plan import Plan
from evals.runner import Runner
from evals.suite import read_suite, suite_names
from serving.card import Arm, Card, Rate
from serving.client import ModelClient
from serving.records import CopydeskError, Scorecard
from serving.settings import read_settings
from serving.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Score versions, and show what was found.")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(
    versions: Annotated[list[str] | None, typer.Argument(help="None: every version without a scorecard.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Compare with this version; the live one by default.")] = None,
    suite: Annotated[str, typer.Option(help="A suite's name, or a .jsonl file.")] = "en",
    items: Annotated[int, typer.Option(min=1, help="Briefs that are asked once.")] = 20,
    briefs: Annotated[int, typer.Option(min=1, help="Briefs that are asked several times.")] = 10,
    repeats: Annotated[int, typer.Option(min=2, max=20, help="How often each of those is asked.")] = 5,
    seed: Annotated[int, typer.Option(help="Draws the briefs.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Generate, score and compare; a run that was stopped goes on where it was."""
    settings = read_settings()
    plan = Plan(read_suite(suite), items, briefs, repeats, seed)
    store = Store(settings.database)
    names = versions or [version.name for version in store.unscored_versions()]
    cards = asyncio.run(_run(store, names, plan, baseline))
    if as_json:
        print(json.dumps([_listed(card) for card in cards], ensure_ascii=False))
    elif not cards:
        Console().print("Every version has a scorecard; name one to score it again.")
    for card in cards if not as_json else []:
        _print_card(card)


async def _run(store: Store, names: list[str], plan: Plan, baseline: str | None) -> list[Scorecard]:
    settings = read_settings()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    rows: dict[str, TaskID] = {}

    def progress(version: str, done: int, total: int) -> None:
        if version not in rows:
            rows[version] = bar.add_task(f"Scoring {version}", total=total)
        bar.update(rows[version], completed=done)

    async with ModelClient.of(settings) as client:
        runner = Runner(store, client, settings.copydesk_home, settings.copydesk_model, progress)
        with bar:
            return [await runner.run(name, plan, baseline) for name in names]


@app.command()
def show(
    scorecard: Annotated[str, typer.Argument(help="A scorecard's number, or a version's name for its newest.")],
    as_json: JsonFlag = False,
) -> None:
    """One scorecard."""
    store = Store(read_settings().database)
    if scorecard.isdecimal():
        card = store.scorecard(int(scorecard))
    else:
        cards = store.scorecards(scorecard)
        if not cards:
            raise CopydeskError(f"There is no scorecard of {scorecard}; make one: copydesk eval run {scorecard}")
        card = cards[0]
    if card.body is None:
        raise CopydeskError(f"Scorecard {card.id} is not finished; go on with it: copydesk eval run {card.version}")
    if as_json:
        print(json.dumps(_listed(card), ensure_ascii=False))
    else:
        _print_card(card)


@app.command("list")
def list_cards(version: Annotated[str | None, typer.Argument()] = None, as_json: JsonFlag = False) -> None:
    """Finished scorecards, the newest first."""
    cards = Store(read_settings().database).scorecards(version)
    if as_json:
        print(json.dumps([_listed(card) for card in cards], ensure_ascii=False))
        return
    table = Table("id", "version", "against", "verdict", "excellent", "all repeats meet", "BLEU", "when", box=None)
    for row in cards:
        card = Card.from_json(row.body or {})
        own = card.candidate
        table.add_row(
            str(row.id),
            row.version,
            row.baseline,
            card.verdict.value,
            _rate(own.excellent),
            f"{own.pass_k[-1].value:.0%}",
            f"{own.metric('bleu').value:.2f}",
            row.created_at[:16],
        )
    Console().print(table)


@app.command()
def lint(names: Annotated[list[str] | None, typer.Argument(help="Suites; all by default.")] = None) -> None:
    """Check suites and starter pairs; exit 1 when something is wrong."""
    found = []
    for name in names or suite_names():
        suite = read_suite(name)
        starter = read_starter(suite.language)
        wrong = findings(suite, starter)
        found += wrong
        Console(stderr=True).print(
            f"{name}: {len(suite.items)} briefs, {len(starter)} starter pairs, {len(wrong)} findings", highlight=False
        )
    for line in found:
        print(line)
    if found:
        raise typer.Exit(1)


@app.command()
def metrics(
    hyp: Annotated[Path, typer.Option(help="What was written, one output a line.")],
    ref: Annotated[list[Path], typer.Option(help="What people wrote, line by line; may be given more than once.")],
    as_json: JsonFlag = False,
) -> None:
    """BLEU, ROUGE, chrF and variety of plain text files."""
    found = file_metrics(hyp, ref)
    if as_json:
        print(json.dumps(found))
        return
    table = Table(box=None, show_header=False)
    for name, value in found.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    Console().print(table)


@app.command()
def keys() -> None:
    """Print what no round may train on; serving/suite_keys.txt holds it."""
    found = {key for name in suite_names() for key in suite_keys_of(read_suite(name).items)}
    print("\n".join(sorted(found)))


def _listed(card: Scorecard) -> dict[str, Any]:
    return {"id": card.id, "created_at": card.created_at, **(card.body or {})}


def _rate(rate: Rate) -> str:
    return f"{rate.successes}/{rate.total}  {rate.share:.0%} ({rate.low:.0%}-{rate.high:.0%})"


def _print_card(scorecard: Scorecard) -> None:
    card = Card.from_json(scorecard.body or {})
    console = Console()
    values = ", ".join(
        f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in card.reason_values.items()
    )
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
        f"{card.candidate.metric('bleu').signature}; caveats: {', '.join(card.caveats)}",
        style="dim",
        highlight=False,
    )


def _metric(name: str, arm: Arm) -> str:
    metric = arm.metric(name)
    return f"{metric.value:.3f}" + (f"  (human {metric.ceiling:.3f})" if metric.ceiling is not None else "")


_LINES: dict[str, Callable[[Arm], str]] = {
    "excellent": lambda arm: _rate(arm.excellent),
    "acceptable or better": lambda arm: _rate(arm.acceptable),
    "pass^1 … pass^k": lambda arm: "  ".join(f"{estimate.value:.2f}" for estimate in arm.pass_k),
    "BLEU": lambda arm: _metric("bleu", arm),
    "ROUGE-L": lambda arm: _metric("rougeL", arm),
    "chrF": lambda arm: _metric("chrf", arm),
    "distinct-2": lambda arm: _metric("distinct2", arm),
    "mean length": lambda arm: f"{arm.mean_length:.1f}",
    "tokens, seconds": lambda arm: f"{arm.tokens}, {arm.seconds:.0f}",
}


def main() -> None:
    """Errors of the desk are one line on stderr and exit status 1."""
    try:
        app()
    except CopydeskError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
