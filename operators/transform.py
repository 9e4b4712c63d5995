"""`transform`: what is stored is not what was streamed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .operator import Operator, Stage, bind_turn, name_of

if TYPE_CHECKING:
    from .turn import Part, TurnContext


def transform(
    function: Callable[..., str | Awaitable[str]], /, *, name: str | None = None
) -> Operator:
    """Pass the accumulated text through `function(text)` before it is stored.

    The live stream is untouched. Applied to the whole text, and to each text part of the
    stored message. Several transforms apply in order. A raising one fails the turn, and
    nothing is stored.

    Order: after `accumulate`, before `persist`.
    """
    bind = bind_turn(function)

    def open_(turn: TurnContext) -> Stage:
        bound = function if bind is None else bind(turn)

        async def apply(text: str) -> str:
            value: Any = bound(text)
            if inspect.isawaitable(value):
                value = await value
            if not isinstance(value, str):
                raise TypeError(
                    f"{label} gave {type(value).__name__}: a transform returns text"
                )
            return value

        async def settle() -> None:
            text = turn.final_text
            turn.final_text = await apply(turn.text() if text is None else text)
            parts = turn.parts()
            changed: tuple[Part, ...]
            if len(parts) == 1 and parts[0].get("text") == text:
                changed = ({**parts[0], "text": turn.final_text},)
            else:
                changed = tuple(
                    [
                        {**part, "text": await apply(part["text"])}
                        if isinstance(part.get("text"), str)
                        else part
                        for part in parts
                    ]
                )
            turn.parts = lambda: changed

        return Stage(settle=settle, when="needed")

    label = name or f"transform({name_of(function)})"
    return Operator(label, open_, detail={"kind": "transform"}, needs="accumulate")
