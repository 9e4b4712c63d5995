"""Operators outside of a pipeline: in an aiostream expression, or fed by a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable
from typing import TYPE_CHECKING, Any, cast

from .drive import Opened, cancelling, checked
from .errors import CompositionError
from .turn import Ending, TurnContext, TurnIdentity

if TYPE_CHECKING:
    from aiostream.core import Stream

    from .event import Event
    from .operator import Operator


def stream_through(
    operators: tuple[Operator, ...], source: AsyncIterable[Any]
) -> Stream[Event]:
    """Make the aiostream Stream of `source` gone through `operators`."""
    from aiostream.core import Stream

    if not hasattr(source, "__aiter__"):
        raise CompositionError(
            f"{type(source).__name__} is not an async iterable: "
            f"start with aiostream.stream.iterate(...)"
        )
    return Stream(lambda: alone(operators, source))


async def alone(
    operators: tuple[Operator, ...],
    source: AsyncIterable[Any],
    turn: TurnContext | None = None,
) -> AsyncGenerator[Event, None]:
    """Run operators outside of a pipeline, in a turn of their own.

    Emits: what the operators let out, and the envelope where a lifecycle is among them.
    Raises: what the source or an operator raises, unless there is a lifecycle.
    """
    if turn is None:
        turn = TurnContext(TurnIdentity(session_id="stream", turn_index=0))
    opened = Opened(operators, turn, debug=asyncio.get_running_loop().get_debug())
    asked: list[BaseException] = []
    turn.stopper = asked.append
    out: list[Event] = []
    settled = False
    try:
        if opened.envelope >= 0:
            envelope = opened.stages[opened.envelope].envelope
            assert envelope is not None
            await opened.push(opened.envelope + 1, envelope.started(), out)
            for event in out:
                yield event
            out.clear()
        async with contextlib.aclosing(_segments(opened, source)) as events:
            while True:
                try:
                    if opened.broken is not None:
                        raise opened.broken[1]
                    event = await anext(events)
                    if asked:
                        raise asked[0]
                except StopAsyncIteration:
                    if turn.ending is None:
                        turn.ending = Ending(opened.status, drained=True)
                    if asked:
                        opened.turn_failed(asked[0])
                    break
                except (Exception, asyncio.CancelledError) as exc:
                    if isinstance(exc, asyncio.CancelledError) and cancelling():
                        raise
                    if turn.ending is None:
                        opened.turn_failed(exc)
                    break
                yield event
        settled = True
        await _settle(opened, out)
        for event in out:
            yield event
    finally:
        if not settled:  # the reader is gone
            turn.ending = Ending("cancelled", drained=False, reason="disconnected")
            await _settle(opened, out)
        await opened.closing(opened.close())
    if opened.envelope < 0 and turn.ending is not None and turn.ending.error:
        raise turn.ending.error


async def _settle(opened: Opened, out: list[Event]) -> None:
    await opened.finish(out)
    await opened.settle()
    await opened.terminals(out)


async def _segments(
    opened: Opened, source: AsyncIterable[Any]
) -> AsyncGenerator[Event, None]:
    """Join the stretches between `through` operators."""
    from aiostream import streamcontext

    lo = 0
    stages = opened.stages
    async with contextlib.AsyncExitStack() as stack:
        flow: AsyncIterable[Any] = await stack.enter_async_context(
            streamcontext(source)
        )
        for k, stage in enumerate(stages):
            if stage.through is None:
                continue
            segment = await stack.enter_async_context(
                contextlib.aclosing(_segment(opened, lo, k, flow))
            )
            flow = await stack.enter_async_context(
                streamcontext(stage.through(segment))
            )
            lo = k + 1
        last = contextlib.aclosing(_segment(opened, lo, len(stages), flow))
        async for event in await stack.enter_async_context(last):
            yield event


async def _segment(
    opened: Opened, start: int, stop: int, source: AsyncIterable[Any]
) -> AsyncGenerator[Event, None]:
    out: list[Event] = []
    failure: Exception | None = None
    async for item in source:
        for event in cast("list[object]", item) if isinstance(item, list) else (item,):
            sent = len(out)
            try:
                await _strictly(opened, start, checked(event, "the source"), out, stop)
            except Exception as exc:
                failure = exc
                del out[sent:]
                break
        for event in out:  # what came before a bad event of the same read is sent
            yield event
        out.clear()
        if failure is not None:
            raise failure
    if stop < len(opened.stages):
        await opened.finish(out, start, stop)
        for event in out:
            yield event


async def _strictly(
    opened: Opened, start: int, event: Event, out: list[Event], stop: int
) -> None:
    """Push; a failure that is not the operator's own affair is raised."""
    await opened.push(start, event, out, stop)
    ending = opened.turn.ending
    if ending is not None and ending.error is not None:
        raise ending.error
