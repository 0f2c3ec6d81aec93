"""The `copydesk` command."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from serving import logs
from serving import trace as tracing
from serving.canary import SHARE_PERCENT, Canaries, Canary
from serving.card import Rate
from serving.client import EngineUnavailable, ModelClient
from serving.exchange import read_pairs, write_pairs
from serving.jobs import Jobs
from serving.life import Life
from serving.processes import round_module
from serving.records import CopydeskError, PairStatus, Round, RoundState
from serving.registry import Registry, verify
from serving.settings import Settings, read_settings
from serving.store import BASE, Store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The desk where a team's edits become the model.",
)
round_app = typer.Typer(no_args_is_help=True, help="Training rounds.")
eval_app = typer.Typer(no_args_is_help=True, help="Scorecards.")
version_app = typer.Typer(no_args_is_help=True, help="Versions, and which one is live.")
pairs_app = typer.Typer(no_args_is_help=True, help="Instruction-output pairs.")
app.add_typer(round_app, name="round")
app.add_typer(eval_app, name="eval")
app.add_typer(version_app, name="version")
app.add_typer(pairs_app, name="pairs")

# A text in square brackets is a text, in a table too, and so is :cat:
out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Format = Annotated[str, typer.Option(help="csv, jsonl or alpaca; else by the file's ending.")]
# --help too: what knows the options explains them.
Passed = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def main() -> None:
    """Run the command; what went wrong is one line on standard error and exit code 1."""
    try:
        app()
    except CopydeskError as error:
        err.print(str(error), style="red", highlight=False, soft_wrap=True)
        sys.exit(1)


def _store(*, begin: bool = False) -> tuple[Settings, Store]:
    """Raises CopydeskError where there is no desk, unless this may begin one: a wrong folder is no empty desk."""
    settings = read_settings()
    with suppress(PermissionError):  # the store says what to do about it
        if not begin and not settings.database.exists():
            home = settings.copydesk_home.absolute()
            raise CopydeskError(f"There is no desk in {home}; set COPYDESK_HOME, or begin with copydesk up")
    return settings, Store(settings.database)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def _print_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]], empty: str) -> None:
    if not rows:
        out.print(empty)
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    out.print(table)


def _delegate(module: str, *arguments: str) -> None:
    """Hand over to `python -m trainer` or `python -m evals`: they are heavy, and processes of their own."""
    code = subprocess.run([sys.executable, "-m", module, *arguments]).returncode
    if code:
        raise typer.Exit(code)


@app.command()
def up() -> None:
    """Run the desk: the engine and the bot, until Ctrl-C or SIGTERM."""
    from bot.service import run_service

    settings = read_settings()
    missing = [name for name in ("slack_bot_token", "slack_app_token") if not getattr(settings, name)]
    if missing:
        names = " and ".join(name.upper() for name in missing)
        raise CopydeskError(f"{names} missing; put them into .env (README, “A real workspace”), or try: copydesk demo")
    logs.set_up(settings.copydesk_log)
    asyncio.run(run_service(settings))


@app.command()
def demo(
    exit: Annotated[bool, typer.Option("--exit", help="End after the day instead of staying up.")] = False,
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes any free one.")] = 8765,
) -> None:
    """A short working day on this machine: ask, rate, correct, train, score, approve, ask again."""
    from bot.demo import run_demo

    asyncio.run(run_demo(read_settings(), stay=not exit, port=port))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check what the desk needs, each with the next step where something is missing."""
    from bot.doctor import examine

    findings = asyncio.run(examine(read_settings()))
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    else:
        rows = [("ok" if f.ok else "look", f.what, f.found, "" if f.ok else f.next_step) for f in findings]
        _print_table(("", "what", "found", "next step"), rows, "")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def trace(
    what: Annotated[str, typer.Argument(help="A draft's number, or the link of a Slack message.")],
    as_json: AsJson = False,
) -> None:
    """From a Slack message to its request, draft, version and round, and to what was learned from it."""
    chains = tracing.trace(_store()[1], what)
    if as_json:
        _print_json([chain.to_json() for chain in chains])
        return
    for chain in chains:
        out.print("\n".join(tracing.lines(chain)), highlight=False, soft_wrap=True)


@round_app.command("run", context_settings=Passed)
def round_run(context: typer.Context) -> None:
    """Train a new version on the current pairs."""
    _delegate(round_module(read_settings()), "run", *context.args)


@round_app.command("preview", context_settings=Passed)
def round_preview(context: typer.Context) -> None:
    """Show a pair as tokens, with those marked that are learned."""
    _delegate("trainer", "preview", *context.args)


@round_app.command("list")
def round_list(as_json: AsJson = False) -> None:
    """All rounds, the newest first; of one that runs the progress."""
    store = _store()[1]
    rounds, jobs = store.rounds(), Jobs(store)
    if as_json:
        open_jobs = {r.id: jobs.job(r.id) for r in rounds if r.state is RoundState.RUNNING}
        _print_json([{**asdict(r), "job": asdict(job) if (job := open_jobs.get(r.id)) else None} for r in rounds])
        return
    rows = [
        (r.id, r.version, r.recipe.get("name"), r.state, r.pairs, r.started_at[:19], r.message or _progress(jobs, r))
        for r in rounds
    ]
    _print_table(("round", "version", "recipe", "state", "pairs", "started (UTC)", ""), rows, "No round yet.")


