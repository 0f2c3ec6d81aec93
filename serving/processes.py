"""The desk's heavy work as processes of their own: begun with its settings, recognised after a restart."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from serving.settings import Settings

PR_SET_PDEATHSIG = 1


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


def round_module(settings: Settings) -> str:
    """The module whose `run` makes a round: on this machine, or where the cluster has room."""
    return "serving.cluster" if settings.copydesk_ray_address else "trainer"


def end_with_parent(how: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)


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
