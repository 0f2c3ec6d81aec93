"""Run the workspace by itself: python -m bot.sandbox --port 8765"""

from __future__ import annotations

import argparse
import asyncio
import sys

from bot.sandbox.server import Sandbox
from serving.records import CopydeskError


async def serve(port: int, streaming: bool, app_token: str | None, bot_token: str | None) -> None:
    async with Sandbox(port, streaming=streaming, app_token=app_token, bot_token=bot_token) as sandbox:
        print(f"The workspace is open at {sandbox.url}. For the app:", flush=True)
        print(f"export SLACK_API_URL={sandbox.api_url}", flush=True)
        print(f"export SLACK_APP_TOKEN={sandbox.app_token}", flush=True)
        print(f"export SLACK_BOT_TOKEN={sandbox.bot_token}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bot.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 takes any free one")
    parser.add_argument("--no-streaming", action="store_true", help="a workspace without chat.startStream")
    parser.add_argument("--app-token", help="instead of a fresh one")
    parser.add_argument("--bot-token", help="instead of a fresh one")
    given = parser.parse_args()
    try:
        asyncio.run(serve(given.port, not given.no_streaming, given.app_token, given.bot_token))
    except CopydeskError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("The workspace is closed; nothing of it is kept.")


if __name__ == "__main__":
    main()
