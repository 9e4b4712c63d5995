"""A bounded mailbox: one task puts, one reader takes; no lock, at most two futures."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

LIMIT: Final = 256
LIMIT_BYTES: Final = 1 << 20
_LATE: Final = object()


class Mailbox:
    """What an owned turn has ready for its reader."""

    __slots__ = (
        "_arrived",
        "_error",
        "_limit",
        "_room",
        "abandoned",
        "closed",
        "items",
        "size",
    )

    def __init__(self, *, open_: bool = True, limit: int = LIMIT) -> None:
        """Start empty; without a reader (`open_=False`) what is put is dropped."""
        self.items: deque[Any] = deque()
        self._limit = limit
        self.size = 0
        self.abandoned = not open_
        self.closed = False
        self._error: BaseException | None = None
        self._arrived: asyncio.Future[object] | None = None
        self._room: asyncio.Future[object] | None = None

    async def put(self, item: Any) -> None:
        """Add an item, waiting for room."""
        while not self.abandoned and (
            len(self.items) >= self._limit or self.size >= LIMIT_BYTES
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

    async def wait(self, limit_s: float | None = None) -> bool | None:
        """Wait for an item; False when there will be none, None when time is up.

        Raises:
            BaseException: what `close` was given.
        """
        while not self.items:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self.closed:
                return False
            loop = asyncio.get_running_loop()
            arrived = self._arrived = loop.create_future()
            if limit_s is None:
                await arrived
                continue
            timer = loop.call_later(limit_s, _late, arrived)
            try:
                if await arrived is _LATE and not self.items and not self.closed:
                    return None
            finally:
                timer.cancel()
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


def _late(waiter: asyncio.Future[object]) -> None:
    if not waiter.done():
        waiter.set_result(_LATE)


def _wake(waiter: asyncio.Future[object] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
