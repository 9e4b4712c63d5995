"""share: many readers of one turn."""

import asyncio
import gc

import pytest

import operators as ops
from operators.errors import CompositionError, SlowReader
from operators.testing import deltas
from pipeline import Pipeline, TurnIdentity

IDENTITY = TurnIdentity(session_id="s", turn_index=0)
HANG_S = 20


class Gate:
    """A source that gives its next event when it is told to."""

    def __init__(self, *texts):
        self.events = deltas(*texts)
        self.pulled = 0
        self.go = asyncio.Semaphore(0)

    async def __call__(self):
        for event in self.events:
            await self.go.acquire()
            self.pulled += 1
            yield event

    async def give(self, n=1):
        for _ in range(n):
            self.go.release()
        for _ in range(5 * n + 5):
            await asyncio.sleep(0)


def texts(events):
    return [
        one["data"].get("delta") or one["type"].rpartition(".")[2] for one in events
    ]


async def read(reader):
    async with asyncio.timeout(HANG_S):
        return [event async for event in reader]


def turn(gate, **options):
    shared = ops.share(**options)
    return (Pipeline(gate) | ops.lifecycle() | shared).start(IDENTITY), shared


async def test_every_reader_gets_all_that_comes_and_ends_with_the_turn():
    gate = Gate("a", "b", "c")
    run, shared = turn(gate)
    first = asyncio.create_task(read(shared.subscribe(run.context)))
    by_name = asyncio.create_task(read(shared.subscribe(run.context.execution_id)))
    main = asyncio.create_task(run.outcome())
    await gate.give(2)
    late = asyncio.create_task(read(shared.subscribe(run.context)))
    await gate.give(1)
    await main
    assert texts(await first) == ["started", "a", "b", "c", "completed"]
    assert await by_name == await first
    assert texts(await late) == ["c", "completed"]


async def test_a_reader_that_waits_ends_with_a_turn_that_says_no_more():
    gate = Gate("a")
    shared = ops.share()
    run = (Pipeline(gate) | shared).start(IDENTITY)
    waiting = asyncio.create_task(read(shared.subscribe(run.context)))
    main = asyncio.create_task(run.outcome())
    await gate.give(1)
    await main
    assert texts(await waiting) == ["a"]


async def test_a_late_reader_gets_the_last_events_first():
    gate = Gate("a", "b", "c")
    run, shared = turn(gate, replay=2)
    main = asyncio.create_task(run.outcome())
    await gate.give(2)
    late = asyncio.create_task(read(shared.subscribe(run.context)))
    await gate.give(1)
    await main
    assert texts(await late) == ["a", "b", "c", "completed"]
    after = shared.subscribe(run.context)
    assert texts(await read(after)) == ["c", "completed"]


async def test_a_slow_reader_forgets_the_oldest_and_says_how_many():
    gate = Gate(*"abcdef")
    run, shared = turn(gate, buffer=2)
    slow = shared.subscribe(run.context)
    main = asyncio.create_task(run.outcome())
    await gate.give(6)
    await main
    assert texts(await read(slow)) == ["f", "completed"]
    assert slow.dropped == 6


async def test_a_slow_reader_is_disconnected_where_so_asked():
    gate = Gate(*"abcdef")
    run, shared = turn(gate, buffer=2, slow="disconnect")
    slow = shared.subscribe(run.context)
    quick = asyncio.create_task(read(shared.subscribe(run.context)))
    main = asyncio.create_task(run.outcome())
    for _ in range(6):
        await gate.give(1)
    await main
    with pytest.raises(SlowReader, match="more than 2 events"):
        await anext(slow)
    assert await read(slow) == []
    assert len(await quick) == 8


