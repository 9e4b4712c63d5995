"""A scripted HTTP server on a real socket: what it sends, and when, is the test's."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

DONE = b"data: [DONE]\n\n"
_RST = struct.pack("ii", 1, 0)  # lingering for 0 s: closing resets


@dataclass(frozen=True)
class Drip:
    """Send the same bytes again and again, until the client is gone."""

    data: bytes
    every: float = 0.01


Step = bytes | Drip | Literal["hang", "reset", "wait"]
"""Bytes are one write. "hang": until the client is gone; "wait": until `go` is set."""


@dataclass
class Server:
    """What the test can see of it."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    ready: Callable[[], object] = lambda: None

    async def all_closed(self) -> bool:
        """Tell whether every connection ends, soon."""
        try:
            async with asyncio.timeout(2.0):
                while self.open:
                    self.quiet.clear()
                    await self.quiet.wait()
        except TimeoutError:
            return False
        return True


def head(
    status: str = "200 OK", kind: str | None = "text/event-stream", *more: str
) -> bytes:
    """Make an answer's head; without a length, the end of the connection ends it."""
    lines = [f"HTTP/1.1 {status}", "Connection: close", *more]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunked(*data: bytes) -> list[bytes]:
    """Make an answer in chunked coding, one chunk a write."""
    frames = [b"%x\r\n%s\r\n" % (len(part), part) for part in data]
    return [head("200 OK", "text/event-stream", "Transfer-Encoding: chunked"), *frames]


def chunk(**delta: Any) -> bytes:
    """Make the record of one delta."""
    return record({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def finish(reason: str = "stop") -> bytes:
    """Make the record of the finish reason."""
    return record({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


def record(value: object) -> bytes:
    """Make a record of what is JSON."""
    return f"data: {json.dumps(value)}\n\n".encode()


@asynccontextmanager
async def serving(*scripts: Sequence[Step]) -> AsyncIterator[Server]:
    """Answer the n-th request with the n-th script; the last one goes on."""
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.open += 1
        try:
            if not await _request(server, reader):
                return
            script = scripts[min(len(server.requests), len(scripts)) - 1]
            gone = asyncio.create_task(reader.read())
            try:
                for step in script:
                    await _play(step, server, writer, gone)
            finally:
                gone.cancel()
        except (ConnectionError, TimeoutError):
            pass
        finally:
            server.open -= 1
            server.quiet.set()
            tasks.discard(task)
            writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))
        await asyncio.sleep(0)  # the transports' connection_lost


async def _request(server: Server, reader: asyncio.StreamReader) -> bool:
    try:
        raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        return await _body(server, reader, raw)
    except (asyncio.IncompleteReadError, asyncio.CancelledError):
        return False


async def _body(server: Server, reader: asyncio.StreamReader, raw: str) -> bool:
    first, *lines = raw.split("\r\n")
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    server.requests.append(
        {"line": first, "headers": headers, "body": json.loads(body or b"null")}
    )
    return True


async def _play(
    step: Step,
    server: Server,
    writer: asyncio.StreamWriter,
    gone: asyncio.Task[bytes],
) -> None:
    if isinstance(step, bytes):
        writer.write(step)
        await writer.drain()
        await asyncio.sleep(0.001)  # so that each write is a read of its own
    elif isinstance(step, Drip):
        while not gone.done():
            writer.write(step.data)
            await writer.drain()
            await asyncio.wait({gone}, timeout=step.every)
    elif step == "hang":
        await asyncio.wait({gone})
    elif step == "wait":
        await server.go.wait()
        server.go.clear()
    else:
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        writer.transport.abort()
        await asyncio.wait({gone})
