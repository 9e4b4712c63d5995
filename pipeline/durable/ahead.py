"""Reading an adapter ahead of the log, so that what comes at once is appended at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Generic, TypeVar, cast

from operators.drive import failure_of
from operators.turn import logger

T = TypeVar("T")

AHEAD_ITEMS: Final = 64
"""How much is read that the log does not hold yet; then the adapter has to wait."""


class Ahead(Generic[T]):
    """Reads an iterator in a task of its own, from its first item to its close."""

    __slots__ = ("_error", "_items", "_over", "_ready", "_room", "_task")

    def __init__(self, begin: Callable[[], AsyncIterator[T | list[T]]]) -> None:
        """Begin to read what `begin` gives."""
        self._items: list[T] = []
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._error: BaseException | None = None
        self._over = False
        self._task = asyncio.create_task(self._read(begin), name="turnpipe adapter")

    async def take(self) -> list[T]:
        """Wait for items; give all that are there, none at the end.

        Raises: what the iterator raised, after its items.
        """
        while not self._items and not self._over:
            self._ready.clear()
            await self._ready.wait()
        items, self._items = self._items, []
        self._room.set()
        if not items and self._error is not None:
            raise self._error
        return items

    async def close(self) -> None:
        """Stop reading; returns when the iterator is closed."""
        self._task.cancel()
        while not self._task.done():
            await asyncio.wait((self._task,))

    async def _read(self, begin: Callable[[], AsyncIterator[T | list[T]]]) -> None:
        source: Any = None
        try:
            source = begin()
            async for item in source:
                if isinstance(item, list):
                    self._items.extend(cast("list[T]", item))
                else:
                    self._items.append(item)
                self._ready.set()
                if len(self._items) >= AHEAD_ITEMS:
                    self._room.clear()
                    await self._room.wait()
        except BaseException as exc:
            self._error = failure_of(exc)
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                try:
                    await close()
                except Exception as exc:
                    logger.warning("closing an adapter's events: %r", exc)
            self._over = True
            self._ready.set()
