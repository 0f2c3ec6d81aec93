"""A thousand requests at once before a double of the engine: what became of them, in JSON. Run: make bench-crowd"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

import psutil
from bot_world import BRIEF, world

CROWD = 1000
LONGEST_S = 400
MIB = 1 << 20


async def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        async with world(Path(home)) as it:
            memory = psutil.Process().memory_info
            before = most = memory().rss
            started = time.monotonic()
            await asyncio.gather(*(it.anna.mention("C_COPY", f"{BRIEF} {number}") for number in range(CROWD)))
            while len(it.store.rows("SELECT id FROM requests")) < CROWD or it.store.waiting_requests():
                most = max(most, memory().rss)
                if time.monotonic() - started > LONGEST_S:
                    break
                await asyncio.sleep(0.5)
            rows = it.store.rows(
                "SELECT r.state, r.created_at AS asked, d.created_at AS done, d.total_s, d.first_token_s"
                " FROM requests r LEFT JOIN drafts d ON d.request_id = r.id"
            )
            drafts = [row for row in rows if row["done"]]
            waited = [_seconds(row["asked"], row["done"]) - row["total_s"] + row["first_token_s"] for row in drafts]
            states = [row["state"] for row in rows]
            print(
                json.dumps(
                    {
                        "sent": CROWD,
                        "accepted": len(rows),
                        "states": {state: states.count(state) for state in sorted(set(states))},
                        "first_token_p50_s": round(statistics.median(waited), 1),
                        "first_token_p99_s": round(statistics.quantiles(waited, n=100)[98], 1),
                        "engine_first_token_p99_ms": round(
                            statistics.quantiles([row["first_token_s"] for row in drafts], n=100)[98] * 1000
                        ),
                        "rss_before_mib": before // MIB,
                        "rss_most_mib": most // MIB,
                        "rss_after_mib": memory().rss // MIB,
                        "seconds": round(time.monotonic() - started, 1),
                    }
                )
            )


def _seconds(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


if __name__ == "__main__":
    asyncio.run(main())
