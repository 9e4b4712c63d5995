"""A cancel, and a second one, at every step of a turn."""

import asyncio
from itertools import count

import aiostream
import pytest

import operators as ops

from .support import (
    IDENTITY,
    TERMINALS,
    A,
    B,
    Seen,
    alone,
    delta,
    kinds,
    lines,
    read,
    seven,
    ticks,
)

TICK = {"type": "tick"}
BOTH = pytest.mark.parametrize("partial", [False, True], ids=["drained", "partial"])
MODES = pytest.mark.parametrize("mode", ["cancel", "detach"])


class Slow(Seen):
    """Every hook of it suspends several times, and notes when it is done."""

    def __init__(self):
        super().__init__()
        self.begun = []

    async def slow_tap(self, event):
        await ticks(2)
        self.events.append(event)

    async def slow_save(self, record):
        self.begun.append(record)
        await ticks(3)
        self.save(record)

    async def slow_transform(self, text):
        await ticks(2)
        return text.upper()

    async def slow_complete(self, record):
        await ticks(1)
        self.complete(record)

    async def slow_flush(self):
        await ticks(3)
        self.flush()

    def slow_source(self, *items):
        async def produce():
            self.opened += 1
            try:
                for item in items:
                    await ticks(2)
                    yield item
                await ticks(2)
            finally:
                try:
                    await ticks(2)
                finally:  # a cancel reaches the cleanup of a source as any of its code
                    self.closed += 1
                    self.order.append("closed")

        return produce


def compose(seen, partial, *, tap=True, **parts):
    return seven(
        seen,
        seen.slow_source(A, [B, TICK], delta("c")),
        partial=partial,
        tap=seen.slow_tap if tap else seen.tap,
        transform=seen.slow_transform,
        save=seen.slow_save,
        complete=seen.slow_complete,
        flush=seen.slow_flush,
        **parts,
    )


async def gently(source):
    """Pass events on, suspending before and after each; close what it reads."""
    try:
        async for event in source:
            await asyncio.sleep(0)
            yield event
            await asyncio.sleep(0)
    finally:
        await asyncio.sleep(0)
        await source.aclose()


def held_back():
    """Make an operator that is one event behind, and gives it in an async finish."""

    class Held:
        shape = "flat_map"

        def __init__(self):
            self.held = []

        async def on_event(self, event):
            await asyncio.sleep(0)
            out, self.held = self.held, [event]
            return out

        async def finish(self):
            await ticks(2)
            out, self.held = self.held, []
            return out

    return ops.operator(Held)


TURNS = {
    "seven stages": lambda seen, partial: compose(seen, partial),
    "seven stages, sync tap": lambda seen, partial: compose(seen, partial, tap=False),
    "through aiostream": lambda seen, partial: compose(
        seen, partial, first=ops.through(aiostream.pipe.map(lambda event: event))
    ),
    "through behind": lambda seen, partial: compose(
        seen, partial, after=ops.through(gently)
    ),
    "held back, then through": lambda seen, partial: compose(
        seen, partial, first=held_back() | ops.through(gently) | held_back()
    ),
    "timeout": lambda seen, partial: compose(
        seen, partial, first=ops.timeout(first_event=60, idle=60, total=60)
    ),
    "queued tap": lambda seen, partial: compose(
        seen, partial, after=ops.tap(slowly, queue=2)
    ),
    "coalesced": lambda seen, partial: compose(
        seen, partial, first=ops.coalesce(max_events=4, max_delay=60)
    ),
}


async def slowly(event):
    await ticks(2)


async def after(steps, action):
    """Call `action` at the given step of the loop from now."""
    await ticks(steps)
    return action()


def settled_as_the_table_says(seen, outcome, partial):
    """Assert what holds however a turn ended."""
    if seen.events:  # else it was stopped before its first event got to the tap
        seen.one_terminal()
    status = outcome.status
    assert f"session.run.{status}" in seen.kinds
    expected = status == "completed" or partial
    assert len(seen.saved) == (1 if expected else 0)
    assert len(seen.begun) == len(seen.saved)
    assert outcome.persisted == expected
    if seen.saved:
        assert seen.saved[0].status == status
        assert seen.saved[0].text == outcome.text.upper()
    assert len(seen.completed) == (status == "completed")
    assert seen.flushed == 1
    assert seen.opened == seen.closed <= 1
    assert seen.order == sorted(
        seen.order, key=["closed", "persist", "complete", "flush"].index
    )
    assert status in ("completed", "cancelled")
    assert outcome.error is None
    assert not [entry for entry in seen.logs if "raised" in entry[0]], seen.logs


def every_step(scenario):
    """Run `scenario(k, seen)` for k = 0, 1, ... until it says that the turn was over."""
    ways = set()
    for k in count():
        seen = Slow()
        result = []

        async def run_it(k=k, seen=seen, result=result):
            result.append(await scenario(k, seen))

        try:
            alone(run_it())
        except BaseException as exc:
            exc.add_note(f"at step {k}: {seen.kinds} {seen.order} {seen.logs}")
            raise
        over, status = result[0]
        ways.add(status)
        if over:
            break
        assert k < 500
    assert k > 15
    return ways


