"""An orderly end finishes what is being written and leaves the rest to the next start; what is typed stays text."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from bot_world import BRIEF, BRIEF_ZH, environment, offers, running, scored, world
from openai_double import Answer

from bot.drafts import AT_ONCE
from serving.store import BASE

pytestmark = pytest.mark.socket
SLOW = Answer(tuple(f"word{n} " for n in range(20)), pause=0.1)


async def test_sigterm_finishes_what_is_being_written_and_the_rest_is_answered_after_the_next_start(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, bot=False) as it:
        it.engine.default = SLOW
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).parent / "bot_process.py"), env={**os.environ, **environment(it)}
        )
        await it.anna.wait_until(lambda state: state["connections"] > 0, "The bot did not connect")
        asked = [await it.anna.mention("C_COPY", f"{BRIEF} {number}") for number in range(AT_ONCE + 3)]
        deadline = time.monotonic() + 20
        while len(it.engine.asked) < AT_ONCE or len(it.store.waiting_requests()) < len(asked):
            assert time.monotonic() < deadline, f"{len(it.engine.asked)} are being written"
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        asked.append(await it.anna.mention("C_COPY", f"{BRIEF} at the end"))
        assert await asyncio.wait_for(process.wait(), 25) == 0
        assert (len(it.store.drafts()), len(it.engine.asked)) == (AT_ONCE, AT_ONCE)
        async with running(it):
            for ts in asked:
                await it.draft(it.anna, "C_COPY", ts)
        assert it.store.waiting_requests() == []
        assert len(it.store.drafts()) == len(it.engine.asked) == len(asked)
        for ts in asked:
            assert len([m for m in await it.anna.thread("C_COPY", ts) if offers(m, "correct")]) == 1


async def test_an_engine_that_hangs_is_told_in_the_persons_language_and_the_draft_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.client.READ_TIMEOUT_S", 0.5)
    async with world(tmp_path) as it:
        it.engine.answers = [Answer(("Half ", "a line"), pause=3)]
        ts = await it.liwei.mention("C_COPY", BRIEF_ZH)
        await it.liwei.wait_message("C_COPY", lambda m: "引擎正在重启" in m["text"], thread_ts=ts)
        await it.draft(it.liwei, "C_COPY", ts)
        assert (len(it.store.drafts()), it.store.live()) == (1, BASE)


TYPED = ["copy-0001", "../../etc/passwd", "model=../../etc", '"},"model":"copy-0001","x":{"', '{"lora_path": "/"}']


@pytest.mark.parametrize("typed", TYPED)
async def test_no_field_of_the_form_and_no_button_chooses_an_adapter_or_a_path(tmp_path: Path, typed: str) -> None:
    async with world(tmp_path) as it:
        scored(it)
        await it.anna.slash("/copy", "", "C_COPY")
        view = await it.anna.wait_modal(callback_id="ask_view")
        filled = {"product": typed, "selling_points": typed, "length_min": "", "length_max": ""}
        assert await it.anna.submit(view, filled) is None
        note = await it.anna.wait_message("C_COPY", lambda m: offers(m, "change"))
        draft = await it.draft(it.anna, "C_COPY", note["ts"])
        await it.anna.press("C_COPY", draft["ts"], "again")
        await it.anna.wait_message(
            "C_COPY", lambda m: offers(m, "correct") and m["ts"] != draft["ts"], thread_ts=note["ts"]
        )
        assert typed in it.engine.asked[0]["messages"][-1]["content"]
        assert [asked["model"] for asked in it.engine.asked] == [BASE, BASE]
        assert it.engine.loaded == ["base"]
