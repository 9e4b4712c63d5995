"""A bounded mailbox: one task puts, one reader takes; no lock, at most two futures."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

LIMIT: Final = 256
LIMIT_BYTES: Final = 1 << 20


class Mailbox:
    """What an owned turn has ready for its reader."""

    __slots__ = ("_arrived", "_error", "_room", "abandoned", "closed", "items", "size")

    def __init__(self, *, open_: bool = True) -> None:
        """Start empty; without a reader (`open_=False`) what is put is dropped."""
        self.items: deque[Any] = deque()
        self.size = 0
        self.abandoned = not open_
        self.closed = False
        self._error: BaseException | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def put(self, item: Any) -> None:
        """Add an item, waiting for room."""
        while not self.abandoned and (
            len(self.items) >= LIMIT or self.size >= LIMIT_BYTES
        ):
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        if self.abandoned:
            return
        if item.__class__ is bytes:
            self.size += len(item)
            if self.items:  # a retained orjson result pins a page: keep a copy
                item = memoryview(item).tobytes()
        self.items.append(item)
        _wake(self._arrived)

    async def wait(self) -> bool:
        """Wait for an item; False when there will be none.

        Raises:
            BaseException: what `close` was given.
        """
        while not self.items:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self.closed:
                return False
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return True

    def get(self) -> Any:
        """Take the oldest item."""
        item = self.items.popleft()
        if item.__class__ is bytes:
            self.size -= len(item)
        _wake(self._room)
        return item

    def abandon(self) -> None:
        """Drop what is here and whatever comes: nobody reads any more."""
        self.abandoned = True
        self.items.clear()
        self.size = 0
        _wake(self._room)

    def close(self, error: BaseException | None) -> None:
        """Say that nothing more comes; a reader gets `error` after the last item."""
        if not self.closed:
            self.closed = True
            self._error = error
            _wake(self._arrived)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
