import asyncio
from contextlib import aclosing

import pytest

import operators as ops
from operators import event as ev
from operators.content import is_content, is_heartbeat
from operators.deadline import Deadline
from operators.testing import ManualClock, deltas, drain, feed

AT_ONCE = 1e-9
BRIEF = 0.001
LONG = 1000.0
PART = ev.text_part("p1")


class Source:
    """Give items; a number advances the clock by so many BRIEFs, "hang" waits."""

    def __init__(self, *script, clock=None):
        self.script = script
        self.clock = clock
        self.closed_in = None

    async def __aiter__(self):
        try:
            for item in self.script:
                if item == "hang":
                    await asyncio.get_running_loop().create_future()
                elif isinstance(item, float):
                    self.clock.advance(item * BRIEF)
                    await asyncio.sleep(0)
                elif isinstance(item, Exception):
                    raise item
                else:
                    yield item
        finally:
            self.closed_in = asyncio.current_task()


def timed(source, turn, **limits):
    return ops.timeout(**limits).open(turn).through(source)


async def timed_out(source, turn, **limits):
    got = []
    with pytest.raises(ops.TurnTimeout) as caught:
        async for item in timed(source, turn, **limits):
            got.append(item)  # noqa: PERF401 - what came before the error counts
    return got, caught.value


@pytest.mark.parametrize("phase", ["first_event", "first_content", "idle", "total"])
async def test_a_hanging_source_ends_in_the_error_of_its_phase(turn, phase):
    source = Source("hang")
    got, error = await timed_out(source, turn, **{phase: BRIEF})
    assert (got, error.phase, error.limit) == ([], phase, BRIEF)
    assert error.code == f"timeout.{phase}"
    assert "within 0.001 s" in str(error)
    assert source.closed_in is asyncio.current_task()
    assert asyncio.current_task().cancelling() == 0


async def test_idle_waits_for_each_further_event(turn):
    got, error = await timed_out(Source(*deltas("a", "b"), "hang"), turn, idle=BRIEF)
    assert got == deltas("a", "b")
    assert error.code == "timeout.idle"


@pytest.mark.parametrize("other", ["first_event", "first_content"])
async def test_idle_leaves_the_first_event_to_its_own_limit(turn, other):
    turn.clock = clock = ManualClock()
    source = Source(50.0, *deltas("a"), clock=clock)
    assert await drain(
        timed(source, turn, idle=BRIEF, **{other: 100 * BRIEF})
    ) == deltas("a")
    source = Source(*deltas("a"), 50.0, "hang", clock=clock)
    _, error = await timed_out(source, turn, idle=BRIEF, **{other: 100 * BRIEF})
    assert error.phase == "idle"


async def test_a_slow_reader_trips_nothing_but_total(turn):
    turn.clock = clock = ManualClock()
    limits = {"first_event": 10.0, "first_content": 10.0, "idle": 10.0}
    events = deltas("", "a", "b", "c")
    got = []
    async for item in timed(Source(*events), turn, **limits):
        got.append(item)
        clock.advance(LONG)
    assert got == events
    source = Source(*events)
    got = []
    with pytest.raises(ops.TurnTimeout) as caught:
        async for item in timed(source, turn, total=10.0, **limits):
            got.append(item)
            clock.advance(6)
    assert got == events[:2]
    assert caught.value.code == "timeout.total"
    assert source.closed_in is not None


async def test_a_late_event_that_never_let_the_loop_run_is_delivered(turn):
    turn.clock = clock = ManualClock()

    async def blocking():
        clock.advance(LONG)
        yield {"type": "late"}

    assert await drain(timed(blocking(), turn, first_event=1.0)) == [{"type": "late"}]


@pytest.mark.parametrize("beat", ["heartbeat", "heartbeat.tick", "ping"])
@pytest.mark.parametrize("phase", ["first_event", "first_content", "idle"])
async def test_heartbeats_count_as_silence(turn, beat, phase):
    turn.clock = clock = ManualClock()
    beats = [{"type": beat}, [], [{"type": beat}, {"type": beat}]]
    source = Source(6.0, beats[0], 6.0, beats[1], beats[2], "hang", clock=clock)
    got, error = await timed_out(source, turn, **{phase: 10 * BRIEF})
    assert got == beats
    assert error.phase == phase


async def test_events_end_idle_and_empty_deltas_do_not_end_first_content(turn):
    turn.clock = clock = ManualClock()
    empty, full = deltas("", "a")
    source = Source(6.0, empty, 6.0, [empty, full], 6.0, full, clock=clock)
    assert len(await drain(timed(source, turn, idle=10 * BRIEF))) == 3
    source = Source(6.0, empty, 6.0, empty, "hang", clock=clock)
    got, error = await timed_out(source, turn, first_content=10 * BRIEF, idle=LONG)
    assert got == [empty, empty]
    assert error.phase == "first_content"
    source = Source(6.0, empty, 3.0, [empty, full], 60.0, full, clock=clock)
    assert len(await drain(timed(source, turn, first_content=10 * BRIEF))) == 3


async def test_the_nearest_of_several_deadlines_fires(turn):
    source = Source(*deltas("a"), "hang")
    _, error = await timed_out(source, turn, first_event=LONG, idle=BRIEF, total=LONG)
    assert error.phase == "idle"
    source = Source(*deltas("a"), "hang")
    _, error = await timed_out(source, turn, idle=LONG, total=BRIEF)
    assert error.phase == "total"


async def test_lists_of_one_read_pass_as_they_are(turn):
    reads = [deltas("a", "b"), [], {"type": "x"}, ["not an event"]]
    got = await drain(timed(Source(*reads), turn, idle=LONG, first_content=LONG))
    assert all(a is b for a, b in zip(got, reads, strict=True))


