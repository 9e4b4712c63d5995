"""Turns whose reader leaves, stalls, or never comes."""

import asyncio
import gc

import aiostream
import pytest

import operators as ops
from pipeline import Pipeline

from .support import (
    HANG_S,
    IDENTITY,
    TERMINALS,
    A,
    B,
    C,
    Seen,
    kinds,
    lines,
    read,
    seven,
    short,
    ticks,
)


class Gate:
    """A source that yields what it is given, one event each time it is let."""

    def __init__(self, seen, *items):
        self.seen = seen
        self.items = items
        self.steps = asyncio.Semaphore(0)
        self.at = 0

    async def __call__(self):
        self.seen.opened += 1
        try:
            for item in self.items:
                await self.steps.acquire()
                self.at += 1
                yield item
        finally:
            self.seen.closed += 1

    def open(self, n=1):
        for _ in range(n):
            self.steps.release()


async def settled(seen, run, status="completed"):
    outcome = await run.outcome()
    assert outcome.status == status, outcome
    assert seen.one_terminal() == f"session.run.{status}"
    assert (seen.opened, seen.closed, seen.flushed) == (1, 1, 1)
    return outcome


async def test_detach_between_reads_lets_the_reader_leave_at_once(seen):
    gate = Gate(seen, A, B)
    run = seven(seen, gate).start(IDENTITY, log=seen.log)
    body = run.events()
    await anext(body)
    run.detach()
    run.detach()
    await body.aclose()
    assert seen.closed == 0
    gate.open(2)
    await settled(seen, run)
    assert seen.saved[0].text == "AB"


async def test_a_detached_turn_can_still_be_read_to_its_end(seen):
    gate = Gate(seen, A, B, C)
    run = seven(seen, gate).start(IDENTITY)
    body = run.body()
    got = [await anext(body)]
    run.detach()
    gate.open(3)
    got += await read(body)
    assert lines(got) == seen.events
    await settled(seen, run)


async def test_detach_in_flight_acts_at_the_next_event(seen):
    gate = Gate(seen, A, B)
    run = seven(seen, gate).start(IDENTITY)
    body = run.events()
    await anext(body)
    reading = asyncio.ensure_future(anext(body))
    await ticks(2)
    run.detach()
    gate.open()
    assert await reading == A
    await body.aclose()
    gate.open()
    await settled(seen, run)


async def test_a_reader_idle_after_detach_does_not_hold_the_turn_up(seen):
    gate = Gate(seen, A, B)
    run = seven(seen, gate).start(IDENTITY)
    body = run.events()
    reading = asyncio.ensure_future(anext(body))
    await reading
    reading = asyncio.ensure_future(anext(body))
    await ticks(2)
    run.detach()
    gate.open(2)
    assert await reading == A
    await settled(seen, run)  # nobody reads on, and still it ends
    assert short(await read(body)) == ["b", "completed"]


async def test_detach_before_the_first_read_makes_the_turn_its_own(seen):
    run = seven(seen, seen.source(A)).start(IDENTITY)
    run.detach()
    body = run.events()
    await anext(body)
    await body.aclose()
    await settled(seen, run)


async def test_detach_after_the_end_changes_nothing(seen):
    run = seven(seen, seen.source(A)).start(IDENTITY)
    await read(run.events())
    run.detach()
    run.cancel()
    await settled(seen, run)


async def test_a_body_dropped_after_detach_in_flight_goes_on(seen):
    gate = Gate(seen, A, B)
    run = seven(seen, gate).start(IDENTITY)
    body = run.events()
    await anext(body)
    reading = asyncio.ensure_future(anext(body))
    await ticks(2)
    run.detach()
    del body
    gc.collect()
    gate.open(2)
    assert await reading == A
    del reading
    await settled(seen, run)


async def test_a_detached_turn_is_stopped_after_detach_timeout(seen):
    gate = Gate(seen, A, B)
    chat = seven(seen, gate, partial=True)
    run = chat.start(
        IDENTITY, log=seen.log, on_disconnect="detach", detach_timeout=0.02
    )
    body = run.body()
    gate.open()
    await anext(body)
    await anext(body)
    await body.aclose()
    outcome = await settled(seen, run, "cancelled")
    assert outcome.reason == "detach_timeout"
    assert [record.text for record in seen.saved] == ["A"]


