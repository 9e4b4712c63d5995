"""The events of one turn handed to many readers, each with a bounded buffer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Literal, TypeAlias
from weakref import ref

from .reader import Reader

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
        self._readers: dict[int, ref[Reader]] = {}
        self._room: asyncio.Event | None = None
        self.begun = False
        self.over = False

    def reader(self) -> Reader:
        """Add a reader."""
        reader = Reader(self, self._replay)
        if not self.over:
            self._readers[id(reader)] = ref(reader)
        return reader

    def send(self, event: Event) -> None:
        """Hand an event to every reader."""
        self._replay.append(event)
        if not self._readers:
            return
        for reader in self._reading():
            if len(reader.waiting) >= self._buffer and self._slow != "wait":
                if self._slow == "disconnect":
                    reader.fail(self._buffer)
                    self.leave(reader)
                    continue
                reader.waiting.popleft()
                reader.dropped += 1
            reader.put(event)

    @property
    def full(self) -> bool:
        """Tell whether a reader has no room."""
        if not self._readers:
            return False
        buffer = self._buffer
        return any(len(one.waiting) >= buffer for one in self._reading())

    async def later(self, event: Event) -> None:
        """Hand it on once every reader has room."""
        while self.full:
            self._room = asyncio.Event()
            await self._room.wait()
        self.send(event)

    def taken(self) -> None:
        """Take note that a reader took an event, or left."""
        if self._room is not None:
            self._room.set()

    def leave(self, reader: Reader) -> None:
        """Forget a reader."""
        self._readers.pop(id(reader), None)
        self.taken()

    def end(self) -> None:
        """End every reader, once it has read what waits for it."""
        self.over = True
        for reader in self._reading():
            reader.wake()

    def _reading(self) -> list[Reader]:
        # A reader may be dropped meanwhile, in another thread's collection, too.
        readers = [one() for one in tuple(self._readers.values())]
        return [reader for reader in readers if reader is not None]
