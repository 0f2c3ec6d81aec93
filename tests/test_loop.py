"""The whole loop on real parts: Bolt over the sandbox's socket, vLLM, SQLite, a round, a scorecard, a lead."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from bot_world import ACK_S

from bot.approvals import APPROVE_VIEW
from bot.blocks import CORRECT, FEEDBACK
from bot.corrections import CORRECT_VIEW
from bot.sandbox.people import People
from bot.sandbox.server import Sandbox
from bot.scorecards import APPROVE, ROLL_BACK
from bot.service import run_service
from serving.records import Draft, PairSource, RoundState, Verdict
from serving.settings import Settings
from serving.store import BASE, Store

CHANNEL = "C_COPY"
BRIEF = "Product: {product}\nAudience: students who read late\nSelling points: warm light; folds flat"
CORRECTED = (
    "Alder lamp keeps the page clear long after the house is quiet. Its warm light is easy on tired eyes, and the arm "
    "folds flat when the book closes. Put one beside your bed tonight."
)


async def new_draft(store: Store, count: int, seconds: float = 240.0) -> Draft:
    """The newest draft, as soon as there are `count`."""
    end = time.monotonic() + seconds
    while len(drafts := await asyncio.to_thread(store.drafts)) < count:
        assert time.monotonic() < end, f"{len(drafts)} of {count} drafts came within {seconds:g} s"
        await asyncio.sleep(0.2)
    return drafts[0]


def offers(message: dict[str, Any], action_id: str) -> bool:
    return f'"action_id": "{action_id}"' in json.dumps(message.get("blocks", []))


async def module(settings: Settings, *arguments: str) -> str:
    """Run `python -m …` as the command does, against the same desk."""
    variables = {"COPYDESK_HOME": str(settings.copydesk_home), "COPYDESK_MODEL": settings.copydesk_model}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def kill_engine() -> None:
    (engine,) = [p for p in psutil.Process().children() if "serving.vllm_server" in " ".join(p.cmdline())]
    engine.send_signal(signal.SIGKILL)


@pytest.mark.engine
@pytest.mark.socket
@pytest.mark.timeout(1200)
async def test_a_teams_correction_becomes_the_version_that_writes_the_next_draft(
    base_model: Path, tmp_path: Path
) -> None:
    ready, stop = asyncio.Event(), asyncio.Event()
    async with Sandbox(ack_seconds=ACK_S) as sandbox, People(sandbox.url) as people:
        settings = Settings(
            _env_file=None,
            copydesk_home=tmp_path,
            copydesk_model=str(base_model),
            copydesk_channel=CHANNEL,
            copydesk_leads=("U_MARA",),
            slack_bot_token=sandbox.bot_token,
            slack_app_token=sandbox.app_token,
            slack_api_url=sandbox.api_url,
        )
        store = Store(settings.database)
        service = asyncio.create_task(
            run_service(settings, stop=stop, on_state=lambda state: ready.set() if state == "ready" else None)
        )
        try:
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait({service, waiting}, return_when=asyncio.FIRST_COMPLETED)
            assert ready.is_set(), service
            anna, mara = people.person("U_ANNA"), people.person("U_MARA")

            await module(settings, "trainer", "starter", "--language", "en")

            # Ask, rate, correct.
            root = await anna.mention(CHANNEL, BRIEF.format(product="Alder lamp"))
            draft = await new_draft(store, 1)
            await anna.wait_message(CHANNEL, lambda m: m["ts"] == draft.ts and offers(m, CORRECT), root)
            assert (draft.version, draft.channel) == (BASE, CHANNEL)
            await anna.press(CHANNEL, draft.ts, FEEDBACK, "negative")
            await anna.press(CHANNEL, draft.ts, CORRECT)
            view = await anna.wait_modal(callback_id=CORRECT_VIEW)
            assert await anna.submit(view, {"text": CORRECTED}) is None
            assert [r.verdict for r in store.ratings()] == [Verdict.DOWN]
            (pair,) = [p for p in store.pairs() if p.source is PairSource.CORRECTION]
            assert pair.output == CORRECTED

            # The engine dies in the middle of a draft: one answer, by itself.
            root = await anna.mention(CHANNEL, BRIEF.format(product="Birch lamp"))
            await anna.wait_message(CHANNEL, lambda m: bool(m.get("streaming")), root)
            kill_engine()
            second = await new_draft(store, 2)
            await anna.wait_message(CHANNEL, lambda m: m["ts"] == second.ts and offers(m, CORRECT), root)
            answers = [m for m in await anna.thread(CHANNEL, root) if offers(m, CORRECT)]
            assert [m["ts"] for m in answers] == [second.ts]
            assert store.waiting_requests() == []

            # A short round on the newest pairs, the correction among them, and a small card.
            await module(settings, "trainer", "run", "--language", "en", "--max-pairs", "16")
            (trained,) = store.rounds()
            assert trained.state is RoundState.DONE
            assert PairSource.CORRECTION in {pair.source for pair in store.round_pairs(trained.id)}
            await module(settings, "evals", "run", "--items", "4", "--briefs", "2", "--repeats", "2")

            # The lead decides; the next draft is by the new version, and back again.
            card = await mara.wait_message(CHANNEL, lambda m: offers(m, APPROVE))
            await mara.press(CHANNEL, card["ts"], APPROVE)
            assert await mara.submit(await mara.wait_modal(callback_id=APPROVE_VIEW), {"reason": "Reads well."}) is None
            assert store.live() == trained.version
            await anna.say(anna.dm, BRIEF.format(product="Cedar lamp"))
            assert (await new_draft(store, 3)).version == trained.version
            back = await mara.wait_message(CHANNEL, lambda m: offers(m, ROLL_BACK))
            await mara.press(CHANNEL, back["ts"], ROLL_BACK)
            await anna.say(anna.dm, BRIEF.format(product="Dogwood lamp"))
            assert (await new_draft(store, 4)).version == BASE
            assert [p.decision for p in store.promotions()] == ["rolled_back", "approved"]
        finally:
            stop.set()
            await service
