"""The desk's heavy work as processes of their own: begun with its settings, recognised after a restart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from serving.settings import Settings


def start_module(settings: Settings, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Run `python -m module …`. It goes on when this process is killed; what it prints goes to its log."""
    log = log_of(settings, module)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **_environment(settings)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def log_of(settings: Settings, module: str) -> Path:
    return settings.logs / f"{module}.log"


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as variables. Slack's tokens are nothing that trainer or evaluation need."""
    values = settings.model_dump(mode="json") | {"copydesk_home": str(settings.copydesk_home.resolve())}
    return {
        name.upper(): " ".join(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
        if name.startswith("copydesk_")
    }


def lives(pid: int, started: float) -> bool:
    """Whether a process still runs; the time of its start tells it from a later one with its number."""
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - started) < 1) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # somebody else's, who does not tell when it began
