"""vLLM's server as a child that ends with its parent. Started by serving.engine, never by hand.

A killed bot must not leave an engine behind that holds the memory and answers to nobody; the kernel sends SIGTERM
when the parent is gone, however it went.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1
SERVER = "vllm.entrypoints.launchers.api_server.entry"


def main() -> None:
    parent = int(sys.argv.pop(1))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it went before the kernel was told
            sys.exit(1)
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
