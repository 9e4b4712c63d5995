"""One turn: its outcome, its tasks, and what reaches into it from outside."""

import asyncio
import contextlib
import sys

import pytest

import operators as ops
from operators.testing import ManualClock
from pipeline import Pipeline
from pipeline.mailbox import Mailbox
from pipeline.reading import reading_task

from .support import (
    IDENTITY,
    TERMINALS,
    A,
    B,
    Seen,
    alone,
    kinds,
    lines,
    read,
    seven,
    short,
    ticks,
)


def settlement_tasks():
    return [
        task
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task() and "settlement" in task.get_name()
    ]


async def stuck(*_args):
    await asyncio.get_running_loop().create_future()


# -- outcome


async def test_times_are_seconds_from_the_first_read_on_the_turns_clock(seen):
    clock = ManualClock(100.0)

    async def produce():
        clock.advance(2)
        yield A
        clock.advance(3)

    run = seven(seen, produce).start(IDENTITY, clock=clock)
    clock.advance(50)
    await read(run.events())
    outcome = await run.outcome()
    assert (outcome.first_event_s, outcome.duration_s) == (2.0, 5.0)


async def test_a_turn_without_operators_has_an_outcome(seen):
    run = Pipeline(seen.source(A, B)).start(IDENTITY)
    assert await read(run.events()) == [A, B]
    outcome = await run.outcome()
    assert (outcome.status, outcome.events, outcome.text) == ("completed", 2, "")
    assert (outcome.final_text, outcome.persisted) == (None, False)


async def test_a_turn_without_lifecycle_is_cancelled_without_a_line(seen):
    run = Pipeline(seen.source(A, hang=True)).start(IDENTITY)
    body = run.events()
    await anext(body)
    run.cancel("stop")
    assert await read(body) == []
    assert (await run.outcome()).reason == "stop"


# -- tasks


async def test_an_inline_turn_makes_no_task_but_the_settlement(seen):
    made = []
    loop = asyncio.get_running_loop()
    loop.set_task_factory(
        lambda loop, coro, **kw: (
            made.append(coro) or asyncio.Task(coro, loop=loop, **kw)
        )
    )
    await read(seven(seen, seen.source(A, B)).start(IDENTITY).body())
    loop.set_task_factory(None)
    assert made == []  # the settlement's task is asyncio's own, whatever the factory


async def test_a_settlement_cancelled_from_outside_still_ends_the_turn(seen):
    """As `asyncio.run` does at its end: it cancels every task there is."""
    run = seven(seen, seen.source(A), save=stuck).start(IDENTITY, log=seen.log)
    reader = asyncio.ensure_future(read(run.events()))
    await ticks(20)
    (task,) = settlement_tasks()
    task.cancel()
    got = await reader
    assert short(got) == ["started", "a", "error", "failed"]
    assert (await run.outcome()).code == "settle_cancelled"
    seen.one_terminal()
    assert seen.flushed == 1


async def test_a_settlement_cancelled_while_a_tap_sees_the_terminal_ends(seen):
    async def tap(event):
        seen.tap(event)
        if event["type"] in TERMINALS:
            await stuck()

    run = seven(seen, seen.source(A), tap=tap).start(IDENTITY, log=seen.log)
    reader = asyncio.ensure_future(read(run.events()))
    await ticks(20)
    (task,) = settlement_tasks()
    task.cancel()
    await reader
    assert (await run.outcome()).status == "completed"
    assert seen.flushed == 1


async def test_a_close_hook_cancelled_from_outside_lets_the_others_close(seen):
    closed = []

    def close():
        closed.append("second")

    chat = seven(seen, seen.source(A), flush=stuck) | ops.Operator(
        "second", lambda turn: ops.Stage(close=close)
    )
    run = chat.start(IDENTITY, log=seen.log)
    reader = asyncio.ensure_future(read(run.events()))
    await ticks(20)
    (task,) = settlement_tasks()
    task.cancel()
    got = await reader
    assert kinds(got)[-1] == "session.run.completed"
    assert closed == ["second"]


