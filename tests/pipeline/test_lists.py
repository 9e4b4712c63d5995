"""A list from the source leaves as its events would have left one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import operators as ops
from operators.turn import TurnIdentity
from pipeline import Pipeline
from pipeline.wire.ndjson import LARGE_CHUNK, encode

Event = dict[str, Any]
IDENTITY = TurnIdentity(session_id="s", turn_index=0)
PART = {"id": "t", "type": "text"}

DELTA: Event = {
    "type": "message.part.updated",
    "data": {"part": PART, "delta": "a "},
}
KINDS: tuple[Event, ...] = (
    DELTA,
    {"type": "error", "data": {"message": "in-band"}},
    {"type": "session.run.completed"},
    {"type": "upper", "data": "x"},
    {"type": "gone"},
    {"type": "stop"},
    {"type": "upper", "data": "stop"},
    {"data": "no type"},
)


def louder(event: Event) -> Event:
    return {**event, "data": event["data"].upper()}


def twice(event: Event) -> Event:
    return {**event, "data": event["data"] * 2}


def without(event: Event) -> Event | None:
    return None


def stop(event: Event) -> None:
    if event.get("data") != "XX":
        raise RuntimeError("stop")


async def told(
    events: list[Event], sizes: list[int] | None
) -> tuple[list[Event], str, int]:
    """Run a turn of `events`, singly or in lists of `sizes`: lines, text, counted."""

    async def source() -> AsyncGenerator[Any, None]:
        if sizes is None:
            for event in events:
                yield event
            return
        at = 0
        for size in sizes:
            yield events[at : at + size]
            at += size
        yield events[at:]

    saved: list[str] = []
    chat = (
        Pipeline(source)
        | ops.lifecycle()
        | ops.map(louder, types=["upper"])
        | ops.operator(
            lambda: ops.Stage(
                without, shape="filter_map", types=frozenset({"gone"}), on_error="fail"
            ),
            name="drop gone",
        )
        | ops.map(twice, types=["upper"])
        | ops.tap(stop, types=["stop", "upper"], on_error="fail")
        | ops.accumulate()
        | ops.persist(lambda record: saved.append(record.text), partial=True)
    )
    run = chat.start(IDENTITY, execution_id="x")
    lines = b"".join([chunk async for chunk in run.body()]).splitlines()
    outcome = await run.outcome()
    told = [orjson.loads(line) for line in lines]
    for event in told:
        if isinstance(event.get("data"), dict):
            event["data"].pop("errorId", None)
    return told, "".join(saved), outcome.events


@given(st.lists(st.sampled_from(KINDS)), st.lists(st.integers(0, 6)))
def test_lists_say_what_single_events_say(
    events: list[Event], sizes: list[int]
) -> None:
    async def both() -> None:
        assert await told(events, sizes) == await told(events, None)

    asyncio.run(both())


@pytest.mark.parametrize("at", range(5))
async def test_what_passed_before_an_operator_raised_is_sent(at: int) -> None:
    events = [DELTA] * 5
    events[at] = {"type": "stop"}
    lines, text, _ = await told(events, [5])
    assert [line["type"] for line in lines] == [
        "session.run.started",
        *["message.part.updated"] * at,
        "error",
        "session.run.failed",
    ]
    assert text == "a " * at


async def test_the_source_keeps_its_list_as_it_was() -> None:
    events = [DELTA, *KINDS[1:5], DELTA]
    given_list = list(events)

    async def source() -> AsyncGenerator[list[Event], None]:
        yield given_list

    chat = Pipeline(source) | ops.lifecycle() | ops.map(louder, types=["upper"])
    lines = [line async for line in chat.start(IDENTITY).body()]
    assert given_list == events
    assert b'{"type":"upper","data":"X"}\n' in b"".join(lines)


async def test_chunks_of_any_size_hold_the_same_lines() -> None:
    text = "x" * (LARGE_CHUNK // 4)
    large = {"type": "large", "data": text}
    reads = [[DELTA, DELTA], [large] * 8, [large, {"type": "ü"}], [DELTA], [large] * 5]
    reads.append([{"type": "big", "data": 2**70}, large])

    async def source() -> AsyncGenerator[list[Event], None]:
        for read in reads:
            yield read

    run = (Pipeline(source) | ops.lifecycle()).start(IDENTITY)
    chunks = [chunk async for chunk in run.body()][1:-1]
    assert chunks == [b"".join(map(encode, read)) for read in reads]
