"""👍 and 👎: the buttons under a draft, reactions on it, and why a 👎."""

from __future__ import annotations

import asyncio

from slack_bolt.context.ack.async_ack import AsyncAck
from slack_bolt.context.respond.async_respond import AsyncRespond

from bot.blocks import JSON, reason_blocks
from bot.office import Office, RefusalError
from serving.records import CopydeskError, RatingSource, Verdict

REACTIONS = {"+1": Verdict.UP, "thumbsup": Verdict.UP, "-1": Verdict.DOWN, "thumbsdown": Verdict.DOWN}


def verdict_of(reaction: str) -> Verdict | None:
    """What a reaction says; its skin tone ("+1::skin-tone-3") says nothing."""
    return REACTIONS.get(reaction.split("::")[0])


class Ratings:
    def __init__(self, office: Office) -> None:
        self._office = office
        self._store = office.store

    async def pressed(self, ack: AsyncAck, body: JSON) -> None:
        verdict, draft_id = body["actions"][0]["value"].split(":")
        channel, user, container = body["channel"]["id"], body["user"]["id"], body["container"]
        # The same press may come twice: the last rating of a person counts, so that storing it again changes nothing.
        await self._rate(int(draft_id), user, Verdict(verdict), RatingSource.BUTTON)
        await ack()
        thread_ts = container.get("thread_ts") or container["message_ts"]
        event = f"{body['trigger_id']}:{body['actions'][0]['action_ts']}"
        self._office.work.start(self._thank(int(draft_id), user, channel, thread_ts, Verdict(verdict), event))

    async def reacted(self, event: JSON, body: JSON) -> None:
        verdict, item = verdict_of(event["reaction"]), event["item"]
        if verdict is None or item.get("type") != "message":
            return
        draft = await asyncio.to_thread(self._store.draft_at, item["channel"], item["ts"])
        if draft is None:
            return
        user, channel = event["user"], item["channel"]
        if event["type"] == "reaction_removed":
            await asyncio.to_thread(self._store.unrate, draft.id, user, verdict)
            return
        await self._rate(draft.id, user, verdict, RatingSource.REACTION)
        if verdict is Verdict.DOWN:
            thread_ts = await self._office.thread_of(channel, draft.ts)
            self._office.work.start(self._thank(draft.id, user, channel, thread_ts, verdict, body["event_id"]))

    async def _rate(self, draft_id: int, user: str, verdict: Verdict, source: RatingSource) -> None:
        try:
            await asyncio.to_thread(self._store.draft, draft_id)
        except CopydeskError as error:
            raise RefusalError("draft_gone") from error
        await asyncio.to_thread(self._store.rate, draft_id, user, verdict, source)

    async def _thank(
        self, draft_id: int, user: str, channel: str, thread_ts: str, verdict: Verdict, event: str
    ) -> None:
        """Ask once why after a 👎, say once thanks after a 👍; only the person sees it."""
        if not await asyncio.to_thread(self._store.first_sight, f"thanks:{event}"):
            return
        words = await self._office.locales.words(user)
        if verdict is Verdict.UP:
            await self._office.whisper(channel, user, words("thanks_up"), thread_ts=thread_ts)
        else:
            blocks = reason_blocks(draft_id, words)
            await self._office.whisper(channel, user, words("why_down"), thread_ts=thread_ts, blocks=blocks)

    async def reasoned(self, ack: AsyncAck, respond: AsyncRespond, body: JSON) -> None:
        action, user = body["actions"][0], body["user"]["id"]
        reason = action["action_id"].split(":")[1]
        words = await self._office.locales.words(user)
        try:
            await asyncio.to_thread(self._store.set_reason, int(action["value"]), user, reason)
        except CopydeskError as error:
            raise RefusalError("no_rating") from error
        await ack()
        await respond(words("reason_noted", reason=words(f"reason_{reason}")), replace_original=True)
