"""`watched`: an operator whose parts are counted, and disturbed where a case says so."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from operators.operator import Operator, Stage
from operators.turn import TurnContext

from .case import Injected, Seen


def watched(k: int, operator: Operator, seen: Seen) -> Operator:
    """Stand in for an operator: its parts are counted, and raise where they shall."""

    def open_(turn: TurnContext) -> Stage:
        stage = copy.copy(operator.open(turn))
        seen.stages[k] = stage
        for part in ("finish", "settle", "close"):
            function = getattr(stage, part)
            if function is not None:
                setattr(stage, part, _counted(k, part, function, seen))
        inject = seen.case.inject
        if stage.on_event is not None:
            if inject == (k, "on_event"):
                stage.on_event = _raising(stage.on_event, seen, awaits=stage.awaits)
                stage.fold = None
            elif inject == (k, "watch"):
                stage.on_event = _compared(k, stage.on_event, seen, awaits=stage.awaits)
                stage.fold = None
        return stage

    return Operator(
        operator.name,
        open_,
        detail=operator.detail,
        once=operator.once,
        needs=operator.needs,
        guards=operator.guards,
        fixed=operator.fixed,
    )


def _counted(
    k: int, part: str, function: Callable[..., Any], seen: Seen
) -> Callable[..., Any]:
    key = (k, part)

    async def disturbed(pending: Any) -> None:
        if inspect.isawaitable(pending):
            await pending
        if seen.case.hangs:
            await asyncio.get_running_loop().create_future()
        raise Injected(f"{part} of {seen.names[k]}")

    async def noted(pending: Awaitable[Any]) -> Any:
        value = await pending
        seen.ended[key] += 1
        return value

    def counted(*args: Any) -> Any:
        seen.begun[key] += 1
        value = function(*args)
        if seen.case.inject == key:  # its own work is done, so that nothing leaks by us
            seen.injected = True
            return disturbed(value)
        if inspect.isawaitable(value):
            return noted(value)
        seen.ended[key] += 1
        return value

    return counted


def _raising(
    function: Callable[..., Any], seen: Seen, *, awaits: bool
) -> Callable[..., Any]:
    """Let the second event that comes raise."""
    calls = 0

    def raises() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            seen.injected = True
            raise Injected("on_event")

    async def on_event_async(event: Any) -> Any:
        raises()
        return await function(event)

    def on_event(event: Any) -> Any:
        raises()
        return function(event)

    return on_event_async if awaits else on_event


def _compared(
    k: int, function: Callable[..., Any], seen: Seen, *, awaits: bool
) -> Callable[..., Any]:
    """Note where an operator writes into the event that it is given."""

    def compare(was: Any, event: Any) -> None:
        if was != event:
            seen.wrote.append(
                f"operator {k + 1}, {seen.names[k]}, made {event!r} of {was!r}"
            )

    async def on_event_async(event: Any) -> Any:
        was = copy.deepcopy(event)
        value = await function(event)
        compare(was, event)
        return value

    def on_event(event: Any) -> Any:
        was = copy.deepcopy(event)
        value = function(event)
        compare(was, event)
        return value

    return on_event_async if awaits else on_event