async def test_a_turn_that_ends_in_time_is_not_touched_by_detach_timeout(seen):
    run = seven(seen, seen.source(A)).start(
        IDENTITY, on_disconnect="detach", detach_timeout=0.01
    )
    body = run.body()
    await anext(body)
    await body.aclose()
    await settled(seen, run)
    await asyncio.sleep(0.02)  # the timer fires, after the end
    await settled(seen, run)


async def test_an_owned_turn_pulls_ahead_of_its_reader_but_not_without_bound(seen):
    pulled = []

    async def produce():
        for n in range(10_000):
            pulled.append(n)
            yield A

    run = (Pipeline(produce) | ops.lifecycle()).start(IDENTITY, on_disconnect="detach")
    body = run.body()
    await anext(body)
    await ticks(2000)
    assert 10 < len(pulled) <= 300
    await body.aclose()
    outcome = await run.outcome()
    assert (outcome.status, len(pulled)) == ("completed", 10_000)


async def test_an_owned_turn_is_bounded_in_bytes_too(seen):
    pulled = []

    async def produce():
        for n in range(100):
            pulled.append(n)
            yield {"type": "big", "data": "x" * 300_000}

    run = Pipeline(produce).start(IDENTITY, on_disconnect="detach")
    body = run.body()
    await anext(body)
    await ticks(500)
    assert len(pulled) < 10
    assert len(await read(body)) == 99


async def test_a_detached_reader_leaves_at_once_while_a_hook_settles(seen):
    release = asyncio.Event()

    async def save(record):
        await release.wait()
        seen.save(record)

    run = seven(seen, seen.source(A), save=save).start(IDENTITY, on_disconnect="detach")
    body = run.events()
    reader = asyncio.ensure_future(read(body))
    await ticks(20)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert seen.saved == []
    release.set()
    await settled(seen, run)
    assert len(seen.saved) == 1


# -- outcome()


async def test_outcome_reads_a_turn_headless_and_then_nobody_else_can(seen):
    run = seven(seen, seen.source(A, [B, C])).start(IDENTITY)
    outcome = await settled(seen, run)
    assert outcome.events == 3
    assert outcome.final_text == "ABC"
    with pytest.raises(ops.TurnMisuse, match="read already"):
        run.body()
    with pytest.raises(ops.TurnMisuse, match="once"):
        run.events()


async def test_a_cancelled_wait_for_the_outcome_leaves_the_turn_alone(seen):
    gate = Gate(seen, A)
    run = seven(seen, gate).start(IDENTITY)
    for _ in range(2):
        waiting = asyncio.ensure_future(run.outcome())
        await ticks(3)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    gate.open()
    await settled(seen, run)


async def test_many_tasks_may_wait_for_one_outcome(seen):
    run = seven(seen, seen.source(A)).start(IDENTITY)
    waiting = [asyncio.ensure_future(run.outcome()) for _ in range(3)]
    first, *others = await asyncio.gather(*waiting)
    assert all(other is first for other in others)


async def test_cancel_before_a_headless_turn_never_opens_its_source(seen):
    run = seven(seen, seen.source(A)).start(IDENTITY)
    run.cancel("early")
    outcome = await run.outcome()
    assert (outcome.status, outcome.reason, seen.opened) == ("cancelled", "early", 0)
    assert seen.kinds == ["session.run.started", "session.run.cancelled"]


@pytest.mark.parametrize("mode", ["cancel", "detach"])
async def test_cancel_before_the_first_read_gives_started_and_cancelled(seen, mode):
    run = seven(seen, seen.source(A), partial=True).start(IDENTITY, on_disconnect=mode)
    body = run.events()
    run.cancel("early")
    run.cancel("late")
    assert kinds(await read(body)) == ["session.run.started", "session.run.cancelled"]
    outcome = await run.outcome()
    assert (outcome.reason, seen.opened, outcome.text) == ("early", 0, "")
    assert [record.text for record in seen.saved] == [""]


