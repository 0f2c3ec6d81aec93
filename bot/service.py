"""The desk as a whole: the engine beside the bot, from start to an orderly end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bot.app import Desk, serve
from bot.outside import Check, outside
from bot.schedule import Schedule
from serving import cluster
from serving.client import EngineUnavailable, ModelClient
from serving.engine import Engine, until_signal
from serving.lock import alone
from serving.metrics import Metrics
from serving.registry import Registry
from serving.settings import Settings
from serving.store import Store

log = logging.getLogger(__name__)


async def run_service(
    settings: Settings, *, stop: asyncio.Event | None = None, on_state: Callable[[str], None] | None = None
) -> None:
    """Run until `stop` is set, by default by Ctrl-C or SIGTERM.

    Raises:
        CopydeskError: the engine cannot start, Slack refuses the tokens, or a desk runs in this folder already.
    """
    stop = stop or until_signal()
    store = Store(settings.database)
    # A second one would take up the requests that the first is answering.
    taken = f"A desk runs in {settings.copydesk_home} already; end it, or set COPYDESK_HOME to another folder."
    with alone(settings.copydesk_home / "desk.lock", taken):
        await _run(settings, store, stop, on_state or _log_state)


async def _run(settings: Settings, store: Store, stop: asyncio.Event, on_state: Callable[[str], None]) -> None:
    async with ModelClient.of(settings) as client:
        checks: dict[str, Check] = {"engine": client.healthy}
        ours = not (settings.copydesk_endpoint or settings.copydesk_ray_address)
        engine = Engine(settings, store, on_state) if ours else None
        registry = Registry(store, settings.copydesk_leads)
        desk = Desk(settings, store, client, registry, checks, lambda: engine.away if engine else None)
        if settings.copydesk_endpoint:
            await _introduce(client)
        tasks = [
            asyncio.create_task(serve(desk, stop), name="bot"),
            asyncio.create_task(_scheduled(settings, store, stop), name="schedule"),
        ]
        halt = asyncio.Event()  # the engine ends after the bot, whose last drafts it writes
        engines: list[asyncio.Task[None]] = []
        if settings.copydesk_ray_address and not settings.copydesk_endpoint:
            engines.append(asyncio.create_task(_on_cluster(settings, halt), name="cluster"))
        elif engine is not None:
            checks["engine"] = lambda: _serving(engine, client)
            engines.append(asyncio.create_task(engine.run(halt), name="engine"))
        metrics = Metrics(store, lambda: engine.restarts if engine else 0)
        try:
            async with outside(settings.copydesk_metrics_port, metrics, checks):
                await asyncio.wait(tasks + engines, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Whichever ended first, the other ends in order too: drafts finished, then the engine stopped.
            stop.set()
            await asyncio.wait(tasks)
            halt.set()
            if engines:
                await asyncio.wait(engines)
        for task in tasks + engines:
            task.result()


async def _scheduled(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    await Schedule(settings, store).run(stop)
    await stop.wait()  # without rules there is nothing to do, and that is no reason to end the desk


async def _on_cluster(settings: Settings, stop: asyncio.Event) -> None:
    """Engines on a cluster outlive the desk; until they answer, requests wait."""
    fleet = await asyncio.to_thread(cluster.deploy, settings)
    log.info("%d engines answer on the cluster.", fleet.replicas)
    await stop.wait()


async def _serving(engine: Engine, client: ModelClient) -> bool:
    """Healthy is not enough: before it is ready it does not know the live version."""
    return engine.ready.is_set() and await client.healthy()


async def _introduce(client: ModelClient) -> None:
    """Say at start what an engine of somebody else's cannot do.

    Raises:
        CopydeskError: it refuses the key, or does not serve the base model; neither passes by itself.
    """
    try:
        abilities = await client.abilities()
    except EngineUnavailable as error:
        log.warning("%s Requests wait until %s is back.", error, client.endpoint)
        return
    log.info("Drafts come from %s, base model %s.", client.endpoint, abilities.base or "unknown")
    for lack, step in abilities.lacks():
        log.warning("%s: %s (%s)", client.endpoint, lack, step)


def _log_state(state: str) -> None:
    log.info("The engine is %s.", state)
