"""The bot over the sandbox's socket, with the engine's protocol on the other side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai_double import Answer, EngineDouble

from bot.app import Desk, serve
from bot.sandbox import People, Person, Sandbox
from serving.client import ModelClient
from serving.records import PairSource, RatingSource, Verdict
from serving.registry import Registry
from serving.settings import Settings
from serving.store import Store

pytestmark = pytest.mark.socket

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


def offers(message: dict[str, Any], action_id: str) -> bool:
    return f'"action_id": "{action_id}"' in json.dumps(message.get("blocks", []))


@asynccontextmanager
async def world(home: Any, **options: Any) -> AsyncIterator[World]:
    async with Sandbox(**options) as sandbox, People(sandbox.url) as people, EngineDouble() as engine:
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
        async with running(it):
            yield it


@asynccontextmanager
async def running(it: World) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with ModelClient(it.settings.endpoint) as client:
        desk = Desk(it.settings, it.store, client, Registry(it.store, it.settings.copydesk_leads))
        task = asyncio.create_task(serve(desk, stop))
        try:
            while not it.sandbox.socket_mode.connections and not task.done():
                await asyncio.sleep(0.02)
            yield
        finally:
            stop.set()
            await task


async def test_a_mention_is_drafted_rated_and_corrected(tmp_path: Any) -> None:
    async with world(tmp_path) as it:
        ts = await it.anna.mention("C_COPY", BRIEF)
        draft = await it.draft(it.anna, "C_COPY", ts)
        assert draft["blocks"][0]["text"] == "Warm light for late pages. Try it tonight."
        note = (await it.anna.thread("C_COPY", ts))[0]
        assert "Larkbeam desk lamp · for students · warm dimmable light; folds flat" in note["text"]
        await it.anna.press("C_COPY", draft["ts"], "rate", "negative")
        asked = await it.anna.wait_message("C_COPY", lambda m: m["ephemeral"], thread_ts=ts)
        await it.anna.press("C_COPY", asked["ts"], "reason:tone")
        assert [(r.verdict, r.reason) for r in it.store.ratings()] == [(Verdict.DOWN, "tone")]
        await it.anna.press("C_COPY", draft["ts"], "correct")
        view = await it.anna.wait_modal(callback_id="correct_view")
        same = await it.anna.submit(view)
        assert same == {"text0": "This is the draft as it was. Change it, or close this and press “Good” to keep it."}
        assert await it.anna.submit(view, {"text": "Warm light for late readers. Try it tonight."}) is None
        shown = await it.anna.wait_message("C_COPY", lambda m: "corrected" in m["text"], thread_ts=ts)
        assert shown["blocks"][1]["text"] == "Warm light for late ~~pages.~~ **readers.** Try it tonight."
        (pair,) = it.store.pairs()
        assert (pair.source, pair.output) == (PairSource.CORRECTION, "Warm light for late readers. Try it tonight.")


async def test_a_chinese_reader_is_answered_in_chinese(tmp_path: Any) -> None:
    async with world(tmp_path) as it:
        it.engine.default = Answer(("云朵保温杯，", "保温12小时，", "一键开盖。", "今天就带上它。"))
        ts = await it.liwei.say(it.liwei.dm, BRIEF_ZH)
        draft = await it.draft(it.liwei, it.liwei.dm, ts)
        assert "基础模型 · 19 字 · 已读懂需求" in json.dumps(draft["blocks"], ensure_ascii=False)
        await it.liwei.react(it.liwei.dm, draft["ts"], "+1")
        await it.sandbox.socket_mode.settle()
        assert [(r.verdict, r.source) for r in it.store.ratings()] == [(Verdict.UP, RatingSource.REACTION)]
        assert it.engine.asked[0]["messages"][1]["content"].startswith("为「云朵保温杯」写一段产品文案。")
        await it.liwei.unreact(it.liwei.dm, draft["ts"], "+1")
        await it.sandbox.socket_mode.settle()
        assert it.store.ratings() == []