@pytest.mark.parametrize("mode", ["cancel", "detach"])
async def test_a_body_closed_before_its_first_read_settles_as_cancelled(seen, mode):
    run = seven(seen, seen.source(A)).start(IDENTITY, on_disconnect=mode)
    body = run.body()
    await body.aclose()
    await body.aclose()
    assert await read(body) == []
    outcome = await run.outcome()
    assert (outcome.status, seen.opened, seen.flushed) == ("cancelled", 0, 1)
    assert outcome.reason == "disconnected"
    seen.one_terminal()


async def test_a_body_dropped_before_its_first_read_settles_once_it_is_asked_for(seen):
    run = seven(seen, seen.source(A)).start(IDENTITY)
    run.body()
    outcome = await run.outcome()
    assert (outcome.status, seen.opened) == ("cancelled", 0)

    run = seven(seen, seen.source(A)).start(IDENTITY)
    body = run.body()
    waiting = asyncio.ensure_future(run.outcome())
    await ticks(3)
    assert not waiting.done()
    del body
    assert (await waiting).status == "cancelled"


@pytest.mark.parametrize("reads", range(1, 6))
async def test_a_body_left_by_break_settles(seen, reads):
    run = seven(seen, seen.source(A, B), partial=True).start(IDENTITY)
    count = 0
    async for _ in run.body():
        count += 1
        if count == reads:
            break
    outcome = await run.outcome()
    seen.one_terminal()
    assert outcome.status == ("cancelled" if reads < 4 else "completed")
    assert (len(seen.saved), seen.flushed, seen.opened) == (1, 1, seen.closed)
    await ticks(3)


@pytest.mark.parametrize("reads", range(1, 6))
async def test_an_owned_body_left_by_break_runs_on(seen, reads):
    run = seven(seen, seen.source(A, B)).start(IDENTITY, on_disconnect="detach")
    count = 0
    async for _ in run.body():
        count += 1
        if count == reads:
            break
    await settled(seen, run)
    await ticks(3)


async def test_a_read_in_flight_whose_body_is_dropped_comes_to_its_end(seen):
    gate = Gate(seen, A, B)
    run = seven(seen, gate, partial=True).start(IDENTITY)
    body = run.events()
    await anext(body)
    reading = asyncio.ensure_future(anext(body))
    await ticks(2)
    del body
    await asyncio.sleep(0.03)  # longer than it polls: the last read is left alone
    assert seen.kinds == ["session.run.started"]
    gate.open()
    assert await reading == A
    await settled(seen, run, "cancelled")


def test_a_body_dropped_after_its_loop_is_closed_does_no_harm():
    seen = Seen()
    kept = []

    async def turn():
        run = seven(seen, seen.source(A, hang=True)).start(IDENTITY)
        body = run.events()
        await anext(body)
        kept.append(body)

    asyncio.run(turn())
    kept.clear()
    gc.collect()


# -- cancel


async def test_cancel_between_reads_settles_at_once_and_keeps_the_terminal(seen):
    run = seven(seen, seen.source(A, hang=True), partial=True).start(IDENTITY)
    body = run.events()
    got = [await anext(body) for _ in range(2)]
    run.cancel("enough")
    await ticks(10)
    assert seen.one_terminal() == "session.run.cancelled"  # before anybody reads on
    assert len(seen.saved) == 1
    assert (await run.outcome()).reason == "enough"
    got += await read(body)
    assert got == seen.events


async def test_cancel_from_inside_an_operator_is_the_end_of_the_turn(seen):
    runs = []

    def stop(event):
        if event is B:
            runs[0].cancel("said stop")

    for mode in ("cancel", "detach"):
        seen.__init__()
        chat = seven(seen, seen.source(A, B, C, hang=True), after=ops.tap(stop))
        runs[:] = [chat.start(IDENTITY, log=seen.log, on_disconnect=mode)]
        got = await read(runs[0].events())
        outcome = await settled(seen, runs[0], "cancelled")
        assert (outcome.reason, got) == ("said stop", seen.events)
        assert short(got)[:3] == ["started", "a", "b"]


