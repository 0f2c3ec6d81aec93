"""vLLM's server as a child that ends with its parent. Started by serving.engine, never by hand.

A killed bot must not leave an engine behind that holds the memory and answers to nobody; the kernel sends SIGTERM
when the parent is gone, however it went, and what does not heed it is killed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import runpy
import signal
import sys
import time
from functools import partial
from multiprocessing import get_context
from threading import Thread

from serving.processes import end_with_parent

GRACE_S = 20.0  # for the drafts under way
# The newer name first: releases before 0.30 have only the other.
SERVERS = ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server")


def main() -> None:
    parent = int(sys.argv.pop(1))
    end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it went before the kernel was told
        sys.exit(1)
    _fork_the_core()
    Thread(target=_end_after, args=(parent,), daemon=True).start()
    runpy.run_module(_server(), run_name="__main__", alter_sys=True)


def _fork_the_core() -> None:
    """On a CPU vLLM starts its core as a fresh process, which imports everything once more: 17 s on two cores.

    vLLM's reason is that OpenMP's threads do not survive a fork; here nothing has computed before it.
    """
    from vllm.platforms import current_platform
    from vllm.v1.engine import utils

    if current_platform.is_cpu():
        utils.get_mp_context = partial(get_context, "fork")
        # Should the server be killed outright, its core does not stay behind with the memory.
        os.register_at_fork(after_in_child=partial(end_with_parent, signal.SIGKILL))


def _end_after(parent: int) -> None:
    """vLLM loses a SIGTERM that meets its start at a wrong moment. Its process leads a group: all of it ends."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(GRACE_S)
    os.killpg(os.getpid(), signal.SIGKILL)


def _server() -> str:
    for name in SERVERS[:-1]:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(name):
                return name
    return SERVERS[-1]


if __name__ == "__main__":
    main()