async def test_a_close_hook_is_not_lost_where_its_task_never_took_a_step(seen):
    """Cancelled before their first step, settlement and closing begin again."""
    closed = []

    async def flush():
        await asyncio.sleep(0)
        closed.append(1)

    run = seven(seen, seen.source(A), flush=flush).start(IDENTITY, log=seen.log)
    body = run.events()
    for _ in range(2):
        await anext(body)
    run.cancel()
    hit = set()
    for _ in range(12):
        for task in settlement_tasks():
            work = task.get_coro()
            if work.cr_await is None and work.__name__ not in hit:
                hit.add(work.__name__)
                task.cancel()
        await asyncio.sleep(0)
    assert kinds(await read(body)) == ["session.run.cancelled"]
    assert (await run.outcome()).code is None
    assert closed == [1]


async def test_close_hooks_that_ignore_their_cancellation_do_not_run_others_twice(seen):
    closed = []

    async def stubborn():
        closed.append("stubborn")
        try:
            await stuck()
        except asyncio.CancelledError:
            await ticks(2)

    async def second():
        closed.append("second")
        await ticks(6)
        closed.append("second done")

    chat = (
        Pipeline(seen.source(A))
        | ops.lifecycle()
        | ops.trace_flush(stubborn)
        | ops.trace_flush(second)
        | ops.trace_flush(lambda: closed.append("third"))
    )
    run = chat.start(IDENTITY, log=seen.log, settle_timeout=0.02)
    await read(run.events())
    assert closed == ["stubborn", "second", "second done", "third"]
    await ticks(5)


async def test_a_source_whose_cleanup_ignores_cancellation_does_not_settle_twice(seen):
    release = asyncio.Event()

    async def produce():
        try:
            yield A
            yield B
        finally:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    seen.order.append("ignored")

    chat = seven(seen, produce, partial=True, first=ops.operator(Held))
    run = chat.start(IDENTITY, log=seen.log, settle_timeout=0.02)
    body = run.events()
    await anext(body)
    await anext(body)
    run.cancel()
    got = await read(body)
    outcome = await run.outcome()
    assert outcome.code == "settle_timeout"
    assert kinds(got)[-1] == "session.run.failed"
    before = list(seen.events)
    release.set()
    await ticks(10)
    assert (seen.events, seen.flushed) == (before, 1)
    assert [(record.status, record.text) for record in seen.saved] == [("failed", "AB")]
    seen.one_terminal()


class Held:
    shape = "flat_map"

    def __init__(self):
        self.held = []

    def on_event(self, event):
        self.held.append(event)
        return self.held[-2:-1]

    async def finish(self):
        await asyncio.sleep(0)
        return self.held[-1:]


async def test_a_finish_that_ignores_its_cancellation_sends_nothing_any_more(seen):
    class Stubborn(Held):
        async def finish(self):
            try:
                await stuck()
            except asyncio.CancelledError:
                await ticks(2)
            return self.held

    for boundary in (False, True):
        seen.__init__()
        late = ops.operator(Stubborn)
        first = late | ops.through(lambda source: source) if boundary else late
        run = seven(seen, seen.source(A), first=first).start(
            IDENTITY, log=seen.log, settle_timeout=0.02
        )
        reader = asyncio.ensure_future(read(run.events()))
        if boundary:  # there it is part of the stream: no deadline, but a cancel
            await ticks(20)
            run.cancel()
        got = await reader
        await ticks(10)
        assert got == seen.events
        assert seen.one_terminal() == "session.run.failed"
        assert (await run.outcome()).code == "settle_timeout"
        assert short(got) == ["started", "error", "failed"]


async def test_an_async_hook_is_cut_at_settle_timeout_not_before(seen):
    async def save(record):
        await asyncio.sleep(0.02)
        seen.save(record)

    run = seven(seen, seen.source(A), save=save).start(IDENTITY, settle_timeout=15)
    await read(run.events())
    assert len(seen.saved) == 1


