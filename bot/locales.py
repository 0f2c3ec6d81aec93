"""Which language a person reads, from the locale of the person's Slack account."""

from __future__ import annotations

import logging
import time

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.refusals import code_of
from bot.texts import Words

KEPT_S = 3600.0

log = logging.getLogger(__name__)


class Locales:
    def __init__(self, slack: AsyncWebClient) -> None:
        self._slack = slack
        self._known: dict[str, tuple[str, float]] = {}

    async def language(self, user: str) -> str:
        """ "zh" for Chinese locales, "en" for all others and where Slack does not say."""
        language, until = self._known.get(user, ("", 0.0))
        if time.monotonic() < until:
            return language
        try:
            answer = await self._slack.users_info(user=user, include_locale=True)
            locale = str(answer["user"].get("locale") or "")
        except SlackApiError as error:
            log.warning("The locale of %s is unknown (%s); English it is.", user, code_of(error))
            locale = ""
        language = "zh" if locale.lower().startswith("zh") else "en"
        self._known[user] = (language, time.monotonic() + KEPT_S)
        return language

    async def words(self, user: str) -> Words:
        return Words(await self.language(user))
