"""Everything held until the end: the mode `final` of `guard`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from .content import is_heartbeat
from .guarded import Texts, replaced
from .verdict import given

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext
    from .verdict import Checker

_NOTHING: Final[tuple[Event, ...]] = ()


class HoldingAll:
    """One turn of a guard that checks once, at the end; everything waits for that."""

    def __init__(self, checker: Checker, turn: TurnContext) -> None:
        """Hold nothing."""
        self._checker = checker
        self._texts = Texts(1)
        self._turn = turn
        self._held: list[tuple[Event, bool]] = []
        self._over = False

    def on_event(self, event: Event) -> tuple[Event, ...]:
        """Hold an event; what comes before the first text passes, and heartbeats."""
        shows = self._texts.take(event) is not None
        if self._over:
            return _NOTHING if shows else (event,)
        if is_heartbeat(event) or not (self._held or shows):
            return (event,)
        self._held.append((event, shows))
        return _NOTHING

    async def finish(self) -> Iterable[Event]:
        """Check the whole; give it or the replacement, then raise what is wrong."""
        checker = self._checker
        self._over = True
        texts = [text.checking() for text in self._texts.due(all_=True)]
        out = [event for event, _ in self._held]
        if not texts:
            return out
        try:
            blocked = await checker.look("\n\n".join(texts))
            if blocked is None:
                return out
            error: Exception = checker.error(blocked)
            instead = checker.replacement(blocked)
        except Exception as exc:
            error, instead = exc, ""
        out = [event for event, shows in self._held if not shows]
        if instead:
            last = next(event for event, shows in reversed(self._held) if shows)
            out.append(replaced(last, instead))
        return given(out, error, self._turn)
