"""Which language a person reads, from the locale of the person's Slack account."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aiohttp import ClientError
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.refusals import code_of
from bot.texts import Words

KEPT_S = 3600.0
ASKED_AGAIN_S = 60.0  # after Slack did not say

log = logging.getLogger(__name__)


class Locales:
    """Args:
    now: a clock, in seconds from 0 or later.
    """

    def __init__(self, slack: AsyncWebClient, now: Callable[[], float] = time.monotonic) -> None:
        self._slack = slack
        self._now = now
        self._known: dict[str, tuple[str, float]] = {}

    async def language(self, user: str) -> str:
        """ "zh" for Chinese locales, "en" for all others. While Slack does not say: what it said last, else "en"."""
        language, until = self._known.get(user, ("en", 0.0))
        if self._now() < until:
            return language
        kept = KEPT_S
        try:
            answer = await self._slack.users_info(user=user, include_locale=True)
            language = "zh" if str(answer["user"].get("locale") or "").lower().startswith("zh") else "en"
        except (SlackApiError, ClientError, OSError, TimeoutError) as error:
            why = code_of(error) if isinstance(error, SlackApiError) else repr(error)
            log.warning("The locale of %s is unknown (%s); it stays %s.", user, why, language)
            kept = ASKED_AGAIN_S
        self._known[user] = (language, self._now() + kept)
        return language

    async def words(self, user: str) -> Words:
        return Words(await self.language(user))