async def test_a_source_that_swallows_its_cancellation_is_stopped_all_the_same(seen):
    async def stubborn():
        seen.opened += 1
        try:
            while True:
                try:
                    yield A
                    await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    pass
        finally:
            seen.closed += 1

    for mode in ("cancel", "detach"):
        seen.__init__()
        run = seven(seen, stubborn).start(IDENTITY, log=seen.log, on_disconnect=mode)
        reader = asyncio.ensure_future(read(run.events()))
        await ticks(8)
        run.cancel("stop")
        got = await reader
        await settled(seen, run, "cancelled")
        assert kinds(got)[-1] == "session.run.cancelled"
        assert not reader.cancelling()


async def test_a_source_that_ends_when_cancelled_counts_as_cancelled(seen):
    async def polite():
        seen.opened += 1
        try:
            yield A
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return
        finally:
            seen.closed += 1

    run = seven(seen, polite).start(IDENTITY, log=seen.log)
    reader = asyncio.ensure_future(read(run.events()))
    await ticks(5)
    run.cancel("stop")
    await reader
    await settled(seen, run, "cancelled")


async def test_a_source_that_fails_when_cancelled_counts_as_cancelled(seen):
    async def rude():
        seen.opened += 1
        try:
            yield A
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise RuntimeError("interrupted") from None
        finally:
            seen.closed += 1

    run = seven(seen, rude).start(IDENTITY, log=seen.log)
    reader = asyncio.ensure_future(read(run.events()))
    await ticks(5)
    run.cancel("stop")
    await reader
    await settled(seen, run, "cancelled")


# -- other ways to read


async def test_a_timeout_around_a_read_leaves_the_turn_and_raises_timeout_error(seen):
    run = seven(seen, seen.source(A, hang=True), partial=True).start(IDENTITY)
    body = run.events()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await read(body)
    outcome = await settled(seen, run, "cancelled")
    assert (outcome.reason, len(seen.saved)) == ("disconnected", 1)

    seen.__init__()
    run = seven(seen, seen.source(A, hang=True), partial=True).start(IDENTITY)
    body = run.events()
    with pytest.raises(TimeoutError):
        while True:
            await asyncio.wait_for(anext(body), 0.02)
    await settled(seen, run, "cancelled")


async def test_a_turn_is_read_task_by_task(seen):
    run = seven(seen, seen.source(A, B)).start(IDENTITY)
    body = run.events()
    got = []
    while True:
        try:
            got.append(await asyncio.wait_for(anext(body), HANG_S))
        except StopAsyncIteration:
            break
    assert got == seen.events
    await settled(seen, run)


async def test_whole_turns_go_through_aiostream(seen):
    chat = seven(seen, seen.source(A, B))
    merged = aiostream.stream.merge(chat.stream(IDENTITY), chat.stream(IDENTITY))
    async with merged.stream() as events:
        got = [event async for event in events]
    assert len(got) == 8
    assert sorted(map(id, got)) == sorted(map(id, seen.events))
    assert kinds(got).count("session.run.completed") == 2
    assert len(seen.saved) == 2

    some = chat.stream(IDENTITY) | aiostream.pipe.take(2)
    assert short(await aiostream.stream.list(some)) == ["started", "a"]
    assert seen.kinds[-1] == "session.run.cancelled"
    assert seen.opened == seen.closed == 3
    again = chat.stream(IDENTITY) | aiostream.pipe.map(lambda event: event["type"])
    assert len(await aiostream.stream.list(again)) == 4


# -- leaving while it settles


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_reader_cancelled_while_a_hook_settles_waits_and_re_raises(seen, times):
    release = asyncio.Event()

    async def save(record):
        await release.wait()
        seen.save(record)

    run = seven(seen, seen.source(A), save=save).start(IDENTITY)
    reader = asyncio.ensure_future(read(run.events()))
    await ticks(20)
    for _ in range(times):
        reader.cancel()
        await ticks(3)
        assert not reader.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert reader.cancelled()
    assert (len(seen.saved), seen.flushed) == (1, 1)
    await settled(seen, run)


