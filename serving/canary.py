"""A candidate for a share of the people, always the same ones, beside the live version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlite_utils import Database

from serving.card import Rate
from serving.counts import wilson
from serving.life import Life
from serving.records import CopydeskError
from serving.registry import Registry, verify
from serving.store import Store

FEWEST_PERCENT, MOST_PERCENT = 1, 50
SHARE_PERCENT = 20
SHOWN = 3  # versions whose scorecards are kept up to date; older ones say why when they are pressed


@dataclass(frozen=True)
class Canary:
    id: int
    version: str
    share: float
    started_by: str
    created_at: str
    ended_by: str | None
    ended_at: str | None

    def chooses(self, user: str) -> bool:
        """The same answer for a person as long as the candidate is the same, on every machine."""
        digest = hashlib.sha256(f"{self.version}\0{user}".encode()).digest()
        return int.from_bytes(digest[:8]) < self.share * 2**64


@dataclass(frozen=True)
class Liked:
    """How often people liked a version's drafts while the canary ran."""

    version: str
    drafts: int
    people: int  # who rated
    up: Rate


@dataclass(frozen=True)
class Trial:
    """A canary with its figures, the candidate's first."""

    canary: Canary
    liked: tuple[Liked, ...]


class Canaries:
    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._life = Life(store)

    @property
    def running(self) -> Canary | None:
        newest = self._newest()
        return newest if newest and newest.ended_by is None else None

    @property
    def running_trial(self) -> Trial | None:
        running = self.running
        return self._trial(running) if running else None

    @property
    def untold(self) -> list[Trial]:
        """Those that are over, and the channel was not told yet; the oldest first."""
        return [
            self._trial(canary) for canary in self._canaries("WHERE canaries.told_at IS NULL")[::-1] if canary.ended_by
        ]

    def trial_of(self, version: str) -> Trial | None:
        """The newest one of a version."""
        found = self._canaries("WHERE canaries.version = ?", version)
        return self._trial(found[0]) if found else None

    def scorecards(self, version: str) -> list[int]:
        """The few in the channel that offer a trial: of versions that nobody decided about, `version` first."""
        rows = self._store.rows(
            "WITH offers AS (SELECT * FROM scorecards WHERE announced_ts > '' AND body IS NOT NULL "
            "AND version NOT IN (SELECT version FROM promotions)), newest AS (SELECT version FROM offers "
            "GROUP BY version ORDER BY version = ? DESC, max(id) DESC LIMIT ?) "
            "SELECT max(id) AS id FROM offers WHERE version IN newest "
            "GROUP BY version, substr(suite, 1, instr(suite || '@', '@')) ORDER BY max(id) DESC",
            version,
            SHOWN,
        )
        return [row["id"] for row in rows]

    def version_for(self, user: str) -> str:
        """Who writes this person's next draft."""
        canary = self.running
        return canary.version if canary and canary.chooses(user) else self._store.live()

    def start(self, name: str, percent: int, *, user: str) -> Canary:
        """Begin, or go on where the same one runs already.

        Raises:
            CopydeskError: no right, a version that cannot be a candidate, or another canary runs.
        """
        self._registry.require_lead(user)
        if not FEWEST_PERCENT <= percent <= MOST_PERCENT:
            raise CopydeskError(f"The share of a canary is {FEWEST_PERCENT} to {MOST_PERCENT} percent of the people.")
        version = self._store.version(name)
        self._require_undecided(name)
        verify(version)
        if failure := self._life.last_failure(name):
            raise CopydeskError(f"{name} cannot be served: {failure}", code="not_tried", version=name, failure=failure)
        share = percent / 100
        with self._store.transaction() as db:
            # Nobody else writes meanwhile: of two who start at once one is refused.
            self._require_undecided(name)
            newest = self._newest()
            if newest and newest.ended_by is None:
                if (newest.version, newest.share) == (name, share):
                    return newest
                raise CopydeskError(
                    f"{newest.version} is tried already; end that first: copydesk version canary --end",
                    code="tried_already",
                    version=newest.version,
                )
            if newest:  # a decision ended it, and its row is open
                _close(db, newest.id, newest.ended_by, newest.ended_at)
            id = self._store.insert(db, "canaries", version=name, share=share, started_by=user)
        return self._canary(id)

    def _require_undecided(self, name: str) -> None:
        if decision := self._store.decision_on(name):
            raise CopydeskError(
                f"{name} was decided about already; a canary is for versions that were not.",
                code="decided_already",
                version=name,
                user=decision.user,
            )

    def end(self, id: int, *, user: str) -> Canary:
        """Once; one that is over stays as it ended. Raises CopydeskError: no right."""
        self._registry.require_lead(user)
        if self._canary(id).ended_by is None:
            with self._store.transaction() as db:
                _close(db, id, user, _now())
        return self._canary(id)

    def mark_told(self, id: int) -> None:
        with self._store.transaction() as db:
            db.execute("UPDATE canaries SET told_at = ? WHERE id = ?", [_now(), id])

    def liked(self, canary: Canary) -> list[Liked]:
        """The candidate first, then the live version while it runs, then whatever else wrote during the same time."""
        rows = self._store.rows(
            "SELECT d.version, COUNT(DISTINCT d.id) AS drafts, COALESCE(SUM(r.verdict = 'up'), 0) AS up, "
            "COUNT(r.id) AS total, COUNT(DISTINCT r.user) AS people "
            "FROM drafts d LEFT JOIN ratings r ON r.draft_id = d.id "
            "WHERE d.created_at >= ? AND (? IS NULL OR d.created_at <= ?) GROUP BY d.version",
            canary.created_at,
            canary.ended_at,
            canary.ended_at,
        )
        found = {
            row["version"]: Liked(row["version"], row["drafts"], row["people"], wilson(row["up"], row["total"]))
            for row in rows
        }
        live = () if canary.ended_by else (self._store.live(),)  # what went live afterwards has no part in it
        order = dict.fromkeys((canary.version, *live, *found))
        return [found.get(version) or Liked(version, 0, 0, wilson(0, 0)) for version in order]

    def _trial(self, canary: Canary) -> Trial:
        return Trial(canary, tuple(self.liked(canary)))

    def _newest(self) -> Canary | None:
        return next(iter(self._canaries()), None)

    def _canary(self, id: int) -> Canary:
        return self._canaries("WHERE canaries.id = ?", id)[0]

    def _canaries(self, condition: str = "", *values: Any) -> list[Canary]:
        """The newest first. A decision about the candidate ends what was to help with it."""
        rows = self._store.rows(
            "SELECT canaries.id, canaries.version, share, started_by, canaries.created_at, "
            "coalesce(ended_by, user) AS ended_by, coalesce(ended_at, promotions.created_at) AS ended_at "
            "FROM canaries LEFT JOIN promotions "
            "ON promotions.version = canaries.version AND decision IN ('approved', 'rejected') "
            f"{condition} ORDER BY canaries.id DESC",
            *values,
        )
        return [Canary(**row) for row in rows]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _close(db: Database, id: int, user: str | None, when: str | None) -> None:
    db.execute("UPDATE canaries SET ended_by = ?, ended_at = ? WHERE id = ? AND ended_by IS NULL", [user, when, id])
