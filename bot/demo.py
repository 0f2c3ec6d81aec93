"""A short working day, played on real parts: `copydesk demo`.

People of the sandbox ask, rate and correct through the same Slack protocol as anywhere; then a round trains, evals
scores, the lead approves, and the next draft is written by the new version. The page shows all of it live.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bot.approvals import APPROVE_VIEW
from bot.blocks import CORRECT, FEEDBACK
from bot.briefs import ASK_VIEW
from bot.corrections import CORRECT_VIEW
from bot.sandbox.people import People, Person
from bot.sandbox.server import Sandbox
from bot.scorecards import APPROVE
from bot.service import run_service
from serving.card import Card, Estimate, Rate
from serving.engine import until_signal
from serving.jobs import Jobs
from serving.lock import alone
from serving.model import base_model_path
from serving.records import CopydeskError, Draft, RoundState
from serving.settings import Settings
from serving.store import BASE, Store

CHANNEL = "C_COPY"
LEAD = "U_MARA"
AT_ONCE = 4  # as many as a small team asks for at the same moment
DRAFT_TIMEOUT_S = 240.0
CARD_TIMEOUT_S = 60.0
PROGRESS_S = 60.0
POLL_S = 0.2
MEMORY_POLL_S = 1.0

console = Console()


@dataclass(frozen=True)
class Scene:
    """One thing a person asks for, and how they would have written it, where they correct the draft."""

    who: str
    way: str  # mention, dm, slash or modal
    category: str
    product: str
    audience: str
    selling_points: tuple[str, ...]
    tone: str
    length: tuple[int, int]
    correction: str = ""

    def as_text(self) -> str:
        """The brief as people type it."""
        return "\n".join(
            (
                f"Product: {self.product}",
                f"Audience: {self.audience}",
                f"Selling points: {'; '.join(self.selling_points)}",
                f"Tone: {self.tone}",
                f"Length: {self.length[0]}-{self.length[1]} words",
            )
        )

    def satisfied_by(self, text: str) -> bool:
        """What a copywriter sees at a glance: everything said, and not too long."""
        said = text.casefold()
        words = len(text.split())
        named = all(point.casefold() in said for point in (self.product, *self.selling_points))
        return named and self.length[0] <= words <= self.length[1]


def scenes() -> list[Scene]:
    rows = json.loads(Path(__file__).with_name("workday.json").read_text(encoding="utf-8"))
    return [
        Scene(**{**row, "selling_points": tuple(row["selling_points"]), "length": tuple(row["length"])}) for row in rows
    ]


async def run_demo(settings: Settings, *, stay: bool, port: int) -> None:
    """Play the day, print the before/after table, write report.json, and stay up unless told to end.

    Raises:
        CopydeskError: a step failed; its text says which and what to do.
    """
    home = settings.copydesk_home / "demo"
    with console.status("Unpacking the base model (once)"):
        model = await asyncio.to_thread(base_model_path, settings)
    stop = until_signal()
    async with AsyncExitStack() as stack:
        # Before anything of the last day goes: it may still be up.
        stack.enter_context(alone(settings.copydesk_home / "demo.lock", "A demo is up already; end it with Ctrl-C."))
        sandbox = await stack.enter_async_context(Sandbox(port=port))
        people = await stack.enter_async_context(People(sandbox.url))
        shutil.rmtree(home, ignore_errors=True)
        desk = Settings(
            _env_file=None,  # type: ignore[call-arg]  # the day does not depend on what this folder's .env says
            copydesk_home=home,
            copydesk_model=model,
            copydesk_channel=CHANNEL,
            copydesk_leads=(LEAD,),
            slack_bot_token=sandbox.bot_token,
            slack_app_token=sandbox.app_token,
            slack_api_url=sandbox.api_url,
        )
        console.print(f"The workspace: [bold]{sandbox.url}[/bold]  (open it in a browser and watch)")
        day = Day(desk, people)
        service = asyncio.create_task(run_service(desk, stop=stop, on_state=day.engine_state))
        playing = asyncio.create_task(day.play())
        watching = asyncio.create_task(day.watch_memory())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({service, playing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if service.done():
                service.result()
                raise CopydeskError("The desk ended before the day did; see the lines above.")
            if playing.done():
                playing.result()
                day.report()
                if stay:
                    console.print(f"The desk stays up at [bold]{sandbox.url}[/bold] — Ctrl-C ends it.")
                    await asyncio.wait({service, stopped}, return_when=asyncio.FIRST_COMPLETED)
                    console.print(f"The desk ends. The day is in {home}; make demo begins a new one.")
        finally:
            stop.set()
            for task in (playing, watching, stopped):
                task.cancel()
            with suppress(asyncio.CancelledError, CopydeskError):
                await service


class Day:
    """The people's side of one working day.

    Args:
        settings: of the desk that is asked; its environment reaches the trainer and the evaluation.
    """

    def __init__(self, settings: Settings, people: People) -> None:
        self.settings = settings
        self.people = people
        self.store = Store(settings.database)
        self.ready = asyncio.Event()
        self.seconds: dict[str, float] = {}
        self.peak_memory_bytes = 0
        self.last: Draft | None = None
        self._hands: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # a person has one form open at a time

    def engine_state(self, state: str) -> None:
        if state == "ready":
            self.ready.set()

    async def play(self) -> None:
        async with self._step("starter pairs"):
            await self._module("trainer", "starter", "--language", "en")
        async with self._step("engine"):
            await self.ready.wait()
        async with self._step("working day"):
            await self._working_day()
        async with self._step("round"):
            telling = asyncio.create_task(self._tell_progress())
            try:
                await self._module("trainer", "run", "--json", "--language", "en")
            finally:
                telling.cancel()
        async with self._step("scorecards"):
            await self._module("evals", "run", "--json")
        async with self._step("approval"):
            await self._approve()
        async with self._step("one more draft"):
            person = self.people.person("U_ANNA")
            self.last = await self._ask(person, scenes()[0], "mention")

    async def _tell_progress(self) -> None:
        """Now and then how far the round is; the channel on the page shows it too."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            if running := await asyncio.to_thread(Jobs(self.store).running):
                job = running[1]
                if job.steps and job.seconds_left is not None:
                    minutes = max(1, round(job.seconds_left / 60))
                    console.print(f"  round: {job.step / job.steps:.0%}, about {minutes} min left")

    @asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[None]:
        started = time.monotonic()
        with console.status(name):
            yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        console.print(f"  {name}: {self.seconds[name]:.0f} s")

    async def _working_day(self) -> None:
        turns = asyncio.Semaphore(AT_ONCE)

        async def turn(scene: Scene) -> None:
            async with turns:
                person = self.people.person(scene.who)
                draft = await self._ask(person, scene, scene.way)
                await self._react(person, scene, draft)

        try:
            await asyncio.gather(*(turn(scene) for scene in scenes()))
        except TimeoutError as error:
            raise CopydeskError(f"The day did not go as planned: {error}") from error

    async def _ask(self, person: Person, scene: Scene, way: str) -> Draft:
        before = {draft.id for draft in await asyncio.to_thread(self.store.drafts)}
        match way:
            case "mention":
                await person.mention(CHANNEL, scene.as_text())
            case "dm":
                await person.say(person.dm, scene.as_text())
            case "slash":
                await person.slash("/copy", scene.as_text(), CHANNEL)
            case _:
                async with self._hands[person.id]:
                    await self._fill_modal(person, scene)
        return await self._draft_of(scene, before)

    async def _fill_modal(self, person: Person, scene: Scene) -> None:
        await person.slash("/copy", "", CHANNEL)
        view = await person.wait_modal(callback_id=ASK_VIEW)
        errors = await person.submit(
            view,
            {
                "product": scene.product,
                "audience": scene.audience,
                "selling_points": "\n".join(scene.selling_points),
                "tone": scene.tone,
                "length_min": str(scene.length[0]),
                "length_max": str(scene.length[1]),
                "category": scene.category,
            },
        )
        if errors:
            raise CopydeskError(f"The brief for {scene.product} was refused: {errors}")

    async def _draft_of(self, scene: Scene, before: set[int]) -> Draft:
        deadline = time.monotonic() + DRAFT_TIMEOUT_S
        while time.monotonic() < deadline:
            for draft in await asyncio.to_thread(self.store.drafts):
                if draft.id not in before:
                    brief = await asyncio.to_thread(self.store.brief, draft.brief_id)
                    if brief.task.requirements.product == scene.product:
                        return draft
            await asyncio.sleep(POLL_S)
        raise CopydeskError(f"No draft came for {scene.product}; the engine's log: {self.settings.logs / 'engine.log'}")

    async def _react(self, person: Person, scene: Scene, draft: Draft) -> None:
        """Rate at a glance; correct where the scene has the copy as it should read."""
        await person.wait_message(draft.channel, lambda m: m["ts"] == draft.ts and offers(m, CORRECT), timeout=30)
        good = scene.satisfied_by(draft.text)
        if draft.id % 3 == 0:
            await person.react(draft.channel, draft.ts, "+1" if good else "-1")
        else:
            await person.press(draft.channel, draft.ts, FEEDBACK, "positive" if good else "negative")
        if scene.correction and not good:
            async with self._hands[person.id]:
                await person.press(draft.channel, draft.ts, CORRECT)
                view = await person.wait_modal(callback_id=CORRECT_VIEW)
                await person.submit(view, {"text": scene.correction})

    async def _module(self, module: str, *arguments: str) -> None:
        """Run the trainer or the evaluation as what they are: processes of their own."""
        variables = {
            "COPYDESK_HOME": str(self.settings.copydesk_home.resolve()),
            "COPYDESK_MODEL": self.settings.copydesk_model,
        }
        log = self.settings.logs / f"{module}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                env={**os.environ, **variables},
                stdout=output,
                stderr=output,
            )
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                with suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()
                raise
        if code:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise CopydeskError(f"{module} {arguments[0]} failed: {lines[-1] if lines else code}. The whole log: {log}")

    async def _approve(self) -> None:
        lead = self.people.person(LEAD)
        message = await lead.wait_message(CHANNEL, lambda m: offers(m, APPROVE), timeout=CARD_TIMEOUT_S)
        await lead.press(CHANNEL, message["ts"], APPROVE)
        view = await lead.wait_modal(callback_id=APPROVE_VIEW)
        await lead.submit(view, {"reason": "The copy follows the briefs more often than before."})
        deadline = time.monotonic() + CARD_TIMEOUT_S
        while self.store.live() == BASE:
            if time.monotonic() > deadline:
                raise CopydeskError("The approval did not arrive; look at the channel on the page.")
            await asyncio.sleep(POLL_S)

    async def watch_memory(self) -> None:
        """The most that this process and all that it started held at once."""
        me = psutil.Process()
        while True:
            total = 0
            for process in [me, *me.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
            self.peak_memory_bytes = max(self.peak_memory_bytes, total)
            await asyncio.sleep(MEMORY_POLL_S)

    def report(self) -> None:
        """Print the before/after table and write report.json beside the day's data."""
        trained = next(r for r in self.store.rounds() if r.state is RoundState.DONE)
        scorecard = self.store.scorecards(trained.version)[0]
        assert scorecard.body is not None
        assert self.last is not None
        card = Card.from_json(scorecard.body)
        drafts = self.store.drafts()
        first_tokens = [draft.first_token_s for draft in drafts if draft.first_token_s is not None]
        body: dict[str, Any] = {
            "pairs": len(self.store.pairs()),
            "drafts": len(drafts),
            "ratings": len(self.store.ratings()),
            "corrections": len(self.store.corrections()),
            "round": {**trained.facts, "pairs": trained.pairs, "recipe": trained.recipe},
            "version": asdict(self.store.version(trained.version)),
            "scorecard": card.to_json(),
            "live": self.store.live(),
            "last_draft": {"version": self.last.version, "text": self.last.text},
            "first_token_p50_s": round(statistics.median(first_tokens), 2),
            "peak_memory_gib": round(self.peak_memory_bytes / 2**30, 2),
            "seconds": {**self.seconds, "total": round(sum(self.seconds.values()), 1)},
        }
        path = self.settings.copydesk_home / "report.json"
        path.write_text(json.dumps(body, ensure_ascii=False, indent=2), encoding="utf-8")
        console.print(before_after(card))
        console.print(f"The last draft was written by [bold]{self.last.version}[/bold]:\n  {self.last.text}")
        console.print(f"Report: {path}")


def offers(message: dict[str, Any], action_id: str) -> bool:
    """Whether a message carries an element with this action."""
    return f'"action_id": "{action_id}"' in json.dumps(message.get("blocks", []))


def before_after(card: Card) -> Table:
    """The scorecard's figures, live version beside candidate, with 95 % intervals."""
    before, after = card.live, card.candidate
    assert before is not None
    table = Table("", before.version, after.version, title=f"Before and after ({card.items} briefs)")
    table.add_row("excellent", percent(before.excellent), percent(after.excellent))
    table.add_row("excellent or acceptable", percent(before.acceptable), percent(after.acceptable))
    table.add_row(f"pass^{len(after.pass_k)}", percent(before.pass_k[-1]), percent(after.pass_k[-1]))
    for metric in after.metrics:
        table.add_row(metric.name, f"{before.metric(metric.name).value:.2f}", f"{metric.value:.2f}")
    table.caption = f"{card.verdict}: {card.reason}"
    return table


def percent(value: Rate | Estimate) -> str:
    middle = value.share if isinstance(value, Rate) else value.value
    return f"{middle:.0%}  ({value.low:.0%} to {value.high:.0%})"
