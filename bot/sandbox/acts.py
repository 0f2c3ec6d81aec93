"""What a person does in the workspace, and the payload that the app receives for it."""

from __future__ import annotations

import time
import uuid
from typing import Any

from bot.sandbox.inputs import state_of
from bot.sandbox.limits import checked_view, elements_of
from bot.sandbox.socket_mode import SocketMode
from bot.sandbox.web_api import WebApi, reaction_event, user_json
from bot.sandbox.workspace import (
    APP_ID,
    BOT_USER,
    JSON,
    TEAM_ID,
    Channel,
    Message,
    ResponseAddress,
    SlackError,
    View,
    Workspace,
    typed_text,
)

VERIFICATION_TOKEN = "sandbox"
NO_ANSWER = "operation_timeout"


class Acts:
    """Everything that a hand can do in a Slack client, by the person's id.

    Each method raises SlackError where Slack's client would show an error: `operation_timeout` when the app did not
    acknowledge within three seconds.
    """

    def __init__(self, workspace: Workspace, socket_mode: SocketMode, web_api: WebApi) -> None:
        self.workspace = workspace
        self.socket_mode = socket_mode
        self.web_api = web_api

    def say(self, person: str, channel_id: str, text: str, thread_ts: str | None = None) -> str:
        user = self.workspace.person(person)
        channel = self.workspace.channel(channel_id, person)
        text = typed_text(text)
        if not text.strip():
            raise SlackError("no_text")
        ts = self.workspace.next_ts()
        message = Message(ts, channel.id, user.id, text, thread_ts=thread_ts, client_msg_id=str(uuid.uuid4()))
        message.blocks = [_rich_text(text)]
        self.workspace.add_message(message)
        body = {**self.workspace.message_json(message), "channel": channel.id, "event_ts": ts}
        if f"<@{BOT_USER}>" in text and not channel.is_im:
            self.send_event({**body, "type": "app_mention"})
        self.send_event({**body, "channel_type": "im" if channel.is_im else "channel"})
        return ts

    def react(self, person: str, channel_id: str, ts: str, name: str, *, add: bool = True) -> None:
        message = self._seen(person, channel_id, ts)
        name = name.strip(":")
        (self.workspace.react if add else self.workspace.unreact)(message, self.workspace.person(person).id, name)
        kind = "reaction_added" if add else "reaction_removed"
        self.send_event(reaction_event(kind, message, person, name, self.workspace.next_ts()))

    def open_home(self, person: str) -> None:
        self._app_home_opened(person, "home")

    def open_conversation(self, person: str) -> None:
        self._app_home_opened(person, "messages")

    def _app_home_opened(self, person: str, tab: str) -> None:
        self.workspace.person(person)
        event: JSON = {
            "type": "app_home_opened",
            "user": person,
            "channel": self.workspace.channel(person).id,
            "tab": tab,
            "event_ts": self.workspace.next_ts(),
        }
        if tab == "home" and person in self.workspace.homes:
            event["view"] = self.workspace.homes[person].to_json()
        self.send_event(event)

    async def slash(self, person: str, command: str, text: str, channel_id: str) -> None:
        user = self.workspace.person(person)
        channel = self.workspace.channel(channel_id, person)
        address = ResponseAddress(channel.id, person, None)
        payload = {
            "token": VERIFICATION_TOKEN,
            "team_id": TEAM_ID,
            "team_domain": "copydesk",
            "channel_id": channel.id,
            "channel_name": channel.name,
            "user_id": user.id,
            "user_name": user.name,
            "command": command,
            "text": typed_text(text),
            "api_app_id": APP_ID,
            "is_enterprise_install": "false",
            "response_url": self.workspace.new_response_url(address),
            "trigger_id": self.workspace.new_trigger(person),
        }
        ack = await self.socket_mode.request("slash_commands", payload)
        if ack is None:
            raise SlackError(NO_ANSWER)
        if ack.get("text") or ack.get("blocks"):
            self.web_api.respond(address, ack)

    async def press(
        self, person: str, channel_id: str, ts: str, action_id: str, value: Any = None, block_id: str | None = None
    ) -> None:
        """Press a button or choose an option in a message. `value` picks among elements with one action_id."""
        message = self._seen(person, channel_id, ts)
        channel = self.workspace.channels[message.channel]
        block, element = _find(message.all_blocks(), action_id, value, block_id)
        ephemeral = message.ephemeral_for is not None
        address = ResponseAddress(channel.id, person, ts, message.thread_ts)
        await self._interact(
            person,
            {
                "type": "block_actions",
                "channel": {"id": channel.id, "name": channel.name},
                "container": {
                    "type": "message",
                    "message_ts": ts,
                    "channel_id": channel.id,
                    "is_ephemeral": ephemeral,
                    **({"thread_ts": message.thread_ts} if message.thread_ts else {}),
                },
                "message": self.workspace.message_json(message, metadata=True),
                "state": {"values": {}},
                "response_url": self.workspace.new_response_url(address),
                "trigger_id": self.workspace.new_trigger(person),
                "actions": [_action(block, element, value)],
            },
        )

    async def press_in_view(
        self, person: str, view_id: str, action_id: str, value: Any = None, block_id: str | None = None
    ) -> None:
        """Press a button in a modal or in the App Home tab."""
        view = self._own_view(person, view_id)
        block, element = _find(view.payload["blocks"], action_id, value, block_id)
        await self._interact(
            person,
            {
                "type": "block_actions",
                "container": {"type": "view", "view_id": view.id},
                "view": view.to_json(),
                "trigger_id": self.workspace.new_trigger(person, view.id),
                "actions": [_action(block, element, value)],
            },
        )

    async def shortcut(self, person: str, callback_id: str, channel_id: str, ts: str) -> None:
        """Choose a message shortcut from a message's menu."""
        message = self._seen(person, channel_id, ts)
        channel = self.workspace.channels[message.channel]
        address = ResponseAddress(channel.id, person, ts, message.thread_ts)
        await self._interact(
            person,
            {
                "type": "message_action",
                "callback_id": callback_id,
                "action_ts": self.workspace.next_ts(),
                "channel": {"id": channel.id, "name": channel.name},
                "message_ts": ts,
                "message": self.workspace.message_json(message, metadata=True),
                "response_url": self.workspace.new_response_url(address),
                "trigger_id": self.workspace.new_trigger(person),
            },
        )

    async def submit(self, person: str, view_id: str, values: JSON) -> dict[str, str]:
        """Submit a modal; return the errors by block_id that the client or the app found, none when it went through."""
        view = self._own_view(person, view_id)
        state, errors = state_of(view.payload["blocks"], values)
        if errors:
            return errors
        body = {**view.to_json(), "state": {"values": state}}
        payload = {
            "type": "view_submission",
            "view": body,
            "response_urls": [],
            "trigger_id": self.workspace.new_trigger(person, view.id),
        }
        ack = await self._interact(person, payload)
        match ack.get("response_action"):
            case "errors":
                return {str(block): str(text) for block, text in ack["errors"].items()}
            case "update":
                self.workspace.update_view(view, checked_view(ack["view"]))
            case "push":
                self.workspace.push_view(person, checked_view(ack["view"]))
            case "clear":
                self.workspace.close_view(view, all_of_them=True)
            case _:
                self.workspace.close_view(view)
        return {}

    async def close(self, person: str, view_id: str) -> None:
        view = self._own_view(person, view_id)
        self.workspace.close_view(view)
        if view.payload.get("notify_on_close"):
            await self._interact(person, {"type": "view_closed", "view": view.to_json(), "is_cleared": False})

    # What all payloads share

    def send_event(self, event: JSON) -> None:
        self.socket_mode.send_event(
            {
                "token": VERIFICATION_TOKEN,
                "team_id": TEAM_ID,
                "api_app_id": APP_ID,
                "type": "event_callback",
                "event_id": self.workspace.new_id("Ev"),
                "event_time": int(time.time()),
                "event": event,
                "authorizations": [
                    {
                        "enterprise_id": None,
                        "team_id": TEAM_ID,
                        "user_id": BOT_USER,
                        "is_bot": True,
                        "is_enterprise_install": False,
                    }
                ],
            }
        )

    async def _interact(self, person: str, payload: JSON) -> JSON:
        user = self.workspace.person(person)
        base = {
            "user": {"id": user.id, "username": user.name, "name": user.name, "team_id": TEAM_ID},
            "team": {"id": TEAM_ID, "domain": "copydesk"},
            "api_app_id": APP_ID,
            "token": VERIFICATION_TOKEN,
            "enterprise": None,
            "is_enterprise_install": False,
        }
        answers = payload["type"] == "view_submission"
        ack = await self.socket_mode.request("interactive", {**base, **payload}, accepts_response=answers)
        if ack is None:
            raise SlackError(NO_ANSWER)
        return ack

    def _seen(self, person: str, channel_id: str, ts: str) -> Message:
        channel: Channel = self.workspace.channel(channel_id, person)
        message = self.workspace.message(channel.id, ts)
        if message.ephemeral_for not in (None, person):
            raise SlackError("message_not_found")
        return message

    def _own_view(self, person: str, view_id: str) -> View:
        view = self.workspace.find_view(view_id=view_id)
        if view.user != person:
            raise SlackError("not_found")
        return view


