"""`persist`: the sink that stores the turn."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .errors import CompositionError
from .operator import Operator, Stage, bind_turn, name_of

if TYPE_CHECKING:
    from .turn import TurnContext


def persist(
    save: Callable[..., object],
    /,
    *,
    partial: bool = False,
    retries: int = 0,
    backoff: float = 0.1,
    timeout: float | None = None,
    name: str | None = None,
) -> Operator:
    """Call `save(record)` with the TurnRecord, once the source is drained.

    With `partial=True` on every end, with what was produced and the status. `save` may
    take the turn as its second required parameter. It is tried `1 + retries` times,
    `backoff` seconds apart, doubling; each try may take `timeout` seconds. All of it
    lies within the turn's `settle_timeout`.

    Raises (failing the turn): what the last try raised; then nothing after it settles.
    Order: after `accumulate`, and after the transforms that it shall store.
    """
    if retries.__class__ is not int or retries < 0:
        raise CompositionError(f"retries must be an int, 0 or more, not {retries!r}")
    bind = bind_turn(save)
    label = name or f"persist({name_of(save)})"

    def settle(turn: TurnContext) -> Awaitable[None] | None:
        record = turn.record()
        bound = save if bind is None else bind(turn)
        if retries or timeout is not None:
            return tried(turn, lambda: bound(record))
        value: Any = bound(record)
        if value is not None and inspect.isawaitable(value):
            return saved(turn, value)
        turn.persisted = True
        return None

    async def saved(turn: TurnContext, pending: Awaitable[object]) -> None:
        await pending
        turn.persisted = True

    async def tried(turn: TurnContext, attempt: Callable[[], Any]) -> None:
        left = retries
        pause = backoff
        while True:
            try:
                value = attempt()
                if inspect.isawaitable(value):
                    async with asyncio.timeout(timeout):
                        await value
            except Exception as exc:
                if not left:
                    raise
                turn.log(f"{label} raised, trying again", exc, operator=label)
            else:
                turn.persisted = True
                return
            left -= 1
            await asyncio.sleep(pause)
            pause *= 2

    stage = Stage(settle=settle, when="always" if partial else "drained", by_turn=True)
    detail = {"kind": "persist", "partial": partial, "retries": retries}
    return Operator(
        label, lambda turn: stage, detail=detail, needs="accumulate", fixed=True
    )
