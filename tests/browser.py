"""A headless Chromium for tests of the page. Use: from browser import Browser, browser  # noqa: F401

Without Chromium the tests skip and say so; where CI is set they fail instead, so that nobody believes they ran.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """Looks for things by CSS selector and waits for them, off the event loop that serves the page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    async def open(self, url: str) -> None:
        await asyncio.to_thread(self.driver.get, url)

    async def size(self, width: int, height: int) -> None:
        await asyncio.to_thread(self.driver.set_window_size, width, height)

    async def see(self, css: str, text: str = "", seconds: float = 15.0) -> str:
        """Wait for a visible element that holds `text`; return what it says."""
        return await self._with(css, lambda element: element.text, seconds, text)

    async def click(self, css: str, seconds: float = 15.0) -> None:
        await self._with(css, lambda element: element.click(), seconds)

    async def type(self, css: str, text: str, seconds: float = 15.0) -> None:
        await self._with(css, lambda element: element.send_keys(text), seconds)

    async def replace(self, css: str, text: str, seconds: float = 15.0) -> None:
        def do(element: WebElement) -> None:
            element.clear()
            element.send_keys(text)

        await self._with(css, do, seconds)

    async def gone(self, css: str, seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while await asyncio.to_thread(self.driver.find_elements, By.CSS_SELECTOR, css):
            assert time.monotonic() < end, f"{css} is still there after {seconds:g} s"
            await asyncio.sleep(0.05)

    async def picture(self, path: Path) -> None:
        await asyncio.to_thread(self.driver.save_screenshot, str(path))

    async def complaints(self) -> list[str]:
        """What the page's console says is wrong."""
        entries = await asyncio.to_thread(self.driver.get_log, "browser")
        return [str(entry["message"]) for entry in entries if entry["level"] == "SEVERE"]

    async def _with(self, css: str, do: Callable[[WebElement], T], seconds: float, text: str = "") -> T:
        end = time.monotonic() + seconds
        while True:
            try:
                return await asyncio.to_thread(self._once, css, do, text)
            except (NoSuchElementException, StaleElementReferenceException, WebDriverException):
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(0.05)

    def _once(self, css: str, do: Callable[[WebElement], T], text: str) -> T:
        for element in self.driver.find_elements(By.CSS_SELECTOR, css):
            if element.is_displayed() and text in element.text:
                return do(element)
        raise NoSuchElementException(f"There is no visible {css} with {text!r}")


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        missing = "Chromium" if not chromium else "chromedriver"
        reason = f"{missing} is not installed; on Debian: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = Options()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,800"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = await asyncio.to_thread(webdriver.Chrome, options=options, service=Service(driver))
    try:
        yield Browser(started)
    finally:
        await asyncio.to_thread(started.quit)