def people_json(workspace: Workspace) -> list[JSON]:
    return [{**user_json(user, locale=True), "role": user.role} for user in workspace.users.values()]


def _find(blocks: list[JSON], action_id: str, value: Any, block_id: str | None) -> tuple[JSON, JSON]:
    everything = [(block, element) for block in blocks for element in elements_of(block)]
    found = [
        (block, element)
        for block, element in everything
        if element["action_id"] == action_id and (block_id is None or block["block_id"] == block_id)
    ]
    if not found:
        offered = ", ".join(element["action_id"] for _, element in everything) or "nothing to press"
        raise SlackError("no_such_action", [f"There is no {action_id} here; there is: {offered}"])
    if len(found) > 1 and value is not None:
        found = [pair for pair in found if pair[1].get("value") == value] or found
    if len(found) > 1:
        raise SlackError("ambiguous_action", [f"{len(found)} elements are called {action_id}; give value or block_id"])
    return found[0]


def _action(block: JSON, element: JSON, value: Any) -> JSON:
    """The action as Slack reports it. Raises SlackError when `value` is not among what the element offers."""
    kind = element["type"]
    action = {"type": kind, "action_id": element["action_id"], "block_id": block["block_id"]}
    action["action_ts"] = f"{time.time():.6f}"
    if kind == "button":
        return {**action, "text": element["text"], **({"value": element["value"]} if "value" in element else {})}
    if kind == "icon_button":
        return {**action, **{part: element[part] for part in ("text", "value") if part in element}}
    if kind == "feedback_buttons":
        for name in ("positive", "negative"):
            button = element[f"{name}_button"]
            if value in (name, button.get("value")):
                return {**action, "text": button["text"], "value": button.get("value")}
        raise SlackError("no_such_action", ['Give "positive" or "negative", or the value of one of the two buttons'])
    chosen = [
        option for option in element["options"] if option["value"] in (value if isinstance(value, list) else [value])
    ]
    if kind in ("checkboxes", "multi_static_select"):
        return {**action, "selected_options": chosen}
    if not chosen:
        raise SlackError("no_such_action", [f"{element['action_id']} has no option {value!r}"])
    return {**action, "selected_option": chosen[0]}


def _rich_text(text: str) -> JSON:
    elements: list[JSON] = []
    for number, part in enumerate(text.split(f"<@{BOT_USER}>")):
        if number:
            elements.append({"type": "user", "user_id": BOT_USER})
        if part:
            plain = part.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
            elements.append({"type": "text", "text": plain})
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": elements}]}
