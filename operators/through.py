"""`through`: any aiostream operator, or any function from stream to stream."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import TYPE_CHECKING, Any

from .errors import CompositionError
from .operator import Operator, Stage, bind_turn, name_of

if TYPE_CHECKING:
    from .turn import TurnContext


def through(
    function: Callable[..., AsyncIterable[Any]], /, *, name: str | None = None
) -> Operator:
    """Put `function(source)` into the stream: an async iterable in, one out.

    `ops.through(aiostream.pipe.timeout(30))` is the usual use. A boundary: what is left
    and right of it is not fused into one loop. It sees single events, those that come
    from the source and, when that was drained, those held back before it; the started
    and terminal events and what is sent after a stop step over it.
    """
    if not callable(function):
        raise CompositionError(
            f"{function!r} is not callable: pass a function from stream to stream, "
            f"such as aiostream.pipe.timeout(30)"
        )
    if getattr(function, "__qualname__", "").endswith(".pipe") and str(
        function.__module__
    ).startswith("aiostream."):
        raise CompositionError(
            "this aiostream operator was not called: write it with its arguments, such "
            "as ops.through(aiostream.pipe.take(5))"
        )
    bind = bind_turn(function, generators="any")

    def open_(turn: TurnContext) -> Stage:
        return Stage(through=function if bind is None else bind(turn))

    label = name or f"through({name_of(function)})"
    return Operator(label, open_, detail={"kind": "through"}, fixed=True)
