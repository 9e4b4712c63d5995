"""`complete`: what happens once the turn is stored."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .drive import failure_of
from .operator import Operator, Stage, bind_turn, name_of

if TYPE_CHECKING:
    from .turn import TurnContext


def complete(
    function: Callable[..., object], /, *, name: str | None = None
) -> Operator:
    """Call `function(record)` after persist, before the terminal event.

    Only where the source was drained and nothing before it raised. Its own errors are
    logged and change nothing. With a second required parameter it also gets the turn.

    Order: after `persist`.
    """
    bind = bind_turn(function)
    label = name or f"complete({name_of(function)})"

    async def settle(turn: TurnContext) -> None:
        bound = function if bind is None else bind(turn)
        try:
            value: Any = bound(turn.record())
            if inspect.isawaitable(value):
                await value
        except BaseException as exc:
            turn.log(f"{label} raised", failure_of(exc), operator=label)

    stage = Stage(settle=settle, by_turn=True)
    return Operator(label, stage=stage, detail={"kind": "complete"})
