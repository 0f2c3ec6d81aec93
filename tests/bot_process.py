"""The bot as a process of its own, to be killed. Run: python tests/bot_process.py"""

from __future__ import annotations

import asyncio

from bot.app import Desk, serve
from serving.client import ModelClient
from serving.engine import until_signal
from serving.registry import Registry
from serving.settings import read_settings
from serving.store import Store


async def main() -> None:
    settings = read_settings()
    store = Store(settings.database)
    async with ModelClient(settings.endpoint) as client:
        await serve(Desk(settings, store, client, Registry(store, settings.copydesk_leads)), until_signal())


asyncio.run(main())
