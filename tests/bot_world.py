"""A workspace with the bot in it: the sandbox's socket on one side, the engine's protocol on the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cards import example_card
from openai_double import EngineDouble

from bot.app import Desk, serve
from bot.sandbox import People, Person, Sandbox
from bot.sandbox.people import SeenView
from bot.service import run_service
from serving.card import Verdict
from serving.client import ModelClient
from serving.records import Version
from serving.registry import Registry, digest_of
from serving.settings import Settings
from serving.store import Store

ACK_S = 20.0  # Slack's three seconds would make a test fail because its machine is busy
BRIEF = "write a line for our Larkbeam desk lamp for students, warm dimmable light and folds flat, 30 words"
BRIEF_ZH = "给上班族写一段云朵保温杯的文案，卖点：保温12小时、一键开盖，60字左右"


class World:
    """A workspace with the bot in it."""

    def __init__(self, sandbox: Sandbox, people: People, engine: EngineDouble, settings: Settings) -> None:
        self.sandbox, self.people, self.engine, self.settings = sandbox, people, engine, settings
        self.store = Store(settings.database)

    @property
    def anna(self) -> Person:
        return self.people.person("U_ANNA")

    @property
    def liwei(self) -> Person:
        return self.people.person("U_LIWEI")

    @property
    def mara(self) -> Person:
        return self.people.person("U_MARA")

    async def draft(self, person: Person, channel: str, thread_ts: str) -> dict[str, Any]:
        return await person.wait_message(channel, lambda m: offers(m, "correct"), thread_ts=thread_ts)

    async def card(self, person: Person, name: str) -> dict[str, Any]:
        """The message that asks for a decision about a version."""
        return await person.wait_message("C_COPY", lambda m: name in m["text"] and offers(m, "approve"))


def offers(message: dict[str, Any], action_id: str) -> bool:
    return f'"action_id": "{action_id}"' in json.dumps(message.get("blocks", []))


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that no message shows."""
    for _ in range(1500):
        if happened():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("It did not happen within half a minute")


async def refused_in(person: Person, view: SeenView) -> str:
    """What the modal says in place of what was submitted."""
    assert await person.submit(view) is None
    refused = await person.modal()
    assert refused is not None
    return str(refused.blocks[0]["text"]["text"])


def scored(it: World) -> Version:
    """A version with files on disk and a finished scorecard."""
    round = it.store.start_round({"name": "default"}, [], "d")
    directory = it.settings.adapters / round.version
    directory.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (directory / name).write_text(name)
    digest = digest_of(directory)
    version = it.store.finish_round(round.id, {}, path=str(directory), digest=digest, base_model="m")
    body = example_card(Verdict.PASS).to_json() | {"version": version.name, "digest": digest}
    chart = it.settings.copydesk_home / body["chart"]
    chart.parent.mkdir(exist_ok=True)
    chart.write_bytes(b"a picture")
    card = it.store.start_scorecard(version.name, baseline="base", suite="en", seed=1)
    it.store.finish_scorecard(card.id, body)
    return version


def scored_in_chinese(it: World, version: Version) -> None:
    body = it.store.scorecards(version.name)[0].body or {}
    card = it.store.start_scorecard(version.name, baseline="base", suite="zh", seed=1)
    it.store.finish_scorecard(card.id, body | {"language": "zh", "suite": "zh", "verdict": "fail"})


@asynccontextmanager
async def world(home: Path, *, bot: bool = True, **options: Any) -> AsyncIterator[World]:
    patient = {"ack_seconds": ACK_S, **options}
    async with Sandbox(**patient) as sandbox, People(sandbox.url) as people, EngineDouble() as engine:
        settings = Settings(
            _env_file=None,
            copydesk_home=home,
            copydesk_endpoint=engine.url,
            copydesk_channel="C_COPY",
            copydesk_leads=("U_MARA",),
            slack_bot_token=sandbox.bot_token,
            slack_app_token=sandbox.app_token,
            slack_api_url=sandbox.api_url,
        )
        it = World(sandbox, people, engine, settings)
        if not bot:
            yield it
            return
        async with running(it):
            yield it


@asynccontextmanager
async def running(it: World, *, orderly: bool = True) -> AsyncIterator[None]:
    """The bot, ended as by SIGTERM, or else in the middle of whatever it does."""
    stop = asyncio.Event()
    async with ModelClient(it.settings.endpoint) as client:
        desk = Desk(it.settings, it.store, client, Registry(it.store, it.settings.copydesk_leads))
        # What was killed may look connected for a moment, and nothing sent to it arrives.
        await it.anna.wait_until(lambda state: state["connections"] == 0, "The bot before this one is still connected")
        task = asyncio.create_task(serve(desk, stop))
        try:
            await it.anna.wait_until(lambda state: state["connections"] > 0 or task.done(), "The bot did not connect")
            yield
        finally:
            if orderly:
                stop.set()
            else:
                task.cancel()
            await asyncio.gather(task, return_exceptions=not orderly)


@asynccontextmanager
async def serving_desk(home: Path, engine: EngineDouble, **more: object) -> AsyncIterator[World]:
    """The whole service, as `copydesk up` runs it, in front of `engine`."""
    async with world(home, bot=False) as it:
        it.engine = engine
        it.settings = it.settings.model_copy(update={"copydesk_endpoint": engine.url, **more})
        stop = asyncio.Event()
        task = asyncio.create_task(run_service(it.settings, stop=stop))
        try:
            await it.anna.wait_until(lambda state: state["connections"] > 0 or task.done(), "The bot did not connect")
            yield it
        finally:
            stop.set()
            await task


def environment(it: World) -> dict[str, str]:
    return {
        "COPYDESK_HOME": str(it.settings.copydesk_home),
        "COPYDESK_ENDPOINT": it.settings.copydesk_endpoint,
        "COPYDESK_CHANNEL": "C_COPY",
        "SLACK_BOT_TOKEN": it.settings.slack_bot_token,
        "SLACK_APP_TOKEN": it.settings.slack_app_token,
        "SLACK_API_URL": it.settings.slack_api_url,
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
