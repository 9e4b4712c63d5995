"""One reader of a shared turn, and what waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from .errors import SlowReader

if TYPE_CHECKING:
    from .event import Event
    from .feed import Feed


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
        self._feed.leave(self)

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
