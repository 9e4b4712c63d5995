"""The turn that is measured: its events, its hooks, and who runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Any, TypeAlias

import operators as ops
from operators.event import delta, text_part
from operators.turn import TurnIdentity, TurnRecord
from pipeline import Pipeline

from .hand import hand_turn, hand_turn_of_lists
from .stacked import aiostream_turn, map_turn, stacked_turn

Event: TypeAlias = dict[str, Any]
Run: TypeAlias = Callable[[], AsyncIterable[bytes]]

IDENTITY = TurnIdentity(
    tenant_id="ws-1", session_id="thread-1", user_id="u-1", turn_index=0
)
WORDS = ("the ", "sea ", "looks ", "blue ", "because ", "of ", "light, ")


class Counts:
    """What the hooks of all turns did: enough not to be thrown away."""

    events = 0
    saved = 0
    flushed = 0


def on_event(event: Event) -> None:
    """See one event."""
    Counts.events += 1


def strip(text: str) -> str:
    """Change the text that is stored."""
    return text.replace("light", "[redacted]")


async def save(record: TurnRecord) -> None:
    """Store the turn: an async hook that has nothing to wait for."""
    Counts.saved += 1


def flush() -> None:
    """Send off the traces."""
    Counts.flushed += 1


HOOKS: dict[str, Any] = {
    "on_event": on_event,
    "transform": strip,
    "save": save,
    "flush": flush,
}


def tokens(count: int) -> list[Event]:
    """Make the deltas of one text."""
    part = text_part("t0")
    return [delta(part, WORDS[k % len(WORDS)]) for k in range(count)]


def singly(events: list[Event]) -> Callable[[], AsyncGenerator[Event, None]]:
    """Make a source that yields events."""

    async def produce() -> AsyncGenerator[Event, None]:
        for event in events:
            yield event

    return produce


def in_reads(
    events: list[Event], size: int
) -> Callable[[], AsyncGenerator[list[Event], None]]:
    """Make a source that yields the events of one read together."""

    async def produce() -> AsyncGenerator[list[Event], None]:
        for at in range(0, len(events), size):
            yield events[at : at + size]

    return produce


def compose(source: Callable[[], AsyncGenerator[Any, None]], more: int = 0) -> Pipeline:
    """Compose the seven stages, and some more taps."""
    chat = Pipeline(source) | ops.lifecycle() | ops.tap(on_event)
    for _ in range(more):
        chat |= ops.tap(look)
    return (
        chat
        | ops.accumulate()
        | ops.transform(strip)
        | ops.persist(save)
        | ops.trace_flush(flush)
    )


def look(event: Event) -> None:
    """Do nothing with an event: one more tap."""


async def one_more(source: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
    """Do nothing with the events: one more stage, an async generator by hand."""
    async for event in source:
        yield event


def ours(source: Callable[[], AsyncGenerator[Any, None]], more: int = 0) -> Run:
    """Run it as a pipeline."""
    chat = compose(source, more)
    return lambda: chat.start(IDENTITY).body()


def by_hand(source: Callable[[], AsyncGenerator[Event, None]]) -> Run:
    """Run the hand-written generator."""
    return lambda: hand_turn(IDENTITY, source, **HOOKS)


def by_hand_of_lists(source: Callable[[], AsyncGenerator[list[Event], None]]) -> Run:
    """Run the hand-written generator for lists."""
    return lambda: hand_turn_of_lists(IDENTITY, source, **HOOKS)


def stacked(source: Callable[[], AsyncGenerator[Event, None]]) -> Run:
    """Run five generators."""
    return lambda: stacked_turn(IDENTITY, source, **HOOKS)


def by_aiostream(source: Callable[[], AsyncGenerator[Event, None]]) -> Run:
    """Run five aiostream operators."""
    return lambda: aiostream_turn(IDENTITY, source, **HOOKS)


def by_map(source: Callable[[], AsyncGenerator[Event, None]]) -> Run:
    """Run aiostream's own operators."""
    return lambda: map_turn(IDENTITY, source, **HOOKS)
