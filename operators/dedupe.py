"""`dedupe`: what came twice passes once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from .event import ENVELOPE
from .keyed import at_least, finder
from .operator import Operator, Stage

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext


def dedupe(
    key: str | Callable[[Event], Hashable] = "id", /, *, window: int = 1024
) -> Operator:
    """Drop an event whose key is among those of the last `window` events that passed.

    `key` is a key of the event itself, or a function of it. Events without that key, or
    whose function gives None, always pass, and so do `session.run.*` and `error`.

    Holds: at most `window` keys.
    Raises (failing the turn): what the function raises; TypeError for a key that is not
        hashable. CompositionError: a key or a window that cannot be.
    """
    label, find = finder(key, "dedupe")
    at_least(1, window, "dedupe: window")

    def open_(turn: TurnContext) -> Stage:
        seen: dict[Hashable, None] = {}

        def passes(event: Event) -> bool:
            if event.get("type") in ENVELOPE:
                return True
            found = find(event)
            if found is None:
                return True
            if found in seen:
                return False
            seen[found] = None
            if len(seen) > window:
                del seen[next(iter(seen))]
            return True

        return Stage(passes, shape="filter", awaits=False)

    return Operator(
        label, open_, detail={"kind": "dedupe", "window": window}, fixed=True
    )