async def test_a_reader_cancelled_before_its_first_step_never_started_the_turn(seen):
    run = seven(seen, seen.source(A)).start(IDENTITY)
    body = run.events()
    reader = asyncio.ensure_future(read(body))
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert seen.events == []
    await body.aclose()
    assert (await run.outcome()).status == "cancelled"


async def test_a_read_that_is_made_but_never_awaited_does_not_hold_a_cancel_up(seen):
    run = seven(seen, seen.source(A)).start(IDENTITY)
    body = run.events()
    waiting = anext(body)
    run.cancel("stop")
    await ticks(5)
    assert (await run.outcome()).reason == "stop"
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert kinds(await read(body)) == ["session.run.cancelled"]


async def test_a_read_on_its_way_in_a_task_gets_the_cancelled_line(seen):
    for mode in ("cancel", "detach"):
        seen.__init__()
        run = seven(seen, seen.source(A)).start(IDENTITY, on_disconnect=mode)
        body = run.events()
        waiting = asyncio.ensure_future(anext(body))
        run.cancel("stop")
        got = [await waiting, *await read(body)]
        assert short(got) == ["started", "cancelled"]

        run = seven(seen, seen.source(A)).start(IDENTITY, on_disconnect=mode)
        body = run.events()

        async def one(body=body):
            return await body.__anext__()

        got = [await anext(body)]
        waiting = asyncio.ensure_future(one())
        run.cancel("stop")
        got += [await waiting, *await read(body)]
        assert short(got)[0] == "started"
        assert short(got)[-1] == "cancelled"


def test_the_settlement_survives_a_cancel_of_everything_at_every_step():
    """The loop's shutdown may come at any time: one terminal, one partial save."""

    async def slow(seen, record):
        await ticks(3)
        seen.save(record)

    async def turn(k, seen, mode):
        chat = seven(
            seen,
            seen.source(A, [B]),
            partial=True,
            save=lambda record: slow(seen, record),
            flush=seen.flush,
        )
        run = chat.start(IDENTITY, log=seen.log, on_disconnect=mode)
        reader = asyncio.ensure_future(read(run.body()))
        await ticks(k)
        over = reader.done()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        if k == 0:
            return
        outcome = await run.outcome()
        seen.one_terminal()
        assert outcome.code in (None, "settle_cancelled")
        assert seen.closed == seen.opened
        assert seen.flushed == 1
        assert len(seen.saved) + (outcome.code == "settle_cancelled") == 1
        results.add(over)

    for mode in ("cancel", "detach"):
        results = set()
        for k in range(40):
            alone(turn(k, Seen(), mode))
        assert results == {False, True}


# -- the log


async def test_an_event_held_back_that_cannot_be_encoded_is_logged(seen):
    class Bad(Held):
        def finish(self):
            return [{"type": "x", "data": {1}}]

    run = seven(seen, seen.source(A), first=ops.operator(Bad)).start(
        IDENTITY, log=seen.log
    )
    await read(run.body())
    assert seen.messages == ["an event could not be encoded"]
    assert (await run.outcome()).status == "completed"


async def test_settling_that_fails_twice_keeps_the_first_failure(seen):
    async def save(record):
        raise KeyError("second")

    chat = seven(
        seen,
        seen.source(A, error=ValueError("first")),
        save=save,
        partial=True,
    )
    run = chat.start(IDENTITY, log=seen.log)
    await read(run.events())
    outcome = await run.outcome()
    assert (outcome.code, str(outcome.error)) == ("source_failed", "first")
    assert seen.messages == ["turn failed", "failed again while settling"]


# -- the parts


async def test_a_mailbox_gives_what_was_put_then_its_error():
    box = Mailbox()
    await box.put(b"one")
    await box.put(b"two")
    box.close(ValueError("late"))
    box.close(None)  # the first close counts
    assert await box.wait()
    assert [box.get(), box.get()] == [b"one", b"two"]
    assert box.size == 0
    with pytest.raises(ValueError, match="late"):
        await box.wait()
    assert not await box.wait()


