"""What each operator costs per event: alone, and fused into a pipeline's loop.

*Fused* is what a pipeline's event costs more with the operator than without. *Alone* is
the same for an aiostream stream, `xs | operator`. For scale: one more async generator.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import aiostream

import operators as ops
from operators.operator import Composable
from pipeline import Pipeline

from . import seven
from .measure import Case, Report, Settings, Table, main, measure
from .seven import Event

EVENTS = 200


async def look_async(event: Event) -> None:
    """Do nothing, awaited."""


def same(event: Event) -> Event:
    """Give the event back."""
    return event


def alike(event: Event) -> Event:
    """Give a copy."""
    return {**event}


def wanted(event: Event) -> bool:
    """Let it pass."""
    return True


def one(event: Event) -> tuple[Event]:
    """Give it as the only one."""
    return (event,)


def agreeable(text: str) -> bool:
    """Let any text pass."""
    return True


def counted(state: int, event: Event) -> tuple[int, Event]:
    """Count, and give it back."""
    return state + 1, event


class Meter:
    """A tap with a state."""

    seen = 0

    def on_event(self, event: Event) -> None:
        """Count."""
        self.seen += 1


OPERATORS: dict[str, Composable] = {
    "lifecycle()": ops.lifecycle(),
    "tap(f)": ops.tap(seven.look),
    'tap(f, on_error="fail")': ops.tap(seven.look, on_error="fail"),
    "tap(f, types=...) of others": ops.tap(seven.look, types=("error",)),
    "tap(async f)": ops.tap(look_async),
    "tap(async f, queue=64)": ops.tap(look_async, queue=64),
    "map(f)": ops.map(same),
    "map(f) that copies": ops.map(alike),
    "filter(f)": ops.filter(wanted),
    "flat_map(f)": ops.flat_map(one),
    "operator(class)": ops.operator(Meter),
    "accumulate()": ops.accumulate(),
    "coalesce()": ops.coalesce(),
    "timeout(idle=30)": ops.timeout(idle=30),
    "coalesce(max_delay=1)": ops.coalesce(max_delay=1.0),
    "meter()": ops.meter(),
    "accumulate() and meter()": ops.accumulate() | ops.meter(),
    "budget(tokens=)": ops.budget(tokens=10**9),
    "redact(*DEFAULT)": ops.redact(*ops.detectors.DEFAULT),
    "restore(vault)": ops.restore({}),
    "scan(f)": ops.scan(counted, 0),
    "only(type)": ops.only("message.part.updated"),
    "drop(type)": ops.drop("llm_call"),
    "switch(route)": ops.switch({"message.part.updated": ops.map(same)}),
    "share()": ops.share(),
    'share(slow="wait")': ops.share(slow="wait"),
    "dedupe()": ops.dedupe(id),
    "resequence(f)": ops.resequence(lambda event: None, first=0),
    "validate()": ops.validate(),
    "guard(check)": ops.guard(agreeable),
    'guard(check, mode="stream_first")': ops.guard(agreeable, mode="stream_first"),
    'smooth("line")': ops.smooth("line", delay=1e-6),
    "through(identity)": ops.through(seven.one_more),
    "through(pipe.filter)": ops.through(aiostream.pipe.filter(wanted)),
}


def run(settings: Settings) -> Report:
    """Measure every operator."""
    source = seven.singly(seven.tokens(EVENTS))
    cases: dict[str, Case] = {
        "fused": _events(Pipeline(source)),
        "alone": _stream(source, None),
        "raw": _raw(source),
        "raw, more": _raw(lambda: seven.one_more(source())),
    }
    for name, operator in OPERATORS.items():
        cases[f"fused {name}"] = _events(Pipeline(source) | operator)
        cases[f"alone {name}"] = _stream(source, operator)
    found = measure(cases, settings)

    def added(name: str, base: str) -> float:
        return found.added(name, base) / EVENTS * 1e9

    table = Table("One operator more: ns/event", ("operator", "fused", "alone"))
    table.rows.append(("(an async generator by hand)", added("raw, more", "raw"), None))
    for name in OPERATORS:
        table.rows.append(
            (
                name,
                added(f"fused {name}", "fused"),
                added(f"alone {name}", "alone"),
            )
        )
    return Report([table])


def _events(chat: Pipeline) -> Case:
    async def read() -> None:
        async for _ in chat.start(seven.IDENTITY).events():
            pass

    return read


def _stream(
    source: Callable[[], AsyncGenerator[Event, None]], operator: Composable | None
) -> Case:
    async def read() -> None:
        xs: Any = aiostream.stream.iterate(source())
        if operator is not None:
            xs |= operator
        async with xs.stream() as events:
            async for _ in events:
                pass

    return read


def _raw(source: Callable[[], AsyncIterator[Event]]) -> Case:
    async def read() -> None:
        async for _ in source():
            pass

    return read


if __name__ == "__main__":
    sys.exit(main(run, __doc__))
