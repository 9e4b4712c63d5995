"""The embedded model's own process: llama.cpp's server, until standard input ends.

Run as a file by `local_process`, not imported: `local_server.py GGUF NAME`. The first
line of standard input is the key that requests must bear, so that no other program and
no web page on this machine can use the server. It answers with one line, its address,
and ends when standard input does: when its parent closed it, or died, in whatever way.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

CONTEXT_TOKENS = 4096
SLOTS = 2  # answers at a time, which share the context


def main(gguf: str, name: str) -> None:
    """Serve until the parent is gone."""
    key = sys.stdin.readline().strip()
    report = os.dup(1)
    os.dup2(2, 1)  # llama.cpp writes to both: into the parent's log, until it runs
    parent = threading.Thread(target=_outlive_nobody, daemon=True)
    parent.start()
    import xllamacpp

    llama: Any = xllamacpp  # it ships no types
    params = llama.CommonParams()
    params.model.path = gguf
    params.model_alias = {name}
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = 1  # two would spin against each other
    params.cpuparams_batch.n_threads = 1
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.use_jinja = True
    params.ui = False
    server = llama.Server(params)
    os.write(report, f"{server.listening_address}\n".encode())
    os.close(report)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    parent.join()


def _outlive_nobody() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)  # without waiting for an answer that nobody will read


if __name__ == "__main__":
    main(*sys.argv[1:])
