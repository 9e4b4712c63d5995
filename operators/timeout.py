"""`timeout`: deadlines for what the source has to do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from .content import is_content, is_heartbeat
from .deadline import Deadline, is_seconds
from .errors import CompositionError, TurnTimeout
from .operator import Operator, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .turn import TurnContext


def timeout(
    *,
    first_event: float | None = None,
    first_content: float | None = None,
    idle: float | None = None,
    total: float | None = None,
) -> Operator:
    """Fail the turn when the source keeps it waiting; limits are seconds.

    `first_event`: waiting for the first event. `first_content`: waiting, in sum, for
    the first event that `is_content`. `idle`: waiting for any one event after the
    first; for the first one too where neither `first_event` nor `first_content` is
    given. Only time spent waiting for the source counts for these: a reader that takes
    long between two pulls trips none of them. `total`: time on the turn's clock from
    the first pull to the source's end, a slow reader's time included; where it passes
    while nobody pulls, the next pull raises.

    Heartbeats, events whose type starts with `heartbeat` or `ping`, pass and count as
    silence: they end neither `first_event` nor `first_content` nor `idle`. An empty
    delta is an event, but not content.

    Emits: what comes in, lists of one read untouched.
    Raises: TurnTimeout, code `timeout.first_event`, `.first_content`, `.idle` or
        `.total`; the wait is interrupted by cancelling the task that waits, and where
        that task is cancelled from outside as well, the cancellation wins. A source
        that ends, yields or raises something else when interrupted has timed out all
        the same. CompositionError: no limit at all, or one that is not a positive,
        finite number.
    Order: right after the source; what stands before it is timed with the source. A
        boundary: not fused. One timer a turn, however many events.
    """
    limits: dict[str, float | None] = {
        "first_event": first_event,
        "first_content": first_content,
        "idle": idle,
        "total": total,
    }
    given = {phase: limit for phase, limit in limits.items() if limit is not None}
    if not given:
        raise CompositionError(
            "timeout() limits nothing: give seconds for one or more of "
            f"{', '.join(limits)}"
        )
    for phase, limit in given.items():
        if not is_seconds(limit):
            raise CompositionError(
                f"timeout({phase}={limit!r}): it must be a positive number of seconds; "
                f"leave it out for no limit"
            )

    def open_(turn: TurnContext) -> Stage:
        def through(source: AsyncIterable[Any]) -> AsyncIterator[Any]:
            return _timed(source, given, turn)

        return Stage(through=through, lists=True)

    return Operator("timeout", open_, detail={"kind": "timeout", **given}, fixed=True)


async def _timed(
    source: AsyncIterable[Any], limits: dict[str, float], turn: TurnContext
) -> AsyncIterator[Any]:
    """Pass on what `source` gives, each wait for it watched."""
    clock = turn.clock
    left = {phase: limit for phase, limit in limits.items() if phase != "total"}
    idle = left.get("idle", math.inf)
    if len(left) > 1:
        left.pop("idle", None)  # it begins with the first event
    total = limits.get("total", math.inf)
    ends = clock() + total
    phase = "total"

    def late() -> object:
        # The turn interrupts its own read, and gives up one that does not end.
        stop = turn.stopper
        return None if stop is None else stop(TurnTimeout(phase, limits[phase]))

    deadline = Deadline(clock, late)
    iterator = cast("AsyncGenerator[Any, None]", aiter(source))
    try:
        async with aclosing(iterator):
            while True:
                began = clock()
                if began >= ends:
                    raise TurnTimeout("total", total)
                phase, at = "total", ends
                for name, seconds in left.items():
                    if began + seconds < at:
                        phase, at = name, began + seconds
                deadline.begin(at, began)
                try:
                    item = await anext(iterator)
                except (Exception, asyncio.CancelledError) as exc:
                    if deadline.end():
                        raise TurnTimeout(phase, limits[phase]) from exc
                    if isinstance(exc, StopAsyncIteration):
                        return
                    raise
                if deadline.end():  # pragma: no cover - 3.11 traces no line after a
                    raise TurnTimeout(phase, limits[phase])  # throw that was swallowed
                if left:
                    _count(left, item, idle, clock() - began)
                yield item
    finally:
        deadline.close()


def _count(left: dict[str, float], item: object, idle: float, waited: float) -> None:
    """Bring up to date what may still be waited, now that `item` is here."""
    events = cast("list[object]", item if isinstance(item, list) else [item])
    if all(map(is_heartbeat, events)):  # also where there are none
        for phase in left:
            left[phase] -= waited
        return
    left.pop("first_event", None)
    if idle < math.inf:
        left["idle"] = idle
    if "first_content" in left:
        if any(map(is_content, events)):
            del left["first_content"]
        else:
            left["first_content"] -= waited
