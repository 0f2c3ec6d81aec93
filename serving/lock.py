"""One at a time: what two processes must never do at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from serving.records import CopydeskError


@contextmanager
def alone(path: Path, otherwise: str) -> Iterator[None]:
    """Hold the lock at `path`, which goes with its process, however that ends.

    Raises:
        CopydeskError: another process holds it; its text is `otherwise`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CopydeskError(otherwise) from error
    try:
        yield
    finally:
        lock.release()


def only_round(adapters: Path) -> AbstractContextManager[None]:
    """Raises CopydeskError while another process trains into `adapters`, on whichever machine."""
    return alone(adapters / ".lock", "A round is running already; wait for it to end: copydesk round list")
