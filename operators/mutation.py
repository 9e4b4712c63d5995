"""What debug mode looks for: a tap that changes the event it was given."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .event import Event
    from .operator import Operator, Stage
    from .turn import TurnContext


def watched(operator: Operator, stage: Stage, turn: TurnContext) -> Stage:
    """Copy a tap's stage so that changes of an event are reported, by the tap's name.

    For asyncio's debug mode: every event is copied to be compared, where it can be.
    Other shapes are returned as they are.
    """
    function = stage.on_event
    if function is None or stage.shape != "tap":
        return stage
    name = operator.name

    def compare(before: Event, event: Event) -> None:
        if event != before:
            turn.log(
                f"{name} changed the event it was given: a tap only looks, use ops.map "
                f"and return a changed copy",
                operator=name,
            )

    async def later(value: Any, before: Event, event: Event) -> None:
        await value
        compare(before, event)

    def on_event(event: Event) -> Any:
        try:
            before = copy.deepcopy(event)
        except Exception:  # not JSON: it fails where it is encoded
            return function(event)
        value = function(event)
        if stage.awaits or inspect.isawaitable(value):
            return later(value, before, event)
        compare(before, event)
        return None

    seen = copy.copy(stage)
    seen.on_event = on_event
    seen.fold = None
    return seen
