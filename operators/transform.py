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

    The live stream is untouched. Applied to the whole text, and to each text part of
    the stored message. Several transforms apply in order. A raising one fails the turn,
    and nothing is stored.

    Order: after `accumulate`, before `persist`.
    """
    bind = bind_turn(function)
    label = name or f"transform({name_of(function)})"

    def settle(turn: TurnContext) -> Awaitable[None] | None:
        apply = function if bind is None else bind(turn)
        text = turn.text() if turn.final_text is None else turn.final_text
        parts = turn.parts()
        # The whole text first, then what else the message shows: a message of one text,
        # the usual one, is transformed once.
        if len(parts) == 1 and parts[0].get("text") == text:
            one: Any = apply(text)
            if one.__class__ is str:
                changed = ({**parts[0], "text": one},)
                turn.final_text = one
                turn.parts = lambda: changed
                return None
            return _awaited(turn, label, parts, [one])
        texts = [text, *[part["text"] for part in parts if _has_text(part)]]
        made = [apply(one) for one in texts]
        return _awaited(turn, label, parts, made)

    stage = Stage(settle=settle, when="needed", by_turn=True)
    return Operator(
        label,
        lambda turn: stage,
        detail={"kind": "transform"},
        needs="accumulate",
        fixed=True,
    )


def _has_text(part: Part) -> bool:
    return isinstance(part.get("text"), str)


async def _awaited(
    turn: TurnContext, label: str, parts: tuple[Part, ...], made: list[Any]
) -> None:
    texts: list[str] = []
    for one in made:
        text = (await one) if inspect.isawaitable(one) else one
        if not isinstance(text, str):
            raise TypeError(
                f"{label} gave {type(text).__name__}: a transform returns text"
            )
        texts.append(text)
    turn.final_text = texts[0]
    rest = iter(texts if len(texts) == 1 else texts[1:])
    changed = tuple(
        [{**part, "text": next(rest)} if _has_text(part) else part for part in parts]
    )
    turn.parts = lambda: changed
