"""A scorecard's message and picture: once each, up to date, and brought later where Slack or a kill came between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, web
from bot_world import World, offers, running, scored, world

from bot.announcements import Announcements
from bot.sandbox import Sandbox
from bot.sandbox.workspace import Message

pytestmark = pytest.mark.socket


async def pictures(it: World, card: dict[str, Any]) -> list[str]:
    return [file["name"] for message in await it.anna.thread("C_COPY", card["ts"]) for file in message.get("files", ())]


async def all_shown(it: World) -> None:
    await it.anna.wait_until(lambda _: not it.store.unannounced_scorecards(), "A scorecard is still to be shown")


def extend(it: World) -> None:
    """What `evals more` leaves behind, whoever started it."""
    (scorecard,) = it.store.scorecards()
    body = scorecard.body or {}
    (it.settings.copydesk_home / body["chart"]).write_bytes(b"a picture of more")
    it.store.finish_scorecard(scorecard.id, body | {"items": 50, "looks": scorecard.looks + 1})


async def test_an_extended_card_is_shown_anew_in_its_own_thread_however_far_up_it_stands(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        version = scored(it)
        card = await it.card(it.anna, version.name)
        await all_shown(it)
        assert await pictures(it, card) == ["copy-0001.png"]
        for _ in range(250):
            workspace = it.sandbox.workspace
            workspace.add_message(Message(workspace.next_ts(), "C_COPY", "U_ANNA", "Good morning"))
        extend(it)
        await all_shown(it)
        assert await pictures(it, card) == ["copy-0001.png", "copy-0001-2.png"]
        everything = await it.anna.messages("C_COPY")
        (shown,) = [message for message in everything if offers(message, "approve")]
        assert shown["ts"] == card["ts"]
        assert "50 briefs" in json.dumps(shown["blocks"])


async def test_a_picture_that_a_kill_prevented_comes_after_the_restart_and_only_once(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        it.sandbox.fail("files.completeUploadExternal", "error500", 10_000)
        async with running(it, orderly=False):
            card = await it.card(it.anna, scored(it).name)
        assert await pictures(it, card) == []
        it.sandbox.faults.methods.clear()
        for _ in range(2):
            async with running(it):
                await all_shown(it)
            assert await pictures(it, card) == ["copy-0001.png"]
            # As a process leaves it that was killed after the upload.
            it.store.mark_announced(1, "C_COPY", card["ts"], looks=0)
        assert sum(offers(message, "approve") for message in await it.anna.messages("C_COPY")) == 1


async def test_a_picture_waits_for_slack_longer_than_the_clients_own_retries(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.sandbox.fail("files.completeUploadExternal", "error500", 4)
        card = await it.card(it.anna, scored(it).name)
        await all_shown(it)
        assert await pictures(it, card) == ["copy-0001.png"]


async def test_a_card_that_somebody_deleted_stands_in_no_other_cards_way(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        card = await it.card(it.anna, scored(it).name)
        await all_shown(it)
        it.sandbox.workspace.delete_message(it.sandbox.workspace.message("C_COPY", card["ts"]))
        extend(it)
        other = await it.card(it.anna, scored(it).name)
        await all_shown(it)
        assert await pictures(it, other) == ["copy-0002.png"]


async def test_a_firewall_before_slacks_file_host_costs_the_picture_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def blocked(*of: Any) -> web.Response:
        return web.Response(status=403, text="blocked by policy")

    monkeypatch.setattr(Sandbox, "_upload", blocked)
    async with world(tmp_path) as it:
        first = await it.card(it.anna, scored(it).name)
        second = await it.card(it.anna, scored(it).name)
        assert await pictures(it, first) == await pictures(it, second) == []
        assert len(it.store.unannounced_scorecards()) == 2  # the next start tries again


async def test_what_a_lead_decided_is_shown_however_often_the_network_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh, failures = Announcements.refresh, [ClientError("reset"), TimeoutError(), OSError("unreachable")]

    async def shaky(announcements: Announcements, scorecard_id: int) -> None:
        if failures:
            raise failures.pop()
        await refresh(announcements, scorecard_id)

    async with world(tmp_path) as it:
        card = await it.card(it.anna, scored(it).name)
        await all_shown(it)
        monkeypatch.setattr(Announcements, "refresh", shaky)
        await it.mara.press("C_COPY", card["ts"], "approve")
        view = await it.mara.wait_modal(callback_id="approve_view")
        assert await it.mara.submit(view, {"reason": "reads better"}) is None
        shown = await it.anna.wait_message("C_COPY", lambda m: m["ts"] == card["ts"] and not offers(m, "approve"))
        assert "reads better" in json.dumps(shown["blocks"])
        assert failures == []
