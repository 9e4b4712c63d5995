"""One call of a source, as those that choose between several hold it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from operators.content import is_content, is_heartbeat
from operators.drive import called
from operators.event import LLM_CALL
from operators.operator import name_of
from operators.source import ChatTurnProducer, iterator_of, source_call

if TYPE_CHECKING:
    from operators.event import Event
    from operators.turn import TurnContext

Combined: TypeAlias = "Callable[[TurnContext], ChatTurnProducer]"
"""A source made of sources; it has the `final_text` of the one that answers."""

Before: TypeAlias = Literal["first_content", "first_event"]

HELD: Final = 1024
"""The reads withheld at most: a source that gives more without content has begun."""


class Choice:
    """A source that can be asked; one that cannot be is refused when composed."""

    __slots__ = ("call", "name")

    def __init__(self, source: object) -> None:
        """Check what it is.

        Raises:
            CompositionError: it is not a factory, or wants more than the turn.
        """
        self.call = source_call(source)
        self.name = name_of(cast("Callable[..., Any]", source))


class Candidate:
    """One call of a source: opened once, iterated and closed by one task.

    `held` are the reads that were withheld, until it `has_begun`.
    """

    __slots__ = ("_choice", "_iterator", "_made", "_turn", "begun", "held", "name")

    def __init__(self, choice: Choice, turn: TurnContext) -> None:
        """Call nothing yet."""
        self._choice = choice
        self._turn = turn
        self._made: Any = None
        self._iterator: AsyncIterator[Any] | None = None
        self.name = choice.name
        self.begun = False
        self.held: list[Any] = []

    async def open(self) -> AsyncIterator[Any]:
        """Call the source; return the iterator of what it made."""
        made = self._choice.call(self._turn)
        if inspect.isawaitable(made) and not hasattr(made, "__aiter__"):
            made = await made
        self._made = made
        if isinstance(made, ChatTurnProducer):
            made = made.stream
        iterator = self._iterator = iterator_of(made)
        enter: Any = getattr(iterator, "__aenter__", None)
        if enter is not None:  # an aiostream Streamer
            await enter()
        return iterator

    async def next(self) -> Any:
        """Read what comes next, opening the source first.

        Raises:
            StopAsyncIteration: it has ended.
        """
        iterator = self._iterator
        if iterator is None:
            iterator = await self.open()
        return await anext(iterator)

    def rest(self) -> AsyncIterator[Any]:
        """Return the iterator itself: what comes after is no affair of anyone's."""
        assert self._iterator is not None, "next() comes first"
        return self._iterator

    def admit(self, item: Any, before: Before = "first_content") -> list[Any]:
        """Take a read that came before the source has begun; return what to deliver.

        That is nothing while nothing that counts has come, then all of it. Heartbeats
        are not withheld: they say nothing, but keep connections alive.
        """
        events = cast("list[Any]", item if isinstance(item, list) else [item])
        counts = _is_shown if before == "first_content" else _is_event
        if len(self.held) >= HELD or any(map(counts, events)):
            self.begun = True
            return [*self.released(), item]
        if events and all(map(is_heartbeat, events)):
            return [item]
        self.held.append(item)
        return []

    def released(self) -> list[Any]:
        """Take what was withheld: it is to be delivered now."""
        held, self.held = self.held, []
        return held

    def usage(self) -> list[list[Event]]:
        """Take what it has used as far as it said; drop all else that was withheld."""
        reads = ([e for e in _each(item) if _is_usage(e)] for item in self.released())
        return [read for read in reads if read]

    async def final_text(self) -> str:
        """Ask the producer for its text; "" where it has none."""
        if not isinstance(self._made, ChatTurnProducer):
            return ""
        text = await called(self._made.final_text)
        return "" if text is None else text

    async def close(self) -> None:
        """Close the iterator, its connection too."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


class Answer:
    """Whose `final_text` the turn has: that of the candidate that was read to its end."""

    __slots__ = ("candidate",)

    def __init__(self) -> None:
        """Begin without one."""
        self.candidate: Candidate | None = None

    async def final_text(self) -> str:
        """Tell its text; "" where it has none."""
        return "" if self.candidate is None else await self.candidate.final_text()


def named(function: Combined, kind: str, *choices: Choice) -> Combined:
    """Give a combined source the name that `describe()` shows."""
    function.__name__ = f"{kind}({', '.join(choice.name for choice in choices)})"
    return function


def _each(item: Any) -> Iterable[Any]:
    return cast("list[Any]", item) if isinstance(item, list) else (item,)


def _is_shown(event: object) -> bool:
    return is_content(event) or not isinstance(event, dict)


def _is_event(event: object) -> bool:
    return not is_heartbeat(event)


def _is_usage(event: Event) -> bool:
    return event.get("type") == LLM_CALL