@pytest.mark.parametrize("leaves", ["reads", "closes", "drops"])
async def test_a_turn_waits_for_a_slow_reader_where_so_asked(leaves):
    gate = Gate(*"abcdef")
    run, shared = turn(gate, buffer=2, slow="wait")
    slow = shared.subscribe(run.context)
    main = asyncio.create_task(run.outcome())
    await gate.give(6)
    assert gate.pulled == 2
    if leaves == "reads":
        assert len(await read(slow)) == 8
    elif leaves == "closes":
        await slow.aclose()
        assert await read(slow) == []
    else:
        del slow
        gc.collect()
    async with asyncio.timeout(HANG_S):
        assert (await main).status == "completed"


@pytest.mark.parametrize("ends", ["drained", "cancelled", "disconnected"])
async def test_a_turn_that_settles_waits_for_no_reader_and_each_gets_its_last(ends):
    gate = Gate("a", "b")
    run, shared = turn(gate, buffer=3, slow="wait")
    slow = shared.subscribe(run.context)
    main = asyncio.create_task(read(run.events()))
    await gate.give(1)
    if ends == "cancelled":
        run.cancel("enough")
    elif ends == "disconnected":
        main.cancel()
    await gate.give(2)
    async with asyncio.timeout(HANG_S / 4):  # settle_timeout is twice that
        outcome = await run.outcome()
    last = {"drained": ["b", "completed"]}.get(ends, ["cancelled"])
    assert outcome.status == last[-1]
    assert texts(await read(slow)) == ["started", "a", *last]


async def test_a_reader_that_is_cancelled_or_closed_leaves_the_others_alone():
    gate = Gate("a", "b")
    run, shared = turn(gate)
    going = asyncio.create_task(read(shared.subscribe(run.context)))
    closed = shared.subscribe(run.context)
    waiting = asyncio.create_task(read(closed))
    staying = asyncio.create_task(read(shared.subscribe(run.context)))
    main = asyncio.create_task(run.outcome())
    await gate.give(1)
    going.cancel()
    await closed.aclose()
    assert texts(await waiting) == ["started", "a"]
    await gate.give(1)
    await main
    assert texts(await staying) == ["started", "a", "b", "completed"]
    assert going.cancelled()


async def test_nothing_is_kept_of_a_turn_that_has_ended():
    gate = Gate("a")
    run, shared = turn(gate, replay=5)
    main = asyncio.create_task(run.outcome())
    await gate.give(1)
    await main
    assert len(shared._feeds) == 1  # as long as its run is held
    del run, main
    gc.collect()
    assert len(shared._feeds) == 0


async def test_a_reader_of_a_turn_that_has_ended_and_gone_ends_at_once():
    gate = Gate("a")
    run, shared = turn(gate, replay=5)
    main = asyncio.create_task(run.outcome())
    await gate.give(1)
    await main
    context = run.context
    del run, main
    gc.collect()
    assert await read(shared.subscribe(context)) == []


async def test_two_turns_of_one_id_have_readers_of_their_own():
    shared = ops.share(replay=9)
    chat = Pipeline(lambda: deltas("a")) | shared
    first = chat.start(IDENTITY, execution_id="x")
    await first.outcome()
    one = shared.subscribe("x")
    second = chat.start(IDENTITY, execution_id="x")
    await second.outcome()
    two = shared.subscribe("x")
    assert texts(await read(one)) == texts(await read(two)) == ["a"]


async def test_a_turn_that_is_stopped_ends_its_readers_with_its_terminal():
    gate = Gate("a", "b")
    run, shared = turn(gate)
    reader = asyncio.create_task(read(shared.subscribe(run.context)))
    main = asyncio.create_task(run.outcome())
    await gate.give(1)
    run.cancel("enough")
    await main
    assert texts(await reader) == ["started", "a", "cancelled"]


@pytest.mark.parametrize("bad", [{"replay": -1}, {"buffer": 0}, {"slow": "sometimes"}])
def test_parameters_that_cannot_be_are_refused(bad):
    with pytest.raises(CompositionError, match="share: "):
        ops.share(**bad)
