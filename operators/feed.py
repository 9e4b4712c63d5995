"""The events of one turn handed to many readers, each with a bounded buffer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Literal, TypeAlias
from weakref import WeakSet

from .errors import SlowReader

if TYPE_CHECKING:
    from .event import Event

Slow: TypeAlias = Literal["drop_oldest", "disconnect", "wait"]


class Feed:
    """What one turn shares: the events to replay, and who reads."""

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_readers",
        "_replay",
        "_room",
        "_slow",
        "begun",
        "over",
    )

    def __init__(self, *, replay: int, buffer: int, slow: Slow) -> None:
        """Start without readers."""
        self._replay: deque[Event] = deque(maxlen=replay)
        self._buffer = buffer
        self._slow = slow
        self._readers: WeakSet[Reader] = WeakSet()
        self._room: asyncio.Event | None = None
        self.begun = False
        self.over = False

    def reader(self) -> Reader:
        """Add a reader."""
        reader = Reader(self, self._replay)
        if not self.over:
            self._readers.add(reader)
        return reader

    def send(self, event: Event) -> None:
        """Hand an event to every reader."""
        self._replay.append(event)
        for reader in tuple(self._readers):
            if len(reader.waiting) >= self._buffer and self._slow != "wait":
                if self._slow == "disconnect":
                    reader.fail(self._buffer)
                    self._readers.discard(reader)
                    continue
                reader.waiting.popleft()
                reader.dropped += 1
            reader.put(event)

    async def room(self) -> None:
        """Wait until every reader has room for an event."""
        while any(len(one.waiting) >= self._buffer for one in self._readers):
            self._room = asyncio.Event()
            await self._room.wait()

    def taken(self) -> None:
        """Take note that a reader took an event, or left."""
        if self._room is not None:
            self._room.set()

    def leave(self, reader: Reader) -> None:
        """Forget a reader."""
        self._readers.discard(reader)
        self.taken()

    def end(self) -> None:
        """End every reader, once it has read what waits for it."""
        self.over = True
        for reader in tuple(self._readers):
            reader.wake()


class Reader:
    """One reader of a shared turn: iterate it once. `dropped` counts what it missed."""

    __slots__ = (
        "__weakref__",
        "_arrived",
        "_closed",
        "_error",
        "_feed",
        "dropped",
        "waiting",
    )

    def __init__(self, feed: Feed, replay: deque[Event]) -> None:
        """Begin with what is replayed."""
        self._feed = feed
        self._arrived: asyncio.Future[None] | None = None
        self._closed = False
        self._error: Exception | None = None
        self.dropped = 0
        self.waiting: deque[Event] = deque(replay)

    def __aiter__(self) -> Reader:
        """Return itself."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event.

        Raises:
            SlowReader: it was too slow, and is disconnected.
        """
        while not self.waiting:
            if self._error is not None:
                error, self._error = self._error, None
                self._closed = True
                raise error
            if self._closed or self._feed.over:
                raise StopAsyncIteration
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        event = self.waiting.popleft()
        self._feed.taken()
        return event

    async def aclose(self) -> None:
        """Leave the turn."""
        self._closed = True
        self.waiting.clear()
        self._feed.leave(self)
        self.wake()

    def __del__(self) -> None:
        """Let a turn that waits go on without a reader that was dropped."""
        self._feed.taken()

    def put(self, event: Event) -> None:
        """Add an event."""
        self.waiting.append(event)
        self.wake()

    def fail(self, buffer: int) -> None:
        """Disconnect it."""
        self.waiting.clear()
        self._error = SlowReader(buffer)
        self.wake()

    def wake(self) -> None:
        """Let it look again."""
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
