"""The Web API methods that Copydesk uses, with Slack's shapes and errors. https://docs.slack.dev/reference/methods"""

from __future__ import annotations

import json
import mimetypes
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bot.sandbox.limits import MESSAGE_TEXT, UPDATE_TEXT, checked_markdown, checked_message_blocks, checked_view
from bot.sandbox.socket_mode import SocketMode
from bot.sandbox.workspace import (
    APP_ID,
    BOT_ID,
    BOT_USER,
    JSON,
    TEAM_ID,
    File,
    Message,
    ResponseAddress,
    SlackError,
    User,
    View,
    Workspace,
)

APP_TOKEN_METHODS = ("apps.connections.open",)
ALREADY_STOPPED = "message_not_in_streaming_state"


class WebApi:
    """One method of Slack for each method here: chat.postMessage is chat_post_message, and so on.

    Args:
        announce: called with each message that the bot posts and each reaction that it adds, as Slack sends the app
            its own events too.
        streaming: False for a workspace without chat.startStream.
        stream_seconds: how long a stream stays open; Slack closes them after about five minutes.
    """

    def __init__(
        self,
        workspace: Workspace,
        socket_mode: SocketMode,
        announce: Callable[[JSON], None],
        *,
        streaming: bool = True,
        stream_seconds: float = 300.0,
    ) -> None:
        self.workspace = workspace
        self.socket_mode = socket_mode
        self.announce = announce
        self.streaming = streaming
        self.stream_seconds = stream_seconds
        self.methods: dict[str, Callable[[JSON], JSON]] = {
            "api.test": lambda arguments: {},
            "auth.test": self.auth_test,
            "apps.connections.open": self.apps_connections_open,
            "team.info": self.team_info,
            "bots.info": self.bots_info,
            "users.info": self.users_info,
            "conversations.open": self.conversations_open,
            "conversations.info": self.conversations_info,
            "conversations.members": self.conversations_members,
            "conversations.replies": self.conversations_replies,
            "conversations.history": self.conversations_history,
            "chat.postMessage": self.chat_post_message,
            "chat.postEphemeral": self.chat_post_ephemeral,
            "chat.update": self.chat_update,
            "chat.delete": self.chat_delete,
            "chat.getPermalink": self.chat_get_permalink,
            "chat.startStream": self.chat_start_stream,
            "chat.appendStream": self.chat_append_stream,
            "chat.stopStream": self.chat_stop_stream,
            "reactions.add": self.reactions_add,
            "reactions.remove": self.reactions_remove,
            "reactions.get": self.reactions_get,
            "views.open": self.views_open,
            "views.push": self.views_push,
            "views.update": self.views_update,
            "views.publish": self.views_publish,
            "files.getUploadURLExternal": self.files_get_upload_url_external,
            "files.completeUploadExternal": self.files_complete_upload_external,
            "assistant.threads.setStatus": self.assistant_set_status,
            "assistant.threads.setSuggestedPrompts": self.assistant_set_suggested_prompts,
            "assistant.threads.setTitle": self.assistant_set_title,
        }

    def call(self, method: str, arguments: JSON) -> JSON:
        """Run one method. Raises SlackError with Slack's error code."""
        no_streams = method in ("chat.startStream", "chat.appendStream", "chat.stopStream") and not self.streaming
        if method not in self.methods or no_streams:
            raise SlackError("unknown_method")
        return self.methods[method](arguments)

    # Who and where

    def auth_test(self, arguments: JSON) -> JSON:
        return {
            "url": self.workspace.url + "/",
            "team": "Copydesk",
            "user": "copydesk",
            "team_id": TEAM_ID,
            "user_id": BOT_USER,
            "bot_id": BOT_ID,
            "is_enterprise_install": False,
        }

    def apps_connections_open(self, arguments: JSON) -> JSON:
        address = self.workspace.url.replace("http://", "ws://")
        return {"url": f"{address}/link/?ticket={self.socket_mode.new_ticket()}&app_id={APP_ID}"}

    def team_info(self, arguments: JSON) -> JSON:
        return {"team": {"id": TEAM_ID, "name": "Copydesk", "domain": "copydesk", "url": self.workspace.url}}

    def bots_info(self, arguments: JSON) -> JSON:
        if arguments.get("bot", BOT_ID) != BOT_ID:
            raise SlackError("bot_not_found")
        return {"bot": {"id": BOT_ID, "deleted": False, "name": "Copydesk", "app_id": APP_ID, "user_id": BOT_USER}}

    def users_info(self, arguments: JSON) -> JSON:
        user = self.workspace.user(_need(arguments, "user"))
        return {"user": user_json(user, locale=_flag(arguments.get("include_locale")))}

    def conversations_open(self, arguments: JSON) -> JSON:
        if "channel" in arguments:
            channel = self.workspace.channel(arguments["channel"])
        else:
            users = _need(arguments, "users")
            self.workspace.person(users if isinstance(users, str) else users[0])
            channel = self.workspace.channel(users if isinstance(users, str) else users[0])
        return {"channel": {"id": channel.id, "is_im": channel.is_im, "user": channel.member}}

    def conversations_info(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel"))
        return {
            "channel": {
                "id": channel.id,
                "name": channel.name,
                "is_channel": not channel.is_im,
                "is_im": channel.is_im,
                "is_member": True,
                **({"user": channel.member} if channel.is_im else {}),
            }
        }

    def conversations_members(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel"))
        if not 0 < int(arguments.get("limit", 100)) < 1000:
            raise SlackError("invalid_limit")
        return {"members": self.workspace.members(channel), "response_metadata": {"next_cursor": ""}}

    def conversations_replies(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel"))
        ts = _need(arguments, "ts")
        try:
            parent = self.workspace.message(channel.id, ts)
        except SlackError:
            raise SlackError("thread_not_found") from None
        thread = [self.workspace.message(channel.id, parent.thread_ts or ts)]
        thread += self.workspace.replies(channel.id, thread[0].ts)
        return self._page(thread, arguments)

    def conversations_history(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel"))
        roots = [message for message in self.workspace.messages(channel.id) if message.thread_ts is None]
        return self._page(roots[::-1], arguments)

    def _page(self, messages: list[Message], arguments: JSON) -> JSON:
        oldest, latest = str(arguments.get("oldest", "0")), str(arguments.get("latest", "9999999999"))
        inclusive = _flag(arguments.get("inclusive"))
        found = [m for m in messages if oldest < m.ts < latest or (inclusive and m.ts in (oldest, latest))]
        limit, start = int(arguments.get("limit", 100)), int(arguments.get("cursor") or 0)
        metadata = _flag(arguments.get("include_all_metadata"))
        shown = [self.workspace.message_json(m, metadata=metadata) for m in found[start : start + limit]]
        more = start + limit < len(found)
        cursor = {"response_metadata": {"next_cursor": str(start + limit)}} if more else {}
        return {"messages": shown, "has_more": more, **cursor}

    # Messages

    def chat_post_message(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel"))
        message = self.workspace.add_message(self._composed(channel.id, arguments))
        self._announce_message(message)
        return self._posted(message)

    def chat_post_ephemeral(self, arguments: JSON) -> JSON:
        reader = self.workspace.user(_need(arguments, "user")).id
        channel = self.workspace.channel(_need(arguments, "channel"))
        if reader not in self.workspace.members(channel):
            raise SlackError("user_not_in_channel")
        message = self._composed(channel.id, arguments)
        message.ephemeral_for = reader
        self.workspace.add_message(message)
        return {"message_ts": message.ts}

    def _composed(self, channel: str, arguments: JSON) -> Message:
        blocks = checked_message_blocks(_decoded(arguments.get("blocks")) or [])
        if "markdown_text" in arguments:
            if blocks or arguments.get("text"):
                raise SlackError("markdown_text_conflict")
            blocks = [{"type": "markdown", "text": checked_markdown(arguments["markdown_text"])}]
        text = str(arguments.get("text") or arguments.get("markdown_text") or "")
        if not text and not blocks:
            raise SlackError("no_text")
        return Message(
            ts=self.workspace.next_ts(),
            channel=channel,
            user=BOT_USER,
            text=text[:MESSAGE_TEXT],
            blocks=blocks,
            thread_ts=_thread(arguments),
            metadata=_metadata(arguments),
        )

    def _posted(self, message: Message) -> JSON:
        body = self.workspace.message_json(message, metadata=True)
        return {"channel": message.channel, "ts": message.ts, "message": body}

    def _announce_message(self, message: Message) -> None:
        channel = self.workspace.channels[message.channel]
        body = self.workspace.message_json(message)
        kind = "im" if channel.is_im else "channel"
        self.announce({**body, "channel": channel.id, "channel_type": kind, "event_ts": message.ts})

    def _own(self, arguments: JSON, refusal: str) -> Message:
        channel = self.workspace.channel(_need(arguments, "channel"))
        message = self.workspace.message(channel.id, _need(arguments, "ts"))
        if message.ephemeral_for is not None:
            raise SlackError("message_not_found")
        if not message.from_bot:
            raise SlackError(refusal)
        return message

    def chat_update(self, arguments: JSON) -> JSON:
        message = self._own(arguments, "cant_update_message")
        if self._is_open(message):
            raise SlackError("streaming_state_conflict")
        blocks = _decoded(arguments.get("blocks"))
        text = arguments.get("text")
        if "markdown_text" in arguments:
            blocks = [{"type": "markdown", "text": checked_markdown(arguments["markdown_text"])}]
            text = text or arguments["markdown_text"]
        if text is None and blocks is None:
            raise SlackError("no_text")
        if text is not None and len(str(text)) > max(UPDATE_TEXT, len(str(arguments.get("markdown_text", "")))):
            raise SlackError("msg_too_long")
        if blocks is not None:
            message.blocks = checked_message_blocks(blocks)
        message.text, message.streamed = str(text or ""), ""
        message.metadata = _metadata(arguments) or message.metadata
        message.edited_ts = self.workspace.next_ts()
        self.workspace.publish_message(message)
        return {"channel": message.channel, "ts": message.ts, "text": message.text, **self._posted(message)}

    def chat_delete(self, arguments: JSON) -> JSON:
        message = self._own(arguments, "cant_delete_message")
        self.workspace.delete_message(message)
        return {"channel": message.channel, "ts": message.ts}

    def chat_get_permalink(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel"))
        message = self.workspace.message(channel.id, _need(arguments, "message_ts"))
        return {"channel": channel.id, "permalink": f"{self.workspace.url}/#{channel.id}/{message.ts}"}

    # Streams

    def chat_start_stream(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel"))
        thread_ts = _need(arguments, "thread_ts")
        if not channel.is_im:
            for part in ("team", "user"):
                if not arguments.get(f"recipient_{part}_id"):
                    raise SlackError(f"missing_recipient_{part}_id")
        message = Message(self.workspace.next_ts(), channel.id, BOT_USER, "", thread_ts=thread_ts)
        message.streaming_since = time.monotonic()
        self._take_chunks(message, arguments)
        self.workspace.add_message(message)
        return {"channel": channel.id, "ts": message.ts}

    def chat_append_stream(self, arguments: JSON) -> JSON:
        message = self._open_stream(arguments)
        if "chunks" not in arguments and "markdown_text" not in arguments:
            raise SlackError("no_text")
        self._take_chunks(message, arguments)
        self.workspace.publish_message(message)
        return {"channel": message.channel, "ts": message.ts}

    def chat_stop_stream(self, arguments: JSON) -> JSON:
        message = self._open_stream(arguments)
        blocks = checked_message_blocks(_decoded(arguments.get("blocks")) or [])
        self._take_chunks(message, arguments)
        message.blocks += blocks
        message.metadata = _metadata(arguments) or message.metadata
        message.streaming_since = None
        self.workspace.publish_message(message)
        self._announce_message(message)
        return self._posted(message)

    def end_streams(self) -> int:
        """Close every open stream as Slack does when it has waited too long; return how many there were."""
        open_ones = [m for c in self.workspace.channels for m in self.workspace.messages(c) if m.streaming]
        for message in open_ones:
            message.streaming_since = None
            self.workspace.publish_message(message)
        return len(open_ones)

    def _is_open(self, message: Message) -> bool:
        since = message.streaming_since
        if since is not None and time.monotonic() - since > self.stream_seconds:
            message.streaming_since = None
            self.workspace.publish_message(message)
        return message.streaming

    def _open_stream(self, arguments: JSON) -> Message:
        message = self._own(arguments, "message_not_owned_by_app")
        if not self._is_open(message):
            raise SlackError(ALREADY_STOPPED)
        return message

    def _take_chunks(self, message: Message, arguments: JSON) -> None:
        chunks = _decoded(arguments.get("chunks")) or []
        if chunks and "markdown_text" in arguments:
            raise SlackError("cannot_provide_both_markdown_text_and_chunks")
        added = checked_markdown(arguments.get("markdown_text", ""))
        tasks: dict[str, JSON] = {}
        blocks: list[JSON] = []
        for chunk in chunks:
            match chunk.get("type"):
                case "markdown_text":
                    added += checked_markdown(chunk.get("text"))
                case "task_update":
                    tasks[str(chunk.get("id"))] = chunk
                case "plan_update":
                    tasks["plan"] = {"id": "plan", "title": chunk.get("title", ""), "status": "in_progress"}
                case "blocks":
                    blocks += checked_message_blocks(chunk.get("blocks"))
                case _:
                    raise SlackError("invalid_chunks")
        if len(added) > 12_000:
            raise SlackError("msg_too_long")
        message.streamed += added
        message.tasks |= tasks
        message.blocks += blocks

    # Reactions

    def reactions_add(self, arguments: JSON) -> JSON:
        message, name = self._reaction(arguments)
        self.workspace.react(message, BOT_USER, name)
        self.announce(reaction_event("reaction_added", message, BOT_USER, name, self.workspace.next_ts()))
        return {}

    def reactions_remove(self, arguments: JSON) -> JSON:
        message, name = self._reaction(arguments)
        self.workspace.unreact(message, BOT_USER, name)
        self.announce(reaction_event("reaction_removed", message, BOT_USER, name, self.workspace.next_ts()))
        return {}

    def reactions_get(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel"))
        message = self.workspace.message(channel.id, _need(arguments, "timestamp"))
        return {"type": "message", "channel": channel.id, "message": self.workspace.message_json(message)}

    def _reaction(self, arguments: JSON) -> tuple[Message, str]:
        channel = self.workspace.channel(_need(arguments, "channel"))
        name = str(_need(arguments, "name")).strip(":")
        if not re.fullmatch(r"[a-z0-9_+'-]+", name):
            raise SlackError("invalid_name")
        return self.workspace.message(channel.id, _need(arguments, "timestamp")), name

    # Views

    def views_open(self, arguments: JSON) -> JSON:
        view = self._view(arguments, "modal")
        trigger = self.workspace.use_trigger(_need(arguments, "trigger_id"))
        return {"view": self.workspace.open_view(trigger.user, view).to_json()}

    def views_push(self, arguments: JSON) -> JSON:
        view = self._view(arguments, "modal")
        trigger = self.workspace.use_trigger(_need(arguments, "trigger_id"))
        return {"view": self.workspace.push_view(trigger.user, view).to_json()}

    def views_update(self, arguments: JSON) -> JSON:
        payload = checked_view(_decoded(arguments.get("view")))
        view = self.workspace.find_view(
            view_id=str(arguments.get("view_id", "")), external_id=str(arguments.get("external_id", ""))
        )
        _same_hash(view, arguments)
        return {"view": self.workspace.update_view(view, payload).to_json()}

    def views_publish(self, arguments: JSON) -> JSON:
        user = self.workspace.user(_need(arguments, "user_id")).id
        payload = self._view(arguments, "home")
        if user in self.workspace.homes:
            _same_hash(self.workspace.homes[user], arguments)
        return {"view": self.workspace.publish_home(user, payload).to_json()}

    def _view(self, arguments: JSON, kind: str) -> JSON:
        view = checked_view(_decoded(arguments.get("view")))
        if view["type"] != kind:
            raise SlackError("invalid_arguments", [f'[ERROR] must be "{kind}" [json-pointer:/view/type]'])
        return view

    # Files

    def files_get_upload_url_external(self, arguments: JSON) -> JSON:
        name, length = str(_need(arguments, "filename")), int(_need(arguments, "length"))
        mimetype = mimetypes.guess_type(name)[0] or "application/octet-stream"
        file = File(self.workspace.new_id("F"), name, length, mimetype, alt_text=str(arguments.get("alt_txt") or ""))
        self.workspace.files[file.id] = file
        return {"upload_url": f"{self.workspace.url}/upload/{file.id}", "file_id": file.id}

    def files_complete_upload_external(self, arguments: JSON) -> JSON:
        files = []
        for entry in _decoded(_need(arguments, "files")):
            file = self.workspace.files.get(entry.get("id", ""))
            if file is None or not file.content:
                raise SlackError("file_not_found")
            file = self.workspace.files[file.id] = replace(file, title=entry.get("title") or file.name)
            files.append(file)
        listed = str(arguments.get("channels") or "")
        for channel_id in [*filter(None, [arguments.get("channel_id")]), *filter(None, listed.split(","))]:
            channel = self.workspace.channel(channel_id)
            message = Message(
                self.workspace.next_ts(),
                channel.id,
                BOT_USER,
                str(arguments.get("initial_comment") or ""),
                thread_ts=_thread(arguments),
                files=[file.id for file in files],
            )
            self.workspace.add_message(message)
        return {"files": [file.to_json(self.workspace.url) for file in files]}

    # The assistant's surface

    def assistant_set_status(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel_id"))
        thread = _need(arguments, "thread_ts")
        self.workspace.message(channel.id, thread)
        self.workspace.set_status(channel.id, thread, str(arguments.get("status") or ""))
        return {}

    def assistant_set_suggested_prompts(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel_id"))
        prompts = _decoded(_need(arguments, "prompts"))
        if not 1 <= len(prompts) <= 4:
            raise SlackError("invalid_arguments", ["[ERROR] between 1 and 4 prompts [json-pointer:/prompts]"])
        body = {"channel": channel.id, "title": arguments.get("title") or "", "prompts": prompts}
        self.workspace.prompts[channel.id] = body
        self.workspace.publish("prompts", body, channel.member)
        return {}

    def assistant_set_title(self, arguments: JSON) -> JSON:
        channel = self.workspace.channel(_need(arguments, "channel_id"))
        self.workspace.titles[channel.id, _need(arguments, "thread_ts")] = str(_need(arguments, "title"))
        return {}

    # Answers to a response_url

    def respond(self, address: ResponseAddress, answer: JSON) -> None:
        """What respond() does: post, or replace or delete the message that was acted on."""
        on = address.message_ts
        if answer.get("delete_original") and on:
            self.workspace.delete_message(self.workspace.message(address.channel, on))
            return
        message = self._composed(address.channel, answer)
        if answer.get("replace_original") and on:
            original = self.workspace.message(address.channel, on)
            original.text, original.blocks, original.streamed = message.text, message.blocks, ""
            self.workspace.publish_message(original)
            return
        message.thread_ts = message.thread_ts or address.thread_ts
        if answer.get("response_type", "ephemeral") == "ephemeral":
            message.ephemeral_for = address.user
        self.workspace.add_message(message)


def user_json(user: User, *, locale: bool = False) -> JSON:
    body: JSON = {
        "id": user.id,
        "team_id": TEAM_ID,
        "name": user.name,
        "real_name": user.real_name,
        "deleted": False,
        "is_bot": user.is_bot,
        "is_admin": user.role == "lead",
        "tz": "Etc/UTC",
        "profile": {"real_name": user.real_name, "display_name": user.real_name, "title": user.role, "team": TEAM_ID},
    }
    return {**body, "locale": user.locale} if locale else body


def reaction_event(kind: str, message: Message, user: str, name: str, event_ts: str) -> JSON:
    return {
        "type": kind,
        "user": user,
        "reaction": name,
        "item": {"type": "message", "channel": message.channel, "ts": message.ts},
        "item_user": message.user,
        "event_ts": event_ts,
    }


def _need(arguments: JSON, name: str) -> Any:
    if arguments.get(name) in (None, ""):
        if name == "channel":
            raise SlackError("channel_not_found")
        raise SlackError("invalid_arguments", [f"[ERROR] missing required field: {name}"])
    return arguments[name]


def _decoded(value: Any) -> Any:
    """Structured arguments come as JSON text in a form, and as themselves in a JSON body."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value else None
    except ValueError:
        raise SlackError("invalid_json") from None


def _flag(value: Any) -> bool:
    return str(value).lower() in ("1", "true")


def _thread(arguments: JSON) -> str | None:
    thread = arguments.get("thread_ts")
    return str(thread) if thread else None


def _metadata(arguments: JSON) -> JSON | None:
    metadata = _decoded(arguments.get("metadata"))
    if not metadata:
        return None
    if "event_type" not in metadata or not isinstance(metadata.get("event_payload"), dict):
        raise SlackError("invalid_metadata_format")
    return {"event_type": metadata["event_type"], "event_payload": metadata["event_payload"]}


def _same_hash(view: View, arguments: JSON) -> None:
    if arguments.get("hash") not in (None, "", view.hash):
        raise SlackError("hash_conflict")
