"""A real browser, Debian's chromium: it asks nobody but the service, and complains of nothing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from tests.api.conftest import *  # noqa: F403 - the same databases
from tests.rig import OPERATOR, Rig

DESK = {"width": 1360, "height": 860}
PHONE = {"width": 390, "height": 844}
EXPECTED = "Failed to load resource"  # a browser says so of each 4xx that a test wants to see


class Browsing:
    """Pages of one browser; what they said and whom they asked is looked at in the end."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.faults: list[str] = []
        self.may_fail = False

    async def open(
        self,
        url: str,
        *,
        language: str = "en-US",
        theme: Any = "light",
        size: dict[str, int] = DESK,
        scripts: bool = True,
    ) -> Page:
        """A page in a profile of its own, not logged in."""
        context = await self._browser.new_context(
            base_url=url,
            locale=language,
            color_scheme=theme,
            viewport=size,  # type: ignore[arg-type]
            java_script_enabled=scripts,
            timezone_id="Europe/Berlin",
        )
        self._contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self._asked(request.url, url))
        return page

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not (
            self.may_fail and message.text.startswith(EXPECTED)
        ):
            self.faults.append(f"console {message.type}: {message.text} {message.location}")

    def _asked(self, asked: str, url: str) -> None:
        if not asked.startswith((url, "data:")):
            self.faults.append(f"asked {asked}")

    async def close(self) -> None:
        for context in self._contexts:
            await context.close()


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Browsing]:
    path = shutil.which("chromium")
    assert path, "Debian's chromium is needed: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        made = Browsing(browser)
        try:
            yield made
        finally:
            await made.close()
            await browser.close()
        assert made.faults == []


@pytest.fixture
def browser() -> Callable[[], contextlib.AbstractAsyncContextManager[Browsing]]:
    return browsing


async def log_in(page: Page, token: str = OPERATOR, to: str = "/") -> Page:
    """By the form, to a page; it is connected."""
    await page.goto(to)
    await page.get_by_label("Token").or_(page.get_by_label("令牌")).fill(token)
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".pulse.on")
    return page


async def fresh(house: Rig, made: Browsing, to: str = "/", **options: Any) -> Page:
    """A page where an operator is logged in."""
    return await log_in(await made.open(house.url, **options), to=to)
