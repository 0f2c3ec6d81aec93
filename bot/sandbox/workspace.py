"""What the workspace holds: people, channels, messages, files, views, streams, and the feed that the page follows."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

JSON = dict[str, Any]

TEAM_ID = "T_COPY"
APP_ID = "A_COPYDESK"
BOT_USER = "U_COPYDESK"
BOT_ID = "B_COPYDESK"
TRIGGER_SECONDS = 3.0
STATUS_SECONDS = 120.0
MODAL_DEPTH = 3


class SlackError(Exception):
    """A refusal in Slack's words: the error code, and the messages that name the offending field."""

    def __init__(self, error: str, messages: Iterable[str] = ()) -> None:
        super().__init__(error)
        self.error = error
        self.messages = tuple(messages)


@dataclass(frozen=True)
class User:
    id: str
    name: str
    real_name: str
    role: str
    locale: str
    is_bot: bool = False


@dataclass(frozen=True)
class Channel:
    id: str
    name: str
    member: str | None = None
    """The person of a direct conversation with the bot; None for a channel that everyone reads."""

    @property
    def is_im(self) -> bool:
        return self.member is not None


@dataclass(frozen=True)
class File:
    id: str
    name: str
    length: int
    mimetype: str
    title: str = ""
    alt_text: str = ""
    content: bytes = b""

    def to_json(self, url: str) -> JSON:
        link = f"{url}/files/{self.id}"
        return {
            "id": self.id,
            "name": self.name,
            "title": self.title or self.name,
            "mimetype": self.mimetype,
            "filetype": self.name.rpartition(".")[2],
            "size": self.length,
            "user": BOT_USER,
            "alt_txt": self.alt_text,
            "url_private": link,
            "permalink": link,
        }


