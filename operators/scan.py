"""`scan`: a function with a state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from .errors import CompositionError
from .operator import Operator, Stage, bind_turn, is_async, name_of, required_parameters

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext

_VALUES = (type(None), bool, int, float, complex, str, bytes, tuple, frozenset, Decimal)


def scan(
    step: Callable[..., Any],
    start: Any,
    /,
    *,
    end: Callable[[Any], Any] | None = None,
    name: str | None = None,
) -> Operator:
    """Replace every event by what `step(state, event)` gives: `(state, events)`.

    `events` is one event, an iterable of events, or None for none. `start` is the first
    state: a value that cannot change, or a function that makes one for every turn.
    `end(state)` gives the events that come last, when the source is closed. `step` and
    `end` may be async; a step with a third required parameter gets the turn.

    Raises (failing the turn): what they raise; `invalid_event` for what is no event.
        CompositionError: a `start` that all turns would share and change.
    """
    if not callable(start) and type(start) not in _VALUES:
        raise CompositionError(
            f"scan: all turns would share {start!r}: pass a function that makes it, "
            f"such as {type(start).__name__}"
        )
    if callable(start) and required_parameters(start):
        raise CompositionError(f"scan: {name_of(start)} must take no parameters")
    if end is not None and bind_turn(end) is not None:
        raise CompositionError(f"scan: {name_of(end)} must take the state alone")
    bind = bind_turn(step, 2)

    def open_(turn: TurnContext) -> Stage:
        scanned = _Scan(
            step if bind is None else bind(turn),
            start() if callable(start) else start,
            end,
        )
        if is_async(step):
            return Stage(scanned.later, shape="flat_map", finish=scanned.finish)
        return Stage(scanned.on_event, shape="flat_map", finish=scanned.finish)

    label = name or f"scan({name_of(step)})"
    return Operator(label, open_, detail={"kind": "scan"}, fixed=True)


class _Scan:
    def __init__(
        self, step: Callable[..., Any], state: Any, end: Callable[[Any], Any] | None
    ) -> None:
        self.step = step
        self.state = state
        self.end = end

    def on_event(self, event: Event) -> Iterable[Any]:
        self.state, events = self.step(self.state, event)
        return _several(events)

    async def later(self, event: Event) -> Iterable[Any]:
        self.state, events = await self.step(self.state, event)
        return _several(events)

    async def finish(self) -> Iterable[Any]:
        if self.end is None:
            return ()
        events = self.end(self.state)
        return _several(await events if inspect.isawaitable(events) else events)


def _several(events: Any) -> Iterable[Any]:
    if events is None:
        return ()
    several: Iterable[Any] = (
        (cast("Event", events),) if isinstance(events, dict) else events
    )
    return several