def _progress(jobs: Jobs, round: Round) -> str:
    if round.state is not RoundState.RUNNING:
        return ""
    job = jobs.job(round.id)
    if job is None or not job.alive:
        return "interrupted; copydesk round run goes on with it"
    left = "" if job.seconds_left is None else f", {timedelta(seconds=int(job.seconds_left))} left"
    return f"step {job.step} of {job.steps}{left}" if job.steps else "loading the base model"


@round_app.command("cancel")
def round_cancel(id: Annotated[int | None, typer.Argument(help="None: the one that runs.")] = None) -> None:
    """End a round; nothing of it stays but its row."""
    round = Jobs(_store()[1]).cancel("cli", id)
    stopping = f"{round.version} stops after its current step."
    out.print(stopping if round.state is RoundState.RUNNING else f"{round.version} is cancelled.")


@round_app.command("show")
def round_show(id: int, as_json: AsJson = False) -> None:
    """One round: its recipe, what it measured, and the pairs that it saw."""
    store = _store()[1]
    round = store.round(id)
    pairs = [pair.id for pair in store.round_pairs(id)]
    if as_json:
        _print_json({**asdict(round), "pair_ids": pairs})
        return
    facts = {**{f"recipe.{k}": v for k, v in round.recipe.items()}, **round.facts, "data_digest": round.data_digest}
    _print_table(("", ""), [("version", round.version), ("state", round.state), *facts.items()], "")
    out.print(f"Pairs: {', '.join(map(str, pairs))}")


def _eval(name: str, what: str) -> None:
    def run(context: typer.Context) -> None:
        _delegate("evals", name, *context.args)

    eval_app.command(name, context_settings=Passed, help=f"{what}.")(run)


_eval("run", "Score versions that have no scorecard")
_eval("more", "Extend an inconclusive scorecard by 30 briefs")
_eval("judge", "Ask the judging model about a scorecard's texts")
_eval("grade", "Grade 20 texts of a scorecard blind")
_eval("show", "Show a scorecard, or write it as an HTML file")
_eval("list", "All scorecards, the newest first")
_eval("compare", "Two scorecards side by side")
_eval("lint", "Check suites and starter pairs")
_eval("metrics", "BLEU, ROUGE, chrF and variety of plain text files")


@version_app.command("list")
def version_list(as_json: AsJson = False) -> None:
    """All versions, the newest first."""
    store = _store()[1]
    live = store.live()
    life = Life(store)
    versions = [{**asdict(v), "state": life.state(v)} for v in store.versions()]
    if as_json:
        _print_json({"live": live, "versions": versions})
        return
    rows = [(v["name"], v["state"], v["round_id"], v["base_model"], v["created_at"][:19]) for v in versions]
    _print_table(("version", "state", "round", "base model", "made (UTC)"), rows, "No version yet: copydesk round run")
    out.print(f"Live: {live}")


@version_app.command("show")
def version_show(name: str, as_json: AsJson = False) -> None:
    """One version: its files, its round, what was decided."""
    store = _store()[1]
    version = store.version(name)
    try:
        verify(version)
        files = "as registered"
    except CopydeskError as error:
        files = str(error)
    decisions = [asdict(p) for p in store.promotions() if p.version == name]
    life = Life(store)
    steps = life.steps(version)
    if as_json:
        life_rows = [asdict(step) for step in steps]
        _print_json({**asdict(version), "files": files, "decisions": decisions, "life": life_rows})
        return
    rows = [("state", life.state(version)), ("files", files), *((k, v) for k, v in asdict(version).items())]
    rows += [(step.state, f"{step.created_at[:19]} {step.reason}") for step in steps]
    rows += [(d["decision"], f"{d['created_at'][:19]} {d['user']} {d['reason']}") for d in decisions]
    _print_table(("", ""), rows, "")


@version_app.command("export", context_settings=Passed)
def version_export(context: typer.Context) -> None:
    """Write a version to a folder for the Hub, or merged."""
    _delegate("trainer", "export", *context.args)


@version_app.command("promote")
def version_promote(name: str, reason: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "") -> None:
    """Make a version live; the next draft is written by it. The engine tries it first, if it has not, or in vain."""
    settings, store = _store()
    if store.decision_on(name) is None and Life(store).last_failure(name) != "":
        asyncio.run(_try(settings, store, name))
    promotion = Registry(store, settings.copydesk_leads).approve(name, user="cli", reason=reason)
    out.print(f"{promotion.version} is live; before it was {promotion.previous}.")