@dataclass
class Message:
    """One message. `streamed` is the text that arrived through a stream; it renders above `blocks`."""

    ts: str
    channel: str
    user: str
    text: str
    blocks: list[JSON] = field(default_factory=list)
    thread_ts: str | None = None
    metadata: JSON | None = None
    reactions: dict[str, list[str]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    ephemeral_for: str | None = None
    streamed: str = ""
    tasks: dict[str, JSON] = field(default_factory=dict)
    streaming_since: float | None = None
    edited_ts: str | None = None
    client_msg_id: str | None = None

    @property
    def from_bot(self) -> bool:
        return self.user == BOT_USER

    @property
    def streaming(self) -> bool:
        return self.streaming_since is not None

    def all_blocks(self) -> list[JSON]:
        streamed = [{"type": "markdown", "block_id": "stream", "text": self.streamed}] if self.streamed else []
        return streamed + self.blocks


@dataclass
class View:
    """A modal or an App Home tab. `payload` is what the app sent, with the ids that Slack adds."""

    id: str
    type: str
    user: str
    payload: JSON
    hash: str
    root_id: str
    previous_id: str | None = None

    def to_json(self) -> JSON:
        return {
            "id": self.id,
            "team_id": TEAM_ID,
            "app_id": APP_ID,
            "bot_id": BOT_ID,
            "private_metadata": "",
            "callback_id": "",
            "external_id": "",
            "clear_on_close": False,
            "notify_on_close": False,
            "close": None,
            "submit": None,
            "state": {"values": {}},
            **self.payload,
            "type": self.type,
            "hash": self.hash,
            "root_view_id": self.root_id,
            "previous_view_id": self.previous_id,
        }


@dataclass
class Trigger:
    user: str
    expires: float
    view_id: str | None = None
    used: bool = False


@dataclass(frozen=True)
class ResponseAddress:
    """Where a response_url leads: the conversation, the person, and the message that was acted on."""

    channel: str
    user: str
    message_ts: str | None
    thread_ts: str | None = None


@dataclass(frozen=True)
class Change:
    """One line of the feed. `only_for` limits it to one person; None is for everyone."""

    number: int
    kind: str
    body: JSON
    only_for: str | None = None


USERS = (
    User("U_ANNA", "anna", "Anna Brooks", "copywriter", "en-US"),
    User("U_LIWEI", "liwei", "李薇", "copywriter", "zh-CN"),
    User("U_MARA", "mara", "Mara Ortiz", "lead", "en-US"),
    User(BOT_USER, "copydesk", "Copydesk", "app", "en-US", is_bot=True),
)
CHANNELS = (
    Channel("C_COPY", "copy-desk"),
    *(Channel("D_" + user.id[2:], "directmessage", user.id) for user in USERS if not user.is_bot),
)


class Workspace:
    """The whole state of one workspace, in memory. Every change is also a line of the feed."""

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.users = {user.id: user for user in USERS}
        self.channels = {channel.id: channel for channel in CHANNELS}
        self.files: dict[str, File] = {}
        self.modals: dict[str, list[View]] = {user.id: [] for user in USERS}
        self.homes: dict[str, View] = {}
        self.triggers: dict[str, Trigger] = {}
        self.responses: dict[str, ResponseAddress] = {}
        self.statuses: dict[tuple[str, str], tuple[str, float]] = {}
        self.prompts: dict[str, JSON] = {}
        self.titles: dict[tuple[str, str], str] = {}
        self.left: set[tuple[str, str]] = set()
        self.feed: list[Change] = []
        self._messages: dict[str, dict[str, Message]] = {channel.id: {} for channel in CHANNELS}
        self._threads: dict[tuple[str, str], list[Message]] = {}
        self._last_micros = 0
        self._news = asyncio.Event()

    # The feed

    def publish(self, kind: str, body: JSON, only_for: str | None = None) -> None:
        self.feed.append(Change(len(self.feed) + 1, kind, body, only_for))
        self._news.set()
        self._news = asyncio.Event()

    async def wait_for_change(self, after: int, seconds: float) -> int:
        """Wait until the feed is longer than `after` lines, or `seconds`; return its length."""
        if len(self.feed) <= after:
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                pass
        return len(self.feed)

    # Names and numbers

    def next_ts(self) -> str:
        """Slack's timestamps: unique in the workspace and increasing."""
        self._last_micros = max(self._last_micros + 1, time.time_ns() // 1000)
        return f"{self._last_micros // 1_000_000}.{self._last_micros % 1_000_000:06d}"

    def new_id(self, prefix: str) -> str:
        return prefix + secrets.token_hex(5).upper()

    def channel(self, channel_id: str, user: str | None = None) -> Channel:
        """Find a channel; a person's id stands for the direct conversation with that person, as in Slack."""
        found = self.channels.get(channel_id) or next(
            (channel for channel in self.channels.values() if channel.member == channel_id), None
        )
        if found is None and channel_id.lstrip("#") in (names := {c.name: c for c in CHANNELS if not c.is_im}):
            found = names[channel_id.lstrip("#")]
        if found is None or (user is not None and found.member not in (None, user)):
            raise SlackError("channel_not_found")
        return found

    def user(self, user_id: str) -> User:
        if user_id not in self.users:
            raise SlackError("user_not_found")
        return self.users[user_id]

    def person(self, user_id: str) -> User:
        user = self.user(user_id)
        if user.is_bot:
            raise SlackError("user_not_found")
        return user

    def members(self, channel: Channel) -> list[str]:
        if channel.is_im:
            return [str(channel.member), BOT_USER]
        return [user for user in self.users if (channel.id, user) not in self.left]

    def leave(self, channel_id: str, user_id: str) -> None:
        """Take a person out of a channel; as in Slack, a public one can still be read, and pressed in, from outside."""
        self.left.add((self.channel(channel_id).id, self.person(user_id).id))

    # Messages

    def add_message(self, message: Message) -> Message:
        if message.thread_ts is not None:
            parent = self._messages[message.channel].get(message.thread_ts)
            if parent is None:
                raise SlackError("thread_not_found")
            # Replying to a reply joins the reply's own thread.
            message.thread_ts = parent.thread_ts or parent.ts
        for block in message.blocks:
            block.setdefault("block_id", secrets.token_hex(3))
        self._messages[message.channel][message.ts] = message
        if message.thread_ts is not None:
            self._threads.setdefault((message.channel, message.thread_ts), []).append(message)
        self.publish_message(message)
        if message.thread_ts is not None:
            if message.from_bot:
                self.set_status(message.channel, message.thread_ts, "")
            self.publish_message(self._messages[message.channel][message.thread_ts])
        return message

    def publish_message(self, message: Message) -> None:
        reader = message.ephemeral_for or self.channels[message.channel].member
        self.publish("message", self.message_json(message, for_page=True), reader)

    def message(self, channel: str, ts: str) -> Message:
        try:
            return self._messages[channel][ts]
        except KeyError:
            raise SlackError("message_not_found") from None

    def delete_message(self, message: Message) -> None:
        del self._messages[message.channel][message.ts]
        if message.thread_ts is not None:
            self._threads[message.channel, message.thread_ts].remove(message)
        reader = message.ephemeral_for or self.channels[message.channel].member
        self.publish("message_deleted", {"channel": message.channel, "ts": message.ts}, reader)
        if message.thread_ts and message.thread_ts in self._messages[message.channel]:
            self.publish_message(self._messages[message.channel][message.thread_ts])

    def messages(self, channel: str, reader: str | None = None) -> list[Message]:
        """All messages of a channel in order, replies too. Ephemeral ones only for their `reader`."""
        return [m for m in self._messages[channel].values() if m.ephemeral_for in (None, reader)]

    def replies(self, channel: str, ts: str) -> list[Message]:
        return [m for m in self._threads.get((channel, ts), []) if m.ephemeral_for is None]

    def message_json(self, message: Message, for_page: bool = False, metadata: bool = False) -> JSON:
        """Slack's message object; the page also needs what Slack's clients know about streams and readers."""
        body: JSON = {"type": "message", "user": message.user, "ts": message.ts, "team": TEAM_ID}
        body["text"] = message.text or message.streamed
        body["blocks"] = message.all_blocks()
        if message.client_msg_id:
            body["client_msg_id"] = message.client_msg_id
        if message.from_bot:
            body |= {"bot_id": BOT_ID, "app_id": APP_ID}
            body["bot_profile"] = {"id": BOT_ID, "name": "Copydesk", "app_id": APP_ID, "team_id": TEAM_ID}
        if message.thread_ts is not None:
            body["thread_ts"] = message.thread_ts
        elif replies := self.replies(message.channel, message.ts):
            body |= {"thread_ts": message.ts, "reply_count": len(replies), "latest_reply": replies[-1].ts}
            body["reply_users"] = list(dict.fromkeys(reply.user for reply in replies))
        if message.reactions:
            body["reactions"] = [
                {"name": name, "users": users, "count": len(users)} for name, users in message.reactions.items()
            ]
        if message.files:
            body["files"] = [self.files[file_id].to_json(self.url) for file_id in message.files]
        if message.edited_ts is not None:
            body["edited"] = {"user": message.user, "ts": message.edited_ts}
        if message.metadata is not None and (metadata or for_page):
            body["metadata"] = message.metadata
        if for_page:
            body |= {"channel": message.channel, "streaming": message.streaming}
            body |= {"ephemeral": message.ephemeral_for is not None, "tasks": list(message.tasks.values())}
        return body

    def current_statuses(self) -> list[JSON]:
        """What the bot says that it is doing, by thread; Slack forgets it after two minutes."""
        return [
            {"channel": channel, "thread_ts": thread, "status": status}
            for (channel, thread), (status, until) in self.statuses.items()
            if until > time.monotonic()
        ]

    def set_status(self, channel: str, thread_ts: str, status: str) -> None:
        key = (channel, thread_ts)
        if status:
            self.statuses[key] = (status, time.monotonic() + STATUS_SECONDS)
        elif self.statuses.pop(key, None) is None:
            return
        body = {"channel": channel, "thread_ts": thread_ts, "status": status, "seconds": STATUS_SECONDS}
        self.publish("status", body, self.channels[channel].member)

    def react(self, message: Message, user: str, name: str) -> None:
        users = message.reactions.setdefault(name, [])
        if user in users:
            raise SlackError("already_reacted")
        users.append(user)
        self.publish_message(message)

    def unreact(self, message: Message, user: str, name: str) -> None:
        if user not in message.reactions.get(name, []):
            raise SlackError("no_reaction")
        message.reactions[name].remove(user)
        if not message.reactions[name]:
            del message.reactions[name]
        self.publish_message(message)

    # Triggers, views and response addresses

    def new_trigger(self, user: str, view_id: str | None = None) -> str:
        trigger_id = f"{secrets.randbelow(10**12)}.{secrets.randbelow(10**12)}.{secrets.token_hex(16)}"
        self.triggers[trigger_id] = Trigger(user, time.monotonic() + TRIGGER_SECONDS, view_id)
        return trigger_id

    def use_trigger(self, trigger_id: str) -> Trigger:
        trigger = self.triggers.get(trigger_id)
        if trigger is None:
            raise SlackError("invalid_trigger_id")
        if trigger.used:
            raise SlackError("exchanged_trigger_id")
        if time.monotonic() > trigger.expires:
            raise SlackError("expired_trigger_id")
        trigger.used = True
        return trigger

    def new_response_url(self, address: ResponseAddress) -> str:
        key = secrets.token_hex(12)
        self.responses[key] = address
        return f"{self.url}/response/{key}"

    def open_view(self, user: str, payload: JSON) -> View:
        view_id = self.new_id("V")
        view = View(view_id, "modal", user, payload, self._view_hash(), view_id)
        self.modals[user] = [view]
        self._publish_modals(user)
        return view

    def push_view(self, user: str, payload: JSON) -> View:
        stack = self.modals[user]
        if not stack:
            raise SlackError("not_found")
        if len(stack) >= MODAL_DEPTH:
            raise SlackError("push_limit_reached")
        view = View(self.new_id("V"), "modal", user, payload, self._view_hash(), stack[0].id, stack[-1].id)
        stack.append(view)
        self._publish_modals(user)
        return view

    def update_view(self, view: View, payload: JSON) -> View:
        view.payload, view.hash = payload, self._view_hash()
        if view.type == "home":
            self.publish("home", view.to_json(), view.user)
        else:
            self._publish_modals(view.user)
        return view

    def publish_home(self, user: str, payload: JSON) -> View:
        if user not in self.homes:
            view_id = self.new_id("V")
            self.homes[user] = View(view_id, "home", user, payload, "", view_id)
        return self.update_view(self.homes[user], payload)

    def find_view(self, *, view_id: str = "", external_id: str = "") -> View:
        for view in [*(view for stack in self.modals.values() for view in stack), *self.homes.values()]:
            if (view_id and view.id == view_id) or (external_id and view.payload.get("external_id") == external_id):
                return view
        raise SlackError("not_found")

    def close_view(self, view: View, *, all_of_them: bool = False) -> None:
        stack = self.modals[view.user]
        if all_of_them:
            stack.clear()
        elif view in stack:
            del stack[stack.index(view) :]
        self._publish_modals(view.user)

    def _publish_modals(self, user: str) -> None:
        self.publish("modals", {"views": [view.to_json() for view in self.modals[user]]}, user)

    def _view_hash(self) -> str:
        return f"{int(time.time())}.{secrets.token_hex(4)}"


_KEPT = re.compile(r"<(?:@U_[A-Z]+|#C_[A-Z]+)>")


def escape(text: str) -> str:
    """Slack's three escapes, and no others."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def typed_text(text: str) -> str:
    """What a person typed, as Slack stores it: escaped, with mentions and links marked."""
    text = text.replace("@Copydesk", f"<@{BOT_USER}>")
    parts, end = [], 0
    for mention in _KEPT.finditer(text):
        parts += [escape(text[end : mention.start()]), mention.group()]
        end = mention.end()
    parts.append(escape(text[end:]))
    return re.sub(r"https?://[^\s<>|]+", lambda link: f"<{link.group()}>", "".join(parts))
