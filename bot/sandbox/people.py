"""People for tests and the demo: they talk, press, react and fill in modals over HTTP, from any process.

async with People(sandbox.url) as people:
    anna = people.person("U_ANNA")
    ts = await anna.mention("C_COPY", "write a line for our thermos")
    draft = await anna.wait_message("C_COPY", lambda message: not message["streaming"], thread_ts=ts)
    await anna.press("C_COPY", draft["ts"], "rate", "positive")
"""

# ruff: noqa: ASYNC109 - the waits take a timeout so that their error can tell what was seen instead.

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

from bot.sandbox.workspace import BOT_USER, JSON
from serving.records import CopydeskError

LONGEST_WAIT = 5.0
PATIENCE_S = 60.0  # ends a wait for what never comes; a busy machine may be slow


class SandboxRefusalError(CopydeskError):
    """The workspace, or the app behind it, refused what a person did. `error` is Slack's code."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(text)
        self.error = error


@dataclass(frozen=True)
class SeenView:
    """A modal or App Home tab as a person sees it; `body` is Slack's view object."""

    id: str
    callback_id: str
    title: str
    private_metadata: str
    body: JSON

    @property
    def blocks(self) -> list[JSON]:
        return list(self.body["blocks"])

    @property
    def inputs(self) -> dict[str, JSON]:
        """The input elements by action_id."""
        return {b["element"]["action_id"]: b["element"] for b in self.blocks if b["type"] == "input"}

    @classmethod
    def of(cls, body: JSON) -> SeenView:
        title = (body.get("title") or {}).get("text", "")
        return cls(body["id"], body.get("callback_id", ""), title, body.get("private_metadata", ""), body)


