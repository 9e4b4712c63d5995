"""An agent's server on a real socket: it keeps its runs, and connections break on it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

_RST = struct.pack("ii", 1, 0)  # lingering for 0 s: closing resets

Resuming = Literal["exclusive", "inclusive", "whole", "checkpoint"]


def sse(own: str | None, value: object) -> bytes:
    """Make a record of server-sent events."""
    data = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    told = "" if own is None else f"id: {own}\n"
    return f"{told}data: {data}\n\n".encode()


def text(said: str) -> dict[str, Any]:
    return {"type": "text_delta", "data": {"text": said}}


COMPLETED = {"type": "session.run.completed", "data": {"sessionId": "far"}}

RUN: list[dict[str, Any]] = [
    {"type": "execution.started", "data": {"executionId": "x-1"}},
    text("Grüße, "),
    {"type": "reasoning_delta", "data": {"text": "hm"}},
    {"type": "tool_call", "data": {"toolName": "ls", "toolCallId": "c", "args": {}}},
    {"type": "tool_result", "data": {"toolCallId": "c", "result": ["a"]}},
    text("welt"),
    text("!"),
    {"type": "result", "data": {"finalText": "Grüße, welt!"}},
    {"type": "llm_call", "data": {"model": "m", "tokensIn": 3, "tokensOut": 2}},
    COMPLETED,
]
"""A run of every kind of event."""


def numbered(
    events: Sequence[object], first: int = 1
) -> list[tuple[str | None, bytes]]:
    """Give each event an id, and make its record."""
    return [(str(n), sse(str(n), event)) for n, event in enumerate(events, first)]


@dataclass
class RunServer:
    """Gives the records after `Last-Event-ID`; `cuts` says where connections break.

    The n-th connection ends after `cuts[n]` bytes of its body. `answers`: heads that are
    sent instead, first come first served, None for none.
    """

    records: list[tuple[str | None, bytes]] = field(default_factory=list)
    resuming: Resuming = "exclusive"
    cuts: list[int | None] = field(default_factory=list)
    answers: list[bytes | None] = field(default_factory=list)
    framing: Literal["chunked", "close"] = "chunked"
    kind: str = "text/event-stream"
    breaking: Literal["reset", "end"] = "end"
    preface: bytes = b""
    more: tuple[str, ...] = ()
    each: Callable[[int], Any] | None = None  # awaited before each record
    url: str = ""
    port: int = 0
    open: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    quiet: asyncio.Event = field(default_factory=asyncio.Event)

    def rest(self, last: str | None) -> list[bytes]:
        """Give the records that a request with this `Last-Event-ID` gets."""
        ids = [own for own, _ in self.records]
        if last is None or self.resuming == "whole":
            begin = 0
        else:
            at = ids.index(last)
            begin = {"exclusive": at + 1, "inclusive": at, "checkpoint": at // 3 * 3}[
                self.resuming
            ]
        return [data for _, data in self.records[begin:]]

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

    async def answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one connection."""
        self.open += 1
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self.quiet.set()
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rows = raw.split("\r\n")
        headers = {}
        for row in filter(None, rows):
            name, _, value = row.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        number = len(self.requests)
        asked = {"line": line, "headers": headers, "body": json.loads(body or b"null")}
        self.requests.append(asked)
        instead = self.answers.pop(0) if self.answers else None
        if instead is not None:
            writer.write(instead)
            await writer.drain()
            return
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {self.kind}", *self.more]
        lines.append("Connection: close")
        if self.framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        left = self.cuts[number] if number < len(self.cuts) else None
        gone = asyncio.create_task(reader.read())
        try:
            pieces = [self.preface, *self.rest(headers.get("last-event-id"))]
            for index, piece in enumerate(pieces):
                data = piece if left is None else piece[:left]
                if self.each is not None and index:
                    work = asyncio.ensure_future(self.each(index))
                    await asyncio.wait({work, gone}, return_when="FIRST_COMPLETED")
                    if not work.done():
                        work.cancel()
                        return
                if data:
                    chunked = self.framing == "chunked"
                    frame = b"%x\r\n%s\r\n" % (len(data), data) if chunked else data
                    writer.write(frame)
                    await writer.drain()
                if left is not None:
                    left -= len(data)
                    if not left:
                        self._break(writer)
                        return
            if self.framing == "chunked":
                writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            gone.cancel()

    def _break(self, writer: asyncio.StreamWriter) -> None:
        if self.breaking == "reset":
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            writer.transport.abort()


def refusal(status: str, *more: str) -> bytes:
    """Make an answer without a body."""
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@asynccontextmanager
async def running(server: RunServer) -> AsyncIterator[RunServer]:
    """Serve on a port, the one it had before if it had one."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await server.answer(reader, writer)
        finally:
            tasks.discard(task)

    listener = await asyncio.start_server(answer, "127.0.0.1", server.port)
    server.port = listener.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{server.port}"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))
        await asyncio.sleep(0)  # the transports' connection_lost
