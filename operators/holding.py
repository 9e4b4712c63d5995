"""Text held until it is checked: the mode `hold` of `guard`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from .content import is_heartbeat
from .guarded import Texts, replaced
from .verdict import given

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext
    from .verdict import Blocked, Checker
    from .windowed import Text

_NOTHING: Final[tuple[Event, ...]] = ()


class Holding:
    """One turn of a guard that lets out only what was checked.

    What may go out when an event, or what it sets off, fails stands in `_out`: `finish`
    returns it.
    """

    def __init__(self, checker: Checker, window: int, turn: TurnContext) -> None:
        """Hold nothing."""
        self._checker = checker
        self._texts = Texts(window)
        self._turn = turn
        self._out: list[Event] = []

    def on_event(self, event: Event) -> Iterable[Event]:
        """Take one event; give what may go, with a check that is called in place."""
        text = self._texts.take(event)
        if text is not None:
            if self._checker.shut:
                return _NOTHING
            if not text.unchecked:  # it says nothing new
                return (event,)
            text.events.append(event)
            if not text.due:
                return _NOTHING
            seen = text.checking()
            self._release(text, self._checker.look_at_once(seen), seen)
        elif is_heartbeat(event) or self._checker.shut:
            return (event,)
        else:
            for held in self._texts.waiting():
                seen = held.checking()
                self._release(held, self._checker.look_at_once(seen), seen)
            self._out.append(event)
        return self._taken()

    async def on_event_async(self, event: Event) -> Iterable[Event]:
        """Do as `on_event`, with a check that is awaited."""
        text = self._texts.take(event)
        if text is not None:
            if self._checker.shut:
                return _NOTHING
            if not text.unchecked:  # it says nothing new
                return (event,)
            text.events.append(event)
            if not text.due:
                return _NOTHING
            seen = text.checking()
            self._release(text, await self._checker.look(seen), seen)
        elif is_heartbeat(event) or self._checker.shut:
            return (event,)
        else:
            await self._check_rest()
            self._out.append(event)
        return self._taken()

    async def finish(self) -> Iterable[Event]:
        """Check what is held; give what may go, then raise what is wrong."""
        error: Exception | None = None
        if not self._checker.shut:
            try:
                await self._check_rest()
            except Exception as exc:
                error = exc
        return given(self._taken(), error, self._turn)

    async def _check_rest(self) -> None:
        for text in self._texts.waiting():
            seen = text.checking()
            self._release(text, await self._checker.look(seen), seen)

    def _release(self, text: Text, blocked: Blocked | None, seen: str) -> None:
        """Let out the events of a text that has passed.

        Raises:
            TurnBlocked: it has not; the replacement is let out.
        """
        if blocked is None:
            text.passed(seen)
            self._out += text.events
            text.events = []
            return
        instead = self._checker.replacement(blocked)
        if instead:
            self._out.append(replaced(text.events[-1], instead))
        raise self._checker.error(blocked)

    def _taken(self) -> list[Event]:
        out, self._out = self._out, []
        return out