async def test_errors_and_the_end_of_the_source_are_its_own(turn):
    error = ValueError("boom")
    with pytest.raises(ValueError, match="boom"):
        await drain(timed(Source(error), turn, idle=LONG))
    assert await drain(timed(Source(), turn, idle=LONG)) == []


@pytest.mark.parametrize("then", ["yield", "return", "raise"])
async def test_a_source_that_swallows_the_interrupt_has_timed_out_all_the_same(
    turn, then
):
    async def stubborn():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if then == "raise":
                raise ValueError("instead") from None
            if then == "return":
                return
        yield {"type": "too late"}

    got, _ = await timed_out(stubborn(), turn, idle=BRIEF)
    assert got == []
    assert asyncio.current_task().cancelling() == 0


async def test_an_outside_cancellation_at_the_same_time_wins(turn):
    turn.clock = clock = ManualClock()
    task = asyncio.current_task()

    async def source():
        clock.advance(LONG)
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.get_running_loop().create_future()
        yield {}

    with pytest.raises(asyncio.CancelledError):
        await drain(timed(source(), turn, idle=AT_ONCE))
    assert task.cancelling() == 1
    task.uncancel()


async def test_an_outside_cancellation_that_the_source_swallowed_is_raised(turn):
    turn.clock = clock = ManualClock()
    task = asyncio.current_task()

    async def source():
        clock.advance(LONG)
        asyncio.get_running_loop().call_soon(task.cancel)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            yield {}

    with pytest.raises(asyncio.CancelledError):
        await drain(timed(source(), turn, idle=AT_ONCE))
    assert task.cancelling() == 1
    task.uncancel()


async def test_a_readers_own_deadline_stays_its_own(turn):
    source = Source("hang")
    async with aclosing(timed(source, turn, idle=LONG)) as events:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await anext(events)
    assert source.closed_in is not None


async def test_a_reader_that_leaves_closes_the_source_and_drops_the_timer(turn):
    source = Source(*deltas("a", "b"))
    async with aclosing(timed(source, turn, idle=LONG)) as events:
        await anext(events)
    assert source.closed_in is asyncio.current_task()


async def test_one_timer_serves_a_whole_turn(turn, monkeypatch):
    loop = asyncio.get_running_loop()
    armed = []
    call_later = loop.call_later

    def counted(*args):
        armed.append(args[0])
        return call_later(*args)

    monkeypatch.setattr(loop, "call_later", counted)
    events = deltas(*["x"] * 500)
    assert await drain(timed(Source(*events), turn, idle=LONG)) == events
    assert len(armed) == 1


async def test_a_timer_that_fires_early_is_set_again():
    times = iter([0.0, 1.0])
    deadline = Deadline(lambda: next(times))
    deadline.begin(0.0005, 0.0)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.get_running_loop().create_future()
    assert deadline.end()
    assert list(times) == []


async def test_a_timer_that_fires_while_nobody_waits_does_nothing():
    deadline = Deadline(asyncio.get_running_loop().time)
    deadline.begin(0.0, 0.0)
    assert not deadline.end()
    while deadline._handle is not None:
        await asyncio.sleep(0)
    assert not deadline.end()
    deadline.close()


def test_limits_that_make_no_sense_are_refused_with_the_mend():
    with pytest.raises(ops.CompositionError, match="give seconds for one or more"):
        ops.timeout()
    for limit in (0, -1, float("nan"), float("inf"), True, "5"):
        with pytest.raises(ops.CompositionError, match="leave it out for no limit"):
            ops.timeout(idle=limit)
    assert ops.timeout(idle=3).detail == {"kind": "timeout", "idle": 3}


@pytest.mark.parametrize(
    ("event", "content"),
    [
        (ev.delta(PART, "a"), True),
        (ev.delta(PART, ""), False),
        ({"type": ev.PART_UPDATED, "data": {"part": {**PART, "text": "a"}}}, True),
        ({"type": ev.PART_UPDATED, "data": {"part": PART}}, False),
        ({"type": ev.PART_UPDATED, "data": {"part": {"type": "reasoning"}}}, False),
        ({"type": ev.PART_UPDATED, "data": {"delta": "a"}}, True),
        ({"type": ev.PART_UPDATED, "data": {"delta": None}}, False),
        ({"type": ev.PART_UPDATED, "data": None}, False),
        (ev.tool_part("t", tool="x", call_id="c", status="pending"), True),
        (ev.result("done"), True),
        (ev.llm_call(model="m"), False),
        (ev.started("s", None, 0), False),
        ({"type": "ping"}, False),
        ({"type": "my.event"}, True),
        ({"type": 7}, True),
        ({}, True),
        (None, False),
    ],
)
def test_what_is_content(event, content):
    assert is_content(event) is content


def test_what_is_a_heartbeat():
    assert is_heartbeat({"type": "ping.pong"})
    assert not any(map(is_heartbeat, [{"type": 7}, {}, None, "ping", {"type": "x"}]))


async def test_it_stands_in_a_chain(turn):
    chain = ops.tap(lambda event: None) | ops.timeout(idle=LONG, total=LONG)
    assert await feed(chain, [deltas("a", "b"), *deltas("c")]) == deltas("a", "b", "c")
    with pytest.raises(ops.TurnTimeout):
        await feed(ops.timeout(idle=BRIEF), Source("hang"))
    failed = await feed(ops.lifecycle() | ops.timeout(idle=BRIEF), Source("hang"))
    assert failed[-1]["data"]["code"] == "timeout.idle"
