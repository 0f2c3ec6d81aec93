"""The workspace's page in a real browser, with a real Bolt app behind it."""

from __future__ import annotations

import pytest
from browser import Browser, browser  # noqa: F401
from toy_app import connected, toy_app

from bot.sandbox import People, Sandbox

pytestmark = pytest.mark.browser

COMPOSER = "[data-composer=room]"
DRAFT = "#thread-body [data-user=U_COPYDESK]"


async def test_a_person_asks_rates_and_corrects_on_the_page(browser: Browser) -> None:  # noqa: F811
    async with Sandbox() as sandbox, connected(toy_app(sandbox), sandbox), People(sandbox.url) as people:
        await browser.open(sandbox.url)
        await browser.see("[data-connected=true]")
        await browser.type(COMPOSER, "@Cop\t<b>stream</b> & a line\n")
        assert "@Copydesk <b>stream</b> & a line" in await browser.see("#room-body [data-user=U_ANNA]", "stream")
        assert "Warm to the last drop." in await browser.see(DRAFT, "drop.")
        await browser.click(f"{DRAFT} [data-feedback=positive]")
        await browser.see(f"{DRAFT} [data-feedback=positive][aria-pressed=true]")
        await browser.click(f"{DRAFT} [data-action-id=correct]")
        await browser.replace("dialog [data-action-id=text]", "bad")
        await browser.click("[data-modal-submit]")
        assert await browser.see("[data-error-for=copy]") == "Say more than that."
        await browser.replace("dialog [data-action-id=text]", "Warm for hours.")
        await browser.click("[data-modal-submit]")
        await browser.gone("dialog")
        await browser.see(DRAFT, "Saved: Warm for hours.")
        await browser.click(f"{DRAFT} [data-react='+1']")
        await browser.see(f"{DRAFT} [data-reaction='+1'][aria-pressed=true]")
        (root,) = await people.person("U_MARA").messages("C_COPY")
        assert root["text"] == "<@U_COPYDESK> &lt;b&gt;stream&lt;/b&gt; &amp; a line"
        assert await browser.complaints() == []


async def test_the_page_speaks_the_persons_language_and_keeps_ephemeral_messages_private(
    browser: Browser,  # noqa: F811
) -> None:
    async with Sandbox() as sandbox, connected(toy_app(sandbox), sandbox):
        await browser.open(sandbox.url)
        await browser.click("[data-person=U_LIWEI]")
        await browser.see("#side h2", "频道")
        await browser.type(COMPOSER, "/copy 帮助\n")
        await browser.see(".ephemeral", "You said 帮助")
        await browser.click("[data-person=U_MARA]")
        await browser.see("#side h2", "Channels")
        await browser.see("#room-body", "later, for all")
        await browser.gone(".ephemeral")
        await browser.click("[data-channel=home]")
        await browser.see("[data-home]", "Home of U_MARA")


async def test_the_page_works_on_a_narrow_screen(browser: Browser) -> None:  # noqa: F811
    async with Sandbox() as sandbox, connected(toy_app(sandbox), sandbox):
        await browser.size(500, 800)
        await browser.open(sandbox.url)
        await browser.click(".burger")
        await browser.click("#side.open [data-channel^=D_]")
        await browser.type(COMPOSER, "hello\n")
        await browser.see("#room-body", "hello")
        await browser.click("#room-body [data-react='+1']")
        await browser.see("[data-reaction='+1']")
