"""What comes out of a backlog, one entry at a time: what `smooth` stands on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast

from .pump import Pump

if TYPE_CHECKING:
    from .backlog import Backlog
    from .event import Event
    from .turn import TurnContext

_AHEAD: Final = 16_384
"""The characters that are pulled and not yet read, at most (and one read more)."""


class Pacing:
    """A backlog behind a pump; the reader waits for the time of what is next."""

    def __init__(
        self, backlog: Backlog, delay: float, max_hold: float, turn: TurnContext
    ) -> None:
        """Start with nothing pulled; times are seconds of the turn's clock."""
        self.backlog = backlog
        self.delay = delay
        self.max_hold = max_hold
        self.clock = turn.clock
        self.next_at = self.clock()
        self.came_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: asyncio.Future[None] | None = None
        self.out: deque[Event] = deque()
        self.pump = Pump(_AHEAD, take=self._take, end=self._end)

    async def through(self, source: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """Give the events of `source` at their time."""
        # What the pump hands on only says that there may be something in the backlog.
        try:
            async with aclosing(self.pump.read(source, name="smooth")) as signals:
                async for _ in signals:
                    if not len(self.backlog):
                        continue
                    await self._wait()
                    events, weight = self.backlog.pop()
                    self.pump.put(None, weight)
                    self.out.extend(events)
                    while self.out:  # one by one: none is lost when this is closed
                        yield self.out.popleft()
        finally:
            if self.timer is not None:
                self.timer.cancel()

    async def _wait(self) -> None:
        """Wait until the next unit is due, or something is in a hurry."""
        while not self.backlog.hurried:
            now = self.clock()
            left = self.next_at - now
            if left <= 0:
                late = -left > self.delay
                self.next_at = (now if late else self.next_at) + self.delay
                return
            loop = asyncio.get_running_loop()
            self.waiting = loop.create_future()
            handle = loop.call_later(left, self._wake)
            try:
                await self.waiting
            finally:
                handle.cancel()
                self.waiting = None

    def _wake(self) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)

    def _take(self, item: object) -> None:
        """Put one item of the source into the backlog, and tell the reader."""
        for event in cast("list[Event]", item if isinstance(item, list) else [item]):
            self.pump.ahead += self.backlog.push(event)
        if self.backlog.hurried:
            self._wake()
        self._signal()
        if self.backlog.unfinished:
            self.came_at = self.clock()
            if self.timer is None:
                self._arm(self.max_hold)

    def _arm(self, delay: float) -> None:
        self.timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        """Let a unit go that the source left unfinished for too long."""
        self.timer = None
        if self.backlog.unfinished:
            left = self.came_at + self.max_hold - self.clock()
            if left > 0:
                self._arm(left)
            else:
                self._end()

    def _end(self) -> None:
        self.backlog.finish_unit()
        self._signal()

    def _signal(self) -> None:
        if len(self.backlog) and not self.pump.ready:
            self.pump.put(None, 0)

    def finish(self) -> list[Event]:
        """Return what was pulled and not read: the reader left before."""
        return [*self.out, *self.backlog.rest()]