@MODES
@BOTH
@pytest.mark.parametrize("name", TURNS)
def test_run_cancel_at_every_step_delivers_one_cancelled_line(name, partial, mode):
    async def scenario(k, seen):
        run = TURNS[name](seen, partial).start(
            IDENTITY, log=seen.log, on_disconnect=mode
        )
        stop = asyncio.ensure_future(after(k, lambda: run.cancel("stop")))
        reader = asyncio.ensure_future(read(run.events()))
        got = await reader
        over = not stop.done()
        stop.cancel()
        outcome = await run.outcome()
        assert not reader.cancelling()
        settled_as_the_table_says(seen, outcome, partial)
        assert [e for e in got if e != TICK] == [e for e in seen.events if e != TICK]
        assert [kind for kind in kinds(got) if kind in TERMINALS] == kinds(got)[-1:]
        if outcome.status == "cancelled":
            assert got[-1]["data"]["reason"] == outcome.reason == "stop"
        return over, outcome.status

    assert every_step(scenario) == {"cancelled", "completed"}


@MODES
@BOTH
@pytest.mark.parametrize("again", [None, 1, 4], ids=lambda n: f"again-{n}")
@pytest.mark.parametrize("name", TURNS)
def test_a_reader_cancelled_at_every_step_ends_cancelled(name, again, partial, mode):
    """Also a second time, some steps later; a detached turn runs on."""

    async def scenario(k, seen):
        run = TURNS[name](seen, partial).start(
            IDENTITY, log=seen.log, on_disconnect=mode
        )
        body = run.body()
        reader = asyncio.ensure_future(read(body))
        await ticks(k)
        over = reader.done()
        reader.cancel()
        if again is not None:
            await ticks(again)
            reader.cancel()
        (got,) = await asyncio.gather(reader, return_exceptions=True)
        assert over or isinstance(got, asyncio.CancelledError)
        if mode == "cancel" and not over:  # all is settled when the reader is let go
            assert k == 0 or seen.flushed == 1
        await body.aclose()
        outcome = await run.outcome()
        settled_as_the_table_says(seen, outcome, partial)
        if mode == "detach" and k > 0:
            assert outcome.status == "completed"
        return over, outcome.status

    expected = {"cancelled", "completed"}
    assert every_step(scenario) <= expected


@MODES
@BOTH
@pytest.mark.parametrize("name", TURNS)
def test_a_body_closed_after_every_read_settles(name, partial, mode):
    async def scenario(k, seen):
        run = TURNS[name](seen, partial).start(
            IDENTITY, log=seen.log, on_disconnect=mode
        )
        body = run.body()
        for _ in range(k):
            if await anext(body, None) is None:
                break
        await body.aclose()
        if mode == "cancel":
            assert seen.flushed == 1
        outcome = await run.outcome()
        settled_as_the_table_says(seen, outcome, partial)
        if mode == "detach" and k > 0:
            assert outcome.status == "completed"
        return k > 15, outcome.status

    every_step(scenario)


@MODES
@BOTH
@pytest.mark.parametrize("name", TURNS)
def test_closing_a_body_cancelled_at_every_step_still_settles(name, partial, mode):
    async def scenario(k, seen):
        run = TURNS[name](seen, partial).start(
            IDENTITY, log=seen.log, on_disconnect=mode
        )
        body = run.body()
        for _ in range(2):
            await anext(body)
        closing = asyncio.ensure_future(body.aclose())
        await ticks(k + 1)
        over = closing.done() and k > 15
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        outcome = await run.outcome()
        settled_as_the_table_says(seen, outcome, partial)
        return over, outcome.status

    every_step(scenario)


@BOTH
@pytest.mark.parametrize("name", TURNS)
def test_run_cancel_and_an_outside_cancel_together_let_the_outside_win(name, partial):
    async def scenario(k, seen):
        run = TURNS[name](seen, partial).start(IDENTITY, log=seen.log)
        body = run.body()
        reader = asyncio.ensure_future(read(body))
        await ticks(k)
        over = reader.done()
        run.cancel("stop")
        reader.cancel()
        (got,) = await asyncio.gather(reader, return_exceptions=True)
        assert over or isinstance(got, asyncio.CancelledError)
        await body.aclose()
        outcome = await run.outcome()
        settled_as_the_table_says(seen, outcome, partial)
        return over, outcome.status

    assert every_step(scenario) == {"cancelled", "completed"}


