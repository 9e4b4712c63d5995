"""The same seven stages without fusing: five async generators, and plain aiostream.

They build on the parts of the hand-written turn, and give the same bytes for a turn that
completes or reports its own failure; what raises is not handled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from time import time
from typing import Any

import orjson
from aiostream import pipable_operator, pipe, stream, streamcontext

from operators.turn import TurnIdentity, TurnRecord
from pipeline.execution import derive_execution_id

from .hand import FOLDED, NEWLINE, REPORTS, Envelope, Event, Message, log, record_of

Produce = Callable[[], AsyncGenerator[Event, None]]
Save = Callable[[TurnRecord], Awaitable[object]]


class Turn:
    """What the stages of one turn share."""

    def __init__(
        self,
        identity: TurnIdentity,
        *,
        on_event: Callable[[Event], object],
        transform: Callable[[str], str],
        save: Save,
        flush: Callable[[], object],
    ) -> None:
        self.identity = identity
        self.execution_id = derive_execution_id(
            identity.tenant_id or "-", identity.session_id, identity.turn_index
        )
        self.started_at = time()
        self.envelope = Envelope(identity)
        self.message = Message()
        self.on_event = on_event
        self.transform = transform
        self.save = save
        self.flush = flush

    async def settle(self) -> Event:
        """Store the turn; make its terminal."""
        await self.save(
            record_of(
                self.identity,
                self.execution_id,
                self.started_at,
                self.envelope,
                self.message,
                self.transform,
            )
        )
        return self.envelope.terminal()

    def absorb(self, event: Event) -> Event | None:
        """Keep a terminal of the source back."""
        kind = event.get("type")
        return self.envelope.absorb(kind, event) if kind in REPORTS else event

    def tap(self, event: Event) -> None:
        """Show an event to the tap; log what that raises."""
        try:
            self.on_event(event)
        except Exception:
            log.exception("tap raised")

    def fold(self, event: Event) -> None:
        """Take an event into the message."""
        kind = event.get("type")
        if kind in FOLDED:
            data: Any = event.get("data")
            if data.__class__ is dict:
                self.message.fold(kind, data)


async def absorbing(source: AsyncIterator[Event], turn: Turn) -> AsyncIterator[Event]:
    """Keep the source's terminals back."""
    async for event in source:
        passed = turn.absorb(event)
        if passed is not None:
            yield passed


async def folding(source: AsyncIterator[Event], turn: Turn) -> AsyncIterator[Event]:
    """Gather the message."""
    message = turn.message
    last: object = message
    append = message.chunks.append
    async for event in source:
        kind = event.get("type")
        if kind in FOLDED:
            data: Any = event.get("data")
            if data.__class__ is dict:
                text = data.get("delta")
                if isinstance(text, str) and data.get("part") is last:
                    append(text)
                else:
                    message.fold(kind, data)
                    last = message.last
                    append = message.chunks.append
        yield event


async def enveloped(source: AsyncIterator[Event], turn: Turn) -> AsyncIterator[Event]:
    """Open the turn; store it and end it when the source is drained."""
    yield turn.envelope.started()
    async for event in source:
        yield event
    yield await turn.settle()


async def tapped(source: AsyncIterator[Event], turn: Turn) -> AsyncIterator[Event]:
    """Show every event to the tap."""
    on_event = turn.on_event
    async for event in source:
        try:
            on_event(event)
        except Exception:
            log.exception("tap raised")
        yield event


async def encoded(source: AsyncIterator[Event], turn: Turn) -> AsyncIterator[bytes]:
    """Write lines; flush at the end."""
    dumps = orjson.dumps
    try:
        async for event in source:
            yield dumps(event, None, NEWLINE)
    finally:
        turn.flush()


async def stacked_turn(
    identity: TurnIdentity, produce: Produce, **hooks: Any
) -> AsyncIterator[bytes]:
    """Run a turn through five async generators, one on the other."""
    turn = Turn(identity, **hooks)
    async with aclosing(produce()) as source:
        events = folding(absorbing(source, turn), turn)
        async for chunk in encoded(tapped(enveloped(events, turn), turn), turn):
            yield chunk


@pipable_operator
async def absorb(source: Any, turn: Turn) -> AsyncIterator[Any]:
    """Keep the source's terminals back."""
    async with streamcontext(source) as streamer:
        async for event in streamer:
            passed = turn.absorb(event)
            if passed is not None:
                yield passed


@pipable_operator
async def fold(source: Any, turn: Turn) -> AsyncIterator[Any]:
    """Gather the message."""
    async with streamcontext(source) as streamer:
        async for event in streamer:
            turn.fold(event)
            yield event


@pipable_operator
async def envelop(source: Any, turn: Turn) -> AsyncIterator[Any]:
    """Open the turn; store it and end it when the source is drained."""
    async with streamcontext(source) as streamer:
        yield turn.envelope.started()
        async for event in streamer:
            yield event
        yield await turn.settle()


@pipable_operator
async def tap(source: Any, turn: Turn) -> AsyncIterator[Any]:
    """Show every event to the tap."""
    async with streamcontext(source) as streamer:
        async for event in streamer:
            turn.tap(event)
            yield event


@pipable_operator
async def encode(source: Any, turn: Turn) -> AsyncIterator[Any]:
    """Write lines; flush at the end."""
    async with streamcontext(source) as streamer:
        try:
            async for event in streamer:
                yield orjson.dumps(event, None, NEWLINE)
        finally:
            turn.flush()


async def aiostream_turn(
    identity: TurnIdentity, produce: Produce, **hooks: Any
) -> AsyncIterator[bytes]:
    """Run a turn through five aiostream operators of one's own (`streamcontext`)."""
    turn = Turn(identity, **hooks)
    chat = (
        stream.iterate(produce())
        | absorb.pipe(turn)
        | fold.pipe(turn)
        | envelop.pipe(turn)
        | tap.pipe(turn)
        | encode.pipe(turn)
    )
    async with chat.stream() as chunks:
        async for chunk in chunks:
            yield chunk


async def map_turn(
    identity: TurnIdentity, produce: Produce, **hooks: Any
) -> AsyncIterator[bytes]:
    """Run a turn through aiostream's own operators (`map`, `action`, `chain`)."""
    turn = Turn(identity, **hooks)
    a: Any = stream  # its types want every function to take several streams' items
    do: Any = pipe
    events = (
        a.iterate(produce())
        | do.map(turn.absorb)
        | do.filter(_is_event)
        | do.action(turn.fold)
    )
    chat = (
        a.chain(a.just(turn.envelope.started()), events, a.call(turn.settle))
        | do.action(turn.tap)
        | do.map(_line)
    )
    try:
        async with chat.stream() as chunks:
            async for chunk in chunks:
                yield chunk
    finally:
        turn.flush()


def _is_event(event: Event | None) -> bool:
    return event is not None


def _line(event: Event) -> bytes:
    return orjson.dumps(event, None, NEWLINE)
