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
        CopydeskError: another process holds it; its text is `otherwise`. Or the file cannot be made or opened.
    """
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:  # an OSError too
        raise CopydeskError(otherwise) from error
    except OSError as error:
        raise CopydeskError(
            f"{path} cannot be written ({error.strerror}); correct the folder's owner, or COPYDESK_HOME."
        ) from error
    try:
        yield
    finally:
        lock.release()


def only_round(adapters: Path) -> AbstractContextManager[None]:
    """Raises CopydeskError while another process trains into `adapters`, on whichever machine."""
    return alone(adapters / ".lock", "A round is running already; wait for it to end: copydesk round list")
