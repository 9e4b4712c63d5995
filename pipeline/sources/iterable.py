"""`events`: a source out of what is at hand."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from typing import TYPE_CHECKING, Any, cast

from operators.errors import CompositionError
from operators.operator import required_parameters

if TYPE_CHECKING:
    from operators.event import Event
    from operators.turn import TurnContext


def events(
    source: Iterable[Event]
    | Iterable[list[Event]]
    | AsyncIterable[Event]
    | AsyncIterable[list[Event]]
    | Callable[..., Any],
) -> Callable[[TurnContext], AsyncGenerator[Event | list[Event], None]]:
    """Give the events of an iterable anew each turn, or of what a function makes.

    The iterable, sync or async, holds events or lists of them; the function, async or
    not, makes one, and gets the turn if it has a required parameter. Generators that a
    function made are closed with the turn.

    Raises:
        CompositionError: it can be iterated only once, such as a generator, or not at
            all; also, while the turn runs, for what a function made.
    """
    if not callable(source):
        _check(source, again=True)
    wants = callable(source) and required_parameters(source) > 0

    async def events(turn: TurnContext) -> AsyncGenerator[Event | list[Event], None]:
        made: Any = source
        if callable(source):
            made = source(turn) if wants else source()
            if inspect.isawaitable(made):
                made = await made
            _check(made, again=False)
        if isinstance(made, AsyncIterable):
            iterator = aiter(cast("AsyncIterable[Any]", made))
            try:
                async for item in iterator:
                    yield item
            finally:
                if isinstance(iterator, AsyncGenerator):
                    await cast("AsyncGenerator[Any, None]", iterator).aclose()
            return
        items = iter(cast("Iterable[Any]", made))
        try:
            for item in items:
                yield item
        finally:
            if inspect.isgenerator(items):
                items.close()

    return events


def _check(source: object, *, again: bool) -> None:
    kind = type(source).__name__
    if isinstance(source, (dict, str, bytes, bytearray)):
        raise CompositionError(f"events({kind}): wrap the event in a list, [event]")
    if inspect.iscoroutine(source):
        source.close()
        raise CompositionError(
            "events() got a coroutine: pass the function itself, events(produce) "
            "instead of events(produce())"
        )
    if not isinstance(source, (Iterable, AsyncIterable)):
        raise CompositionError(
            f"events({kind}): it is neither iterable nor a function that makes an "
            f"iterable"
        )
    if again and isinstance(source, (Iterator, AsyncIterator)):
        raise CompositionError(
            f"events({kind}): it can be iterated only once, and the second turn would "
            f"get nothing: pass the function that makes it, events(produce) instead of "
            f"events(produce()), or a list"
        )
