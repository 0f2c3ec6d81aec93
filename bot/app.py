"""The bot: every listener in one list, and its life on the socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientError
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
    AsyncServerErrorRetryHandler,
)
from slack_sdk.web.async_client import AsyncWebClient

from bot import approvals, blocks, briefs, corrections, doctor, grading, rounds, scorecards
from bot.announcements import Announcements
from bot.approvals import Approvals
from bot.briefs import Briefs
from bot.canary import Trials
from bot.corrections import Corrections
from bot.drafts import Drafts
from bot.extensions import Extending
from bot.grading import Grading
from bot.home import Home
from bot.office import JSON, Desk, Office, RefusalError
from bot.ratings import Ratings
from bot.refusals import code_of
from bot.rounds import Rounds
from serving.records import CopydeskError

__all__ = ["Bot", "Desk", "build_app", "serve"]

ANNOUNCE_S = 2.0
ROUNDS_S = 5.0
TRIALS_S = 10.0
WATCH_S = 10.0
RETRIES = 5

log = logging.getLogger(__name__)

Listener = Callable[..., Awaitable[Any]]


def slack_client(token: str, api_url: str) -> AsyncWebClient:
    """A client that waits when Slack says so and tries again when the line or the server fails."""
    handlers = [
        AsyncConnectionErrorRetryHandler(max_retry_count=2),
        AsyncRateLimitErrorRetryHandler(max_retry_count=RETRIES),
        AsyncServerErrorRetryHandler(max_retry_count=2),
    ]
    base_url = api_url if api_url.endswith("/") else api_url + "/"
    return AsyncWebClient(token=token, base_url=base_url, retry_handlers=handlers)


class Bot:
    def __init__(self, desk: Desk) -> None:
        self.office = Office(desk, slack_client(desk.settings.slack_bot_token, desk.settings.slack_api_url))
        self.drafts = Drafts(self.office)
        self.announcements = Announcements(self.office)
        self.approvals = Approvals(self.office, self.announcements)
        self.rounds = Rounds(self.office)
        self.extending = Extending(self.office, self.announcements)
        self.trials = Trials(self.office, self.announcements)
        # A listener ends before Slack is answered: what was acknowledged is stored, and what was not comes again.
        self.app = AsyncApp(client=self.office.slack, process_before_response=True)
        for listen, listener in self._listeners():
            listen(listener)
        self.app.error(self._failed)

    def _listeners(self) -> list[tuple[Callable[[Listener], Any], Listener]]:
        app, a = self.app, self.approvals
        asked = Briefs(self.office, self.drafts)
        rated = Ratings(self.office)
        corrected = Corrections(self.office)
        home = Home(self.office)
        graded = Grading(self.office, self.announcements)
        return [
            (app.event("app_mention"), asked.mentioned),
            (app.event("message"), asked.said),
            (app.event("app_home_opened"), home.opened),
            (app.event("reaction_added"), rated.reacted),
            (app.event("reaction_removed"), rated.reacted),
            (app.event("agent_session_stopped"), self.drafts.stopped),
            (app.command("/copy"), asked.command),
            (app.action(blocks.ASK), asked.form),
            (app.action(blocks.CHANGE), asked.change),
            (app.view(briefs.ASK_VIEW), asked.submitted),
            (app.action(blocks.FEEDBACK), rated.pressed),
            (app.action(re.compile(rf"^{blocks.REASON}:")), rated.reasoned),
            (app.action(blocks.CORRECT), corrected.pressed),
            (app.shortcut(corrections.SHORTCUT), corrected.chosen),
            (app.view(corrections.CORRECT_VIEW), corrected.submitted),
            (app.action(blocks.AGAIN), self.drafts.again),
            (app.action(scorecards.APPROVE), a.approve_pressed),
            (app.action(scorecards.REJECT), a.reject_pressed),
            (app.action(scorecards.ROLL_BACK), a.roll_back_pressed),
            (app.action(rounds.CANCEL_ROUND), self.rounds.cancel_pressed),
            (app.view(approvals.APPROVE_VIEW), a.approved),
            (app.view(approvals.REJECT_VIEW), a.rejected),
            (app.action(scorecards.GRADE), graded.grade_pressed),
            (app.action(scorecards.COMPARE), graded.compare_pressed),
            (app.action(re.compile(rf"^{grading.ANSWER}:")), graded.answered),
            (app.action(grading.BACK), graded.back_pressed),
            (app.action(scorecards.CLOSE_VOTES), graded.close_pressed),
            (app.action(scorecards.MORE), self.extending.pressed),
            (app.action(scorecards.TRY), self.trials.try_pressed),
            (app.action(scorecards.END_TRIAL), self.trials.end_pressed),
        ]

    async def _failed(self, error: Exception, body: JSON) -> BoltResponse | None:
        """Tell the person what to do and the log what happened."""
        if not isinstance(error, CopydeskError | SlackApiError):
            # Not acknowledged: an event comes again, a press shows Slack's own warning.
            log.error("A listener failed on %s", body.get("type") or body.get("command"), exc_info=error)
            await self._apologise(body, RefusalError("unexpected"))
            return None
        if isinstance(error, CopydeskError) and error.code:
            log.info("Refused: %s", error)
        else:
            log.warning("A listener could not do its work: %s", error)
        if isinstance(error, SlackApiError):
            error = CopydeskError(f"Slack: {code_of(error)}")
        await self._apologise(body, error)
        return BoltResponse(status=200)

    async def _apologise(self, body: JSON, error: CopydeskError) -> None:
        event = body.get("event") or {}
        user = (body.get("user") or {}).get("id") or body.get("user_id") or event.get("user")
        if not user:
            return
        item = event.get("item") or {}
        channel = (body.get("channel") or {}).get("id") or body.get("channel_id") or event.get("channel")
        channel = channel or item.get("channel")
        words = await self.office.locales.words(user)
        thread_ts = (body.get("container") or {}).get("thread_ts") or event.get("thread_ts")
        try:
            if channel:
                await self.office.whisper(channel, user, words.of(error), thread_ts=thread_ts)
            else:
                await self.office.slack.chat_postMessage(channel=user, text=words.of(error))
        except SlackApiError as refused:
            log.warning("%s could not be told: %s", user, code_of(refused))


def build_app(desk: Desk) -> AsyncApp:
    return Bot(desk).app


async def serve(desk: Desk, stop: asyncio.Event) -> None:
    """Hold the socket until `stop` is set.

    Raises:
        CopydeskError: Slack refuses the tokens, or cannot be reached.
    """
    bot = Bot(desk)
    try:
        await bot.office.identity()
        requests, extensions = await bot.drafts.left(), await bot.extending.left()
        handler = AsyncSocketModeHandler(bot.app, desk.settings.slack_app_token)
        await handler.connect_async()  # type: ignore[no-untyped-call]
        desk.checks["slack"] = handler.client.is_connected
    except SlackApiError as error:
        raise CopydeskError(
            f"Slack refuses the tokens ({code_of(error)}); check SLACK_BOT_TOKEN and SLACK_APP_TOKEN."
        ) from error
    except (ClientError, OSError) as error:
        url = desk.settings.slack_api_url
        raise CopydeskError(f"Slack cannot be reached at {url} ({error}); check the network.") from error
    finding = await doctor.channel(bot.office.slack, desk.settings.copydesk_channel)
    if not finding.ok:
        log.warning("Scorecards cannot be posted: %s; %s.", finding.found, finding.next_step)
    loops = [
        asyncio.create_task(_every(ANNOUNCE_S, bot.announcements.announce_new)),
        asyncio.create_task(_every(ANNOUNCE_S, bot.approvals.tell)),
        asyncio.create_task(_every(ROUNDS_S, bot.rounds.show)),
        asyncio.create_task(_every(TRIALS_S, bot.trials.show)),
        asyncio.create_task(_every(WATCH_S, lambda: _watch(handler, bot.office.slack))),
    ]
    try:
        bot.drafts.resume(requests)
        bot.extending.resume(extensions)
        await bot.announcements.catch_up()
        await stop.wait()
        await bot.drafts.drain()
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await handler.close_async()  # type: ignore[no-untyped-call]
        await bot.office.work.close()


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except (CopydeskError, SlackApiError, ClientError, OSError, TimeoutError) as error:
            log.warning("Another try in %.0f s: %s", seconds, error)
        except Exception:
            # Nobody waits for this task: its end would be the silence of scorecards and rounds until the next start.
            log.exception("Another try in %.0f s.", seconds)
        await asyncio.sleep(seconds)


async def _watch(handler: AsyncSocketModeHandler, slack: AsyncWebClient) -> None:
    """A socket can go silent after a reconnect without an error; ask it, and Slack, now and then."""
    await slack.auth_test()
    if not await handler.client.is_connected():
        log.warning("The socket is down; connecting again.")
        with contextlib.suppress(ClientError):
            await handler.client.connect_to_new_endpoint()
