"""The desk as a whole: the engine beside the bot, from start to an orderly end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bot.app import Desk, serve
from serving.client import ModelClient
from serving.engine import Engine, until_signal
from serving.registry import Registry
from serving.settings import Settings
from serving.store import Store

log = logging.getLogger(__name__)


async def run_service(
    settings: Settings, *, stop: asyncio.Event | None = None, on_state: Callable[[str], None] | None = None
) -> None:
    """Run until `stop` is set, by default by Ctrl-C or SIGTERM.

    Raises:
        CopydeskError: the engine cannot start, or Slack refuses the tokens.
    """
    stop = stop or until_signal()
    store = Store(settings.database)
    async with ModelClient(settings.endpoint) as client:
        desk = Desk(settings, store, client, Registry(store, settings.copydesk_leads))
        tasks = [asyncio.create_task(serve(desk, stop), name="bot")]
        if settings.copydesk_endpoint:
            log.info("Drafts come from %s; adapters must be loadable there.", settings.copydesk_endpoint)
        else:
            engine = Engine(settings, store, on_state or _log_state)
            tasks.append(asyncio.create_task(engine.run(stop), name="engine"))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Whichever ended first, the other ends in order too: streams closed, the engine stopped.
            stop.set()
            await asyncio.wait(tasks)
        for task in tasks:
            task.result()


def _log_state(state: str) -> None:
    log.info("The engine is %s.", state)
