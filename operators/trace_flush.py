"""`trace_flush`: get the traces out before the process may be frozen."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

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

    def open_(turn: TurnContext) -> Stage:
        bound = flush if bind is None else bind(turn)

        async def guarded(pending: Awaitable[object]) -> None:
            try:
                await pending
            except Exception as exc:
                turn.log(f"{label} raised", exc, operator=label)

        async def close() -> None:
            value: Any = bound()
            if not inspect.isawaitable(value):
                return
            if turn.wait_until is None:
                await value
                return
            task = asyncio.ensure_future(guarded(value))
            await asyncio.sleep(0)  # its first step comes before it is handed over
            turn.wait_until(task)

        return Stage(close=close)

    return Operator(label, open_, detail={"kind": "trace_flush"})
