"""The Socket Mode side: connections, envelopes, acknowledgements, redelivery.

https://docs.slack.dev/apis/events-api/using-socket-mode
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from bot.sandbox.faults import Faults
from bot.sandbox.workspace import APP_ID, JSON

ACK_SECONDS = 3.0
DUPLICATED = 3  # how often an event comes that a fault duplicates
RETRIES = 3


@dataclass(eq=False)
class Connection:
    socket: web.WebSocketResponse
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class SocketMode:
    """Hands each envelope to one connection and waits for its acknowledgement.

    Events that nobody acknowledges come again, up to three times; interactions do not, the person sees an error.
    """

    def __init__(self, faults: Faults, on_connections: Callable[[int], None], ack_seconds: float = ACK_SECONDS) -> None:
        self.faults = faults
        self.on_connections = on_connections
        self.ack_seconds = ack_seconds
        self.connections: list[Connection] = []
        self._tickets: set[str] = set()
        self._acks: dict[str, asyncio.Future[JSON]] = {}
        self._turns = itertools.count()
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def new_ticket(self) -> str:
        ticket = secrets.token_hex(12)
        self._tickets.add(ticket)
        return ticket

    async def serve(self, request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket", "")
        if ticket not in self._tickets:
            return web.Response(status=403, text="unknown ticket")
        self._tickets.discard(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = Connection(socket)
        hello = {
            "type": "hello",
            "num_connections": len(self.connections) + 1,
            "debug_info": {"host": "sandbox", "build_number": 1, "approximate_connection_time": 18060},
            "connection_info": {"app_id": APP_ID},
        }
        await socket.send_json(hello)
        self.connections.append(connection)
        self.on_connections(len(self.connections))
        self._arrived.set()
        try:
            async for frame in socket:
                if frame.type == WSMsgType.TEXT:
                    self._read(frame.data)
        finally:
            self._forget(connection)
        return socket

    def _read(self, text: str) -> None:
        reply = json.loads(text)
        waiting = self._acks.get(reply.get("envelope_id", ""))
        if waiting is not None and not waiting.done():
            waiting.set_result(reply.get("payload") or {})

    def _forget(self, connection: Connection) -> None:
        connection.closed.set()
        if connection in self.connections:
            self.connections.remove(connection)
            self.on_connections(len(self.connections))
        if not self.connections:
            self._arrived.clear()

    def send_event(self, payload: JSON) -> None:
        """Deliver an event in the background: late, twice or again, as faults and silence demand."""
        copies = DUPLICATED if self.faults.take_duplicate() else 1
        for _ in range(copies):
            self._spawn(self._deliver_event(payload, self.faults.late_seconds))

    async def request(self, kind: str, payload: JSON, *, accepts_response: bool = True) -> JSON | None:
        """Deliver an interaction or a slash command and return the ack's payload; None when nobody answered in time."""
        try:
            async with asyncio.timeout(self.ack_seconds):
                await self._arrived.wait()
        except TimeoutError:
            return None
        return await self._attempt(kind, payload, accepts_response, {})

    async def refresh(self, reason: str = "refresh_requested") -> None:
        """Tell every connection to come back on a new one, as Slack does every few hours."""
        for connection in list(self.connections):
            await connection.socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {}})

    async def drop(self) -> None:
        """Cut every connection without a word."""
        for connection in list(self.connections):
            self._forget(connection)
            await connection.socket.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.drop()

    async def settle(self) -> None:
        """Wait until every event that was sent is acknowledged or given up."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver_event(self, payload: JSON, late: float) -> None:
        await asyncio.sleep(late)
        reason = ""
        for attempt in range(RETRIES + 1):
            await self._arrived.wait()
            retry = {"retry_attempt": attempt, "retry_reason": reason}
            if await self._attempt("events_api", payload, False, retry) is not None:
                return
            reason = "timeout"

    async def _attempt(self, kind: str, payload: JSON, accepts_response: bool, extra: JSON) -> JSON | None:
        connection = self.connections[next(self._turns) % len(self.connections)]
        envelope_id = str(uuid.uuid4())
        envelope = {"envelope_id": envelope_id, "type": kind, "accepts_response_payload": accepts_response, **extra}
        ack = self._acks[envelope_id] = asyncio.get_running_loop().create_future()
        cut = asyncio.create_task(connection.closed.wait())
        try:
            await connection.socket.send_json({**envelope, "payload": payload})
            await asyncio.wait({ack, cut}, timeout=self.ack_seconds, return_when=asyncio.FIRST_COMPLETED)
            return ack.result() if ack.done() else None
        except ConnectionError:
            self._forget(connection)
            return None
        finally:
            cut.cancel()
            del self._acks[envelope_id]

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
