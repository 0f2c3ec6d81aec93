"""The workspace over HTTP and WebSocket: Slack's API for the app, a page and its endpoints for people.

Run: python -m bot.sandbox --port 8765
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

from bot.sandbox.acts import Acts, people_json
from bot.sandbox.faults import FaultKind, Faults
from bot.sandbox.socket_mode import ACK_SECONDS, SocketMode
from bot.sandbox.web_api import APP_TOKEN_METHODS, WebApi
from bot.sandbox.workspace import BOT_USER, JSON, Change, SlackError, Workspace
from serving.records import CopydeskError

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
UPLOAD_BYTES = 20 * 1024 * 1024
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
DEFAULT_SHORTCUTS = (("correct_draft", "Correct this draft"),)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Sandbox:
    """A Slack-compatible workspace on this machine: `async with Sandbox() as sandbox`.

    Args:
        port: 0 takes any free one; `url` tells which.
        streaming: False for a workspace without chat.startStream.
        shortcuts: the message shortcuts that the app declares, as (callback_id, name).
        ack_seconds: how long the app may take to acknowledge; Slack gives three seconds.
        stream_seconds: how long a stream stays open; Slack's close after about five minutes.
        app_token, bot_token: made up freshly unless given.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        streaming: bool = True,
        shortcuts: tuple[tuple[str, str], ...] = DEFAULT_SHORTCUTS,
        ack_seconds: float = ACK_SECONDS,
        stream_seconds: float = 300.0,
        app_token: str | None = None,
        bot_token: str | None = None,
    ) -> None:
        self.app_token = app_token or f"xapp-1-sandbox-{secrets.token_hex(8)}"
        self.bot_token = bot_token or f"xoxb-sandbox-{secrets.token_hex(8)}"
        self.shortcuts = shortcuts
        self.faults = Faults()
        self.workspace = Workspace()
        self.socket_mode = SocketMode(
            self.faults, lambda count: self.workspace.publish("connections", {"count": count}), ack_seconds
        )
        self.web_api = WebApi(
            self.workspace,
            self.socket_mode,
            lambda event: self.acts.send_event(event),
            streaming=streaming,
            stream_seconds=stream_seconds,
        )
        self.acts = Acts(self.workspace, self.socket_mode, self.web_api)
        self._port = port
        self._runner: web.AppRunner | None = None
        self._closing = asyncio.Event()

    @property
    def url(self) -> str:
        return self.workspace.url

    @property
    def api_url(self) -> str:
        return self.url + "/api/"

    async def start(self) -> None:
        """Raises CopydeskError where the port is taken."""
        self._runner = web.AppRunner(self._application(), shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise CopydeskError(f"Port {self._port} is taken; --port 0 takes any free one.") from error
        self._port = self._runner.addresses[0][1]
        self.workspace.url = f"http://{HOST}:{self._port}"

    async def close(self) -> None:
        self._closing.set()
        self.workspace.publish("closing", {})
        await self.socket_mode.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Sandbox:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Faults, for tests in the same process; others POST them to /sandbox/faults

    def fail(self, method: str, kind: FaultKind, times: int = 1, retry_after: int = 1) -> None:
        self.faults.fail(method, kind, times, retry_after)

    def duplicate_events(self, times: int = 1) -> None:
        self.faults.duplicates = times

    def late_events(self, seconds: float) -> None:
        self.faults.late_seconds = seconds

    async def drop_socket(self) -> None:
        await self.socket_mode.drop()

    async def refresh_socket(self) -> None:
        await self.socket_mode.refresh()

    def end_streams(self) -> int:
        return self.web_api.end_streams()

    # Routes

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard, self._refusals], client_max_size=UPLOAD_BYTES)
        app.router.add_route("*", "/api/{method}", self._call)
        app.router.add_get("/link/", self.socket_mode.serve)
        app.router.add_post("/upload/{file}", self._upload)
        app.router.add_get("/files/{file}", self._file)
        app.router.add_post("/response/{key}", self._respond)
        app.router.add_get("/sandbox/state", self._state)
        app.router.add_get("/sandbox/feed", self._feed)
        app.router.add_get("/sandbox/changes", self._changes)
        app.router.add_post("/sandbox/faults", self._set_fault)
        app.router.add_post("/sandbox/{act}", self._act)
        app.router.add_get("/", self._page)
        app.router.add_get("/page/{name}", self._page)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse names that lead here by DNS rebinding, and requests that other sites' pages send."""
        if request.host not in (f"{HOST}:{self._port}", f"localhost:{self._port}"):
            return web.Response(status=403, text="This workspace answers only on this machine.")
        if request.headers.get("Origin", f"http://{request.host}") != f"http://{request.host}":
            return web.Response(status=403, text="Requests from other sites are refused.")
        return await handler(request)

    @web.middleware
    async def _refusals(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except SlackError as refusal:
            body: JSON = {"ok": False, "error": refusal.error}
            if refusal.messages:
                body["response_metadata"] = {"messages": list(refusal.messages)}
            return web.json_response(body)

    # The app's side

    async def _call(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        arguments = await _arguments(request)
        if fault := self.faults.take(method):
            if fault.kind == "error500":
                return web.Response(status=500, text="fatal error")
            body = {"ok": False, "error": "ratelimited"}
            return web.json_response(body, status=429, headers={"Retry-After": str(fault.retry_after)})
        self._check_token(method, request.headers.get("Authorization", ""), str(arguments.pop("token", "")))
        return web.json_response({"ok": True, **self.web_api.call(method, arguments)})

    def _check_token(self, method: str, header: str, argument: str) -> None:
        token = header.removeprefix("Bearer ").strip() or argument
        if not token:
            raise SlackError("not_authed")
        if token not in (self.app_token, self.bot_token):
            raise SlackError("invalid_auth")
        if (token == self.app_token) != (method in APP_TOKEN_METHODS):
            raise SlackError("not_allowed_token_type")

    async def _upload(self, request: web.Request) -> web.Response:
        file = self.workspace.files.get(request.match_info["file"])
        if file is None:
            raise web.HTTPNotFound()
        if request.content_type.startswith("multipart/"):
            parts = await request.post()
            first = next(iter(parts.values()))
            content = first.file.read() if isinstance(first, web.FileField) else str(first).encode()
        else:
            content = await request.read()
        self.workspace.files[file.id] = replace(file, content=content, length=len(content))
        return web.Response(text=f"OK - {len(content)}")

    async def _respond(self, request: web.Request) -> web.Response:
        address = self.workspace.responses.get(request.match_info["key"])
        if address is None:
            raise web.HTTPNotFound(text="expired_url")
        self.web_api.respond(address, await _arguments(request))
        return web.Response(text="ok")

    # The people's side

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("name", "index.html")
        path = PAGE / name
        if path.name != name or path.suffix not in (".html", ".css", ".js", ".svg") or not path.is_file():
            raise web.HTTPNotFound()
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": POLICY}
        return web.FileResponse(path, headers=headers)

    async def _file(self, request: web.Request) -> web.Response:
        file = self.workspace.files.get(request.match_info["file"])
        if file is None or not file.content:
            raise web.HTTPNotFound()
        # Only pictures are shown; anything else that an app uploads could be a page with a script in it.
        shown = file.mimetype in ("image/png", "image/jpeg", "image/gif", "image/webp")
        headers = {"X-Content-Type-Options": "nosniff"}
        if not shown:
            headers["Content-Disposition"] = "attachment"
        kind = file.mimetype if shown else "application/octet-stream"
        return web.Response(body=file.content, content_type=kind, headers=headers)

    async def _state(self, request: web.Request) -> web.Response:
        """Everything that one person sees, and the feed's length at that moment."""
        person = self.workspace.person(request.query.get("person", "")).id
        space = self.workspace
        channels = [c for c in space.channels.values() if c.member in (None, person)]
        own = {channel.id for channel in channels}
        messages = [
            space.message_json(message, for_page=True)
            for channel in channels
            for message in space.messages(channel.id, person)
        ]
        body = {
            "ok": True,
            "seq": len(space.feed),
            "person": person,
            "bot": BOT_USER,
            "people": people_json(space),
            "channels": [{"id": c.id, "name": c.name, "is_im": c.is_im, "user": c.member} for c in channels],
            "messages": messages,
            "statuses": [status for status in space.current_statuses() if status["channel"] in own],
            "prompts": [prompts for channel, prompts in space.prompts.items() if channel in own],
            "modals": [view.to_json() for view in space.modals[person]],
            "home": space.homes[person].to_json() if person in space.homes else None,
            "shortcuts": [{"callback_id": key, "name": name} for key, name in self.shortcuts],
            "connections": len(self.socket_mode.connections),
        }
        return web.json_response(body)

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        """The page's live updates, as server-sent events; each carries its number, so that a reconnect goes on."""
        person = self.workspace.person(request.query.get("person", "")).id
        after = int(request.headers.get("Last-Event-ID", request.query.get("after", "0")))
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        # A reader who leaves shows only as a failed write; EventSource comes back by itself when it was not meant.
        with contextlib.suppress(ConnectionError):
            await response.write(b": hello\n\n")
            while not self._closing.is_set():
                for change in self.workspace.feed[after:]:
                    if change.only_for in (None, person):
                        await response.write(_server_sent(change))
                after = max(after, len(self.workspace.feed))
                if await self.workspace.wait_for_change(after, 15) == after:
                    await response.write(b": still here\n\n")
        return response

    async def _changes(self, request: web.Request) -> web.Response:
        after, timeout = int(request.query.get("after", "0")), float(request.query.get("timeout", "1"))
        return web.json_response({"ok": True, "seq": await self.workspace.wait_for_change(after, min(timeout, 30))})

    async def _act(self, request: web.Request) -> web.Response:
        acts = self.acts
        # A form cannot send this type across sites without asking first, so no page elsewhere can act here.
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType()
        body = await request.json()
        person = str(body.pop("person", ""))
        self.workspace.person(person)
        result: JSON = {}
        try:
            match request.match_info["act"]:
                case "say":
                    result = {"ts": acts.say(person, body["channel"], body["text"], body.get("thread_ts"))}
                case "slash":
                    await acts.slash(person, body["command"], body.get("text", ""), body["channel"])
                case "press" if "view_id" in body:
                    value, block = body.get("value"), body.get("block_id")
                    await acts.press_in_view(person, body["view_id"], body["action_id"], value, block)
                case "press":
                    value, block = body.get("value"), body.get("block_id")
                    await acts.press(person, body["channel"], body["ts"], body["action_id"], value, block)
                case "react":
                    acts.react(person, body["channel"], body["ts"], body["name"], add=body.get("add", True))
                case "shortcut":
                    await acts.shortcut(person, body["callback_id"], body["channel"], body["ts"])
                case "submit":
                    result = {"errors": await acts.submit(person, body["view_id"], body.get("values", {}))}
                case "close":
                    await acts.close(person, body["view_id"])
                case "home":
                    acts.open_home(person)
                case "conversation":
                    acts.open_conversation(person)
                case _:
                    raise web.HTTPNotFound()
        except KeyError as missing:
            raise SlackError("invalid_arguments", [f"missing: {missing}"]) from missing
        return web.json_response({"ok": True, **result})

    async def _set_fault(self, request: web.Request) -> web.Response:
        body = await request.json()
        match body.get("kind"):
            case "ratelimit" | "error500" as kind:
                times, wait = int(body.get("times", 1)), int(body.get("retry_after", 1))
                self.fail(body.get("method", "*"), kind, times, wait)
            case "drop_socket":
                await self.drop_socket()
            case "refresh_socket":
                await self.refresh_socket()
            case "duplicate_events":
                self.duplicate_events(int(body.get("times", 1)))
            case "late_events":
                self.late_events(float(body["seconds"]))
            case "end_streams":
                self.end_streams()
            case other:
                raise SlackError("unknown_fault", [f"There is no fault {other!r}"])
        return web.json_response({"ok": True})


async def _arguments(request: web.Request) -> JSON:
    """A method's arguments, from the query, a form or a JSON body, as Slack takes them."""
    arguments: JSON = dict(request.query)
    if request.content_type == "application/json":
        try:
            body: Any = await request.json()
        except ValueError:
            raise SlackError("invalid_json") from None
        if not isinstance(body, dict):
            raise SlackError("json_not_object")
        arguments |= body
    elif request.can_read_body:
        arguments |= dict(await request.post())
    return arguments


def _server_sent(change: Change) -> bytes:
    body = json.dumps({"seq": change.number, "kind": change.kind, **change.body}, ensure_ascii=False)
    return f"id: {change.number}\ndata: {body}\n\n".encode()
