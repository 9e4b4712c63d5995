"""Two turns of one pipeline, one after the other and side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from .case import IDENTITY, Case, Seen
from .clock import run_virtual
from .laws import Breach, texts_of
from .trial import Subject


def broken_independence(subject: Subject) -> Iterator[Breach]:
    """Give a breach where a turn is not as it would be alone."""
    normal = subject.normal()
    seen = subject.seen(Case("two turns of one pipeline"))
    first, second, *both = run_virtual(_turns(subject, seen))
    alone = _told(normal.events)
    for how, events in (
        ("first", first),
        ("second, after another", second),
        ("first of two at a time", both[0]),
        ("second of two at a time", both[1]),
    ):
        told = _told(events)
        if told != alone:
            yield Breach(
                "independent",
                f"the {how} gave {told!r}, alone it gives {alone!r}: keep what a turn "
                f"needs in the stage that open(turn) makes",
                seen,
            )
            return


async def _turns(subject: Subject, seen: Seen) -> list[list[Any]]:
    pipeline = subject.pipeline(seen)
    clock = asyncio.get_running_loop().time

    async def turn() -> list[Any]:
        run = pipeline.start(IDENTITY, clock=clock, log=lambda message, meta: None)
        events: list[Any] = []
        try:
            events.extend([event async for event in run.events()])
        except Exception as error:
            events.append({"type": f"raised {error!r}"})
        await run.outcome()
        return events

    return [await turn(), await turn(), *await asyncio.gather(turn(), turn())]


def _told(events: list[Any]) -> tuple[Any, ...]:
    """Tell what a turn gave, apart from times and ids: its texts, and its types."""
    return texts_of(events), [event.get("type") for event in events]
