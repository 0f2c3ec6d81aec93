"""People before training: on a machine without a GPU this process takes what the engine leaves."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from serving.engine import has_cpu_build

NICEST = 19  # Linux gives no less weight


def give_way() -> None:
    """Stand behind every other process, with all threads that begin later; only for a process that does nothing else.

    The engine waits for the slowest of its threads: beside a round of equal rank a draft came at one token a second
    (docs/performance.md). Where nothing else groups processes, Linux weighs sessions against each other, whatever the
    ranks inside; so the round gets a session of its own, and that the least weight.
    """
    if not (has_cpu_build() and hasattr(os, "SCHED_IDLE")):
        return
    with suppress(OSError):  # a container that forbids it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(PermissionError):  # it leads a session, or a shell's job, already
        os.setsid()
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # a kernel without such groups
            Path("/proc/self/autogroup").write_text(str(NICEST))
