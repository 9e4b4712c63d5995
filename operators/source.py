"""What a source may be, and how it is called."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from .errors import CompositionError, InvalidEvent
from .operator import name_of, required_parameters
from .turn import TurnContext


@dataclass(frozen=True, slots=True)
class ChatTurnProducer:
    """A stream of events and, once that is drained, the whole text.

    A non-empty `final_text()` wins over what was accumulated; it may be async.
    """

    stream: AsyncIterable[Any] | Iterable[Any]
    final_text: Callable[[], Any]


def source_call(source: object) -> Callable[[TurnContext], Any]:
    """Return how to call `source` with the turn.

    Raises:
        CompositionError: it is not a factory, or wants more than the turn.
    """
    if not callable(source):
        _refuse(source)
    wanted = required_parameters(source)
    if wanted > 1:
        raise CompositionError(
            f"the source {name_of(source)} has {wanted} required parameters: it gets the "
            f"turn, and nothing else"
        )
    if wanted:
        return source
    return lambda turn: source()


def _refuse(source: object) -> NoReturn:
    if inspect.isasyncgen(source) or inspect.isgenerator(source):
        name = source.__name__
        raise CompositionError(
            f"{name}() can be read only once, and a pipeline runs many turns: pass the "
            f"function, Pipeline({name})"
        )
    if inspect.iscoroutine(source):
        source.close()
        raise CompositionError(
            f"{source.__name__}() was called: pass the function, "
            f"Pipeline({source.__name__})"
        )
    raise CompositionError(
        f"{type(source).__name__} is not a source: pass a function that returns an async "
        f"iterable of events, or use pipeline.sources.events(...)"
    )


def iterator_of(made: Any) -> AsyncIterator[Any]:
    """Return the async iterator of what a source, or a `through`, returned.

    Raises:
        InvalidEvent: it is not iterable.
    """
    core = sys.modules.get("aiostream.core")
    if core is not None and isinstance(made, core.BaseStream):
        return made.__aiter__()  # type: ignore[no-any-return]  # a Streamer, not yet entered
    if hasattr(made, "__aiter__"):
        return made.__aiter__()  # type: ignore[no-any-return]  # whatever the source made
    if hasattr(made, "__iter__") and type(made) not in (str, bytes, dict):
        return _each(made)
    raise InvalidEvent(
        f"the source returned {type(made).__name__}: it must return an async iterable of "
        f"events (an async generator function does)"
    )


async def _each(items: Iterable[Any]) -> AsyncIterator[Any]:
    try:
        for item in items:
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
