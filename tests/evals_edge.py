"""The machine's edge for scorecard tests: an HTTP server that speaks OpenAI's protocol with texts that are given."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Writer = Callable[[str, str, int], str]  # model, prompt, how often this model was asked that before


class Edge:
    """Attributes:
    write: makes each text; an empty one is an answer too.
    broken: how many of the next requests get a 500.
    hold_after: so many completions are answered, later ones wait for ever; None answers all.
    """

    def __init__(self, write: Writer) -> None:
        self.write = write
        self.broken = 0
        self.hold_after: int | None = None
        self.holding = asyncio.Event()
        self.adapters: dict[str, str] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.in_flight = self.most_in_flight = 0
        self.url = ""

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "object": "list",
                "data": [
                    {"id": name, "object": "model", "created": 0, "owned_by": "edge"}
                    for name in ["base", *self.adapters]
                ],
            }
        )

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "lora_path" not in body:  # how a client asks whether adapters can be loaded at all
            return web.json_response({"error": {"message": "lora_path is missing"}}, status=400)
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text="ok")

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.broken:
            self.broken -= 1
            return web.Response(status=500, text="engine is dead")
        if body["model"] not in ["base", *self.adapters]:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        if self.hold_after is not None and len(self.requests) >= self.hold_after:
            self.holding.set()
            await asyncio.Event().wait()
        self.requests.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.01)
        self.in_flight -= 1
        prompt = body["messages"][-1]["content"]
        key = (body["model"], prompt)
        text = self.write(body["model"], prompt, self.asked[key])
        self.asked[key] += 1
        return web.json_response(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16},
            }
        )


@asynccontextmanager
async def serving(write: Writer) -> AsyncIterator[Edge]:
    edge = Edge(write)
    app = web.Application()
    app.router.add_get("/v1/models", edge.models)
    app.router.add_post("/v1/load_lora_adapter", edge.load)
    app.router.add_post("/v1/chat/completions", edge.complete)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    edge.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield edge
    finally:
        await runner.cleanup()