async def test_a_reader_cancelled_while_it_closes_the_body_waits_and_re_raises(seen):
    release = asyncio.Event()
    run = seven(seen, seen.source(A, hang=True), flush=release.wait).start(IDENTITY)
    body = run.events()
    await anext(body)
    closing = asyncio.ensure_future(body.aclose())
    await ticks(10)
    closing.cancel()
    await ticks(3)
    assert not closing.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (await run.outcome()).status == "cancelled"


async def test_a_cancelled_reader_is_held_no_longer_than_settle_timeout(seen):
    async def ignores(record):
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                if stop:
                    raise

    stop = []
    run = seven(seen, seen.source(A), save=ignores).start(
        IDENTITY, settle_timeout=0.02, log=seen.log
    )
    reader = asyncio.ensure_future(read(run.events()))
    await ticks(20)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert (await run.outcome()).code == "settle_timeout"
    stop.append(True)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await ticks(3)


# -- raising what is no Exception


class Exit(BaseException):
    pass


@pytest.mark.parametrize("on_error", ["log", "fail"])
async def test_a_tap_that_raises_cancelled_error_of_itself_failed(seen, on_error):
    def raises(event):
        raise asyncio.CancelledError

    async def raises_later(event):
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    for tap in (raises, raises_later):
        for mode in ("cancel", "detach"):
            seen.__init__()
            chat = seven(
                seen,
                seen.source(A),
                after=ops.tap(tap, types=[A["type"]], on_error=on_error),
            )
            run = chat.start(IDENTITY, log=seen.log, on_disconnect=mode)
            got = await read(run.events())
            assert got == seen.events
            await settled(seen, run, "failed" if on_error == "fail" else "completed")
            assert len(seen.logs) == 1


@pytest.mark.parametrize("error", [Exit("out"), GeneratorExit()], ids=["exit", "close"])
@pytest.mark.parametrize("mode", ["cancel", "detach"])
async def test_a_source_that_raises_no_exception_still_settles(seen, error, mode):
    async def produce():
        seen.opened += 1
        try:
            yield A
            raise error
        finally:
            seen.closed += 1

    run = seven(seen, produce, partial=True).start(
        IDENTITY, log=seen.log, on_disconnect=mode
    )
    body = run.events()
    if isinstance(error, Exit):
        with pytest.raises(Exit):
            await read(body)
        await body.aclose()
        await settled(seen, run, "cancelled")
    else:
        await read(body)
        await settled(seen, run, "failed")
    assert len(seen.saved) == 1


async def test_what_a_reader_throws_in_leaves_the_turn_and_comes_back(seen):
    run = seven(seen, seen.source(A, hang=True), partial=True).start(IDENTITY)
    body = run.events()
    await anext(body)
    await anext(body)
    reading = body.__anext__.__self__  # as a wrapper of the generator does it
    with pytest.raises(KeyError):
        await reading.athrow(KeyError("thrown"))
    await settled(seen, run, "cancelled")


# -- the loop's end


@pytest.mark.parametrize("mode", ["cancel", "detach"])
@pytest.mark.parametrize("how", ["reading", "between reads", "headless"])
def test_turns_that_stream_when_the_loop_shuts_down_save_what_they_have(how, mode):
    async def save(record):
        await ticks(3)
        seen.save(record)

    async def turn():
        chat = seven(seen, seen.source(A, B, hang=True), partial=True, save=save)
        run = chat.start(IDENTITY, log=seen.log, on_disconnect=mode)
        if how == "headless":
            tasks.append(asyncio.ensure_future(run.outcome()))
        elif how == "reading":
            tasks.append(asyncio.ensure_future(read(run.body())))
        else:
            body = run.body()
            tasks.append(body)
            for _ in range(3):
                await anext(body)
        await ticks(20)
        assert len(seen.events) == 3

    seen, tasks = Seen(), []
    asyncio.run(turn())
    assert [record.text for record in seen.saved] == ["AB"]
    assert seen.kinds[-1] in TERMINALS
    assert seen.closed == 1
    seen.one_terminal()
