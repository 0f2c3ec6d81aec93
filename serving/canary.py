"""A candidate for a share of the people, always the same ones, beside the live version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlite_utils import Database

from serving.card import Rate
from serving.counts import wilson
from serving.life import Life
from serving.records import CopydeskError
from serving.registry import Registry, verify
from serving.store import Store

FEWEST_PERCENT, MOST_PERCENT = 1, 50


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
    up: Rate


class Canaries:
    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._life = Life(store)

    @property
    def running(self) -> Canary | None:
        rows = self._store.rows("SELECT * FROM canaries WHERE ended_by IS NULL")
        canary = Canary(**rows[0]) if rows else None
        # A decision about the candidate ends what was to help with it.
        return canary if canary and self._store.decision_on(canary.version) is None else None

    def version_for(self, user: str) -> str:
        """Who writes this person's next draft."""
        canary = self.running
        return canary.version if canary and canary.chooses(user) else self._store.live()

    def start(self, name: str, percent: int, *, user: str) -> Canary:
        """Raises CopydeskError: no right, a version that cannot be a candidate, or another canary runs."""
        self._registry.require_lead(user)
        if not FEWEST_PERCENT <= percent <= MOST_PERCENT:
            raise CopydeskError(f"The share of a canary is {FEWEST_PERCENT} to {MOST_PERCENT} percent of the people.")
        version = self._store.version(name)
        if self._store.decision_on(name):
            raise CopydeskError(f"{name} was decided about already; a canary is for versions that were not.")
        verify(version)
        if failure := self._life.last_failure(name):
            raise CopydeskError(f"{name} cannot be served: {failure}")
        if running := self.running:
            raise CopydeskError(f"{running.version} is tried already; end that first: copydesk version canary --end")
        with self._store.transaction() as db:
            # One of a version that was decided about meanwhile is still open as a row.
            _close(db, user)
            self._store.insert(db, "canaries", version=name, share=percent / 100, started_by=user)
        return self._newest()

    def end(self, *, user: str) -> Canary:
        """Raises CopydeskError: no right, or none runs."""
        self._registry.require_lead(user)
        if self.running is None:
            raise CopydeskError("No version is tried with a part of the people now.")
        with self._store.transaction() as db:
            _close(db, user)
        return self._newest()

    def liked(self, canary: Canary) -> list[Liked]:
        """The candidate first, then whatever else wrote during the same time."""
        rows = self._store.rows(
            "SELECT d.version, COUNT(DISTINCT d.id) AS drafts, COALESCE(SUM(r.verdict = 'up'), 0) AS up, "
            "COUNT(r.id) AS total FROM drafts d LEFT JOIN ratings r ON r.draft_id = d.id "
            "WHERE d.created_at >= ? AND (? IS NULL OR d.created_at <= ?) GROUP BY d.version",
            canary.created_at,
            canary.ended_at,
            canary.ended_at,
        )
        found = [Liked(row["version"], row["drafts"], wilson(row["up"], row["total"])) for row in rows]
        return sorted(found, key=lambda liked: liked.version != canary.version)

    def _newest(self) -> Canary:
        return Canary(**self._store.rows("SELECT * FROM canaries ORDER BY id DESC LIMIT 1")[0])


def _close(db: Database, user: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    db.execute("UPDATE canaries SET ended_by = ?, ended_at = ? WHERE ended_by IS NULL", [user, now])
