"""Scorecards from the command line. Run: python -m evals run [VERSION …]"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from evals.comparison import compare as compare_cards
from evals.grading import grade_on_terminal
from evals.judge import judge_scorecard, open_judge
from evals.leaks import keys as suite_keys_of
from evals.lint import lint as findings
from evals.lint import read_starter
from evals.outputs import file_metrics
from evals.plan import Plan
from evals.report import read_report, render_report
from evals.rolling import PREFIX, grown_suite, rolling_suite
from evals.runner import SUITES_KEPT, Runner
from evals.suite import Suite, read_suite, suite_names, write_whole
from evals.tables import print_card, print_comparison, print_list, print_people
from serving.client import ModelClient
from serving.grades import Grades, Kind
from serving.judge_answers import seen
from serving.records import CopydeskError, Scorecard
from serving.settings import read_settings
from serving.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Score versions, and show what was found.")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(
    versions: Annotated[list[str] | None, typer.Argument(help="None: those that lack a scorecard.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Compare with this version; the live one by default.")] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="A name (en, zh, rolling-en, rolling-zh), or a .jsonl file; by default a scorecard in each language "
            "that a version learned."
        ),
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="Briefs that are asked once.")] = 20,
    briefs: Annotated[int, typer.Option(min=1, help="Briefs that are asked several times.")] = 10,
    repeats: Annotated[int, typer.Option(min=2, max=20, help="How often each of those is asked.")] = 5,
    seed: Annotated[int, typer.Option(help="Draws the briefs.")] = 1,
    extended: Annotated[
        int | None, typer.Option("--more", help="Extend this inconclusive scorecard by 30 briefs instead.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Generate, score and compare; a run that was stopped goes on where it was."""
    if extended is not None:
        more(extended, as_json)
        return
    store = Store(read_settings().database)
    named = versions or _unscored(store)
    plans = [
        (name, plan)
        for name in named
        for read in ([_suite(suite, store)] if suite else _suites(name, store, again=bool(versions)))
        for plan in [Plan(read, items, briefs, repeats, seed)]
        if versions or not _scored(name, plan, store)
    ]
    cards = asyncio.run(_run(store, lambda runner: [runner.run(name, plan, baseline) for name, plan in plans]))
    if not cards and not as_json:
        Console().print("Every version has a scorecard; name one to score it again.")
    _print_cards(cards, as_json)


@app.command()
def more(scorecard: Annotated[int, typer.Argument(help="An inconclusive one.")], as_json: JsonFlag = False) -> None:
    """Extend a scorecard by 30 further briefs of its suite, and decide anew; killed, the same command goes on."""
    store = Store(read_settings().database)
    _print_cards(asyncio.run(_run(store, lambda runner: [runner.extend(scorecard)])), as_json)


def _suite(name: str, store: Store) -> Suite:
    return rolling_suite(store, name.removeprefix(PREFIX)) if name.startswith(PREFIX) else read_suite(name)


def _unscored(store: Store) -> list[str]:
    """The newest version, while a language of its is missing, and older ones that nobody scored at all."""
    newest_first = [version.name for version in store.versions()]
    return [
        name
        for name in newest_first[::-1]
        if store.unscored_languages(name) and (name == newest_first[0] or not store.scorecards(name))
    ]


def _suites(version: str, store: Store, *, again: bool) -> list[Suite]:
    """In each language that a version learned: the rolling suite once it is large enough, and the shipped one.

    Args:
        again: in languages that the version was scored in, too.
    """
    languages = store.languages(version) if again else store.unscored_languages(version)
    return [suite for language in languages for suite in (*grown_suite(store, language), read_suite(language))]


def _scored(version: str, plan: Plan, store: Store) -> bool:
    key = plan.key(read_settings().copydesk_model)
    return any((card.suite, card.seed) == (key, plan.seed) for card in store.scorecards(version))


async def _run(store: Store, work: Callable[[Runner], list[Coroutine[None, None, Scorecard]]]) -> list[Scorecard]:
    """Cards one after the other, each with a bar for every version that writes."""
    settings = read_settings()
    bar = _bar()
    rows: dict[str, TaskID] = {}

    def progress(version: str, done: int, total: int) -> None:
        if version not in rows:
            rows[version] = bar.add_task(f"Scoring {version}", total=total)
        bar.update(rows[version], completed=done)

    async with ModelClient.of(settings) as client:
        runner = Runner(store, client, settings.copydesk_home, settings.copydesk_model, progress)
        with bar:
            return [await card for card in work(runner)]


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