@pytest.mark.parametrize("later", [1, 2, 4, 7])
@pytest.mark.parametrize("name", ["seven stages", "held back, then through", "timeout"])
def test_an_outside_cancel_some_steps_after_run_cancel_is_not_swallowed(name, later):
    async def scenario(k, seen):
        run = TURNS[name](seen, True).start(IDENTITY, log=seen.log)
        body = run.body()
        reader = asyncio.ensure_future(read(body))
        await ticks(k)
        run.cancel("stop")
        await ticks(later)
        over = reader.done()
        reader.cancel()
        (got,) = await asyncio.gather(reader, return_exceptions=True)
        assert over or isinstance(got, asyncio.CancelledError)
        await body.aclose()
        outcome = await run.outcome()
        settled_as_the_table_says(seen, outcome, True)
        return over and k > 15 and outcome.status == "completed", outcome.status

    assert every_step(scenario) == {"cancelled", "completed"}


@MODES
@BOTH
@pytest.mark.parametrize("name", TURNS)
def test_a_body_closed_by_another_task_at_every_step_settles(name, partial, mode):
    async def scenario(k, seen):
        run = TURNS[name](seen, partial).start(
            IDENTITY, log=seen.log, on_disconnect=mode
        )
        body = run.body()
        reader = asyncio.ensure_future(read(body))
        await ticks(k)
        over = reader.done()
        await body.aclose()
        await reader
        outcome = await run.outcome()
        settled_as_the_table_says(seen, outcome, partial)
        return over, outcome.status

    every_step(scenario)


@BOTH
@pytest.mark.parametrize("name", TURNS)
def test_detach_at_every_step_lets_the_turn_end_without_its_reader(name, partial):
    async def scenario(k, seen):
        run = TURNS[name](seen, partial).start(IDENTITY, log=seen.log)
        body = run.body()
        got = []

        async def reading():
            async for chunk in body:
                got.append(chunk)
                await asyncio.sleep(0)

        reader = asyncio.ensure_future(reading())
        await ticks(k)
        over = reader.done()
        run.detach()
        await reader
        outcome = await run.outcome()
        assert outcome.status == "completed"
        settled_as_the_table_says(seen, outcome, partial)
        assert [e for e in lines(got) if e != TICK] == [
            e for e in seen.events if e != TICK
        ]
        return over, outcome.status

    every_step(scenario)


@MODES
@pytest.mark.parametrize("name", TURNS)
def test_each_read_may_be_of_another_task_and_be_cancelled_at_every_step(name, mode):
    """As `asyncio.wait_for(anext(body))` reads on 3.11: a task for each read."""

    async def one(body):
        return await anext(body, None)

    async def scenario(k, seen):
        run = TURNS[name](seen, True).start(IDENTITY, log=seen.log, on_disconnect=mode)
        body = run.body()
        steps = 0
        over = False
        while True:
            task = asyncio.ensure_future(one(body))
            while not task.done() and steps < k:
                await asyncio.sleep(0)
                steps += 1
            if not task.done():
                task.cancel()
                (got,) = await asyncio.gather(task, return_exceptions=True)
                assert isinstance(got, asyncio.CancelledError)
                break
            if task.result() is None:
                over = True
                break
        await body.aclose()
        outcome = await run.outcome()
        settled_as_the_table_says(seen, outcome, True)
        return over, outcome.status

    every_step(scenario)


@pytest.mark.parametrize("name", TURNS)
def test_run_cancel_at_every_step_reaches_whichever_task_reads(name):
    async def scenario(k, seen):
        run = TURNS[name](seen, True).start(IDENTITY, log=seen.log)
        body = run.events()
        stop = asyncio.ensure_future(after(k, lambda: run.cancel("stop")))
        got = []
        while True:
            event = await asyncio.wait_for(anext(body, None), 10)
            if event is None:
                break
            got.append(event)
        over = not stop.done()
        stop.cancel()
        outcome = await run.outcome()
        settled_as_the_table_says(seen, outcome, True)
        assert kinds(got)[-1:] == [f"session.run.{outcome.status}"]
        return over, outcome.status

    assert every_step(scenario) == {"cancelled", "completed"}


@MODES
@pytest.mark.parametrize("name", TURNS)
def test_turn_stop_at_every_step_fails_the_turn(name, mode):
    """An operator's timer may end the turn at any time: the same path as a cancel."""

    async def scenario(k, seen):
        run = TURNS[name](seen, True).start(IDENTITY, log=seen.log, on_disconnect=mode)
        body = run.events()
        reader = asyncio.ensure_future(read(body))
        await ticks(max(k, 1))
        over = reader.done()
        if run.context.stopper is not None:
            run.context.stop(ops.TurnTimeout("total", 1.0))
        got = await reader
        outcome = await run.outcome()
        terminal = seen.one_terminal()
        assert terminal == f"session.run.{outcome.status}" == kinds(got)[-1]
        assert len(seen.saved) == 1
        assert seen.opened == seen.closed
        if outcome.status == "failed":
            assert outcome.code == "timeout.total"
        return over, outcome.status

    assert every_step(scenario) == {"failed", "completed"}
