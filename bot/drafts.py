"""Brief in, streamed draft out: exactly one answer for each accepted request, whatever is killed in between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat

from aiohttp import ClientError
from slack_bolt.context.ack.async_ack import AsyncAck
from slack_sdk.errors import SlackApiError

from bot.blocks import JSON, draft_blocks, draft_footer, note_blocks
from bot.marks import metadata, payload_of
from bot.office import Office
from bot.refusals import code_of
from bot.replies import Place, Reply, Streaming
from bot.texts import Words
from serving.canary import Canaries
from serving.client import Completion, EngineUnavailable, Sampling
from serving.handover import Away
from serving.lengths import tokens_for
from serving.logs import about
from serving.prompt import task_messages
from serving.records import Brief, CopydeskError, Draft, Request, Task
from serving.store import BASE

log = logging.getLogger(__name__)

AT_ONCE = 8  # drafts being written; the others wait their turn
DRAIN_S = 20.0  # a draft takes 2 to 10 s; what is not done by then is taken up at the next start
LONGEST_PAUSE_S = 5.0
AWAY_S = 1.0
PAUSES_S = (1, 5, 20, 60, 300)  # after a failure of Slack's or the disk's; the last again and again
SAMPLING = Sampling(temperature=0.7)
NOTE, DRAFT = "note", "draft"

# Slack's codes for a conversation that the bot cannot write in.
CLOSED_TO_US = ("channel_not_found", "not_in_channel", "is_archived", "restricted_action", "thread_not_found")


class Drafts:
    def __init__(self, office: Office) -> None:
        self._office = office
        self._store = office.store
        self._canaries = Canaries(office.store, office.desk.registry)
        self._slack = office.slack
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._streaming = Streaming()
        self._adopted: set[str] = set()
        self._running: set[int] = set()
        self._replies: set[Reply] = set()
        self._idle = asyncio.Event()
        self._leaving = False

    async def accept(self, task: Task, *, user: str, channel: str, thread_ts: str, event_id: str) -> bool:
        """Store a brief and begin its draft. False when the event was seen before.

        Args:
            thread_ts: "" opens a thread of its own.
        """
        request = await asyncio.to_thread(
            self._store.add_request,
            task,
            user=user,
            channel=channel,
            thread_ts=thread_ts,
            locale=await self._office.locales.language(user),
            event_id=event_id,
        )
        if request is not None:
            self._office.work.start(self._see_through(request))
        return request is not None

    async def again(self, ack: AsyncAck, body: JSON) -> None:
        """The button "Try again": one more draft of the same brief."""
        action, user, channel = body["actions"][0], body["user"]["id"], body["channel"]["id"]
        draft = await asyncio.to_thread(self._store.draft, int(action["value"]))
        thread_ts = body["container"].get("thread_ts") or await self._office.thread_of(channel, draft.ts)
        request = await asyncio.to_thread(
            self._store.add_another_request,
            draft.brief_id,
            user=user,
            channel=channel,
            thread_ts=thread_ts,
            locale=await self._office.locales.language(user),
            event_id=f"{body['trigger_id']}:{action['action_ts']}",
        )
        await ack()
        if request is not None:
            self._office.work.start(self._see_through(request, note=False))

    async def stopped(self, event: JSON) -> None:
        """Somebody pressed Stop: a draft ends with what is written. That the session rests is for us to say."""
        for reply in self._replies:
            if reply.ts in (event.get("streaming_message_ts") or ()):
                reply.stopped = True
        with contextlib.suppress(SlackApiError):
            await self._slack.agents_sessions_setStatus(
                channel_id=event["channel"], thread_ts=event.get("thread_ts"), status="active"
            )

    async def left(self) -> list[Request]:
        """What a killed process left: requests without an answer, and answers that nobody saw whole.

        Read it before Slack is heard: whatever is accepted from then on is begun by its listener.
        """
        return await asyncio.to_thread(self._store.waiting_requests)

    def resume(self, left: Iterable[Request]) -> None:
        for request in left:
            self._office.work.start(self._see_through(request, resumed=True))

    async def drain(self) -> None:
        """Let the drafts under way come to their end, a while at most. New requests stay rows for the next start."""
        self._leaving = True
        if self._running:
            log.info("%d drafts are finished before the end.", len(self._running))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), DRAIN_S)

    @contextlib.asynccontextmanager
    async def _turn(self, request: Request) -> AsyncIterator[None]:
        """One of the drafts at once. Before the end nobody gets a turn any more, and the row waits."""
        async with self._turns:
            if self._leaving and request.id not in self._running:
                await asyncio.Event().wait()  # until the process ends
            self._running.add(request.id)
            self._idle.clear()
            yield

    def _ended(self, request: Request) -> None:
        self._running.discard(request.id)
        if not self._running:
            self._idle.set()

    async def _see_through(self, request: Request, *, resumed: bool = False, note: bool = True) -> None:
        """Answer, however long Slack or the disk fail meanwhile."""
        about(request=request.id, channel=request.channel, ts=request.thread_ts)
        for pause in chain(PAUSES_S, repeat(PAUSES_S[-1])):
            try:
                if resumed:
                    request = await asyncio.to_thread(self._store.request, request.id)
                return await self._answer(request, resumed=resumed, note=note)
            except (SlackApiError, ClientError, OSError, TimeoutError, CopydeskError, sqlite3.Error) as error:
                log.warning("Request %d goes on in %d s: %s", request.id, pause, error)
            resumed = True
            await asyncio.sleep(pause)

    async def _answer(self, request: Request, *, resumed: bool = False, note: bool = True) -> None:
        words = Words(request.locale)
        brief = await asyncio.to_thread(self._store.brief, request.brief_id)
        try:
            thread_ts = await self._note(request, brief, words, resumed=resumed, note=note)
            about(ts=thread_ts)  # the answer to a command opened its thread just now
            reply = await self._reply(request, thread_ts, resumed=resumed)
            self._replies.add(reply)
            try:
                draft = await asyncio.to_thread(self._store.draft_of, request.id)
                draft = draft or await self._write(request, brief, reply, words)
                if draft is not None:
                    about(draft=draft.id, version=draft.version)
                    await reply.finish(draft.text, draft_blocks(draft, brief, words), draft_footer(draft, brief, words))
                    await asyncio.to_thread(self._store.close_request, request.id)
                    log.info("Request %d is answered, written in %.1f s.", request.id, draft.total_s)
            finally:
                self._ended(request)
                self._replies.discard(reply)
                reply.leave()
        except SlackApiError as error:
            if code_of(error) not in CLOSED_TO_US:
                raise
            await asyncio.to_thread(self._store.fail_request, request.id)
            await self._slack.chat_postMessage(
                channel=request.user,
                text=words("cannot_write_there", channel=request.channel),
                metadata=metadata("notice"),
            )

    async def _note(self, request: Request, brief: Brief, words: Words, *, resumed: bool, note: bool) -> str:
        """Say once what was understood; where the request has no thread yet, the note opens it."""
        if resumed and (existing := await self._find_note(request)):
            return request.thread_ts or await self._hang_under(request, existing)
        # A repeated request has a note from its first time.
        if request.thread_ts and (not note or (resumed and await self._has_drafts(brief))):
            return request.thread_ts
        asker = "" if request.thread_ts else request.user
        blocks = note_blocks(brief, words, asker=asker)
        answer = await self._slack.chat_postMessage(
            channel=request.channel,
            thread_ts=request.thread_ts or None,
            text=blocks[0]["text"]["text"][:3900],
            blocks=blocks,
            metadata=metadata(NOTE, request=request.id),
            unfurl_links=False,
            unfurl_media=False,
        )
        if request.thread_ts:
            return request.thread_ts
        return await self._hang_under(request, str(answer["ts"]))

    async def _hang_under(self, request: Request, ts: str) -> str:
        await asyncio.to_thread(self._store.set_thread, request.id, ts)
        return ts

    async def _has_drafts(self, brief: Brief) -> bool:
        return any(draft.brief_id == brief.id for draft in await asyncio.to_thread(self._store.drafts))

    async def _find_note(self, request: Request) -> str | None:
        if request.thread_ts:
            messages = await self._thread(request.channel, request.thread_ts)
        else:
            answer = await self._slack.conversations_history(
                channel=request.channel, limit=200, include_all_metadata=True
            )
            messages = answer["messages"]
        return next((m["ts"] for m in messages if _is_about(m, NOTE, request)), None)

    async def _thread(self, channel: str, thread_ts: str) -> list[JSON]:
        messages: list[JSON] = []
        async for page in await self._slack.conversations_replies(
            channel=channel, ts=thread_ts, limit=200, include_all_metadata=True
        ):
            messages += page["messages"]
        return messages

    async def _reply(self, request: Request, thread_ts: str, *, resumed: bool) -> Reply:
        ts = request.reply_ts
        if resumed and ts is None:
            ts = await self._find_reply(request, thread_ts)
        identity = await self._office.identity()

        async def record(ts: str) -> None:
            await asyncio.to_thread(self._store.set_reply, request.id, ts)

        place = Place(request.channel, thread_ts, request.user, identity.team)
        reply = Reply(self._slack, self._streaming, place, metadata(DRAFT, request=request.id), record, ts)
        if ts is not None:
            await record(ts)
            await reply.close_stream()
        return reply

    async def _find_reply(self, request: Request, thread_ts: str) -> str | None:
        """The message that a killed process began and had no time to record: it names the request, or nothing at all,
        as only a stream does whose process ended before the stream."""
        me = (await self._office.identity()).user
        own = [
            m for m in await self._thread(request.channel, thread_ts) if m.get("user") == me and m["ts"] != thread_ts
        ]
        for message in own:
            if _is_about(message, DRAFT, request):
                return str(message["ts"])
        known = await asyncio.to_thread(self._store.known_replies, request.channel)
        for message in reversed(own):
            ts = str(message["ts"])
            if not message.get("metadata") and ts not in known | self._adopted:
                self._adopted.add(ts)
                return ts
        return None

    async def _write(self, request: Request, brief: Brief, reply: Reply, words: Words) -> Draft | None:
        """Generate and store, however often the engine goes away meanwhile. None when the person was told why not."""
        pause = 0.25
        while True:
            try:
                async with self._turn(request):
                    version, completion = await self._complete(brief, reply, request.user)
                break
            except EngineUnavailable as error:
                log.warning("Request %d waits for the engine: %s", request.id, error)
                if self._office.desk.away():
                    await self._until_back(reply, words)
                    continue
                await reply.say(words("engine_restarting"))
            except CopydeskError as error:
                if error.code == "not_saved":  # the desk's fault and not the brief's: it is tried again
                    await reply.say(words("not_saved"))
                    raise
                log.warning("Request %d got no draft: %s", request.id, error)
                await self._give_up(request, reply, words("no_draft", detail=words.of(error)))
                return None
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)
        if not completion.text:
            await self._give_up(request, reply, words("empty_draft"))
            return None
        # The message must exist before the draft's row names it; a short copy may be quicker than its first show.
        ts = reply.ts or await self._open(reply, completion.text)
        try:
            return await asyncio.to_thread(
                self._store.answer,
                request.id,
                version=version,
                text=completion.text,
                ts=ts,
                prompt_tokens=completion.prompt_tokens,
                completion_tokens=completion.completion_tokens,
                first_token_s=completion.first_token_s,
                total_s=completion.total_s,
            )
        except (CopydeskError, sqlite3.Error):
            await reply.say(words("not_saved"))
            raise

    async def _until_back(self, reply: Reply, words: Words) -> None:
        """While a round has the engine's memory: say when the draft comes, and again where that was wrong."""
        said, due = False, None
        while away := self._office.desk.away():
            now = datetime.now(UTC)
            if not said or (away.back and (due is None or due < now)):
                await reply.say(away_text(away, now, words))
                said, due = True, away.back and max(away.back, now + timedelta(minutes=1))
            await asyncio.sleep(AWAY_S)

    async def _open(self, reply: Reply, text: str) -> str:
        await reply.show(text)
        assert reply.ts is not None
        return reply.ts

    async def _complete(self, brief: Brief, reply: Reply, user: str) -> tuple[str, Completion]:
        """Let the live version write, or the candidate for who tries it; once more if it says nothing."""
        client = self._office.desk.client
        if self._office.desk.away():  # also for who waited for a turn meanwhile
            raise EngineUnavailable("A round has its memory.")
        version = await asyncio.to_thread(self._canaries.version_for, user)
        try:
            await self._load(version)
        except EngineUnavailable:
            raise
        except CopydeskError as error:
            live = await asyncio.to_thread(self._store.live)
            if version == live:
                raise
            log.warning("The candidate cannot write, the live version does: %s", error)
            version = live
            await self._load(version)
        sampling = replace(SAMPLING, max_tokens=tokens_for(brief.task))
        completion: Completion | None = None
        for _ in range(2):
            completion, text, began = None, "", time.monotonic()
            async for part in client.stream(task_messages(brief.task), version, sampling):
                if isinstance(part, Completion):
                    completion = part
                else:
                    text = (text + part.text).lstrip()
                    await reply.show(text)
                if reply.stopped and text:
                    seconds = time.monotonic() - began
                    completion = completion or Completion(text.rstrip(), version, 0, 0, None, seconds, "stopped")
                    break
            assert completion is not None
            if completion.text:
                break
        assert completion is not None
        return version, completion

    async def _load(self, version: str) -> None:
        if version != BASE:
            await self._office.desk.client.ensure_loaded(await asyncio.to_thread(self._store.version, version))

    async def _give_up(self, request: Request, reply: Reply, text: str) -> None:
        await reply.say(text)
        await asyncio.to_thread(self._store.fail_request, request.id)


def away_text(away: Away, now: datetime, words: Words) -> str:
    if away.back is None:
        return words("engine_learning")
    return words("engine_learning_left", left=words.left((away.back - now).total_seconds()))


def _is_about(message: JSON, kind: str, request: Request) -> bool:
    payload = payload_of(message)
    return payload.get("kind") == kind and payload.get("request") == request.id
