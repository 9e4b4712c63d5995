"""`coalesce`: fewer, larger deltas."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from .deadline import is_seconds
from .errors import CompositionError
from .merger import Merger
from .operator import Operator, Stage
from .pump import Pump

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext


def coalesce(
    *, max_events: int = 16, max_chars: int = 2048, max_delay: float | None = None
) -> Operator:
    """Merge adjacent deltas of one part into one.

    Two deltas are merged when nothing but the delta differs: same part, same other
    keys. Where parts carry a `text` of their own, the later one is kept. Any other
    event, an empty delta included, first lets out what is held, then passes itself. The
    first delta of the turn passes at once.

    Emits: deltas of at most `max_events` deltas and `max_chars` characters (code
        points); one that is longer by itself passes uncut. A delta that found no
        neighbour passes as the very object that came in.
    Holds back: up to `max_events - 1` deltas, let out when they are full, at another
        event, at the end, on an error and on a cancel. Without `max_delay` a source
        that falls silent keeps them waiting.

    With `max_delay` (seconds) held text is ready for the reader that long after it came
    in at the latest, also while the source is silent. The source is then pulled by a
    task of its own, in a copy of the reader's context, at most `max_events` events (and
    the rest of one read) ahead of the reader: a boundary, not fused. What one read
    delivered stays one list. An error of the source is raised after the text before it;
    on a cancel what was pulled is not lost, `finish` returns it.

    Raises: CompositionError for limits below 1 or a delay that is not positive.
    Order: after what reads single tokens (redaction), before what is paid per event.
    """
    limits: dict[str, object] = {"max_events": max_events, "max_chars": max_chars}
    for name, limit in limits.items():
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise CompositionError(
                f"coalesce({name}={limit!r}): it must be a whole number of at least 1"
            )
    if max_delay is not None and not is_seconds(max_delay):
        raise CompositionError(
            f"coalesce(max_delay={max_delay!r}): it must be a positive number of "
            f"seconds; leave it out for no limit"
        )

    def open_(turn: TurnContext) -> Stage:
        merger = Merger(max_events, max_chars)
        if max_delay is None:
            return Stage(
                merger.push, shape="flat_map", awaits=False, finish=merger.flush
            )
        delayed = _Delayed(merger, max_events, max_delay, turn)
        return Stage(through=delayed.through, finish=delayed.finish, lists=True)

    detail = {
        "kind": "coalesce",
        "max_events": max_events,
        "max_chars": max_chars,
        "max_delay": max_delay,
    }
    return Operator("coalesce", open_, detail=detail, fixed=True)


class _Delayed:
    """A merger behind a pump, and the timer that lets out what is held for too long."""

    def __init__(
        self, merger: Merger, max_events: int, max_delay: float, turn: TurnContext
    ) -> None:
        self.merger = merger
        self.max_delay = max_delay
        self.clock = turn.clock
        self.due = math.inf
        self.handle: asyncio.TimerHandle | None = None
        self.pump = Pump(max_events, take=self.take, end=self.let_out)

    async def through(self, source: AsyncIterable[Any]) -> AsyncIterator[Any]:
        try:
            async with aclosing(self.pump.read(source, name="coalesce")) as items:
                async for item in items:
                    yield item
        finally:
            if self.handle is not None:
                self.handle.cancel()

    def take(self, item: object) -> None:
        """Merge one item of the source, and set the timer for what is held."""
        several = isinstance(item, list)
        events = cast("list[Event]", item if several else [item])
        before = self.merger.held
        out = [made for event in events for made in self.merger.push(event)]
        held = self.merger.held
        self.pump.ahead += len(events)
        if out:
            whole = several or len(out) > 1
            self.pump.put(out if whole else out[0], before + len(events) - held)
        if held and (out or not before):
            self.due = self.clock() + self.max_delay
            if self.handle is None:
                self.arm(self.max_delay)

    def arm(self, delay: float) -> None:
        self.handle = asyncio.get_running_loop().call_later(delay, self.look)

    def look(self) -> None:
        """Let out what is due; what came later waits for its own time."""
        self.handle = None
        if self.merger.held:
            left = self.due - self.clock()
            if left > 0:
                self.arm(left)
            else:
                self.let_out()

    def let_out(self) -> None:
        held = self.merger.held
        for event in self.merger.flush():
            self.pump.put(event, held)

    def finish(self) -> list[Event]:
        """Return what was pulled and not read: the reader left before."""
        self.let_out()
        left: list[Event] = []
        for item, _ in self.pump.ready:
            left += item if isinstance(item, list) else [item]
        self.pump.ready.clear()
        return left