async def test_a_mailbox_that_is_abandoned_never_holds_its_writer_up():
    box = Mailbox()
    for _ in range(256):
        await box.put({})
    waiting = asyncio.ensure_future(box.put({}))
    await ticks(2)
    assert not waiting.done()
    box.abandon()
    await waiting
    await box.put({})
    assert not box.items


async def test_the_reading_task_is_found_along_its_chain_of_awaits():
    async def generator():
        await stuck()
        yield A

    async def outer(agen):
        async for _ in agen:
            pass

    async def deeper(agen):
        async for item in wrapped(agen):
            del item

    async def wrapped(agen):
        async for item in agen:
            yield item

    loop = asyncio.get_running_loop()
    for reader in (outer, deeper, lambda agen: asyncio.wait_for(anext(agen), 20)):
        agen = generator()
        task = asyncio.ensure_future(reader(agen))
        await ticks(3)
        found = reading_task(agen, loop)
        assert found is not None
        if sys.version_info >= (3, 12) or reader in (outer, deeper):
            assert found is task
        assert reading_task(generator(), loop) is None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await agen.aclose()


# -- what hooks raise


def stop_itself(*_args):
    raise asyncio.CancelledError


@pytest.mark.parametrize("part", ["on_event", "terminal", "finish", "settle", "close"])
@pytest.mark.parametrize("mode", ["cancel", "detach"])
async def test_a_hook_that_raises_cancelled_error_of_itself_fails_like_any(
    seen, part, mode
):
    def at_the_end(event):
        if event["type"] in TERMINALS:
            raise asyncio.CancelledError

    stages = {
        "on_event": lambda: ops.Stage(stop_itself, types=frozenset({A["type"]})),
        "terminal": lambda: ops.Stage(at_the_end),
        "finish": lambda: ops.Stage(finish=stop_itself),
        "settle": lambda: ops.Stage(settle=stop_itself),
        "close": lambda: ops.Stage(close=stop_itself),
    }
    odd = ops.Operator("odd", lambda turn: stages[part]())
    run = seven(seen, seen.source(A, B), after=odd).start(
        IDENTITY, log=seen.log, on_disconnect=mode
    )
    got = await read(run.events())
    outcome = await run.outcome()
    assert got == seen.events
    terminal = seen.one_terminal()
    assert (len(seen.messages), seen.flushed) == (1, 1)
    if part in ("on_event", "finish", "settle"):
        assert terminal == "session.run.failed"
        assert outcome.code == "operator_failed"
    else:
        assert terminal == "session.run.completed"


async def test_a_source_whose_close_raises_cancelled_error_still_settles(seen):
    async def produce():
        try:
            yield A
            yield B
        finally:
            raise asyncio.CancelledError

    run = seven(seen, produce, partial=True).start(IDENTITY, log=seen.log)
    body = run.events()
    await anext(body)
    await anext(body)
    await body.aclose()
    assert (await run.outcome()).status == "cancelled"
    assert len(seen.saved) == 1
    assert seen.messages == ["closing the source raised"]


async def test_the_reader_gets_one_terminal_whatever_happens_to_a_tap_on_it(seen):
    for error in (None, ValueError("no")):
        for swallow in (False, True):
            for outside in (False, True):
                seen.__init__()

                async def tap(event, swallow=swallow):
                    seen.tap(event)
                    if event["type"] in TERMINALS:
                        try:
                            await stuck()
                        except asyncio.CancelledError:
                            await ticks(2)
                            if not swallow:
                                raise

                run = seven(seen, seen.source(A, error=error), tap=tap).start(
                    IDENTITY,
                    log=seen.log,
                    settle_timeout=15 if outside else 0.02,
                )
                reader = asyncio.ensure_future(read(run.body()))
                if outside:
                    await ticks(20)
                    (task,) = settlement_tasks()
                    task.cancel()
                got = lines(await reader)
                await ticks(5)
                last = ["completed"] if error is None else ["error", "failed"]
                assert short(got) == ["started", "a", *last]
                seen.one_terminal()