class People:
    """The people of the workspace at `url`. Closes its HTTP session when used as a context or by close()."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    def person(self, user_id: str) -> Person:
        return Person(self, user_id)

    async def fault(self, kind: str, **settings: Any) -> None:
        """Ask for a fault, as bot/sandbox/faults.py describes them."""
        await self.post("faults", {"kind": kind, **settings})

    async def post(self, act: str, body: JSON) -> JSON:
        async with self._open().post(f"{self.url}/sandbox/{act}", json=body) as response:
            return _granted(await response.json(), act)

    async def get(self, what: str, **query: str) -> JSON:
        async with self._open().get(f"{self.url}/sandbox/{what}", params=query) as response:
            return _granted(await response.json(), what)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> People:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session


class Person:
    """One person's hands and eyes. Methods raise SandboxRefusalError where Slack's client would show an error."""

    def __init__(self, people: People, user_id: str) -> None:
        self.people = people
        self.id = user_id

    @property
    def dm(self) -> str:
        """The id of the direct conversation with the bot."""
        return "D_" + self.id.removeprefix("U_")

    # Hands

    async def say(self, channel: str, text: str, thread_ts: str | None = None) -> str:
        """Send a message and return its ts."""
        result = await self._do("say", channel=channel, text=text, thread_ts=thread_ts)
        return str(result["ts"])

    async def mention(self, channel: str, text: str, thread_ts: str | None = None) -> str:
        """Send a message that begins with @Copydesk."""
        return await self.say(channel, f"<@{BOT_USER}> {text}", thread_ts)

    async def slash(self, command: str, text: str, channel: str) -> None:
        await self._do("slash", command=command, text=text, channel=channel)

    async def press(
        self, channel: str, ts: str, action_id: str, value: Any = None, *, block_id: str | None = None
    ) -> None:
        """Press a button or choose an option; feedback buttons take "positive" or "negative" as `value`."""
        await self._do("press", channel=channel, ts=ts, action_id=action_id, value=value, block_id=block_id)

    async def press_in(self, view: SeenView, action_id: str, value: Any = None, *, block_id: str | None = None) -> None:
        """Press a button of a modal or of the App Home tab."""
        await self._do("press", view_id=view.id, action_id=action_id, value=value, block_id=block_id)

    async def react(self, channel: str, ts: str, name: str) -> None:
        await self._do("react", channel=channel, ts=ts, name=name)

    async def unreact(self, channel: str, ts: str, name: str) -> None:
        await self._do("react", channel=channel, ts=ts, name=name, add=False)

    async def shortcut(self, callback_id: str, channel: str, ts: str) -> None:
        await self._do("shortcut", callback_id=callback_id, channel=channel, ts=ts)

    async def submit(self, view: SeenView, values: Mapping[str, Any] | None = None) -> dict[str, str] | None:
        """Submit a modal; return the errors by block_id, None when it went through.

        Args:
            values: {block_id: {action_id: value}} or {action_id: value}; inputs not named keep their initial values.
        """
        result = await self._do("submit", view_id=view.id, values=dict(values or {}))
        return result["errors"] or None

    async def dismiss(self, view: SeenView) -> None:
        await self._do("close", view_id=view.id)

    async def open_home(self) -> None:
        await self._do("home")

    async def open_dm(self) -> None:
        await self._do("conversation")

    # Eyes

    async def home(self, timeout: float = PATIENCE_S) -> SeenView:
        """The App Home tab, once the app has published one."""
        state = await self._wait(lambda state: state["home"] is not None, timeout, "The app published no App Home")
        return SeenView.of(state["home"])

    async def modal(self) -> SeenView | None:
        """The modal on top, None when there is none."""
        modals = (await self._look())["modals"]
        return SeenView.of(modals[-1]) if modals else None

    async def wait_modal(self, timeout: float = PATIENCE_S, callback_id: str | None = None) -> SeenView:
        def is_open(state: JSON) -> bool:
            return bool(state["modals"]) and callback_id in (None, state["modals"][-1].get("callback_id"))

        state = await self._wait(is_open, timeout, f"No modal {callback_id or ''} opened for {self.id}")
        return SeenView.of(state["modals"][-1])

    async def messages(self, channel: str) -> list[JSON]:
        """The channel's messages outside threads, oldest first, as Slack's message objects."""
        return [m for m in await self._every(channel) if m.get("thread_ts", m["ts"]) == m["ts"]]

    async def thread(self, channel: str, ts: str) -> list[JSON]:
        """The replies to a message, oldest first, without the message itself."""
        return [m for m in await self._every(channel) if m.get("thread_ts") == ts and m["ts"] != ts]

    async def status(self, channel: str, thread_ts: str) -> str:
        """What the bot says that it is doing in a thread; "" for nothing."""
        for entry in (await self._look())["statuses"]:
            if (entry["channel"], entry["thread_ts"]) == (channel, thread_ts):
                return str(entry["status"])
        return ""

    async def wait_message(
        self,
        channel: str,
        predicate: Callable[[JSON], bool] = lambda message: True,
        thread_ts: str | None = None,
        timeout: float = PATIENCE_S,
    ) -> JSON:
        """Wait for a message that satisfies `predicate`: in the thread when one is given, else anywhere in it.

        A message that streams has `streaming` true, one that only this person sees `ephemeral`.
        """

        def found(state: JSON) -> JSON | None:
            for message in state["messages"]:
                elsewhere = thread_ts is not None and (
                    message.get("thread_ts") != thread_ts or message["ts"] == thread_ts
                )
                if message["channel"] == channel and not elsewhere and predicate(message):
                    return dict(message)
            return None

        last = await self._wait(lambda state: found(state) is not None, timeout, f"No such message came in {channel}")
        message = found(last)
        assert message is not None
        return message

    async def wait_until(self, condition: Callable[[JSON], bool], what: str, timeout: float = PATIENCE_S) -> JSON:
        """Wait until this person's whole view of the workspace satisfies a condition; return that view."""
        return await self._wait(condition, timeout, what)

    async def _every(self, channel: str) -> list[JSON]:
        return [message for message in (await self._look())["messages"] if message["channel"] == channel]

    async def _look(self) -> JSON:
        return await self.people.get("state", person=self.id)

    async def _wait(self, condition: Callable[[JSON], bool], timeout: float, what: str) -> JSON:
        end = time.monotonic() + timeout
        while not condition(state := await self._look()):
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{what} within {timeout:g} s. Last messages:\n{_digest(state)}")
            await self.people.get("changes", after=str(state["seq"]), timeout=str(min(left, LONGEST_WAIT)))
            # One look a burst of changes is enough; a stream makes many.
            await asyncio.sleep(0.02)
        return state

    async def _do(self, act: str, **body: Any) -> JSON:
        return await self.people.post(act, {"person": self.id, **body})


def _granted(body: JSON, what: str) -> JSON:
    if not body.get("ok"):
        error = str(body.get("error"))
        details = "; ".join((body.get("response_metadata") or {}).get("messages", []))
        if error == "operation_timeout":
            details = "the app did not acknowledge in time; is it running and connected?"
        raise SandboxRefusalError(error, f"The workspace refused {what}: {error}. {details}".rstrip(". ") + ".")
    return body


def _digest(state: JSON) -> str:
    return "\n".join(f"  {m['channel']} {m['user']}: {m['text'][:160]!r}" for m in state["messages"][-6:])
