"""The trainer's command line. Run: python -m trainer run, preview, export or starter"""

from __future__ import annotations

import json
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from serving.exchange import starter_pairs
from serving.held_out import suite_keys
from serving.records import LANGUAGES, CopydeskError
from serving.settings import Settings, read_settings
from serving.store import Store
from trainer.priority import give_way
from trainer.recipe import RECIPES, Recipe, recipe_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer.lora import Progress
    from trainer.rounds import Outcome

ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that wait sleep: spinning ones take the cores from the engine and the bot beside us, and from each other.
    "OMP_WAIT_POLICY": "PASSIVE",
}

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Training.")
out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a bar and sentences.")]


def main() -> None:
    """Run the command; what went wrong is one line on standard error and exit code 1."""
    try:
        app()
    except CopydeskError as error:
        err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command()
def run(
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "default",
    language: Annotated[str, typer.Option(help="Pairs of this language only: en or zh.")] = "",
    max_pairs: Annotated[int, typer.Option(min=0, help="The newest so many; 0 takes all.")] = 0,
    report_to: Annotated[str, typer.Option(help="Draw the loss there too: tensorboard, mlflow, wandb …")] = "",
    as_json: AsJson = False,
) -> None:
    """Train a new version on the current pairs, alone or under torchrun or accelerate launch."""
    _set_environment()
    from transformers.utils import logging

    from trainer.group import joined
    from trainer.lora import progress_line
    from trainer.rounds import follow, run_round

    chosen = recipe_named(recipe)
    if language and language not in LANGUAGES:
        raise CopydeskError(f"There is no language {language}; there are {', '.join(LANGUAGES)}.")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with joined(os.environ) as group:
        if group.rank > 0:
            follow(group)
            return
        settings = read_settings()
        with _reports(report_to, settings, chosen) as report:

            def start(on_progress: Callable[[Progress], None]) -> Outcome:
                def told(progress: Progress) -> None:
                    on_progress(progress)
                    report(progress)

                return run_round(
                    settings,
                    Store(settings.database),
                    chosen,
                    language=language or None,
                    max_pairs=max_pairs or None,
                    on_progress=told,
                    on_note=lambda note: err.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True),
                    group=group,
                )

            if as_json:
                outcome = start(lambda progress: print(progress_line(progress), flush=True))
                names = {"version": outcome.version.name, "path": outcome.version.path}
                print(json.dumps({**names, **outcome.round.facts}))
            else:
                _print_outcome(_with_bar(start))


def _reports(name: str, settings: Settings, recipe: Recipe) -> AbstractContextManager[Callable[[Progress], None]]:
    if not name:
        return nullcontext(lambda progress: None)
    from trainer.reporting import reported

    run = f"{recipe.name}-{datetime.now():%Y%m%d-%H%M%S}"
    return reported(name, settings.logs / "runs", run, recipe)


def _with_bar(start: Callable[[Callable[[Progress], None]], Outcome]) -> Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("Loading the base model", total=None)

        def show(progress: Progress) -> None:
            words = f"Training  loss {progress.loss:.3f}  {progress.tokens_per_s:.0f} tok/s"
            bar.update(task, description=words, completed=progress.step, total=progress.steps)

        return start(show)


def _set_environment() -> None:
    """The libraries read their environment when they are loaded: call it before they are."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _print_outcome(outcome: Outcome) -> None:
    facts = outcome.round.facts
    for skipped in facts["skipped"]:
        err.print(f"Left out: {skipped}", markup=False, highlight=False, soft_wrap=True)
    for left_out in facts.get("judgements_left_out", ()):
        err.print(f"No preference: {left_out}", markup=False, highlight=False, soft_wrap=True)
    for warning in facts["warnings"]:
        err.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    out.print(
        f"{outcome.version.name}: {facts['pairs']} pairs, {facts['tokens']:,} tokens in {facts['seconds']:.0f} s "
        f"({facts['tokens_per_s']:.0f} tok/s), loss {facts['loss_first']:.3f} → {facts['loss_last']:.3f}, "
        f"{facts['trainable_share']:.2%} of the parameters trained, {facts['peak_rss_gib']:.1f} GiB at most.",
        highlight=False,
        soft_wrap=True,
    )
    if heard := facts.get("judgements"):
        said = ", ".join(f"{len(ids)} {name}" for name, ids in heard.items())
        out.print(f"Then preferences from drafts: {said}; {facts['preference_agrees']:.0%} agreed with at the end.")
    out.print(outcome.version.path, highlight=False, soft_wrap=True)


@app.command()
def preview(
    pair_id: Annotated[int | None, typer.Argument(help="A pair's number; the newest that trains by default.")] = None,
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Show a pair as the tokens that a round reads, with those marked that it learns."""
    _set_environment()
    from serving.model import base_model_path
    from trainer.hygiene import kept_apart, unusable
    from trainer.lora import load_tokenizer
    from trainer.preview import pieces_of, shown
    from trainer.rounds import collect

    settings = read_settings()
    store = Store(settings.database)
    if pair_id is None and not (newest := collect(store, None, 1)):
        raise CopydeskError("There are no pairs yet; correct drafts, or run: python -m trainer starter")
    pair = store.pair(pair_id) if pair_id is not None else newest[0]
    limit = recipe_named(recipe).max_tokens
    pieces = pieces_of(pair, load_tokenizer(base_model_path(settings)), limit)
    if not pieces:
        raise CopydeskError(f"Pair {pair.id} is longer than the {limit} tokens of the recipe, so no round learns it.")
    if as_json:
        tokens = [asdict(piece) for piece in pieces]
        print(json.dumps({"pair": pair.id, "tokens": tokens}, ensure_ascii=False))
        return
    out.print(shown(pieces, colour=out.color_system is not None), soft_wrap=True)
    learned = sum(len(piece.ids) for piece in pieces if piece.learned)
    total = sum(len(piece.ids) for piece in pieces)
    out.print(f"\nPair {pair.id}: {total} tokens, of which {learned} are learned.", highlight=False)
    if reason := unusable(pair) or kept_apart(pair, suite_keys()):
        err.print(f"No round trains on it: {reason}.", style="yellow", markup=False, highlight=False, soft_wrap=True)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="A version, such as copy-0001.")],
    directory: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    merged: Annotated[bool, typer.Option("--merged", help="A whole model instead of an adapter.")] = False,
) -> None:
    """Write a version to a folder: ready for the Hub, or merged into its base."""
    _set_environment()
    from transformers.utils import logging

    from trainer.export import export as write_version

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    settings = read_settings()
    write_version(settings, Store(settings.database), name, directory, merged=merged)
    out.print(f"{name} is in {directory}.", highlight=False, soft_wrap=True)


@app.command()
def starter(
    language: Annotated[str, typer.Option(help="en, zh or all.")] = "all",
    as_json: AsJson = False,
) -> None:
    """Import the starter pairs; those that are there already stay as they are."""
    store = Store(read_settings().database)
    languages = LANGUAGES if language == "all" else (language,)
    added = store.add_pairs([pair for name in languages for pair in starter_pairs(name)])
    if as_json:
        print(json.dumps(asdict(added)))
        return
    out.print(f"{added.added} pairs added, {added.duplicates} were there already.")


if __name__ == "__main__":
    give_way()
    main()