async def test_a_started_event_that_fails_before_a_boundary_fails_the_turn(seen):
    def refuse(event):
        raise ValueError("no")

    after = ops.map(refuse) | ops.through(lambda source: source)
    run = seven(seen, seen.source(A), after=after).start(IDENTITY, log=seen.log)
    got = await read(run.events())
    assert short(got)[-2:] == ["error", "failed"]
    assert seen.opened == 0
    seen.one_terminal()


async def test_a_held_batch_is_dropped_where_the_source_does_not_let_go(seen):
    release = asyncio.Event()

    class Closes:
        """A source that cannot be interrupted while it closes."""

        def __init__(self):
            self.given = False

        def __aiter__(self):
            return self

        async def __anext__(self):
            if self.given:
                raise StopAsyncIteration
            self.given = True
            return [A, B]

        async def aclose(self):
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()

    async def hang_on_b(event):
        if event is B:
            await stuck()

    chat = seven(seen, Closes, after=ops.tap(hang_on_b))
    run = chat.start(IDENTITY, log=seen.log, settle_timeout=0.02)
    reader = asyncio.ensure_future(read(run.body()))
    await ticks(10)
    run.cancel("stop")
    got = lines(await reader)
    assert short(got)[-2:] == ["error", "failed"]
    assert (await run.outcome()).code == "settle_timeout"
    before = list(seen.events)
    release.set()
    await ticks(5)
    assert seen.events == before


async def test_settling_that_fails_inside_still_ends_the_turn(seen):
    deep = {"type": "x"}
    inner = deep
    for _ in range(20_000):
        inner["d"] = {}
        inner = inner["d"]

    def refuse(event):
        if event.get("type") == "x":
            raise ValueError("no")
        return event

    def bad(event):
        if event["type"] == "y":
            raise KeyError("bad")
        return event

    guard = ops.Operator(
        "guard", lambda turn: ops.Stage(refuse, shape="map"), guards=True
    )
    first = ops.map(bad) | ops.timeout(idle=60) | guard
    run = seven(seen, seen.source([deep, {"type": "y"}]), first=first).start(
        IDENTITY, log=seen.log
    )
    got = await read(run.body())
    assert short(lines(got))[-2:] == ["error", "failed"]
    seen.one_terminal()
    while deep:  # taken apart piece by piece: its nesting is deeper than the C stack
        deep = deep.pop("d", None)


@pytest.mark.parametrize("mode", ["cancel", "detach"])
def test_a_source_that_exits_the_program_does(mode):
    seen = Seen()

    async def turn():
        async def produce():
            yield A
            raise SystemExit(3)

        run = seven(seen, produce).start(IDENTITY, log=seen.log, on_disconnect=mode)
        await read(run.body())

    with pytest.raises(SystemExit):
        asyncio.run(turn())


def test_a_body_dropped_after_its_loop_was_closed_under_it_does_no_harm():
    seen = Seen()
    loop = asyncio.new_event_loop()

    async def begin():
        body = seven(seen, [A].__iter__).start(IDENTITY).events()
        await anext(body)
        return body

    body = loop.run_until_complete(begin())
    loop.close()
    assert body._run.context is not None
    del body


async def test_a_kept_anext_of_a_body_reads_on(seen):
    run = seven(seen, seen.source(A)).start(IDENTITY)
    body = run.events()
    read_one = body.__anext__
    got = [await read_one(), await read_one(), *await read(body)]
    assert short(got) == ["started", "a", "completed"]

    run = seven(seen, seen.source(A)).start(IDENTITY)
    read_one = run.events().__anext__
    got = [await read_one(), await read_one(), await read_one()]
    assert short(got) == ["started", "a", "completed"]
    with pytest.raises(StopAsyncIteration):
        await read_one()
    assert (await run.outcome()).status == "completed"


async def test_a_reader_hidden_behind_too_many_awaits_is_not_found():
    async def generator():
        await stuck()
        yield A

    async def deep(agen, n):
        if n:
            await deep(agen, n - 1)
        else:
            await anext(agen)

    agen = generator()
    task = asyncio.ensure_future(deep(agen, 300))
    await ticks(2)
    assert reading_task(agen, asyncio.get_running_loop()) is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await agen.aclose()
