"""A source pulled by a task of its own, a bounded way ahead of its reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Pump:
    """Pull a source from one task; its reader takes what is `ready`.

    `take(item)` is called with every item of the source, and `end()` when it is over;
    both hand on with `put`. `ahead` counts the events that were pulled and not yet
    read, those that `take` still holds included; at `limit` the task pulls no further.

    The task begins with the first read, in a copy of the reader's context. It alone
    iterates the source and closes it. An error of the source is raised to the reader
    after everything that came before it. Leaving `read` ends the task: a cancelled
    reader waits for the source to close, and each further cancellation reaches the
    source's cleanup, as if the reader had iterated it.
    """

    __slots__ = (
        "_end",
        "_ended",
        "_error",
        "_limit",
        "_moved",
        "_room",
        "_take",
        "ahead",
        "ready",
    )

    def __init__(
        self, limit: int, *, take: Callable[[Any], None], end: Callable[[], None]
    ) -> None:
        """Start with nothing pulled."""
        self._limit = limit
        self._take = take
        self._end = end
        self._moved = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None
        self.ahead = 0
        self.ready: deque[tuple[Any, int]] = deque()

    def put(self, item: object, events: int) -> None:
        """Make `item` ready: it stands for that many events of the source."""
        self.ready.append((item, events))
        self._moved.set()

    async def read(
        self, source: AsyncIterable[Any], *, name: str
    ) -> AsyncGenerator[Any, None]:
        """Give what is ready, in order, until the source is over; `name` the task."""
        task = asyncio.create_task(self._pull(source), name=name)
        try:
            while True:
                if self.ready:
                    item, events = self.ready.popleft()
                    self.ahead -= events
                    self._room.set()
                    yield item
                elif not self._ended:
                    self._moved.clear()
                    await self._moved.wait()
                elif self._error is not None:
                    raise self._error
                else:
                    return
        finally:
            await _ended(task)

    async def _pull(self, source: AsyncIterable[Any]) -> None:
        iterator = cast("AsyncGenerator[Any, None]", aiter(source))
        try:
            async with aclosing(iterator):
                async for item in iterator:
                    self._take(item)
                    while self.ahead >= self._limit:
                        self._room.clear()
                        await self._room.wait()
        except (Exception, asyncio.CancelledError) as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the reader has left
                raise
            self._error = exc
        self._end()
        self._ended = True
        self._moved.set()


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel the task and wait until it is over, however often this is cancelled."""
    task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as exc:
            cancelled = exc
            task.cancel()
    error = None if task.cancelled() else task.exception()
    if cancelled is not None:
        raise cancelled
    if error is not None:
        raise error
