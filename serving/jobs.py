"""A round while it runs and what it left out: progress, the wish to cancel it, exclusions, who is at work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

import psutil

from serving.processes import lives
from serving.records import CopydeskError, Round, RoundState
from serving.store import Store


@dataclass(frozen=True)
class Job:
    """The process behind a round.

    Attributes:
        fingerprint: of everything that decides the round's result; a round is taken up again only under the same one.
        pid, pid_started: the process, told from later ones with its number by the time of its start.
        steps: 0 until the training itself has begun.
        seconds_left: None until it can be estimated.
        cancelled_by: who wants the round to end.
        channel, ts: the message that shows the progress.
        shown: the state that the message shows: "", "running", "done" or "failed".
        tries: processes in a row that came no further than the one before.
    """

    round_id: int
    fingerprint: str
    pid: int
    pid_started: float
    step: int
    steps: int
    seconds_left: float | None
    cancelled_by: str | None
    channel: str | None
    ts: str | None
    shown: str
    updated_at: str
    tries: int

    @property
    def alive(self) -> bool:
        return lives(self.pid, self.pid_started)


@dataclass(frozen=True)
class Exclusion:
    """A pair that a round left out."""

    round_id: int
    pair_id: int
    reason: str


@dataclass(frozen=True)
class Heard:
    """What a round made of a judged draft: `used_as` "corrected", "liked" or "disliked", or the reason for neither."""

    draft_id: int
    used_as: str
    reason: str


_COLUMNS = ", ".join(field.name for field in fields(Job))


class Jobs:
    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, round_id: int, fingerprint: str) -> None:
        """This process works on the round now, for the first time or after another one was killed."""
        me = psutil.Process()
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO round_jobs (round_id, fingerprint, pid, pid_started, step, steps, shown, tries, "
                "updated_at) VALUES (?, ?, ?, ?, 0, 0, '', 1, ?) "
                "ON CONFLICT (round_id) DO UPDATE SET pid = excluded.pid, "
                "pid_started = excluded.pid_started, seconds_left = NULL, updated_at = excluded.updated_at, "
                "tries = CASE WHEN step > tried_from THEN 1 ELSE tries + 1 END, tried_from = max(step, tried_from)",
                [round_id, fingerprint, os.getpid(), me.create_time(), _now()],
            )

    def report(self, round_id: int, step: int, steps: int, seconds_left: float) -> str | None:
        """Note the progress. Returns who wants the round to be cancelled, or None."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE round_jobs SET step = ?, steps = ?, seconds_left = ?, updated_at = ? WHERE round_id = ?",
                [step, steps, seconds_left, _now(), round_id],
            )
        job = self.job(round_id)
        return job.cancelled_by if job else None

    def job(self, round_id: int) -> Job | None:
        rows = self._store.rows(f"SELECT {_COLUMNS} FROM round_jobs WHERE round_id = ?", round_id)
        return Job(**rows[0]) if rows else None

    def running(self) -> tuple[Round, Job] | None:
        """The round under way, if its process lives."""
        for round in self._store.rounds():
            if round.state is RoundState.RUNNING and (job := self.job(round.id)) and job.alive:
                return round, job
        return None

    def interrupted(self) -> Round | None:
        """A round whose process died; the next run takes it up again."""
        for round in self._store.rounds():
            if round.state is RoundState.RUNNING and not ((job := self.job(round.id)) and job.alive):
                return round
        return None

    def cancel(self, user: str, round_id: int | None = None) -> Round:
        """Wish that a round ends: its process reads it at the next step; without a process it ends now.

        Args:
            round_id: None takes the one that runs.

        Raises:
            CopydeskError: no such round runs.
        """
        open_rounds = [round for round in self._store.rounds() if round.state is RoundState.RUNNING]
        round = next((r for r in open_rounds if round_id in (None, r.id)), None)
        if round is None:
            raise CopydeskError("No round is running; there is nothing to cancel.", code="no_round")
        with self._store.transaction() as db:
            db.execute(
                "UPDATE round_jobs SET cancelled_by = coalesce(cancelled_by, ?) WHERE round_id = ?", [user, round.id]
            )
        job = self.job(round.id)
        if job is None or not job.alive:
            self._store.fail_round(round.id, cancelled_message(user))
        return self._store.round(round.id)

    # The message in the channel

    def untold(self) -> list[tuple[Round, Job]]:
        """Rounds whose message does not show their end yet, the oldest first."""
        rows = self._store.rows(
            "SELECT round_id FROM round_jobs JOIN rounds ON rounds.id = round_id WHERE shown <> state "
            "OR state = 'running' ORDER BY round_id"
        )
        found = [(self._store.round(row["round_id"]), self.job(row["round_id"])) for row in rows]
        return [(round, job) for round, job in found if job is not None]

    def set_message(self, round_id: int, channel: str, ts: str | None, shown: str) -> None:
        """`ts` is None where the round was over before anybody saw it."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE round_jobs SET channel = ?, ts = ?, shown = ? WHERE round_id = ?",
                [channel, ts, shown, round_id],
            )

    # What a round saw and left out

    def exclude(self, round_id: int, excluded: Iterable[tuple[int, str]]) -> None:
        with self._store.transaction() as db:
            db.table("round_exclusions").insert_all(
                {"round_id": round_id, "pair_id": pair_id, "reason": reason} for pair_id, reason in excluded
            )

    def hear(self, round_id: int, used: Mapping[str, Iterable[int]], left_out: Iterable[tuple[int, str]]) -> None:
        """Note the judgements of a round by draft: those it learns preferences from, and those it does not and why."""
        rows = [Heard(draft_id, used_as, "") for used_as, ids in used.items() for draft_id in ids]
        rows += [Heard(draft_id, "", reason) for draft_id, reason in left_out]
        with self._store.transaction() as db:
            db.table("round_drafts").insert_all({"round_id": round_id, **asdict(row)} for row in rows)

    def heard(self, round_id: int) -> list[Heard]:
        """By draft."""
        sql = "SELECT draft_id, used_as, reason FROM round_drafts WHERE round_id = ? ORDER BY draft_id"
        return [Heard(**row) for row in self._store.rows(sql, round_id)]

    def exclusions(self, *, round_id: int | None = None, pair_id: int | None = None) -> list[Exclusion]:
        """Of a round or of a pair, by round and pair."""
        rows = self._store.rows(
            "SELECT round_id, pair_id, reason FROM round_exclusions WHERE round_id = coalesce(?, round_id) "
            "AND pair_id = coalesce(?, pair_id) ORDER BY round_id, pair_id",
            round_id,
            pair_id,
        )
        return [Exclusion(**row) for row in rows]

    def versions_that_saw(self, pair_id: int) -> list[str]:
        """The versions that trained on a pair, the oldest first."""
        sql = "SELECT name FROM round_pairs JOIN versions USING (round_id) WHERE pair_id = ? ORDER BY round_id"
        return [row["name"] for row in self._store.rows(sql, pair_id)]

    def new_pairs(self, since: str) -> int:
        """Active pairs for training that came after a moment (ISO 8601, UTC)."""
        sql = "SELECT count(*) AS n FROM pairs WHERE status = 'active' AND split = 'train' AND created_at > ?"
        return int(self._store.rows(sql, since)[0]["n"])


def cancelled_message(user: str) -> str:
    return f"cancelled by {user}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
