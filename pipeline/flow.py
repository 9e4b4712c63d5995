"""What the generated plan calls on its turn, beside the end of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, cast

from operators.drive import cancelling, checked, passes
from operators.errors import InvalidEvent
from operators.source import ChatTurnProducer, iterator_of
from operators.turn import Ending

from .settlement import Settlement

if TYPE_CHECKING:
    from operators.event import Event


class _StopAsked(Exception):
    """The turn was stopped before its source was opened."""


class Flow(Settlement):
    """How events get into a turn, and past what holds them."""

    _asked: Ending | None = None

    def started(self) -> Iterable[Event]:
        """Make the event that opens the turn."""
        envelope = self._opened.stages[self._opened.envelope].envelope
        assert envelope is not None
        return (envelope.started(),)

    async def started_over(self, stop: int) -> list[Event]:
        """Make it where the lifecycle stands before a `through`, which it steps over."""
        out: list[Event] = []
        (event,) = self.started()
        await self._opened.push(self._opened.envelope + 1, event, out, stop)
        ending = self.context.ending
        if ending is not None and ending.error is not None:
            raise ending.error
        return out

    async def source(self, index: int) -> AsyncIterator[Any]:
        """Open the source of a segment: the turn's own, or a `through` over the last."""
        segment = None
        if index:
            k = self._plan.boundaries[index - 1]
            segment = self._plan.segments[index - 1].function(
                self, self._opened.stages, checked, passes, inspect.isawaitable
            )
            function = self._opened.stages[k].through
            assert function is not None
            made: Any = function(segment)
        else:
            if self._asked is not None:
                raise _StopAsked
            if self._opened.broken is not None:
                raise self._opened.broken[1]
            made = self._recipe.call_source(self.context)
            if made.__class__ is AsyncGeneratorType:  # the usual source
                self._iterators.append(made)
                opened: AsyncIterator[Any] = made
                return opened
            if inspect.isawaitable(made) and not hasattr(made, "__aiter__"):
                made = await made
            if isinstance(made, ChatTurnProducer):
                self._final_text = made.final_text
                made = made.stream
        iterator = iterator_of(made)
        enter: Any = getattr(iterator, "__aenter__", None)
        if enter is not None:  # an aiostream Streamer
            await enter()
        self._iterators.append(iterator)
        if segment is not None:
            self._iterators.append(segment)
        return iterator

    def first(self) -> None:
        """Stamp the first event."""
        self._first_event = self.context.clock()

    def tap_failed(self, k: int, error: BaseException) -> Callable[..., Any]:
        """Log what a tap raised; return the function to call from now on.

        Raises:
            BaseException: it is not the tap's: a cancellation that was asked for, the
                end of the process.
        """
        if not isinstance(error, Exception) and (
            not isinstance(error, asyncio.CancelledError) or cancelling()
        ):
            raise error
        self._opened.fail(k, error)
        stage = self._opened.stages[k]
        if stage.on_error == "disable":
            return _nothing_async if stage.awaits else _nothing
        assert stage.on_event is not None
        return stage.on_event

    def _hold_rest(self, rest: Iterable[Any]) -> None:
        """Keep what is left of the list that a reader of events left in its middle."""
        start = self._plan.spans[-1][0]
        for event in rest:
            if not isinstance(event, dict):
                break
            self._held += ((start, cast("Event", event)),)

    def _hold(self, batch: Iterable[Event], error: BaseException | None) -> None:
        """Keep what had passed all operators when the turn was stopped."""
        encode = self._encode[0]
        broken = isinstance(error, InvalidEvent)
        for event in batch:
            if broken and encode is not None:  # what precedes the bad event is sent
                try:
                    encode(event)
                except InvalidEvent:
                    break
            self._held += ((len(self._recipe.operators), event),)
            self.events_sent += 1

    async def finish_segment(self, index: int) -> list[Event]:
        """Finish the operators of an inner segment; what they held goes on in order.

        In a task of its own: a reader that is cancelled meanwhile loses nothing, the
        settlement takes over what comes of it.
        """
        start, stop = self._plan.spans[index]
        stages = self._opened.stages
        if not any(stages[k].finish for k in range(start, stop)):
            return []

        async def finish() -> list[Event]:
            out: list[Event] = []
            await self._opened.finish(out, start, stop)
            return out

        self._finishing_index = index
        task = self._finishing = asyncio.Task(
            finish(), loop=self._loop, context=self._context.copy()
        )
        out = await asyncio.shield(task)
        self._finishing = None
        ending = self.context.ending
        if ending is not None and ending.error is not None:
            self.held(index, out)
            raise ending.error
        return out


def _nothing(event: Event) -> None:
    """Stand in for a disabled tap."""


async def _nothing_async(event: Event) -> None:
    """Stand in for a disabled async tap."""
