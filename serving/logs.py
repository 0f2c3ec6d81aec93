"""The log: lines for people, or JSON for machines, each with what it is about.

Whoever begins a piece of work says so once, `about(request=7)`; every line of that task then carries it.
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

_about: ContextVar[dict[str, object]] = ContextVar("about", default={})  # noqa: B039  (never changed in place)


def about(**ids: object) -> None:
    """What this task works on from here: channel, ts, request, draft, version or round."""
    _about.set({**_about.get(), **ids})


class Lines(logging.Formatter):
    """For people: the ids stand at the end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        ids = " ".join(f"{name}={value}" for name, value in _about.get().items())
        return super().formatMessage(record) + (f" [{ids}]" if ids else "")


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about.get(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(kind: str) -> None:
    """Log to standard error; `kind` is "text" or "json"."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if kind == "json" else Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for every order to the engine says nothing new
