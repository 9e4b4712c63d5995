"""`transform`: what is stored is not what was streamed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .operator import Operator, Stage, bind_turn, name_of

if TYPE_CHECKING:
    from .turn import Part, Parts, TurnContext


def transform(
    function: Callable[..., str | Awaitable[str]], /, *, name: str | None = None
) -> Operator:
    """Pass the accumulated text through `function(text)` before it is stored.

    The live stream is untouched. Applied to the whole text, and to the text of each
    part of the stored message: of reasoning too, which is shown like any other text.
    Several transforms apply in order. A raising one fails the turn, and nothing is
    stored. Drafts (`persist(every=)`) pass it as well, each time.

    Order: after `accumulate`, before `persist`.
    """
    bind = bind_turn(function)
    label = name or f"transform({name_of(function)})"

    def rewrite(
        turn: TurnContext, text: str, parts: Parts
    ) -> tuple[str, Parts] | Awaitable[tuple[str, Parts]]:
        apply = function if bind is None else bind(turn)
        # The whole text first, then what else the message shows: a message of one text,
        # the usual one, is transformed once.
        if len(parts) == 1 and parts[0].get("text") == text:
            one: Any = apply(text)
            if one.__class__ is str:
                return one, ({**parts[0], "text": one},)
            return _awaited(label, parts, [one])
        texts = [text, *[part["text"] for part in parts if _has_text(part)]]
        return _awaited(label, parts, [apply(one) for one in texts])

    def settle(turn: TurnContext) -> Awaitable[None] | None:
        text = turn.text() if turn.final_text is None else turn.final_text
        made = rewrite(turn, text, turn.parts())
        if not isinstance(made, tuple):
            return later(turn, made)
        turn.final_text, changed = made
        turn.parts = lambda: changed
        return None

    async def later(turn: TurnContext, made: Awaitable[tuple[str, Parts]]) -> None:
        turn.final_text, changed = await made
        turn.parts = lambda: changed

    stage = Stage(settle=settle, when="needed", by_turn=True)

    def open_(turn: TurnContext) -> Stage:
        turn.rewrites += (rewrite,)
        return stage

    return Operator(
        label,
        open_,
        detail={"kind": "transform"},
        needs="accumulate",
        fixed=True,
    )


def _has_text(part: Part) -> bool:
    return isinstance(part.get("text"), str)


async def _awaited(label: str, parts: Parts, made: list[Any]) -> tuple[str, Parts]:
    texts: list[str] = []
    for one in made:
        text = (await one) if inspect.isawaitable(one) else one
        if not isinstance(text, str):
            raise TypeError(
                f"{label} gave {type(text).__name__}: a transform returns text"
            )
        texts.append(text)
    rest = iter(texts if len(texts) == 1 else texts[1:])
    changed = tuple(
        [{**part, "text": next(rest)} if _has_text(part) else part for part in parts]
    )
    return texts[0], changed
