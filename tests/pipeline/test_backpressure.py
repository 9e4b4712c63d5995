"""What is not asked for is not pulled; what was read together leaves together."""

import asyncio
import tracemalloc

import pytest

import operators as ops
from pipeline import Pipeline

from .support import IDENTITY, A, B, C, lines, read, seven, short, ticks

MANY = 1_000_000


class Ready:
    """A million events, ready at once; counts what was pulled."""

    def __init__(self, n=MANY, size=1):
        self.n = n
        self.size = size
        self.pulled = 0
        self.closed = 0

    async def __call__(self):
        try:
            while self.pulled < self.n:
                self.pulled += self.size
                yield A if self.size == 1 else [A] * self.size
        finally:
            self.closed += 1


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize("mode", ["events", "body"])
async def test_a_reader_that_takes_ten_pulls_ten_and_at_most_one_read_more(mode, size):
    source = Ready(size=size)
    run = (Pipeline(source) | ops.tap(lambda event: None)).start(IDENTITY)
    body = getattr(run, mode)()
    for _ in range(10):
        await anext(body)
    await ticks(10)
    taken = 10 if mode == "events" else 10 * size
    assert source.pulled <= taken + size
    await body.aclose()
    assert source.pulled <= taken + size
    assert source.closed == 1


@pytest.mark.parametrize(
    "boundary",
    [
        ops.timeout(idle=60),
        ops.coalesce(max_events=4, max_delay=60),
        ops.through(lambda source: source),
    ],
    ids=["timeout", "coalesce", "through"],
)
async def test_a_boundary_pulls_no_more_than_it_says(boundary):
    source = Ready()
    run = (Pipeline(source) | boundary).start(IDENTITY)
    body = run.events()
    for _ in range(10):
        await anext(body)
    await ticks(100)
    assert source.pulled <= 10 * 4 + 8
    await body.aclose()
    assert source.closed == 1


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize("mode", ["events", "body"])
async def test_memory_is_flat_over_a_million_events(mode, size):
    source = Ready(MANY, size)
    chat = (
        Pipeline(source)
        | ops.lifecycle()
        | ops.tap(lambda event: None)
        | ops.filter(lambda event: True, types=["x"])
    )
    body = getattr(chat.start(IDENTITY), mode)()
    for _ in range(1000):
        await anext(body)
    tracemalloc.start(1)
    try:
        start = tracemalloc.get_traced_memory()[0]
        while (
            source.pulled < MANY // 4
        ):  # tracing makes each event several times dearer
            await anext(body)
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert grown < 50_000
    async for _ in body:
        pass
    assert source.pulled >= MANY


@pytest.mark.parametrize("mode", ["cancel", "detach"])
async def test_a_list_leaves_as_one_chunk(mode):
    async def produce():
        yield [A, B]
        yield []
        yield C
        yield [C]
        yield []

    run = (Pipeline(produce) | ops.tap(lambda event: None)).start(
        IDENTITY, on_disconnect=mode
    )
    chunks = await read(run.body())
    assert [short(lines([chunk])) for chunk in chunks] == [["a", "b"], ["c"], ["c"]]
    assert (await run.outcome()).events == 4


async def test_a_list_emptied_by_a_filter_writes_nothing():
    async def produce():
        yield [A, A]
        yield [A, B]

    run = (Pipeline(produce) | ops.filter(lambda event: event is B)).start(IDENTITY)
    assert [lines([chunk]) for chunk in await read(run.body())] == [[B]]


async def test_a_whole_list_passes_the_operators_before_it_is_encoded(seen):
    order = []

    async def produce():
        yield [A, B]

    run = seven(seen, produce, after=ops.tap(order.append)).start(IDENTITY)
    body = run.body()
    await anext(body)
    chunk = await anext(body)
    assert short(order) == ["started", "a", "b"]
    assert short(lines([chunk])) == ["a", "b"]
    await body.aclose()


async def test_operators_and_events_see_single_events_of_a_list():
    async def produce():
        yield [A, B]

    run = Pipeline(produce).start(IDENTITY)
    assert await read(run.events()) == [A, B]


BAD = {"type": "x", "data": {1, 2}}


@pytest.mark.parametrize("mode", ["cancel", "detach"])
@pytest.mark.parametrize("bad", [BAD, 5, None, {"type": []}], ids=repr)
@pytest.mark.parametrize("wire", ["events", "body"])
async def test_what_precedes_a_bad_event_of_a_list_is_delivered(seen, bad, mode, wire):
    async def produce():
        yield [A, B, bad, C]

    run = seven(seen, produce).start(IDENTITY, log=seen.log, on_disconnect=mode)
    got = await read(getattr(run, wire)())
    if wire == "body":
        got = lines(got)
    if wire == "events" and bad is BAD:  # nothing is encoded: nothing is wrong with it
        assert short(got) == ["started", "a", "b", "x", "c", "completed"]
        return
    assert short(got) == ["started", "a", "b", "error", "failed"]
    outcome = await run.outcome()
    assert (outcome.code, outcome.events) == ("invalid_event", 2)


async def test_what_precedes_an_operators_error_in_a_list_is_delivered(seen):
    def boom(event):
        if event is C:
            raise ValueError("no")
        return event

    async def produce():
        yield [A, B, C, A]

    for boundary in (None, ops.timeout(idle=60), ops.through(lambda source: source)):
        seen.__init__()
        first = ops.map(boom) if boundary is None else ops.map(boom) | boundary
        run = seven(seen, produce, first=first).start(IDENTITY, log=seen.log)
        got = lines(await read(run.body()))
        assert short(got) == ["started", "a", "b", "error", "failed"]
        assert (await run.outcome()).text == "ab"


async def test_a_reader_that_stalls_stalls_the_source(seen):
    source = Ready()
    run = seven(seen, source).start(IDENTITY)
    body = run.body()
    await anext(body)
    await anext(body)
    await asyncio.sleep(0.01)
    assert source.pulled == 1
    await body.aclose()
