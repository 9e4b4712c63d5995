"""Heartbeats: on the wire, while a reader waits, and nowhere else."""

import asyncio
import json

import pytest

import operators as ops
from operators.errors import CompositionError
from pipeline import Pipeline

from .support import HANG_S, IDENTITY, A, B, lines, read, seven, ticks

BEAT_S = 0.01


class Gate:
    """A source that gives an event when it is told to."""

    def __init__(self, *events):
        self.events = events
        self.opened = asyncio.Semaphore(0)
        self.pulled = 0
        self.closed = 0

    async def __call__(self):
        try:
            for event in self.events:
                self.pulled += 1
                await self.opened.acquire()
                yield event
        finally:
            self.closed += 1


def turn(seen, source, mode="cancel", **options):
    beat = ops.heartbeat(BEAT_S, **options)
    chat = seven(seen, source, partial=True) | beat
    return chat.start(IDENTITY, log=seen.log, on_disconnect=mode)


async def beats(body, n):
    """Read until `n` chunks in a row are blank lines."""
    found = []
    async with asyncio.timeout(HANG_S):
        while len(found) < n:
            chunk = await anext(body)
            found = [*found, chunk] if not chunk.strip() else []
    return found


@pytest.mark.parametrize("mode", ["cancel", "detach"])
async def test_a_reader_that_waits_gets_blank_lines_until_the_end(seen, mode):
    source = Gate(A, B)
    body = turn(seen, source, mode).body()
    assert await beats(body, 2) == [b"\n", b"\n"]
    source.opened.release()
    assert await beats(body, 2) == [b"\n", b"\n"]
    source.opened.release()
    rest = await read(body)
    assert [json.loads(c)["type"] for c in rest if c.strip()] == [
        A["type"],
        "session.run.completed",
    ]
    assert len(seen.events) == 4  # no tap has seen a beat
    assert seen.saved[0].text == "AB"


async def test_beats_stop_with_the_first_event_where_so_asked(seen):
    source = Gate(A, B)
    body = turn(seen, source, until="first_event").body()
    await beats(body, 2)
    source.opened.release()
    while (await anext(body)).isspace():
        pass
    waiting = asyncio.ensure_future(anext(body))
    await asyncio.wait({waiting}, timeout=BEAT_S * 10)
    assert not waiting.done()
    source.opened.release()
    assert json.loads(await waiting) == B
    assert [event["type"] for event in lines(await read(body))] == [
        "session.run.completed"
    ]


async def test_a_beat_is_padded_on_demand(seen):
    body = turn(seen, Gate(A), pad=2048).body()
    (beat,) = await beats(body, 1)
    assert beat == b"\n" * 2048
    assert lines([beat]) == []
    await body.aclose()


async def test_a_reader_of_events_gets_no_beats_and_needs_no_task(seen):
    source = seen.source(A, B)
    before = len(asyncio.all_tasks())
    body = turn(seen, source).events()
    await anext(body)
    assert len(asyncio.all_tasks()) == before
    assert [event["type"] for event in await read(body)][-1] == "session.run.completed"


async def test_a_slow_reader_gets_no_beats_and_is_not_read_ahead_of(seen):
    ready = Gate(*[A] * 50)
    for _ in range(50):
        ready.opened.release()
    body = turn(seen, ready).body()
    got = [await anext(body)]
    await asyncio.sleep(BEAT_S * 5)
    assert ready.pulled <= 2
    got += await read(body)
    assert all(chunk.strip() for chunk in got)
    assert len(got) == 52


@pytest.mark.parametrize("how", ["close", "cancel", "drop"])
async def test_a_turn_with_beats_ends_with_its_reader(seen, how):
    source = Gate(A, B)
    run = turn(seen, source)
    body = run.body()
    await beats(body, 1)
    if how == "close":
        await body.aclose()
        assert seen.flushed == 1
    elif how == "cancel":
        reader = asyncio.create_task(read(body))
        await ticks(3)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert seen.flushed == 1
    else:
        del body
    async with asyncio.timeout(HANG_S):
        outcome = await run.outcome()
    assert (outcome.status, outcome.reason) == ("cancelled", "disconnected")
    assert source.closed == 1
    assert [record.status for record in seen.saved] == ["cancelled"]


async def test_a_reader_that_is_full_and_leaves_ends_the_turn(seen):
    ready = Gate(*[A] * 50)
    for _ in range(50):
        ready.opened.release()
    run = turn(seen, ready)
    body = run.body()
    await anext(body)
    await ticks(10)
    async with asyncio.timeout(HANG_S):
        await body.aclose()
        outcome = await run.outcome()
    assert outcome.status == "cancelled"
    assert ready.closed == 1


async def test_a_turn_with_beats_can_be_detached_and_cancelled(seen):
    source = Gate(A, B)
    run = turn(seen, source)
    body = run.body()
    await beats(body, 1)
    run.detach()
    await body.aclose()
    assert seen.flushed == 0
    source.opened.release()
    source.opened.release()
    assert (await run.outcome()).status == "completed"

    seen.__init__()
    run = turn(seen, Gate(A))
    body = run.body()
    await beats(body, 1)
    run.cancel("enough")
    assert lines(c for c in await read(body) if c.strip())[-1]["type"] == (
        "session.run.cancelled"
    )


async def test_beats_go_on_while_the_turn_settles(seen):
    saved = asyncio.Event()

    async def save(record):
        await saved.wait()

    chat = seven(seen, seen.source(A), save=save) | ops.heartbeat(BEAT_S)
    body = chat.start(IDENTITY, log=seen.log).body()
    await beats(body, 3)
    saved.set()
    assert lines(c for c in await read(body) if c.strip())[-1]["type"] == (
        "session.run.completed"
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"every": 0},
        {"every": True},
        {"every": "1"},
        {"every": float("inf")},
        {"every": 1, "pad": -1},
        {"every": 1, "pad": 1.5},
        {"every": 1, "until": "never"},
    ],
)
def test_bad_beats_are_refused(bad):
    with pytest.raises(CompositionError, match=r"heartbeat\("):
        ops.heartbeat(**bad)


def test_beats_stand_once_and_are_described():
    chat = Pipeline(list) | ops.heartbeat(15, pad=2)
    assert chat.describe()["operators"][0]["every"] == 15
    assert "beats on the wire, every 15 s" in chat.graph()
    with pytest.raises(CompositionError, match="twice"):
        chat | ops.heartbeat(1)
