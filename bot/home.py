"""App Home: what is live, what was collected, how to ask. And the first words in a direct conversation."""

from __future__ import annotations

import asyncio
import logging

from slack_sdk.errors import SlackApiError

from bot.blocks import ASK, JSON, actions, button, context, plain, section
from bot.marks import metadata
from bot.office import Office
from bot.refusals import code_of
from bot.scorecards import headline
from bot.texts import Words
from serving.judge_answers import seen
from serving.records import CopydeskError
from serving.store import Store

log = logging.getLogger(__name__)


class Home:
    def __init__(self, office: Office) -> None:
        self._office = office

    async def opened(self, event: JSON) -> None:
        words = await self._office.locales.words(event["user"])
        if event.get("tab") == "home":
            blocks = await asyncio.to_thread(home_blocks, self._office.store, event["channel"], words)
            view = {"type": "home", "blocks": blocks}
            await self._office.slack.views_publish(user_id=event["user"], view=view)
        elif event.get("tab") == "messages":
            await self._greet(event["channel"], words)

    async def _greet(self, channel: str, words: Words) -> None:
        """Suggest what to ask; say hello where nothing was said yet."""
        prompts = [{"title": words(f"prompt_{n}_title"), "message": words(f"prompt_{n}")} for n in (1, 2)]
        slack = self._office.slack
        try:
            await slack.api_call(
                "assistant.threads.setSuggestedPrompts",
                json={"channel_id": channel, "title": words("prompts_title"), "prompts": prompts},
            )
        except SlackApiError as error:
            # Some conversations have no place for prompts; the greeting says the same.
            log.info("No prompts are suggested: %s", code_of(error))
        history = await slack.conversations_history(channel=channel, limit=1)
        if not history["messages"]:
            button_row = actions(button(words("open_form"), ASK, channel))
            await slack.chat_postMessage(
                channel=channel,
                text=words("help"),
                blocks=[section(words("help")), button_row],
                metadata=metadata("greeting"),
            )


def home_blocks(store: Store, channel: str, words: Words) -> list[JSON]:
    """The tab as it is now; `channel` is the person's conversation with the bot."""
    live = words.version(store.live())
    counts = words(
        "home_counts",
        pairs=len(store.pairs()),
        ratings=len(store.ratings()),
        corrections=len(store.corrections()),
        waiting=len(store.waiting_requests()),
    )
    return [
        {"type": "header", "text": plain(words("home_title"))},
        section(words("home_live", version=live)),
        section(counts),
        context(words("home_card", verdict=_newest(store, words))),
        {"type": "divider"},
        section(words("help")),
        actions(button(words("open_form"), ASK, channel)),
    ]


def _newest(store: Store, words: Words) -> str:
    scorecards = store.scorecards()
    try:
        return headline(seen(store, scorecards[0]), words) if scorecards else words("no_card")
    except CopydeskError:
        return words("card_unreadable", version=scorecards[0].version)
