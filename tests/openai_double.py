"""The edge of the engine's machine: a server that speaks OpenAI's streaming protocol and says what it is told to."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Answer:
    """A completion in pieces. `breaks_after` ends the connection after so many pieces, as a killed engine does."""

    pieces: tuple[str, ...]
    pause: float = 0.0
    breaks_after: int | None = None


@dataclass
class EngineDouble:
    answers: list[Answer] = field(default_factory=list)
    default: Answer = field(default_factory=lambda: Answer(("Warm light ", "for late pages. ", "Try it tonight.")))
    asked: list[dict[str, Any]] = field(default_factory=list)
    loaded: list[str] = field(default_factory=lambda: ["base"])
    url: str = ""

    async def __aenter__(self) -> EngineDouble:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in self.loaded]
        return web.json_response({"object": "list", "data": data})

    async def _load(self, request: web.Request) -> web.Response:
        self.loaded.append((await request.json())["lora_name"])
        return web.Response(text="loaded")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        answer = self.answers.pop(0) if self.answers else self.default
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


async def _send(response: web.StreamResponse, model: str, delta: dict[str, Any], finish: str | None = None) -> None:
    chunk: dict[str, Any] = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": model}
    chunk["choices"] = [{"index": 0, "delta": delta, "finish_reason": finish}]
    if finish:
        chunk["usage"] = {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52}
    await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
