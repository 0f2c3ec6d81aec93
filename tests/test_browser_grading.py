"""Grading and comparing blind on the page, in a real browser.

With COPYDESK_PICTURES=FOLDER the pictures are taken on the way.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bot_world import world
from browser import Browser, browser  # noqa: F401
from cards import example_card

from evals.suite import read_suite
from serving.grades import SHEET_SIZE, Grades
from serving.store import BASE, Store

pytestmark = [pytest.mark.browser, pytest.mark.socket]

ROOM = "#room-body [data-user=U_COPYDESK]"


async def picture(browser: Browser, name: str) -> None:  # noqa: F811
    if folder := os.environ.get("COPYDESK_PICTURES"):
        await browser.picture(Path(folder) / f"{name}.png")


def scored_with_real_briefs(store: Store, language: str) -> None:
    """The candidate writes as people do, the live version little of it."""
    items = read_suite(language).draw(30, 1, "following")
    for version in (BASE, "copy-0001"):
        scorecard = store.start_scorecard(version, baseline=BASE, suite=language, seed=1)
        for item in items:
            text = item.references[0]
            store.add_sample(
                scorecard.id,
                item_id=item.id,
                part="following",
                repeat=0,
                text=text if version != BASE else text[: len(text) // 2],
                grade="excellent" if version != BASE else "fail",
                score={},
            )
        body = example_card().to_json() | {"version": version, "chart": ""}
        store.finish_scorecard(scorecard.id, body)
    Grades(store).keep_items(language, {item.id: item.task for item in items})


@pytest.mark.parametrize(("language", "person"), [("en", "U_MARA"), ("zh", "U_LIWEI")])
async def test_people_grade_and_compare_on_the_page(
    browser: Browser,  # noqa: F811
    tmp_path: Path,
    language: str,
    person: str,
) -> None:
    async with world(tmp_path) as it:
        scored_with_real_briefs(it.store, language)
        await browser.open(it.sandbox.url)
        await browser.see("[data-connected=true]")
        await browser.click(f"[data-person={person}]")
        await browser.see(ROOM, "copy-0001", seconds=30)
        for kind, answer in (("grade_blind", "answer:acceptable"), ("compare_blind", "answer:a")):
            await browser.click(f"{ROOM} [data-action-id={kind}]")
            for n in range(1, SHEET_SIZE + 1):
                await browser.see("dialog .context", f"{n} of 20" if language == "en" else f"第 {n} ")
                if n == 7:
                    await picture(browser, f"{kind}-{language}")
                await browser.click(f"dialog [data-action-id='{answer}']")
            await browser.see("dialog", "20")
            await browser.gone(f"dialog [data-action-id='{answer}']")
            await picture(browser, f"{kind}-{language}-end")
            await browser.click("[data-modal-close]")
            await browser.gone("dialog")
        await browser.size(1280, 2400)  # the whole card
        await browser.see(ROOM, "Compared blind", seconds=10)
        await picture(browser, f"scorecard-people-{language}")
        assert len(it.store.rows("SELECT * FROM grades")) == len(it.store.rows("SELECT * FROM votes")) == SHEET_SIZE
        assert await browser.complaints() == []
