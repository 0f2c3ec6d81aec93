"""Exactly one answer, whatever fails: killed processes, engines that die, Slack on a bad day."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from bot_world import BRIEF, World, environment, offers, running, world
from openai_double import Answer

from serving.records import RequestState

pytestmark = pytest.mark.socket
SLOW = Answer(tuple(f"word{n} " for n in range(40)), pause=0.1)


async def answers(it: World, ts: str) -> list[str]:
    """What a person sees of drafts in a thread: all of the bot's messages but the note of what was understood."""
    return [m["ts"] for m in await it.anna.thread("C_COPY", ts) if not offers(m, "change")]


async def finished(it: World, ts: str) -> None:
    await it.draft(it.anna, "C_COPY", ts)
    for _ in range(500):
        if it.store.request(1).state is RequestState.ANSWERED:
            break
        await asyncio.sleep(0.02)
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
