"""Judgements that nobody made, to compare recipes where there are no people's yet.

The base model writes a draft for starter briefs, and each draft is "corrected" to its starter text by the user
SYNTHETIC. So every correction is large and goes the same way, which people's are not. Run on an empty desk:
COPYDESK_HOME=var/recipes python tests/synthetic_judgements.py --language en --count 115
"""

from __future__ import annotations

import argparse
import asyncio

from serving.client import Completion, ModelClient, Sampling
from serving.engine import Engine
from serving.exchange import starter_pairs
from serving.prompt import task_messages
from serving.records import Split
from serving.settings import read_settings
from serving.store import BASE, NewPair, Store, split_of

USER = "SYNTHETIC"
SAMPLING = Sampling(temperature=0.7, max_tokens=160)
IN_FLIGHT = 24


async def judge(store: Store, client: ModelClient, pair: NewPair) -> None:
    """One draft by the base model and its correction."""
    request = store.add_request(pair.task, user=USER, channel=USER, thread_ts="", locale=pair.task.language)
    assert request is not None
    *_, done = [part async for part in client.stream(task_messages(pair.task), BASE, SAMPLING)]
    assert isinstance(done, Completion)
    draft = store.answer(
        request.id,
        version=BASE,
        text=done.text,
        ts=f"{request.id}",
        prompt_tokens=done.prompt_tokens,
        completion_tokens=done.completion_tokens,
        first_token_s=done.first_token_s,
        total_s=done.total_s,
    )
    store.close_request(request.id)
    store.add_correction(draft.id, USER, pair.output)


async def main(language: str, count: int) -> None:
    settings = read_settings()
    store = Store(settings.database)
    pairs = [pair for pair in starter_pairs(language) if split_of(pair.task) is Split.TRAIN][:count]
    done = {pair.output for pair in store.pairs()}  # a run that was stopped goes on
    pairs = [pair for pair in pairs if pair.output.strip() not in done]
    engine, stop, slots = Engine(settings, store), asyncio.Event(), asyncio.Semaphore(IN_FLIGHT)
    running = asyncio.create_task(engine.run(stop))
    await engine.wait_ready()

    async def one(pair: NewPair) -> None:
        async with slots:
            await judge(store, client, pair)

    async with ModelClient.of(settings) as client:
        await asyncio.gather(*map(one, pairs))
    stop.set()
    await running
    print(f"{len(store.corrections())} drafts with corrections by {USER}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--language", default="en")
    parser.add_argument("--count", type=int, default=115)
    given = parser.parse_args()
    asyncio.run(main(given.language, given.count))
