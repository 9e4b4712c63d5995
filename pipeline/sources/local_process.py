"""The embedded model's process as the user's process sees it: started once, shared."""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from operators.errors import SourceUnreachable

STOP_SECONDS: Final = 2.0
LOG_BYTES: Final = 2_048

_SERVER: Final = Path(__file__).with_name("local_server.py")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers at `address` whoever bears `key`."""

    process: subprocess.Popen[str]
    address: str
    key: str = field(repr=False)


class LocalServer:
    """One model's server: `running()` starts it when it is not there, for everybody."""

    def __init__(self, gguf: Path, name: str) -> None:
        """Know the model; start nothing."""
        self._command = [sys.executable, "-P", str(_SERVER), str(gguf), name]
        self._lock = threading.Lock()
        self._started: Future[Running | str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._pid = 0

    async def running(self, limit: float) -> Running:
        """Wait until the server runs; `limit` seconds, from its start, at most.

        A caller that is cancelled leaves the start going on for the others.

        Raises:
            SourceUnreachable: it did not start; the message has the end of its log.
        """
        found = await asyncio.wrap_future(self._start(limit))
        if isinstance(found, str):
            raise SourceUnreachable(found)
        return found

    def stop(self) -> None:
        """Stop the server, if this process has started it, and wait for its end."""
        with self._lock:
            process, self._process, self._started = self._process, None, None
        if process is None or self._pid != os.getpid():
            return
        _close(process)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self, limit: float) -> Future[Running | str]:
        with self._lock:
            if self._started is None or not self._alive(self._started):
                if self._process is not None and self._pid == os.getpid():
                    _close(self._process)
                self._started = Future()
                self._started.set_running_or_notify_cancel()
                self._pid = os.getpid()
                threading.Thread(
                    target=self._launch, args=(self._started, limit), daemon=True
                ).start()
            return self._started

    def _alive(self, started: Future[Running | str]) -> bool:
        if self._pid != os.getpid():  # a fork: the server is the parent's
            return False
        if not started.done():
            return True
        found = started.result()
        return isinstance(found, Running) and found.process.poll() is None

    def _launch(self, started: Future[Running | str], limit: float) -> None:
        try:
            started.set_result(self._launched(limit))
        except Exception as error:
            started.set_result(f"the embedded model's server did not start: {error}")

    def _launched(self, limit: float) -> Running | str:
        import tempfile

        key = secrets.token_urlsafe(24)
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # the terminal's Ctrl-C is for the parent
            )
            self._process = process
            late = threading.Timer(limit, process.kill)
            late.daemon = True
            late.start()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{key}\n")
            process.stdin.flush()
            address = process.stdout.readline().strip()
            late.cancel()
            if address:
                return Running(process, address, key)
            _close(process)
            process.wait()
            why = (
                f"within {limit:g} s"
                if late.finished.is_set() and process.returncode == -9
                else f"(exit status {process.returncode})"
            )
            return f"the embedded model's server did not start {why}: {_tail(log)}"


def _close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _tail(log: IO[bytes]) -> str:
    log.seek(max(log.seek(0, os.SEEK_END) - LOG_BYTES, 0))
    return log.read().decode("utf-8", "replace").strip() or "it wrote nothing"


_servers: Final[dict[tuple[Path, str], LocalServer]] = {}
_servers_lock: Final = threading.Lock()


def server_of(gguf: Path, name: str) -> LocalServer:
    """Give the process's one server for this model; it is stopped at exit."""
    with _servers_lock:
        server = _servers.get((gguf, name))
        if server is None:
            server = _servers[gguf, name] = LocalServer(gguf, name)
            atexit.register(server.stop)
        return server
