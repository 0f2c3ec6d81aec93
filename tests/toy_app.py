"""A small Bolt app that does once what Copydesk does often; the sandbox's tests talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.sandbox import Sandbox


def plain(text: str) -> dict[str, str]:
    return {"type": "plain_text", "text": text}


def option(text: str) -> dict[str, Any]:
    return {"text": plain(text), "value": text}


FEEDBACK = [
    {
        "type": "context_actions",
        "elements": [
            {
                "type": "feedback_buttons",
                "action_id": "rate",
                "positive_button": {"text": plain("Good"), "value": "good:7"},
                "negative_button": {"text": plain("Bad"), "value": "bad:7"},
            }
        ],
    },
    {
        "type": "actions",
        "elements": [{"type": "button", "action_id": "correct", "text": plain("Correct"), "value": "7"}],
    },
]


def correction(about: str, title: str = "Correct") -> dict[str, Any]:
    def labelled(block_id: str, element: dict[str, Any]) -> dict[str, Any]:
        return {"type": "input", "block_id": block_id, "label": plain(block_id), "element": element, "optional": False}

    text = {"type": "plain_text_input", "action_id": "text", "multiline": True, "initial_value": "Warm"}
    tone = {"type": "static_select", "action_id": "tone", "options": [option("dry"), option("warm")]}
    marks = {"type": "checkboxes", "action_id": "marks", "options": [option("a"), option("b")]}
    count = {"type": "number_input", "action_id": "count", "is_decimal_allowed": False, "initial_value": "3"}
    return {
        "type": "modal",
        "callback_id": "correction",
        "private_metadata": about,
        "title": plain(title),
        "submit": plain("Save"),
        "notify_on_close": True,
        "blocks": [
            labelled("copy", text),
            {**labelled("tone", tone), "optional": True},
            {**labelled("marks", marks), "optional": True},
            labelled("count", count),
        ],
    }


def toy_app(sandbox: Sandbox) -> AsyncApp:
    """Build the app; it keeps what it saw in `app.seen` and the ids of events in `app.event_ids`."""
    client = AsyncWebClient(token=sandbox.bot_token, base_url=sandbox.api_url)
    app = AsyncApp(client=client)
    seen: list[dict[str, Any]] = []
    event_ids: list[str] = []
    app.seen, app.event_ids = seen, event_ids  # type: ignore[attr-defined]

    @app.event("app_mention")
    async def mentioned(event: dict[str, Any]) -> None:
        seen.append(event)
        channel, thread = event["channel"], event["ts"]
        if "think" in event["text"]:
            await client.assistant_threads_setStatus(channel_id=channel, thread_ts=thread, status="is thinking")
            await asyncio.sleep(0.3)
        if "stream" not in event["text"]:
            await client.chat_postMessage(channel=channel, thread_ts=thread, text="heard: " + event["text"])
            return
        stream = await client.chat_stream(
            channel=channel,
            thread_ts=thread,
            recipient_team_id=event["team"],
            recipient_user_id=event["user"],
            buffer_size=1,
        )
        await stream.append(markdown_text="Warm ")
        await asyncio.sleep(0.3 if "slowly" in event["text"] else 0)
        await stream.append(markdown_text="**to the last**")
        await stream.stop(
            markdown_text=" drop.",
            blocks=FEEDBACK,
            metadata={"event_type": "draft", "event_payload": {"draft": 7}},
        )

    @app.event("message")
    async def said(event: dict[str, Any], body: dict[str, Any]) -> None:
        seen.append(event)
        event_ids.append(body["event_id"])

    @app.event("reaction_added")
    @app.event("reaction_removed")
    async def reacted(event: dict[str, Any]) -> None:
        seen.append(event)

    @app.event("app_home_opened")
    async def opened(event: dict[str, Any]) -> None:
        seen.append(event)
        section = {"type": "section", "text": {"type": "mrkdwn", "text": f"Home of {event['user']}"}}
        section["accessory"] = {"type": "button", "action_id": "refresh", "text": plain("Refresh")}  # type: ignore[assignment]
        await client.views_publish(user_id=event["user"], view={"type": "home", "blocks": [section]})

    @app.action("rate")
    @app.action("refresh")
    async def pressed(ack: Any, body: dict[str, Any]) -> None:
        await ack()
        seen.append(body)

    @app.action("correct")
    async def correct(ack: Any, body: dict[str, Any]) -> None:
        await ack()
        seen.append(body)
        await client.views_open(trigger_id=body["trigger_id"], view=correction(body["container"]["message_ts"]))

    @app.shortcut("correct_draft")
    async def shortcut(ack: Any, body: dict[str, Any]) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=correction(body["message_ts"]))

    @app.view("correction")
    async def submitted(ack: Any, body: dict[str, Any], view: dict[str, Any]) -> None:
        text = view["state"]["values"]["copy"]["text"]["value"]
        seen.append(body)
        if text == "bad":
            await ack(response_action="errors", errors={"copy": "Say more than that."})
        elif text.startswith("update"):
            await ack(response_action="update", view=correction(view["private_metadata"], "Changed"))
        elif text == "clear":
            await ack(response_action="clear")
        else:
            await ack()
            await client.chat_postMessage(channel="C_COPY", thread_ts=view["private_metadata"], text=f"Saved: {text}")

    @app.view_closed("correction")
    async def closed(ack: Any, body: dict[str, Any]) -> None:
        await ack()
        seen.append(body)

    @app.command("/copy")
    async def command(ack: Any, respond: Any, command: dict[str, Any]) -> None:
        await ack(f"You said {command['text']}")
        await respond("later, for all", response_type="in_channel")

    return app


@asynccontextmanager
async def connected(app: AsyncApp, sandbox: Sandbox) -> AsyncIterator[AsyncSocketModeHandler]:
    """Hold a Socket Mode connection between the app and the sandbox."""
    handler = AsyncSocketModeHandler(app, sandbox.app_token, ping_interval=2)
    await handler.connect_async()
    try:
        yield handler
    finally:
        await handler.close_async()
