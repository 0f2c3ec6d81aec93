"""What the desk needs, examined one by one: `copydesk doctor`."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.refusals import code_of
from serving.client import EngineUnavailable, ModelClient
from serving.engine import has_cpu_build, sharing_plan
from serving.handover import away_for
from serving.records import CopydeskError
from serving.registry import verify
from serving.settings import EMBEDDED_MODEL, Settings
from serving.store import BASE, Store

NEEDED_DISK_GB = 2
NEEDED_MEMORY_GB = 6


@dataclass(frozen=True)
class Finding:
    what: str
    ok: bool
    found: str
    next_step: str = ""


async def examine(settings: Settings) -> list[Finding]:
    return [
        _disk(settings.copydesk_home),
        _memory(),
        _build(),
        _model(settings),
        *_database(settings),
        *await _engine(settings),
        *await _slack(settings),
        _leads(settings),
    ]


def _disk(home: Path) -> Finding:
    place = next(p for p in [home.resolve(), *home.resolve().parents] if p.exists())
    free = shutil.disk_usage(place).free / 1e9
    return Finding("disk", free >= NEEDED_DISK_GB, f"{free:.1f} GB free", f"free {NEEDED_DISK_GB} GB at {place}")


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 1e9
    return Finding(
        "memory", free >= NEEDED_MEMORY_GB, f"{free:.1f} GB available", f"{NEEDED_MEMORY_GB} GB are wanted for a round"
    )


def _build() -> Finding:
    cpu, gpu = has_cpu_build(), shutil.which("nvidia-smi") is not None
    found = f"vLLM for {'CPU' if cpu else 'CUDA'}, {'a GPU' if gpu else 'no GPU'}"
    return Finding("engine build", cpu is not gpu, found, "make install, on the machine that serves")


def _model(settings: Settings) -> Finding:
    if settings.copydesk_model == EMBEDDED_MODEL:
        return Finding("base model", True, f"{EMBEDDED_MODEL}, from its package")
    path = Path(settings.copydesk_model)
    if not path.exists():
        return Finding("base model", True, f"{path} (looked up on the hub at start)")
    there = (path / "config.json").is_file()
    return Finding("base model", there, str(path), "set COPYDESK_MODEL to a directory with a config.json")


def _database(settings: Settings) -> list[Finding]:
    try:
        store = Store(settings.database)
    except CopydeskError as error:
        return [Finding("database", False, str(settings.database), str(error))]
    findings = [Finding("database", True, f"{settings.database}, {len(store.pairs())} pairs")]
    live = store.live()
    if live != BASE:
        try:
            verify(store.version(live))
            findings.append(Finding("live version", True, live))
        except CopydeskError as error:
            findings.append(Finding("live version", False, live, str(error)))
    return findings


async def _engine(settings: Settings) -> list[Finding]:
    if settings.copydesk_endpoint:
        return await _endpoint(settings)
    if settings.copydesk_ray_address:
        return await _answering(settings)
    plan = await asyncio.to_thread(sharing_plan, settings)
    rounds = Finding("rounds", True, plan.why)
    if plan.pauses and settings.database.exists() and away_for(Store(settings.database), 0):
        return [rounds, Finding("engine", True, "away until the round ends: copydesk round list")]
    return [rounds, *await _answering(settings)]


async def _answering(settings: Settings) -> list[Finding]:
    async with ModelClient.of(settings) as client:
        if not await client.healthy():
            return [Finding("engine", False, "does not answer", "copydesk up starts it")]
        return [Finding("engine", True, "answers"), await _constrained(client, _live(settings))]


def _live(settings: Settings) -> str:
    return Store(settings.database).live() if settings.database.exists() else BASE


async def _constrained(client: ModelClient, version: str) -> Finding:
    """Never a fault: nothing that the desk does asks for it."""
    kept = await client.constrains(version)
    return Finding("constrained output", True, "works" if kept else "not there; drafts need none")


async def _endpoint(settings: Settings) -> list[Finding]:
    """An engine that somebody else runs, and a line for each thing that it cannot do."""
    try:
        async with ModelClient.of(settings) as client:
            abilities = await client.abilities()
            constrained = await _constrained(client, BASE)
    except EngineUnavailable as error:
        return [Finding("endpoint", False, settings.endpoint, f"{error} Is it up? Is COPYDESK_ENDPOINT right?")]
    except CopydeskError as error:
        return [Finding("endpoint", False, settings.endpoint, str(error))]
    base = f", base model {abilities.base}" if abilities.base else ""
    there = [Finding("endpoint", True, f"{settings.endpoint} answers{base}"), constrained]
    return there + [Finding("endpoint", False, lack, step) for lack, step in abilities.lacks()]


async def _slack(settings: Settings) -> list[Finding]:
    if not settings.slack_bot_token:
        return [Finding("Slack", False, "no SLACK_BOT_TOKEN", "put both tokens into .env, or try: copydesk demo")]
    slack = AsyncWebClient(settings.slack_bot_token, base_url=settings.slack_api_url)
    try:
        answer = await slack.auth_test()
    except (SlackApiError, OSError) as error:
        return [Finding("Slack", False, str(error).splitlines()[0], "check SLACK_BOT_TOKEN and the network")]
    there = Finding("Slack", True, f"{answer['user']} in {answer['team']}")
    unknown = [await _unknown(slack, lead) for lead in settings.copydesk_leads]
    return [there, await channel(slack, settings.copydesk_channel), *filter(None, unknown)]


async def channel(slack: AsyncWebClient, id: str) -> Finding:
    """Where scorecards go. A bot posts only where it was invited."""
    if not id:
        return Finding("channel", True, "none; scorecards are shown by copydesk eval show")
    try:
        found = (await slack.conversations_info(channel=id))["channel"]
    except SlackApiError as error:
        step = "COPYDESK_CHANNEL is the id below a channel's details in Slack, such as C0123ABCD; invite the bot there"
        return Finding("channel", False, f"{id}: {code_of(error)}", step)
    if not found.get("is_member"):
        return Finding("channel", False, f"the bot is not in #{found['name']}", "type there: /invite @Copydesk")
    return Finding("channel", True, f"#{found['name']}")


async def _unknown(slack: AsyncWebClient, lead: str) -> Finding | None:
    """A lead whom this workspace does not know, by a name in the place of an id, could never approve."""
    try:
        await slack.users_info(user=lead)
    except SlackApiError as error:
        step = "COPYDESK_LEADS holds member ids such as U0123ABCD: in a person's profile, ⋮ → Copy member ID"
        return Finding("lead", False, f"{lead}: {code_of(error)}", step)
    return None


def _leads(settings: Settings) -> Finding:
    leads = ", ".join(settings.copydesk_leads)
    return Finding("leads", bool(leads), leads or "none", "name who may promote: COPYDESK_LEADS=U123,U456")
