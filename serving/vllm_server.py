"""vLLM's server as a child that ends with its parent. Started by serving.engine, never by hand.

A killed bot must not leave an engine behind that holds the memory and answers to nobody; the kernel sends SIGTERM
when the parent is gone, however it went.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1
# The newer name first: releases before 0.30 have only the other.
SERVERS = ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server")


def main() -> None:
    parent = int(sys.argv.pop(1))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it went before the kernel was told
            sys.exit(1)
    runpy.run_module(_server(), run_name="__main__", alter_sys=True)


def _server() -> str:
    for name in SERVERS[:-1]:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(name):
                return name
    return SERVERS[-1]


if __name__ == "__main__":
    main()