async def _try(settings: Settings, store: Store, name: str) -> None:
    """Raises CopydeskError: the engine refuses the version, or none answers and none has ever tried it."""
    from serving.engine import admit

    version = store.version(name)
    async with ModelClient.of(settings) as client:
        try:
            await admit(settings, store, client, version)
        except EngineUnavailable as error:
            if Life(store).last_failure(name) is None:
                raise CopydeskError(
                    f"{error} No engine has tried {name} yet, so it cannot go live. Start the engine "
                    f"(copydesk up), then again: copydesk version promote {name}"
                ) from error


@version_app.command("rollback")
def version_rollback(
    reason: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
    base: Annotated[bool, typer.Option("--base", help="To the base model, whatever was live before.")] = False,
) -> None:
    """Return to what was live before."""
    settings, store = _store()
    promotion = Registry(store, settings.copydesk_leads).roll_back(user="cli", reason=reason, to_base=base)
    name = "The base model" if promotion.version == BASE else promotion.version
    out.print(f"{name} is live again; {promotion.previous} is not any more.")


@version_app.command("canary")
def version_canary(
    name: Annotated[str, typer.Argument(help="The candidate; without one: how the canary stands.")] = "",
    share: Annotated[int, typer.Option(help="Percent of the people who get it.")] = SHARE_PERCENT,
    end: Annotated[bool, typer.Option("--end", help="Everybody gets the live version again.")] = False,
) -> None:
    """Let a share of the people try a version that nobody decided about yet."""
    settings, store = _store()
    canaries = Canaries(store, Registry(store, settings.copydesk_leads))
    running = canaries.running
    if name and not end:
        canary = canaries.start(name, share, user="cli")
        out.print(f"{canary.version} writes for {share} % of the people.")
    elif running is None:
        out.print("No version is tried now.")
    elif end:
        if name and name != running.version:
            raise CopydeskError(f"{name} is not tried now; {running.version} is.")
        canary = canaries.end(running.id, user="cli")
        out.print(f"{canary.version} is tried no more.")
        _print_liked(canaries, canary)
    else:
        _print_liked(canaries, running)


def _print_liked(canaries: Canaries, canary: Canary) -> None:
    rows = [
        (liked.version, liked.drafts, f"{liked.up.successes} of {liked.up.total}", _interval(liked.up))
        for liked in canaries.liked(canary)
    ]
    _print_table(("version", "drafts", "👍", "95 %"), rows, "")


def _interval(rate: Rate) -> str:
    return f"{rate.low:.0%} to {rate.high:.0%}" if rate.total else ""


@pairs_app.command("import")
def pairs_import(path: Path, format: Format = "", as_json: AsJson = False) -> None:
    """Import pairs from CSV, JSONL or Alpaca JSON; rows that cannot be used are named and left out."""
    store = _store(begin=True)[1]
    imported = read_pairs(path, format or None)
    done = store.add_pairs(imported.pairs)
    if as_json:
        problems = [str(problem) for problem in imported.problems]
        _print_json({"added": done.added, "duplicates": done.duplicates, "problems": problems})
        return
    for problem in imported.problems:
        err.print(str(problem), highlight=False, soft_wrap=True)
    out.print(f"{done.added} added, {done.duplicates} there already, {len(imported.problems)} left out.")


@pairs_app.command("export")
def pairs_export(path: Path, format: Format = "") -> None:
    """Write all active pairs to a file."""
    pairs = _store()[1].pairs()
    write_pairs(path, pairs, format or None)
    out.print(f"{len(pairs)} pairs in {path}.")


@pairs_app.command("list")
def pairs_list(
    limit: int = 20,
    all: Annotated[bool, typer.Option("--all", help="Replaced and withdrawn ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """The newest pairs."""
    pairs = _store()[1].pairs(status=None if all else PairStatus.ACTIVE)
    newest = pairs[::-1][:limit]
    if as_json:
        _print_json([asdict(pair) for pair in newest])
        return
    rows = [(p.id, p.source, p.status, p.split, p.task.category, p.task.instruction, p.output) for p in newest]
    _print_table(("id", "source", "status", "split", "category", "instruction", "output"), rows, "No pairs yet.")
    out.print(f"{len(pairs)} pairs in all.")


@pairs_app.command("show")
def pairs_show(id: int, as_json: AsJson = False) -> None:
    """One pair: its texts, the versions that trained on it, the rounds that left it out and why."""
    store = _store()[1]
    pair, jobs = store.pair(id), Jobs(store)
    versions, exclusions = jobs.versions_that_saw(id), jobs.exclusions(pair_id=id)
    if as_json:
        _print_json({**asdict(pair), "versions": versions, "left_out": [asdict(row) for row in exclusions]})
        return
    rows: list[tuple[Any, ...]] = [
        ("instruction", pair.task.instruction),
        ("input", pair.task.input),
        ("output", pair.output),
        ("source", f"{pair.source} {pair.author}"),
        ("status", f"{pair.status}, {pair.split}"),
        ("trained", ", ".join(versions) or "no version yet"),
        *((f"left out of round {row.round_id}", row.reason) for row in exclusions),
    ]
    _print_table(("", ""), rows, "")


if __name__ == "__main__":
    main()
