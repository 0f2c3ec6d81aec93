"""Scorecards that are being extended by more briefs, so that it happens once and survives a restart."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import psutil

from serving.processes import lives
from serving.store import Store

_COLUMNS = "id, scorecard_id, user, items, pid, pid_started"


@dataclass(frozen=True)
class Extension:
    """Attributes:
    items: how many briefs the scorecard had before.
    pid, pid_started: the process at work; None until it is started.
    """

    id: int
    scorecard_id: int
    user: str
    items: int
    pid: int | None
    pid_started: float | None

    @property
    def alive(self) -> bool:
        return self.pid is not None and self.pid_started is not None and lives(self.pid, self.pid_started)


class Extensions:
    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, scorecard_id: int, user: str, items: int) -> Extension | None:
        """None when the scorecard is being extended already."""
        try:
            with self._store.transaction() as db:
                id = self._store.insert(
                    db, "extensions", scorecard_id=scorecard_id, user=user, state="running", items=items
                )
        except sqlite3.IntegrityError:
            return None
        return Extension(id, scorecard_id, user, items, None, None)

    def set_process(self, id: int, pid: int) -> None:
        with self._store.transaction() as db:
            db.execute(
                "UPDATE extensions SET pid = ?, pid_started = ? WHERE id = ?",
                [pid, psutil.Process(pid).create_time(), id],
            )

    def end(self, id: int, *, done: bool) -> None:
        with self._store.transaction() as db:
            db.execute("UPDATE extensions SET state = ? WHERE id = ?", ["done" if done else "failed", id])

    def running(self) -> list[Extension]:
        return [
            Extension(**row) for row in self._store.rows(f"SELECT {_COLUMNS} FROM extensions WHERE state = 'running'")
        ]

    def extension(self, id: int) -> Extension:
        return Extension(**self._store.rows(f"SELECT {_COLUMNS} FROM extensions WHERE id = ?", id)[0])
