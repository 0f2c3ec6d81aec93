"""What the bot's own messages carry beside their text, and how one is found again after a kill."""

from __future__ import annotations

from slack_sdk.web.async_client import AsyncWebClient

from bot.blocks import JSON

EVENT_TYPE = "copydesk"
LOOKED_THROUGH = 200  # messages of a channel's history
LOOKED_THROUGH_THREAD = 1000


def metadata(kind: str, **values: object) -> JSON:
    """What every message of ours carries, so that a restart knows it. Only a fresh stream cannot carry any."""
    return {"event_type": EVENT_TYPE, "event_payload": {"kind": kind, **values}}


def payload_of(message: JSON) -> JSON:
    found = message.get("metadata") or {}
    return dict(found.get("event_payload") or {}) if found.get("event_type") == EVENT_TYPE else {}


async def posted(
    slack: AsyncWebClient, channel: str, kind: str, *, thread_ts: str | None = None, **values: object
) -> str | None:
    """The `ts` of a message that a killed process posted before it wrote down that it had; None if there is none.

    Raises:
        SlackApiError: the channel or the thread cannot be read.
    """
    if thread_ts is None:
        answer = await slack.conversations_history(channel=channel, limit=LOOKED_THROUGH, include_all_metadata=True)
    else:
        answer = await slack.conversations_replies(
            channel=channel, ts=thread_ts, limit=LOOKED_THROUGH_THREAD, include_all_metadata=True
        )
    wanted = metadata(kind, **values)["event_payload"]
    messages: list[JSON] = answer["messages"]
    return next((str(message["ts"]) for message in messages if payload_of(message) == wanted), None)


async def has_file(slack: AsyncWebClient, channel: str, thread_ts: str, name: str) -> bool:
    """Whether a thread holds a file. Only its name tells which: the message of an upload carries no metadata.

    Raises:
        SlackApiError: the thread cannot be read.
    """
    answer = await slack.conversations_replies(channel=channel, ts=thread_ts, limit=LOOKED_THROUGH_THREAD)
    messages: list[JSON] = answer["messages"]
    return any(file.get("name") == name for message in messages for file in message.get("files", ()))
