"""👍 and 👎: the buttons under a draft, reactions on it, and why a 👎."""

from __future__ import annotations

import asyncio

from slack_bolt.context.ack.async_ack import AsyncAck
from slack_bolt.context.respond.async_respond import AsyncRespond

from bot.blocks import JSON, reason_blocks
from bot.office import Office
from serving.records import Pair, PairSource, RatingSource, Split, Verdict

REACTIONS = {"+1": Verdict.UP, "thumbsup": Verdict.UP, "-1": Verdict.DOWN, "thumbsdown": Verdict.DOWN}


def verdict_of(reaction: str) -> Verdict | None:
    """What a reaction says; its skin tone ("+1::skin-tone-3") says nothing."""
    return REACTIONS.get(reaction.split("::")[0])


def thanks_for(pair: Pair | None) -> str:
    """The sentence after a 👍, by what pair the draft is now; none where somebody else gave it a 👎."""
    if pair is None:
        return "thanks_up_disputed"
    if pair.split is Split.HELD_OUT:
        return "thanks_up_held_out"
    return "thanks_up_corrected" if pair.source is PairSource.CORRECTION else "thanks_up"


class Ratings:
    def __init__(self, office: Office) -> None:
        self._office = office
        self._store = office.store

    async def pressed(self, ack: AsyncAck, body: JSON) -> None:
        verdict, draft_id = body["actions"][0]["value"].split(":")
        channel, user, container = body["channel"]["id"], body["user"]["id"], body["container"]
        event_id = f"{body['trigger_id']}:{body['actions'][0]['action_ts']}"
        rated = await self._rate(int(draft_id), user, Verdict(verdict), RatingSource.BUTTON, event_id)
        await ack()
        if rated:
            thread_ts = container.get("thread_ts") or container["message_ts"]
            self._office.work.start(self._thank(int(draft_id), user, channel, thread_ts, Verdict(verdict)))

    async def reacted(self, event: JSON, body: JSON) -> None:
        verdict, item = verdict_of(event["reaction"]), event["item"]
        if verdict is None or item.get("type") != "message":
            return
        draft = await asyncio.to_thread(self._store.draft_at, item["channel"], item["ts"])
        if draft is None:
            return
        user, channel = event["user"], item["channel"]
        if event["type"] == "reaction_removed":
            await asyncio.to_thread(self._store.unrate, draft.id, user, verdict, body["event_id"])
            return
        rated = await self._rate(draft.id, user, verdict, RatingSource.REACTION, body["event_id"])
        if rated and verdict is Verdict.DOWN:
            thread_ts = await self._office.thread_of(channel, draft.ts)
            self._office.work.start(self._thank(draft.id, user, channel, thread_ts, verdict))

    async def _rate(self, draft_id: int, user: str, verdict: Verdict, source: RatingSource, event_id: str) -> bool:
        rating = await asyncio.to_thread(self._store.rate, draft_id, user, verdict, source, event_id=event_id)
        return rating is not None

    async def _thank(self, draft_id: int, user: str, channel: str, thread_ts: str, verdict: Verdict) -> None:
        """Thank for a 👍 and say what becomes of it, ask why after a 👎; only the person sees it."""
        words = await self._office.locales.words(user)
        if verdict is Verdict.UP:
            thanks = thanks_for(await asyncio.to_thread(self._store.pair_of, draft_id))
            await self._office.whisper(channel, user, words(thanks), thread_ts=thread_ts)
        else:
            blocks = reason_blocks(draft_id, words)
            await self._office.whisper(channel, user, words("why_down"), thread_ts=thread_ts, blocks=blocks)

    async def reasoned(self, ack: AsyncAck, respond: AsyncRespond, body: JSON) -> None:
        action, user = body["actions"][0], body["user"]["id"]
        reason = action["action_id"].split(":")[1]
        words = await self._office.locales.words(user)
        await asyncio.to_thread(self._store.set_reason, int(action["value"]), user, reason)
        await ack()
        await respond(words("reason_noted", reason=words(f"reason_{reason}")), replace_original=True)
