"""Exactly one answer, whatever fails: killed processes, engines that die, Slack on a bad day."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from bot_world import BRIEF, World, environment, offers, running, scored, serving_desk, until, world
from openai_double import Answer
from slack_sdk.web.async_client import AsyncWebClient

from bot import drafts
from bot.doctor import Finding
from bot.locales import Locales
from bot.sandbox import Sandbox
from bot.sandbox.web_api import WebApi
from bot.service import run_service
from bot.texts import Words
from serving.records import CopydeskError, Decision, RequestState
from serving.store import Store

pytestmark = pytest.mark.socket
SLOW = Answer(tuple(f"word{n} " for n in range(40)), pause=0.1)


async def answers(it: World, ts: str) -> list[str]:
    """What a person sees of drafts in a thread: all of the bot's messages but the note of what was understood."""
    return [m["ts"] for m in await it.anna.thread("C_COPY", ts) if not offers(m, "change")]


async def finished(it: World, ts: str) -> None:
    await it.draft(it.anna, "C_COPY", ts)
    await until(lambda: it.store.request(1).state is RequestState.ANSWERED)
    assert len(await answers(it, ts)) == len(it.store.drafts()) == 1
    assert it.store.waiting_requests() == []


async def test_an_engine_that_dies_in_the_middle_of_a_draft_costs_nothing_but_time(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engine.answers = [Answer(("Half ", "a ", "line"), pause=0.2, breaks_after=2), Answer((), breaks_after=None)]
        it.engine.answers[1] = Answer(("x",), breaks_after=0)
        ts = await it.anna.mention("C_COPY", BRIEF)
        await it.anna.wait_message("C_COPY", lambda m: "engine is restarting" in m["text"], thread_ts=ts)
        await finished(it, ts)
        (draft,) = it.store.drafts()
        assert draft.text == "Warm light for late pages. Try it tonight."


@pytest.mark.parametrize(
    ("status", "message", "key"),
    [
        (
            400,
            "This model's maximum context length is 2048 tokens. However, your prompt contains more.",
            "prompt_too_long",
        ),
        (401, "Incorrect API key", "key_refused"),
        (404, "The model `base` does not exist.", "model_unknown"),
        (422, "top_p: not so", "request_refused"),
    ],
)
async def test_why_there_is_no_draft_is_said_in_the_readers_language(
    tmp_path: Path, status: int, message: str, key: str
) -> None:
    async with world(tmp_path) as it:
        it.engine.default = Answer(raw=json.dumps({"error": {"message": message}}).encode(), status=status)
        for person, words in ((it.anna, Words("en")), (it.liwei, Words("zh"))):
            ts = await person.mention("C_COPY", BRIEF)
            why = words(f"error_{key}", status=status)
            told = await person.wait_message("C_COPY", lambda m, why=why: why in m["text"], thread_ts=ts)
            assert told["text"] == words("no_draft", detail=why)


async def test_an_adapter_that_the_engine_refuses_is_said_in_the_readers_language(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        version = scored(it)
        it.store.decide(version.name, Decision.APPROVED, digest=version.digest, user="cli")
        (Path(version.path) / "adapter_config.json").unlink()
        it.engine.strict = True
        async with running(it):
            ts = await it.liwei.mention("C_COPY", BRIEF)
            told = await it.liwei.wait_message("C_COPY", lambda m: "引擎拒绝了 copy-0001" in m["text"], thread_ts=ts)
            assert told["text"].startswith("这次没写成。")


async def test_without_streaming_the_draft_is_posted_and_updated(tmp_path: Path) -> None:
    async with world(tmp_path, streaming=False) as it:
        it.engine.default = SLOW
        ts = await it.anna.mention("C_COPY", BRIEF)
        await it.anna.wait_message("C_COPY", lambda m: m["text"].startswith("word0"), thread_ts=ts)
        await finished(it, ts)


async def test_a_stream_that_slack_closes_is_finished_by_update(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engine.default = SLOW
        ts = await it.anna.mention("C_COPY", BRIEF)
        await it.anna.wait_message("C_COPY", lambda m: m["streaming"], thread_ts=ts)
        it.sandbox.end_streams()
        await finished(it, ts)
        draft = await it.draft(it.anna, "C_COPY", ts)
        assert draft["blocks"][0]["text"].endswith("word39")


async def test_rate_limits_and_server_errors_delay_an_answer_and_do_not_lose_it(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.sandbox.fail("chat.postMessage", "ratelimit", 1, 1)
        it.sandbox.fail("chat.startStream", "ratelimit", 1, 1)
        it.sandbox.fail("chat.stopStream", "error500", 1)
        ts = await it.anna.mention("C_COPY", BRIEF)
        await finished(it, ts)


async def test_slack_failing_for_longer_than_the_retries_does_not_lose_an_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.sandbox.fail("chat.stopStream", "error500", 4)
        it.sandbox.fail("chat.update", "error500", 4)
        ts = await it.anna.mention("C_COPY", BRIEF)
        await it.anna.wait_message("C_COPY", lambda m: offers(m, "correct"), thread_ts=ts)
        await finished(it, ts)


@pytest.mark.parametrize("step", ["set_reply", "answer"])  # at the first words, and at the end
async def test_a_full_disk_is_told_and_the_draft_comes_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(drafts, "PAUSES_S", (0.1, 0.2))
    saved, room, tried = getattr(Store, step), asyncio.Event(), list[int]()

    def full(store: Store, request_id: int, *given: Any, **values: Any) -> Any:
        tried.append(request_id)
        if not room.is_set():
            raise CopydeskError("Nothing was saved: database or disk is full.", code="not_saved")
        return saved(store, request_id, *given, **values)

    monkeypatch.setattr(Store, step, full)
    async with world(tmp_path) as it:
        ts = await it.anna.mention("C_COPY", BRIEF)
        for _ in range(4):  # more often than there are pauses
            times = len(tried)
            await it.anna.wait_message("C_COPY", lambda m: "could not be saved" in m["text"], thread_ts=ts)
            await until(lambda before=times: len(tried) > before)
        room.set()
        await finished(it, ts)


async def test_a_form_that_cannot_be_saved_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any, **values: Any) -> Any:
        raise CopydeskError("Nothing was saved: database or disk is full.", code="not_saved")

    async with world(tmp_path) as it:
        await it.anna.slash("/copy", "", "C_COPY")
        view = await it.anna.wait_modal(callback_id="ask_view")
        with monkeypatch.context() as patch:
            patch.setattr(Store, "add_request", full)
            refused = await it.anna.submit(view, {"product": "Alder lamp"})
        assert (refused or {})["product"].startswith("Nothing was saved")
        assert await it.anna.submit(view, {"product": "Alder lamp"}) is None
        note = await it.anna.wait_message("C_COPY", lambda m: offers(m, "change"))
        await finished(it, note["ts"])


async def test_what_is_asked_while_the_bot_starts_is_answered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, bot=False) as it:
        asked: list[str] = []

        async def check(*of: Any) -> Finding:  # the last thing before what was left is taken up
            asked.append(await it.anna.mention("C_COPY", BRIEF))
            await until(lambda: bool(it.store.waiting_requests()))
            return Finding("channel", True, "", "")

        monkeypatch.setattr("bot.app.doctor.channel", check)
        async with running(it):
            await finished(it, asked[0])
            assert len(it.engine.asked) == 1
            assert len([m for m in await it.anna.thread("C_COPY", asked[0]) if offers(m, "change")]) == 1


async def test_that_the_engine_restarts_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, calls = WebApi.call, list[str]()
    monkeypatch.setattr(WebApi, "call", lambda api, method, given: (calls.append(method), call(api, method, given))[1])
    async with world(tmp_path) as it:
        it.engine.default = Answer(("x",), breaks_after=0)
        ts = await it.anna.mention("C_COPY", BRIEF)
        await it.anna.wait_message("C_COPY", lambda m: "engine is restarting" in m["text"], thread_ts=ts)
        await until(lambda: len(it.engine.asked) == 4)
        assert [method for method in calls if method in ("chat.update", "chat.stopStream")] == []
        assert calls.count("chat.postMessage") == 2  # the note, and that sentence
        it.engine.default = Answer(("Warm ", "light."))
        await finished(it, ts)


async def test_a_second_desk_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as other, serving_desk(tmp_path, other.engine) as it:
        with pytest.raises(CopydeskError, match=r"A desk runs in .* already; end it"):
            await run_service(it.settings, stop=asyncio.Event())


async def test_a_dropped_socket_is_connected_again(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.sandbox.drop_socket()
        await it.anna.wait_until(lambda state: state["connections"] > 0, "The bot stayed away")
        ts = await it.anna.mention("C_COPY", BRIEF)
        await finished(it, ts)


async def test_a_bot_that_is_killed_between_request_and_answer_answers_once_after_its_restart(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        it.engine.default = SLOW
        for moment in ("accepted", "streaming"):
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(Path(__file__).parent / "bot_process.py"), env={**os.environ, **environment(it)}
            )
            await it.anna.wait_until(lambda state: state["connections"] > 0, "The bot did not connect")
            ts = await it.anna.mention("C_COPY", f"{BRIEF} {moment}")
            if moment == "accepted":
                await it.anna.wait_message("C_COPY", lambda m: offers(m, "change"), thread_ts=ts)
            else:
                await it.anna.wait_message("C_COPY", lambda m: m["streaming"], thread_ts=ts)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            assert len(it.store.waiting_requests()) == 1
            async with running(it):
                await it.draft(it.anna, "C_COPY", ts)
            assert len(await answers(it, ts)) == 1
            assert it.store.waiting_requests() == []
        assert len(it.store.drafts()) == 2


async def test_a_stream_that_was_begun_and_never_recorded_is_adopted(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        async with running(it, orderly=False):
            it.engine.default = SLOW
            ts = await it.anna.mention("C_COPY", BRIEF)
            await it.anna.wait_message("C_COPY", lambda m: m["streaming"], thread_ts=ts)
        with it.store.transaction() as db:
            db.execute("UPDATE requests SET reply_ts = NULL")
        async with running(it):
            await finished(it, ts)


async def test_a_draft_that_was_stored_and_not_shown_is_shown_after_the_restart(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        async with running(it, orderly=False):
            it.engine.default = SLOW
            ts = await it.anna.mention("C_COPY", BRIEF)
            growing = await it.anna.wait_message("C_COPY", lambda m: m["streaming"], thread_ts=ts)
        it.store.answer(
            1,
            version="base",
            text="As stored.",
            ts=growing["ts"],
            prompt_tokens=1,
            completion_tokens=1,
            first_token_s=None,
            total_s=1.0,
        )
        asked = len(it.engine.asked)
        async with running(it):
            await finished(it, ts)
        shown = await it.draft(it.anna, "C_COPY", ts)
        assert (shown["blocks"][0]["text"], len(it.engine.asked)) == ("As stored.", asked)


async def test_a_language_outlives_a_slack_that_fails_and_is_asked_for_again_after_a_minute() -> None:
    clock = [0.0]
    async with Sandbox() as sandbox:
        slack = AsyncWebClient(sandbox.bot_token, base_url=sandbox.api_url)
        known, new = (Locales(slack, now=lambda: clock[0]) for _ in range(2))
        assert await known.language("U_LIWEI") == "zh"
        clock[0] += 3601
        sandbox.fail("users.info", "error500", 2)
        assert (await known.language("U_LIWEI"), await new.language("U_LIWEI")) == ("zh", "en")
        clock[0] += 59
        assert await new.language("U_LIWEI") == "en"
        clock[0] += 2
        assert (await known.language("U_LIWEI"), await new.language("U_LIWEI")) == ("zh", "zh")
    clock[0] += 3601
    assert (await known.language("U_LIWEI"), await new.language("U_NOBODY")) == ("zh", "en")  # nothing answers
