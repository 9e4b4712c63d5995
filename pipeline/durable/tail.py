"""The end of a running turn's log, in memory: what its readers here wait for."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from ..stores.chunks import sliced
from ..stores.contract import Chunk

TAIL_BYTES: Final = 256 << 10
"""How much of one turn is kept for its readers; who is further back reads the store."""


class Room:
    """How many bytes all tails of a hub may keep together."""

    __slots__ = ("left",)

    def __init__(self, limit_bytes: int) -> None:
        """Start with all of it left."""
        self.left = limit_bytes


class Tail:
    """The last lines that the log holds, bounded; and who waits for the next."""

    __slots__ = ("_chunks", "_room", "_size", "_waiters", "closed", "lines", "lost")

    def __init__(self, room: Room, *, lines: int = 0) -> None:
        """Begin behind line number `lines`."""
        self._chunks: deque[Chunk] = deque()
        self._room = room
        self._size = 0
        self._waiters: list[asyncio.Future[None]] | None = None
        self.lines = lines
        self.closed = False
        self.lost = False

    def put(self, data: bytes, count: int) -> None:
        """Add what the log has taken, and let go of the oldest where it is too much."""
        self._chunks.append(Chunk(self.lines + 1, count, data))
        self.lines += count
        self._size += len(data)
        self._room.left -= len(data)
        while self._size > TAIL_BYTES or (self._room.left < 0 and self._chunks):
            oldest = self._chunks.popleft()
            self._size -= len(oldest.data)
            self._room.left += len(oldest.data)
        self._wake()

    def close(self, *, lost: bool = False) -> None:
        """Say that nothing more comes: the log is closed, or another's by now."""
        self.closed = True
        self.lost = self.lost or lost
        self._wake()

    def clear(self) -> None:
        """Give the memory back."""
        self._room.left += self._size
        self._size = 0
        self._chunks.clear()

    def after(self, cursor: int) -> list[Chunk] | None:
        """Return what follows line `cursor`; None where it is not here any more."""
        if cursor >= self.lines:
            return []
        if not self._chunks or cursor + 1 < self._chunks[0].first:
            return None
        found: list[Chunk] = []
        for chunk in reversed(self._chunks):
            rest = sliced(chunk, cursor)
            if rest is None:
                break
            found.append(rest)
        found.reverse()
        return found

    async def wait(self, cursor: int) -> None:
        """Wait for a line after `cursor`, or the close."""
        while self.lines <= cursor and not self.closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._forget(waiter)

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        if self._waiters is not None and waiter in self._waiters:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, None
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
