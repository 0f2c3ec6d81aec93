"""The desk as people see it: asked, corrected and approved on the page, in a real browser.

With COPYDESK_PICTURES=FOLDER the pictures of the README are taken on the way: make pictures
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from bot_world import World, world
from browser import Browser, browser  # noqa: F401
from cards import example_card
from openai_double import Answer

from evals.chart import render_chart
from serving.registry import digest_of
from serving.store import BASE

pytestmark = [pytest.mark.browser, pytest.mark.socket]

COMPOSER = "[data-composer=room]"
THREAD = "#thread-body [data-user=U_COPYDESK]"
ROOM = "#room-body [data-user=U_COPYDESK]"
DRAFT = (
    "Larkbeam desk lamp is a lamp for students. ",
    "It has a warm dimmable light, which is great for reading, ",
    "and it folds flat so that you can take it everywhere you go.",
)
CORRECTED = (
    "Larkbeam desk lamp keeps the page clear long after the house is quiet. The warm dimmable light is easy on tired "
    "eyes, and the arm folds flat when the book closes. Put one beside your bed tonight."
)


async def picture(browser: Browser, name: str) -> None:  # noqa: F811
    if folder := os.environ.get("COPYDESK_PICTURES"):
        await browser.picture(Path(folder) / f"{name}.png")


def scored_version(it: World) -> str:
    """A version with its files and a finished scorecard, as the trainer and the evaluation leave them."""
    home = it.settings.copydesk_home
    trained = it.store.start_round({"name": "default"}, [], "digest")
    directory = home / "adapters" / trained.version
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text("{}")
    (directory / "adapter_model.safetensors").write_bytes(b"weights")
    digest = digest_of(directory)
    it.store.finish_round(trained.id, {}, path=str(directory), digest=digest, base_model="SmolLM2-135M-Instruct")
    card = replace(example_card(), version=trained.version, digest=digest, chart="scorecards/1.png")
    (home / "scorecards").mkdir()
    (home / card.chart).write_bytes(render_chart(card))
    scorecard = it.store.start_scorecard(trained.version, baseline=BASE, suite="en", seed=1)
    it.store.finish_scorecard(scorecard.id, card.to_json())
    return trained.version


async def test_a_team_asks_corrects_and_approves_on_the_page(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    async with world(tmp_path) as it:
        it.engine.answers.append(Answer(DRAFT, pause=0.3))
        await browser.open(it.sandbox.url)
        await browser.see("[data-connected=true]")
        await browser.type(
            COMPOSER, "@Cop\tLarkbeam desk lamp for students who read late: warm dimmable light; folds flat\n"
        )
        await browser.see(THREAD, "take it everywhere")
        await browser.click(f"{THREAD} [data-feedback=negative]")
        await picture(browser, "draft")
        await browser.click(f"{THREAD} [data-action-id=correct]")
        await browser.see("dialog")
        await picture(browser, "correction")
        await browser.replace("dialog [data-action-id=text]", CORRECTED)
        await browser.click("[data-modal-submit]")
        await browser.gone("dialog")
        await browser.see(THREAD, "house")
        assert [pair.output for pair in it.store.pairs()] == [CORRECTED]

        version = scored_version(it)
        await browser.see(ROOM, version, seconds=30)
        await browser.click("[data-person=U_MARA]")
        await browser.see(f"{ROOM} [data-action-id=approve]")
        await browser.size(1280, 1500)  # the whole card
        await picture(browser, "scorecard")
        await browser.click(f"{ROOM} [data-action-id=approve]")
        await browser.type("dialog [data-action-id=reason]", "Reads like us now.")
        await browser.click("[data-modal-submit]")
        await browser.gone("dialog")
        await browser.see(ROOM, "Reads like us now.")
        assert it.store.live() == version
        assert await browser.complaints() == []