@app.command()
def show(
    scorecard: Annotated[str, typer.Argument(help="A scorecard's number, or a version's name for its newest.")],
    html: Annotated[Path | None, typer.Option(help="Write the whole card, with every sample, to this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """One scorecard."""
    settings = read_settings()
    store = Store(settings.database)
    card = _find(store, scorecard)
    if html is not None:
        write_whole(html, render_report(read_report(store, card, settings.copydesk_home / SUITES_KEPT)).encode())
        Console(stderr=True).print(f"Scorecard {card.id} is in {html}.", highlight=False)
    else:
        _print_cards([replace(card, body=seen(store, card).to_json())], as_json, one=True)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A scorecard's number, or a version's name for its newest.")],
    second: Annotated[str, typer.Argument(help="Likewise; differences are the second minus the first.")],
    as_json: JsonFlag = False,
) -> None:
    """Two scorecards side by side, on the briefs that both have."""
    settings = read_settings()
    store = Store(settings.database)
    found = compare_cards(store, _find(store, first), _find(store, second), settings.copydesk_home / SUITES_KEPT)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        print_comparison(found)


def _find(store: Store, name: str) -> Scorecard:
    """Raises CopydeskError when there is no finished one."""
    if name.isdecimal():
        card = store.scorecard(int(name))
    else:
        cards = store.scorecards(name)
        if not cards:
            raise CopydeskError(f"There is no scorecard of {name}; make one: copydesk eval run {name}")
        card = cards[0]
    if card.body is None:
        raise CopydeskError(f"Scorecard {card.id} is not finished; go on with it: copydesk eval run {card.version}")
    return card


def _print_cards(cards: list[Scorecard], as_json: bool, one: bool = False) -> None:
    if as_json:
        listed = [_listed(card) for card in cards]
        print(json.dumps(listed[0] if one else listed, ensure_ascii=False))
        return
    for card in cards:
        print_card(card)


@app.command("list")
def list_cards(version: Annotated[str | None, typer.Argument()] = None, as_json: JsonFlag = False) -> None:
    """Finished scorecards, the newest first."""
    store = Store(read_settings().database)
    cards = [_shown(store, card) for card in store.scorecards(version)]
    if as_json:
        print(json.dumps([_listed(card) for card in cards], ensure_ascii=False))
        return
    print_list(cards)


def _shown(store: Store, card: Scorecard) -> Scorecard:
    """With what people and the judge have said; as it is stored where it is of another form."""
    try:
        return replace(card, body=seen(store, card).to_json())
    except CopydeskError:
        return card


@app.command()
def lint(
    names: Annotated[list[str] | None, typer.Argument(help="Suites; all by default.")] = None, as_json: JsonFlag = False
) -> None:
    """Check suites and starter pairs; exit 1 when something is wrong."""
    found = {}
    for name in names or suite_names():
        suite = read_suite(name)
        starter = read_starter(suite.language)
        wrong = found[name] = findings(suite, starter)
        Console(stderr=True).print(
            f"{name}: {len(suite.items)} briefs, {len(starter)} starter pairs, {len(wrong)} findings", highlight=False
        )
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        for line in chain.from_iterable(found.values()):
            print(line)
    if any(found.values()):
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
def judge(scorecard: int) -> None:
    """Ask the judging model of COPYDESK_JUDGE_ENDPOINT about the stored texts; nothing is generated again."""
    settings = read_settings()
    store = Store(settings.database)
    card = store.scorecard(scorecard)

    async def ask() -> None:
        opened = await open_judge(settings, store, card)
        with _bar() as bar:
            row = bar.add_task("Asking the judge", total=None)
            await judge_scorecard(store, opened, card, lambda done, total: bar.update(row, completed=done, total=total))

    asyncio.run(ask())
    print_people(seen(store, card))


@app.command("grade")
def grade_blind(
    scorecard: Annotated[str, typer.Argument(help="A scorecard's number, or a version's name for its newest.")],
    user: Annotated[str, typer.Option(help="Who grades; a Slack user id goes on with that person's list.")] = "cli",
) -> None:
    """Grade 20 texts blind, as Slack's button does; left in between, the same command goes on."""
    store = Store(read_settings().database)
    card, grades = _find(store, scorecard), Grades(store)
    sheet = grade_on_terminal(grades, grades.open(card, user, Kind.GRADES))
    print(f"{sheet.answered} of {len(sheet.entries)} are graded.")
    if sheet.done:
        print_people(seen(store, card))


@app.command()
def keys() -> None:
    """Print what no round may train on; serving/suite_keys.txt holds it."""
    found = {key for name in suite_names() for key in suite_keys_of(read_suite(name).items)}
    print("\n".join(sorted(found)))


def _listed(card: Scorecard) -> dict[str, Any]:
    return {"id": card.id, "created_at": card.created_at, **(card.body or {})}


def main() -> None:
    """Errors of the desk are one line on stderr and exit status 1."""
    try:
        app()
    except CopydeskError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
