"""`trace_flush`: get the traces out before the process may be frozen."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .drive import failure_of
from .operator import Operator, Stage, bind_turn, name_of

if TYPE_CHECKING:
    from .turn import TurnContext


def trace_flush(
    flush: Callable[..., object], /, *, name: str | None = None
) -> Operator:
    """Call `flush()` after the terminal event, on every end; errors are logged.

    Where the turn was started with `wait_until`, an async flush is handed to it and the
    turn closes at once. With a required parameter `flush` gets the turn.
    """
    bind = bind_turn(flush, 0)
    label = name or f"trace_flush({name_of(flush)})"

    async def guarded(turn: TurnContext, pending: Awaitable[object]) -> None:
        try:
            await pending
        except BaseException as exc:
            turn.log(f"{label} raised", failure_of(exc), operator=label)

    async def handed_over(
        turn: TurnContext,
        pending: Awaitable[object],
        wait_until: Callable[[Awaitable[object]], object],
    ) -> None:
        task = asyncio.ensure_future(guarded(turn, pending))
        await asyncio.sleep(0)  # its first step comes before it is handed over
        try:
            asked = wait_until(task)
            if inspect.iscoroutine(asked):
                await asked
        except BaseException:
            await task  # nobody else keeps it
            raise

    def close(turn: TurnContext) -> object:
        value: Any = flush() if bind is None else bind(turn)()
        if value is None or not inspect.isawaitable(value):
            return None
        if turn.wait_until is None:
            return value
        return handed_over(turn, value, turn.wait_until)

    stage = Stage(close=close, by_turn=True)
    return Operator(label, stage=stage, detail={"kind": "trace_flush"})
