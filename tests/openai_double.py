"""The edge of the engine's machine: a server that speaks OpenAI's streaming protocol and says what it is told to.

As a process of its own it tells its process id: python tests/openai_double.py SOCKET
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from serving.processes import end_with_parent

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Answer:
    """A completion in pieces. `breaks_after` ends the connection after so many pieces, as a killed engine does.

    Attributes:
        raw: sent in the place of the pieces, as it is, with `status` and as `kind`.
    """

    pieces: tuple[str, ...] = ()
    pause: float = 0.0
    breaks_after: int | None = None
    raw: bytes = b""
    status: int = 200
    kind: str = "text/event-stream"


@dataclass
class EngineDouble:
    """vLLM's protocol; without `loads`, `streams` or `health` that of a gateway in front of it.

    Attributes:
        key: what it wants as a bearer token; "" wants none.
    """

    answers: list[Answer] = field(default_factory=list)
    default: Answer = field(default_factory=lambda: Answer(("Warm light ", "for late pages. ", "Try it tonight.")))
    asked: list[dict[str, Any]] = field(default_factory=list)
    loaded: list[str] = field(default_factory=lambda: ["base"])
    url: str = ""
    key: str = ""
    loads: bool = True
    streams: bool = True
    health: bool = True
    port: int = 0
    socket: str = ""
    asleep: bool = False
    strict: bool = False  # refuses models it does not know and adapters without files, as vLLM does

    async def __aenter__(self) -> EngineDouble:
        app = web.Application(middlewares=[self._keyed])
        if self.health:
            app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        if self.loads:
            app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/sleep", self._sleep)
        app.router.add_post("/wake_up", self._wake)
        app.router.add_get("/is_sleeping", self._sleeping)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        if self.socket:
            await web.UnixSite(self._runner, self.socket).start()
            return self
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _keyed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "Incorrect API key"}}, status=401)
        return await handler(request)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in self.loaded]
        return web.json_response({"object": "list", "data": data})

    async def _load(self, request: web.Request) -> web.Response:
        order = await request.json()
        if "lora_name" not in order:
            return web.json_response({"error": {"message": "lora_name: Field required"}}, status=400)
        if self.strict and not (Path(order["lora_path"]) / "adapter_config.json").is_file():
            return web.json_response({"error": {"message": "no adapter_config.json"}}, status=404)
        self.loaded.append(order["lora_name"])
        return web.Response(text="loaded")

    async def _sleep(self, request: web.Request) -> web.Response:
        self.asleep = True
        return web.json_response({"status": "sleeping"})

    async def _wake(self, request: web.Request) -> web.Response:
        self.asleep = False
        return web.json_response({"status": "awake"})

    async def _sleeping(self, request: web.Request) -> web.Response:
        return web.json_response({"is_sleeping": self.asleep})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        if self.strict and body["model"] not in self.loaded:
            return web.json_response({"error": {"message": f"no model {body['model']}"}}, status=404)
        answer = self.answers.pop(0) if self.answers else self.default
        if answer.raw or answer.status != 200:
            return web.Response(body=answer.raw, status=answer.status, content_type=answer.kind)
        if not (self.streams and body.get("stream")):
            await asyncio.sleep(answer.pause * len(answer.pieces))
            return web.json_response(_whole(body["model"], "".join(answer.pieces)))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number, piece in enumerate(answer.pieces):
            if number == answer.breaks_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            await _send(response, body["model"], {"content": piece})
            await asyncio.sleep(answer.pause)
        await _send(response, body["model"], {}, "stop")
        await response.write(b"data: [DONE]\n\n")
        return response


def _whole(model: str, text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": usage}


async def _send(response: web.StreamResponse, model: str, delta: dict[str, Any], finish: str | None = None) -> None:
    chunk: dict[str, Any] = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": model}
    chunk["choices"] = [{"index": 0, "delta": delta, "finish_reason": finish}]
    if finish:
        chunk["usage"] = {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52}
    await response.write(f"data: {json.dumps(chunk)}\n\n".encode())


async def _main(socket: str) -> None:
    end_with_parent(signal.SIGTERM)  # as serving.vllm_server does
    words = Answer(("Warm ", "light ", "from ", str(os.getpid())), pause=0.1)
    async with EngineDouble(socket=socket, default=words, strict=True):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
