"""One message in a thread that grows into a draft: streamed where Slack streams, else posted and updated."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_chat_stream import AsyncChatStream
from slack_sdk.web.async_client import AsyncWebClient

from bot.markup import fallback, shown
from bot.refusals import code_of

log = logging.getLogger(__name__)

JSON = dict[str, Any]
APPEND_S = 0.6  # Slack takes 100 appends a minute from all streams together
UPDATE_S = 1.2  # and 50 updates


@dataclass
class Streaming:
    """What this process knows about the server: does it stream, and how many replies grow right now."""

    refused: bool = False
    open: set[int] = field(default_factory=set)

    def interval(self, seconds: float) -> float:
        return seconds * max(1, len(self.open))


@dataclass(frozen=True)
class Place:
    channel: str
    thread_ts: str
    user: str
    team: str


class Reply:
    """The one message of a request.

    Args:
        ts: of the message when it exists already, from before a restart.
        metadata: names the request, so that a posted message is found again.
        record: told the message's ts right after it exists.
    """

    def __init__(
        self,
        slack: AsyncWebClient,
        streaming: Streaming,
        place: Place,
        metadata: JSON,
        record: Callable[[str], Awaitable[None]],
        ts: str | None = None,
    ) -> None:
        self._slack = slack
        self._streaming = streaming
        self._place = place
        self._metadata = metadata
        self._record = record
        self._stream: AsyncChatStream | None = None
        self._sent = ""
        self._said = ""
        self._last = 0.0
        self.ts = ts
        self.stopped = False  # the person wants no more of it

    async def show(self, text: str) -> None:
        """The text so far. Not every call reaches Slack: its rates are shared by all that grow."""
        self._streaming.open.add(id(self))
        pause = self._streaming.interval(APPEND_S if self._stream or self.ts is None else UPDATE_S)
        text = shown(text)
        if time.monotonic() - self._last < pause or text == self._sent or not text.strip():
            return
        if self.ts is None:
            await self._begin(text)
        elif self._stream is not None:
            await self._append(text)
        else:
            await self._update(text, [{"type": "markdown", "text": text}])
        self._sent, self._said, self._last = text, "", time.monotonic()

    async def finish(self, text: str, blocks: list[JSON], footer: list[JSON]) -> str:
        """Put the whole message: `blocks` is the text with its footer. Returns the ts."""
        self.leave()
        whole = shown(text)
        if self.ts is None:
            await self._post(text, blocks)
        elif self._stream is not None and whole.startswith(self._sent):
            if not await self._stop(whole[len(self._sent) :], footer):
                await self._update(text, blocks)
        else:
            await self.close_stream()
            await self._update(text, blocks)
        self._stream = None
        assert self.ts is not None
        return self.ts

    async def say(self, text: str) -> None:
        """Replace what is shown by a sentence of ours; the draft goes on in the same message.

        What stands there already is not sent again: all that wait for the engine share Slack's rates.
        """
        self.leave()
        if text == self._said:
            return
        if self.ts is None:
            await self._post(text, [])
        else:
            await self.close_stream()
            await self._update(text, [{"type": "markdown", "text": shown(text)}])
        self._sent, self._said = "", text

    def leave(self) -> None:
        """Count no more among the replies that grow."""
        self._streaming.open.discard(id(self))

    async def close_stream(self) -> None:
        """End a stream, ours or one that a killed process left open; an open stream cannot be updated."""
        self._stream = None
        if self.ts is not None:
            try:
                await self._slack.chat_stopStream(channel=self._place.channel, ts=self.ts)
            except SlackApiError as error:
                log.debug("No stream to stop: %s", code_of(error))

    async def _begin(self, text: str) -> None:
        if self._streaming.refused:
            await self._post(text, [{"type": "markdown", "text": text}], escaped=True)
            return
        stream = await self._slack.chat_stream(
            channel=self._place.channel,
            thread_ts=self._place.thread_ts,
            recipient_team_id=self._place.team,
            recipient_user_id=self._place.user,
            buffer_size=1,
        )
        try:
            await stream.append(markdown_text=text)
        except SlackApiError as error:
            code = code_of(error)
            log.info("Slack does not stream here (%s); posting and updating instead.", code)
            self._streaming.refused = code == "unknown_method"
            await self._post(text, [{"type": "markdown", "text": text}], escaped=True)
            return
        assert stream.ts is not None
        self._stream, self.ts = stream, stream.ts
        await self._record(stream.ts)

    async def _append(self, text: str) -> None:
        assert self._stream is not None
        if not text.startswith(self._sent):
            return
        try:
            await self._stream.append(markdown_text=text[len(self._sent) :])
        except SlackApiError as error:
            # Streams die after some minutes, or the person pressed Stop: the end comes by update.
            log.info("The stream %s ended (%s).", self.ts, code_of(error))
            self._stream = None
            self.stopped = self.stopped or code_of(error) == "stopped_by_user"

    async def _stop(self, rest: str, footer: list[JSON]) -> bool:
        assert self._stream is not None
        try:
            await self._stream.stop(markdown_text=rest, blocks=footer, metadata=self._metadata)
        except SlackApiError as error:
            log.info("The stream %s could not be stopped (%s).", self.ts, code_of(error))
            return False
        return True

    async def _post(self, text: str, blocks: list[JSON], escaped: bool = False) -> None:
        answer = await self._slack.chat_postMessage(
            channel=self._place.channel,
            thread_ts=self._place.thread_ts,
            text=text[:3900] if escaped else fallback(text),
            blocks=blocks or None,
            metadata=self._metadata,
            unfurl_links=False,
            unfurl_media=False,
        )
        self.ts = str(answer["ts"])
        await self._record(self.ts)

    async def _update(self, text: str, blocks: list[JSON]) -> None:
        assert self.ts is not None
        await self._slack.chat_update(
            channel=self._place.channel,
            ts=self.ts,
            text=fallback(text),
            blocks=blocks,
            metadata=self._metadata,
            # Unlike chat.postMessage, chat.update would make mentions of what only looks like one.
            parse="none",
            link_names=False,
        )
