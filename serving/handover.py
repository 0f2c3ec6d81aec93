"""How the memory goes from the engine to a round and back.

A round is announced by its job, whose process lives (`serving.jobs`). The memory itself is a lock of the kernel's that
goes with its processes, however they end: nobody waits for the dead, and nothing has to be tidied up after a kill.
"""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from datetime import datetime, timedelta

from serving.jobs import Jobs
from serving.records import RoundState
from serving.settings import Settings
from serving.store import Store


@dataclass(frozen=True)
class Away:
    """The engine is away for a round.

    Attributes:
        back: when it is expected: by the round's progress, at first by the round before; None where neither tells.
    """

    back: datetime | None


def away_for(store: Store, start_s: float) -> Away | None:
    """What a round that runs or waits for the memory means for the engine; None without one.

    Args:
        start_s: seconds from the round's end to the engine's first answer.
    """
    running = Jobs(store).running()
    if running is None:
        return None
    job = running[1]
    before = (round.facts.get("seconds") for round in store.rounds() if round.state is RoundState.DONE)
    left = next(before, None) if job.seconds_left is None else job.seconds_left
    if left is not None:
        return Away(datetime.fromisoformat(job.updated_at) + timedelta(seconds=left + start_s))
    return Away(None)


class Memory:
    """The lock on what engine and round share. Whoever fills the memory holds it, and all that inherit `descriptor`."""

    def __init__(self, settings: Settings) -> None:
        path = settings.copydesk_home / "engine" / "memory.lock"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = path.open("ab")

    @property
    def descriptor(self) -> int:
        return self._file.fileno()

    def take(self) -> bool:
        """False while somebody else has it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """For those too that inherited it."""
        fcntl.flock(self._file, fcntl.LOCK_UN)
