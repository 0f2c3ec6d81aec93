"""What the operators' machines ask over HTTP on 127.0.0.1: /metrics, /ready and /live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from serving.metrics import PARTS, Metrics
from serving.records import CopydeskError

HOST = "127.0.0.1"
ANSWER_S = 6.0  # longer than the client's patience for /health

Check = Callable[[], Awaitable[bool]]
REASONS = {"slack": "Slack's socket is not connected.", "engine": "The engine does not answer."}


@asynccontextmanager
async def outside(port: int, metrics: Metrics, checks: dict[str, Check]) -> AsyncIterator[None]:
    """Answer on a port for as long as the context is open; 0 answers nobody.

    Args:
        checks: by part, whether it answers; read anew at every request, since parts arrive late.

    Raises:
        CopydeskError: the port is taken.
    """
    if not port:
        yield
        return

    async def ask() -> dict[str, bool]:
        answers = await asyncio.gather(*(_answers(checks.get(part)) for part in PARTS))
        return dict(zip(PARTS, answers, strict=True))

    async def ready(request: web.Request) -> web.Response:
        reasons = [REASONS[part] for part, answers in (await ask()).items() if not answers]
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def live(request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def figures(request: web.Request) -> web.Response:
        page = await asyncio.to_thread(metrics.render, await ask())
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.add_routes([web.get("/metrics", figures), web.get("/ready", ready), web.get("/live", live)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        await runner.cleanup()
        raise CopydeskError(f"Port {port} is taken; set COPYDESK_METRICS_PORT to a free one.") from error
    try:
        yield
    finally:
        await runner.cleanup()


async def _answers(check: Check | None) -> bool:
    try:
        return check is not None and await asyncio.wait_for(check(), ANSWER_S)
    except TimeoutError:
        return False
