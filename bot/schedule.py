"""Rounds by themselves: every so many hours, or when enough new pairs have come, inside a window of the day.

Trainer and evaluation run as processes of their own at low priority. Two rounds never run at once: the trainer holds a
lock that goes with its process. A round that was killed is taken up again by the next one that is due to run; one that
is killed again and again, as by a machine without memory, is given up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from serving.jobs import Jobs
from serving.processes import log_of, round_module, start_module
from serving.records import Round
from serving.settings import Settings
from serving.store import Store

LOOK_S = 20.0
POLL_S = 0.5
NICENESS = 10
PAUSE = timedelta(minutes=10)  # after a round or an evaluation that failed
MOST_TRIES = 3  # of a round that comes no further, before a person has to look
PATIENCE_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """When to train.

    Attributes:
        hours: between the starts of two rounds; 0 does not go by the clock.
        pairs: new ones that make a round worth it; 0 does not count them.
        window: first and last minute of the day in local time, past midnight where the first is the later one.
    """

    hours: float = 0.0
    pairs: int = 0
    window: tuple[time, time] | None = None

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        begin, _, end = settings.copydesk_round_window.partition("-")
        window = (time.fromisoformat(begin), time.fromisoformat(end)) if end else None
        return cls(settings.copydesk_round_hours, settings.copydesk_round_pairs, window)

    @property
    def any(self) -> bool:
        return bool(self.hours or self.pairs)

    def open_at(self, moment: time) -> bool:
        if self.window is None:
            return True
        begin, end = self.window
        return begin <= moment < end if begin <= end else moment >= begin or moment < end


def due(now: datetime, last_round: datetime | None, new_pairs: int, rules: Rules) -> bool:
    """Should a round start?

    Args:
        now: in local time.
        last_round: when the newest round started, however it ended; None before the first.
        new_pairs: since then. Without any a round would make the same version again.
    """
    if not new_pairs or not rules.open_at(now.time()):
        return False
    waited = last_round is None or now - last_round >= timedelta(hours=rules.hours)
    return bool((rules.hours and waited) or (rules.pairs and new_pairs >= rules.pairs))


class Schedule:
    """Starts what is due.

    Args:
        now: the clock, in local time with its zone.
    """

    def __init__(
        self, settings: Settings, store: Store, now: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone()
    ) -> None:
        self._settings = settings
        self._store = store
        self._jobs = Jobs(store)
        self._now = now
        self._rules = Rules.of(settings)
        self._not_before = now()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; a round that is under way then goes on at the next start."""
        while self._rules.any and not stop.is_set():
            try:
                await self.look(stop)
            except Exception:
                # A round can wait; the desk, which this task's end would end, cannot.
                log.exception("The schedule stumbled and looks again in %.0f s.", LOOK_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)

    async def look(self, stop: asyncio.Event) -> None:
        """Do what is due now: end or begin a round and score its version, or score one that was not yet."""
        if self._now() < self._not_before:
            return
        for module in await asyncio.to_thread(self._due):
            if not await self._finished(module, stop):
                self._not_before = self._now() + PAUSE
                return

    def _due(self) -> tuple[str, ...]:
        if self._jobs.running() or not self._rules.open_at(self._now().time()):
            return ()
        rounds, versions = self._store.rounds(), self._store.versions()
        last = rounds[0] if rounds else None
        new = self._jobs.new_pairs(last.started_at if last else "")
        interrupted = self._jobs.interrupted()
        if interrupted and self._given_up(interrupted):
            return ()
        if interrupted or due(self._now(), _start_of(last), new, self._rules):
            return round_module(self._settings), "evals"
        return ("evals",) if versions and self._store.unscored_languages(versions[0].name) else ()

    def _given_up(self, round: Round) -> bool:
        """End a round whose processes were killed again and again without getting any further."""
        job = self._jobs.job(round.id)
        if job is None or job.tries < MOST_TRIES:
            return False
        where = log_of(self._settings, round_module(self._settings))
        self._store.fail_round(
            round.id,
            f"its process was killed {job.tries} times at about the same place, most often a sign of too little free "
            f"memory; see {where}, then: copydesk round run",
        )
        return True

    async def _finished(self, module: str, stop: asyncio.Event) -> bool:
        """Run `python -m module run` to its end; False when it failed or was stopped."""
        process = await asyncio.to_thread(start_module, self._settings, module, "run")
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        log.info("The schedule started %s run; its log is %s.", module, log_of(self._settings, module))
        while process.poll() is None and not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_S)
        if process.poll() is None:
            await asyncio.to_thread(_end, process)
            return False
        if process.returncode:
            log.warning(
                "%s run ended with %d; its log is %s.", module, process.returncode, log_of(self._settings, module)
            )
        return process.returncode == 0


def _start_of(round: Round | None) -> datetime | None:
    return datetime.fromisoformat(round.started_at) if round else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
