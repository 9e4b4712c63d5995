"""How a turn ends: every row of the exit table, read in every way."""

import asyncio
import contextvars
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import pytest

import operators as ops
from operators.source import ChatTurnProducer
from pipeline import Pipeline

from .support import IDENTITY, A, B, delta, kinds, lines, read, seven, ticks

ERROR = {"type": "error", "data": {"message": "upstream 503", "code": "x"}}
FAILED = {"type": "session.run.failed", "data": {"message": "gone", "sessionId": "in"}}
COMPLETED = {"type": "session.run.completed", "data": {"sessionId": "inner"}}
STARTED = {"type": "session.run.started", "data": {"x": 1}}


class Boom(Exception):
    pass


def boom(*_args):
    raise Boom("boom")


async def boom_async(*_args):
    await asyncio.sleep(0)
    raise Boom("boom")


def boom_later(*_args):
    return boom_async()


@dataclass
class Row:
    """One way to end. `make(seen, partial)` composes it; the rest is what it shall do."""

    make: Any
    status: str = "failed"
    code: Any = None
    reason: Any = None
    last: tuple = ("error", "session.run.failed")
    persist: str = "partial"  # yes, partial, no
    complete: bool = False
    persisted: Any = None  # as `persist` says
    error: Any = Boom
    logs: tuple = ("turn failed",)
    options: dict = field(default_factory=dict)
    opened: int = 1
    text: str = "AB"


def simple(*items, error=None, **parts):
    return lambda seen, partial: seven(
        seen, seen.source(*items, error=error), partial=partial, **parts
    )


def raising_source(function):
    return lambda seen, partial: seven(seen, function, partial=partial)


def producer(final_text, *items):
    def make(seen, partial):
        def produce():
            return ChatTurnProducer(stream=seen.source(*items)(), final_text=final_text)

        return seven(seen, produce, partial=partial)

    return make


def no_log(*_args):
    raise RuntimeError("log down")


async def stuck(*_args):
    await asyncio.get_running_loop().create_future()


def stuck_source(seen, partial):
    async def produce():
        seen.opened += 1
        try:
            yield A
            yield B
        finally:
            seen.closed += 1
            await asyncio.get_running_loop().create_future()

    return seven(seen, produce, partial=partial)


COMPLETES = {
    "status": "completed",
    "last": ("session.run.completed",),
    "persist": "yes",
    "complete": True,
    "error": None,
    "logs": (),
}
REPORTED = {"persist": "yes", "complete": True, "error": None, "logs": ()}
LOGGED = {**COMPLETES, "logs": None}

ROWS = {
    "the source ends": Row(simple(A, B), **COMPLETES),
    "the source ends, in one list": Row(simple([A, B]), **COMPLETES),
    "the source yields nothing": Row(simple(), **COMPLETES, text=""),
    "final_text wins": Row(producer(lambda: "z", A, B), **COMPLETES, text="Z"),
    "an async final_text that is empty does not": Row(
        producer(lambda: asyncio.sleep(0, ""), A, B), **COMPLETES
    ),
    "the source yields error": Row(simple(A, B, ERROR), code="x", **REPORTED),
    "the source yields failed": Row(simple(A, B, FAILED), code="reported", **REPORTED),
    "the source yields error, then failed": Row(
        simple(A, B, ERROR, FAILED), code="x", **REPORTED
    ),
    "the source yields completed": Row(simple(A, B, COMPLETED), **COMPLETES),
    "the source yields started": Row(simple(STARTED, A, B), **COMPLETES),
    "produce raises": Row(
        raising_source(boom), code="source_failed", opened=0, text=""
    ),
    "async produce raises": Row(
        raising_source(boom_async), code="source_failed", opened=0, text=""
    ),
    "produce gives no iterable": Row(
        raising_source(lambda: 5),
        code="invalid_event",
        error=ops.InvalidEvent,
        opened=0,
        text="",
    ),
    "the source raises": Row(simple(A, B, error=Boom("boom")), code="source_failed"),
    "the source raises CancelledError of itself": Row(
        simple(A, B, error=asyncio.CancelledError()),
        code="source_failed",
        error=ops.TurnError,
    ),
    "a map raises": Row(
        simple(A, B, {"type": "x"}, after=ops.map(boom, types=["x"])),
        code="operator_failed",
    ),
    "an async filter raises": Row(
        simple(A, B, {"type": "x"}, after=ops.filter(boom_async, types=["x"])),
        code="operator_failed",
    ),
    "a flat_map raises": Row(
        simple(A, B, {"type": "x"}, after=ops.flat_map(boom, types=["x"])),
        code="operator_failed",
    ),
    "a tap that fails the turn raises": Row(
        simple(A, B, {"type": "x"}, after=ops.tap(boom, types=["x"], on_error="fail")),
        code="operator_failed",
    ),
    "an operator cannot be opened": Row(
        simple(A, B, after=ops.Operator("broken", boom)),
        code="operator_failed",
        opened=0,
        text="",
    ),
    "final_text raises": Row(producer(boom, A, B), code="source_failed"),
    "async final_text raises": Row(producer(boom_later, A, B), code="source_failed"),
    "final_text is no text": Row(
        producer(lambda: 5, A, B), code="source_failed", error=TypeError
    ),
    "an event is no dict": Row(
        simple(A, B, 5), code="invalid_event", error=ops.InvalidEvent
    ),
    "transform raises": Row(
        simple(A, B, transform=boom), code="transform_failed", persist="no"
    ),
    "async transform raises": Row(
        simple(A, B, transform=boom_async), code="transform_failed", persist="no"
    ),
    "transform gives no text": Row(
        simple(A, B, transform=lambda text: None),
        code="transform_failed",
        persist="no",
        error=TypeError,
    ),
    "persist raises": Row(
        simple(A, B, save=boom), code="persist_failed", persist="raises"
    ),
    "async persist raises": Row(
        simple(A, B, save=boom_async), code="persist_failed", persist="raises"
    ),
    "persist raises CancelledError of itself": Row(
        simple(A, B, save=lambda record: stop_itself()),
        code="persist_failed",
        persist="raises",
        error=RuntimeError,
    ),
    "complete raises": Row(simple(A, B, complete=boom), **LOGGED),
    "async complete raises": Row(simple(A, B, complete=boom_async), **LOGGED),
    "a tap raises": Row(simple(A, B, after=ops.tap(boom)), **LOGGED),
    "an async tap raises": Row(simple(A, B, after=ops.tap(boom_async)), **LOGGED),
    "a tap is disabled": Row(
        simple(A, B, after=ops.tap(boom, on_error="disable")), **LOGGED
    ),
    "an async tap is disabled": Row(
        simple(A, B, after=ops.tap(boom_async, on_error="disable")), **LOGGED
    ),
    "a queued tap raises": Row(simple(A, B, after=ops.tap(boom, queue=4)), **LOGGED),
    "trace_flush raises": Row(simple(A, B, flush=boom), **LOGGED),
    "async trace_flush raises": Row(simple(A, B, flush=boom_async), **LOGGED),
    "trace_flush raises CancelledError of itself": Row(
        simple(A, B, flush=lambda: stop_itself()), **LOGGED
    ),
    "log raises": Row(
        simple(A, B, after=ops.tap(boom)), **LOGGED, options={"log": no_log}
    ),
    "wait_until raises": Row(
        simple(A, B, flush=lambda: asyncio.sleep(0)),
        **LOGGED,
        options={"wait_until": boom},
    ),
    "a timeout fires": Row(
        lambda seen, partial: seven(
            seen,
            seen.source(A, B, hang=True),
            partial=partial,
            first=ops.timeout(idle=0.01),
        ),
        code="timeout.idle",
        error=ops.TurnTimeout,
    ),
    "a first event does not come": Row(
        lambda seen, partial: seven(
            seen,
            seen.source(hang=True),
            partial=partial,
            first=ops.timeout(first_event=0.01),
        ),
        code="timeout.first_event",
        error=ops.TurnTimeout,
        text="",
    ),
    "the total time is over": Row(
        lambda seen, partial: seven(
            seen,
            seen.source(A, B, hang=True),
            partial=partial,
            first=ops.timeout(total=0.01),
        ),
        code="timeout.total",
        error=ops.TurnTimeout,
    ),
    "settling takes too long, in persist": Row(
        simple(A, B, save=stuck),
        code="settle_timeout",
        error=ops.SettleTimeout,
        persist="raises",
        options={"settle_timeout": 0.02},
    ),
    "settling takes too long, in transform": Row(
        simple(A, B, transform=stuck),
        code="settle_timeout",
        error=ops.SettleTimeout,
        persist="no",
        options={"settle_timeout": 0.02},
    ),
    "settling takes too long, in finish": Row(
        simple(A, B, after=ops.Operator("held", lambda turn: ops.Stage(finish=stuck))),
        code="settle_timeout",
        error=ops.SettleTimeout,
        persist="no",
        options={"settle_timeout": 0.02},
    ),
    "settling takes too long, in complete": Row(
        simple(A, B, complete=stuck),
        code="settle_timeout",
        error=ops.SettleTimeout,
        persist="yes",
        options={"settle_timeout": 0.02},
    ),
    "a flush hangs": Row(
        simple(A, B, flush=stuck), **LOGGED, options={"settle_timeout": 0.02}
    ),
}


async def stop_itself():
    await asyncio.sleep(0)
    raise asyncio.CancelledError


async def headless(run):
    await run.outcome()


async def as_lines(run):
    return lines(await read(run.body()))


async def as_events(run):
    return await read(run.events())


READERS = {
    "body": (as_lines, {}),
    "events": (as_events, {}),
    "owned body": (as_lines, {"on_disconnect": "detach"}),
    "owned events": (as_events, {"on_disconnect": "detach"}),
    "headless": (headless, {}),
}


def check_persisted(seen, outcome, how, partial):
    if how == "yes" or (how == "partial" and partial):
        (record,) = seen.saved
        assert record.status == outcome.status or outcome.code == "settle_timeout"
        assert record.identity is IDENTITY
        assert outcome.persisted
        return record
    assert seen.saved == []
    assert not outcome.persisted
    return None


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("partial", [False, True], ids=["drained", "partial"])
@pytest.mark.parametrize("name", ROWS)
async def test_a_turn_ends_as_the_table_says(name, partial, reader, seen):
    row = ROWS[name]
    read_all, options = READERS[reader]
    run = row.make(seen, partial).start(
        IDENTITY, **{"log": seen.log, **options, **row.options}
    )
    got = await read_all(run)
    outcome = await run.outcome()

    assert seen.one_terminal() == row.last[-1]
    assert tuple(kinds(seen.events)[-len(row.last) :]) == row.last
    assert kinds(seen.events).count("error") == (row.last[0] == "error")
    assert kinds(seen.events).count(row.last[-1]) == 1
    if got is not None:
        assert got == seen.events
    assert seen.events[-1]["data"]["sessionId"] == "s-1"

    assert outcome.status == row.status
    assert outcome.code == row.code
    assert outcome.reason == row.reason
    if row.error is None:
        assert outcome.error is None
        assert outcome.error_id is None
    else:
        assert isinstance(outcome.error, row.error)
        assert outcome.error_id
    record = check_persisted(seen, outcome, row.persist, partial)
    if record is not None:
        assert record.text == row.text
        assert outcome.final_text == row.text
    if row.make is not stuck_source and not row.text.startswith("Z"):
        assert outcome.text == row.text.lower()
    if "complete raises" not in name and "in complete" not in name:
        assert len(seen.completed) == row.complete
    assert (seen.opened, seen.closed) == (row.opened, row.opened)
    order = [step for step in seen.order if step != "closed"]
    assert order == [s for s in ("persist", "complete", "flush") if s in order]
    assert "closed" not in seen.order or seen.order[0] == "closed"
    if "flush" not in name and name != "wait_until raises":
        assert seen.flushed == 1
    if row.logs is not None:
        assert tuple(seen.messages) == row.logs
    elif name != "log raises":
        assert seen.logs


@pytest.mark.parametrize("reader", READERS)
async def test_a_source_whose_cleanup_hangs_is_given_up_after_settle_timeout(
    reader, seen
):
    read_all, options = READERS[reader]
    pipeline = stuck_source(seen, True) | ops.map(boom, types=["y"])
    run = pipeline.start(IDENTITY, log=seen.log, settle_timeout=0.02, **options)

    async def cancel_soon():
        while len(seen.events) < 3:
            await asyncio.sleep(0)
        run.cancel("enough")

    # the source hangs in its finally at its own end: only a cancel gets it on
    canceller = asyncio.ensure_future(cancel_soon())
    got = await read_all(run)
    await canceller
    outcome = await run.outcome()
    assert seen.one_terminal() == "session.run.cancelled"
    assert got is None or kinds(got) == seen.kinds
    assert (outcome.status, outcome.reason, seen.closed) == ("cancelled", "enough", 1)


async def test_closing_the_source_is_within_settle_timeout(seen):
    async def produce():
        try:
            yield A
            yield B
        finally:
            await asyncio.get_running_loop().create_future()

    chat = seven(seen, produce, partial=True)
    run = chat.start(IDENTITY, log=seen.log, settle_timeout=0.02)
    body = run.events()
    assert kinds([await anext(body) for _ in range(2)])[0] == "session.run.started"
    run.cancel()
    rest = await read(body)
    assert kinds(rest) == ["error", "session.run.failed"]
    assert (await run.outcome()).code == "settle_timeout"


async def test_reported_failures_are_merged_under_our_session_id(seen):
    chat = seven(seen, seen.source(A, ERROR, FAILED))
    got = await read(chat.start(IDENTITY, log=seen.log).events())
    assert got[2:] == [
        ERROR,
        {
            "type": "session.run.failed",
            "data": {"message": "gone", "code": "x", "sessionId": "s-1"},
        },
    ]


async def test_a_masked_failure_shows_code_and_error_id_only(seen):
    chat = seven(seen, seen.source(A, error=Boom("secret")), errors="masked")
    run = chat.start(IDENTITY, log=seen.log)
    got = await read(run.events())
    outcome = await run.outcome()
    shown = {
        "message": "The turn failed.",
        "code": "source_failed",
        "errorId": outcome.error_id,
    }
    assert got[-2:] == [
        {"type": "error", "data": shown},
        {"type": "session.run.failed", "data": {"sessionId": "s-1", **shown}},
    ]
    ((message, meta),) = seen.logs
    assert (message, meta["error"], meta["error_id"]) == (
        "turn failed",
        "secret",
        outcome.error_id,
    )


async def test_a_public_error_passes_the_mask(seen):
    error = ops.PublicError("out of credit", code="credit")
    chat = seven(seen, seen.source(A, error=error), errors="masked")
    got = await read(chat.start(IDENTITY, log=seen.log).events())
    assert got[-2]["data"] == {"message": "out of credit", "code": "credit"}


async def test_a_failing_persist_is_tried_again(seen):
    tries = []

    async def save(record):
        tries.append(record)
        if len(tries) < 3:
            raise Boom("busy")
        seen.save(record)

    chat = (
        Pipeline(seen.source(A))
        | ops.lifecycle()
        | ops.tap(seen.tap)
        | ops.accumulate()
        | ops.persist(save, retries=2, backoff=0.0)
    )
    outcome = await chat.start(IDENTITY, log=seen.log).outcome()
    assert (outcome.status, outcome.persisted, len(tries)) == ("completed", True, 3)

    tries.clear()
    chat = chat | ops.persist(boom, retries=1, backoff=0.0, name="second")
    outcome = await chat.start(IDENTITY, log=seen.log).outcome()
    assert (outcome.status, outcome.code) == ("failed", "persist_failed")


# -- leaving


async def leave_by_close(run, body):
    await body.aclose()


async def leave_in_a_cancelled_task(run, body):
    async def reading():
        while True:
            await anext(body)

    task = asyncio.ensure_future(reading())
    await ticks(4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def leave_by_cancel(run, body):
    run.cancel("stopped")
    return await read(body)


async def leave_by_cancel_in_flight(run, body):
    task = asyncio.ensure_future(read(body))
    await ticks(4)
    run.cancel("stopped")
    got = await task
    assert not task.cancelling()
    return got


LEAVES = {
    "closes": (leave_by_close, "disconnected"),
    "is cancelled": (leave_in_a_cancelled_task, "disconnected"),
    "run.cancel between reads": (leave_by_cancel, "stopped"),
    "run.cancel in flight": (leave_by_cancel_in_flight, "stopped"),
}


@pytest.mark.parametrize("mode", ["events", "body"])
@pytest.mark.parametrize("partial", [False, True], ids=["drained", "partial"])
@pytest.mark.parametrize("how", LEAVES)
async def test_a_turn_that_is_left_or_stopped_is_cancelled(how, partial, mode, seen):
    leave, reason = LEAVES[how]
    chat = seven(seen, seen.source(A, B, hang=True), partial=partial)
    run = chat.start(IDENTITY, log=seen.log)
    body = getattr(run, mode)()
    for _ in range(3):
        await anext(body)
    rest = await leave(run, body)
    outcome = await run.outcome()
    assert seen.kinds[-1] == seen.one_terminal() == "session.run.cancelled"
    assert seen.events[-1]["data"] == {"sessionId": "s-1", "reason": reason}
    if rest is not None:
        rest = rest if mode == "events" else lines(rest)
        assert rest == seen.events[-1:]
    assert (outcome.status, outcome.code, outcome.reason) == ("cancelled", None, reason)
    assert (outcome.error, outcome.error_id) == (None, None)
    record = check_persisted(seen, outcome, "partial", partial)
    assert record is None or record.text == "AB"
    assert seen.completed == []
    assert (seen.opened, seen.closed, seen.flushed) == (1, 1, 1)
    assert seen.order[0] == "closed"
    assert seen.logs == []


@pytest.mark.parametrize("mode", ["events", "body"])
@pytest.mark.parametrize("how", ["closes", "is cancelled"])
async def test_a_detached_turn_ends_as_if_it_was_read(how, mode, seen):
    leave, _ = LEAVES[how]
    release = asyncio.Event()

    async def produce():
        seen.opened += 1
        try:
            yield A
            await release.wait()
            yield B
        finally:
            seen.closed += 1

    chat = seven(seen, produce)
    run = chat.start(IDENTITY, log=seen.log, on_disconnect="detach")
    body = getattr(run, mode)()
    for _ in range(2):
        await anext(body)
    await leave(run, body)
    release.set()
    outcome = await run.outcome()
    assert outcome.status == "completed"
    assert seen.one_terminal() == "session.run.completed"
    assert (len(seen.saved), len(seen.completed), seen.closed) == (1, 1, 1)


# -- how settlement runs


async def test_settle_hooks_run_once_in_a_task_of_their_own_in_a_copied_context(seen):
    who = contextvars.ContextVar("who", default="nobody")
    found = {}

    def note(name):
        def hook(*args):
            found.setdefault(name, []).append((asyncio.current_task(), who.get()))
            who.set(name)
            return args[0] if args and isinstance(args[0], str) else None

        return hook

    async def flush():
        note("flush")()

    chat = seven(
        seen,
        seen.source(A),
        transform=note("transform"),
        save=note("save"),
        complete=note("complete"),
        flush=flush,
    )
    who.set("caller")
    run = chat.start(IDENTITY)
    who.set("reader")
    await read(run.body())
    assert who.get() == "reader"
    assert {name: len(calls) for name, calls in found.items()} == {
        "transform": 1,
        "save": 1,
        "complete": 1,
        "flush": 1,
    }
    tasks = {calls[0][0] for calls in found.values()}
    assert asyncio.current_task() not in tasks
    assert [
        found[name][0][1] for name in ("transform", "save", "complete", "flush")
    ] == [
        "caller",
        "transform",
        "save",
        "caller",
    ]


async def test_the_terminal_is_delivered_before_close_hooks_hold_the_reader(seen):
    release = asyncio.Event()
    chat = seven(seen, seen.source(A), flush=release.wait)
    run = chat.start(IDENTITY)
    body = run.events()
    got = [await anext(body) for _ in range(3)]
    assert got[-1]["type"] == "session.run.completed"
    end = asyncio.ensure_future(anext(body, None))
    outcome = asyncio.ensure_future(run.outcome())
    await ticks(5)
    assert not end.done()
    assert not outcome.done()
    release.set()
    assert await end is None
    assert (await outcome).status == "completed"


async def test_an_outcome_is_immutable_and_always_the_same(seen):
    run = seven(seen, seen.source(A, B)).start(
        IDENTITY, clock=iter(range(100)).__next__
    )
    await read(run.events())
    outcome = await run.outcome()
    assert outcome is await run.outcome()
    with pytest.raises(FrozenInstanceError):
        outcome.status = "failed"
    assert outcome.events == 2
    assert outcome.first_event_s > 0
    assert outcome.duration_s > outcome.first_event_s


async def test_usage_reported_by_the_source_is_in_the_outcome(seen):
    call = {"type": "llm_call", "data": {"inputTokens": 3, "outputTokens": 4}}
    outcome = await seven(seen, seen.source(A, call)).start(IDENTITY).outcome()
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (3, 4)
    assert seen.saved[0].usage == outcome.usage


async def test_a_turn_without_events_has_no_first_event(seen):
    outcome = await seven(seen, seen.source()).start(IDENTITY).outcome()
    assert (outcome.events, outcome.first_event_s) == (0, None)


async def test_without_a_lifecycle_failures_raise_after_settlement(seen):
    chat = Pipeline(seen.source(A, error=Boom("boom"))) | ops.trace_flush(seen.flush)
    for read_all in (as_events, as_lines):
        run = chat.start(IDENTITY, log=seen.log)
        with pytest.raises(Boom):
            await read_all(run)
        outcome = await run.outcome()
        assert (outcome.status, outcome.code) == ("failed", "source_failed")
        assert outcome.error_id is None
    assert seen.flushed == 2
    run = chat.start(IDENTITY, log=seen.log, on_disconnect="detach")
    with pytest.raises(Boom):
        await as_events(run)
    outcome = await chat.start(IDENTITY).outcome()  # headless: nobody to raise to
    assert outcome.status == "failed"


async def test_close_hooks_run_in_order_and_a_hanging_one_does_not_stop_the_rest(seen):
    order = []

    def closing(name, wait):
        async def close():
            order.append(name)
            if wait:
                await asyncio.get_running_loop().create_future()

        return ops.Operator(name, lambda turn: ops.Stage(close=close))

    chat = (
        Pipeline(seen.source(A))
        | ops.lifecycle()
        | closing("one", True)
        | closing("two", False)
        | closing("three", True)
        | ops.trace_flush(seen.flush)
    )
    run = chat.start(IDENTITY, log=seen.log, settle_timeout=0.02)
    got = await read(run.events())
    assert got[-1]["type"] == "session.run.completed"
    assert order == ["one", "two", "three"]
    assert seen.flushed == 1
    assert seen.messages == [
        "one did not close within 0.02 s",
        "three did not close within 0.02 s",
    ]


async def test_hooks_that_ignore_their_cancellation_do_not_keep_a_turn_open(seen):
    async def stubborn(*_args):
        for _ in range(3):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await ticks(3)
                return

    chat = seven(seen, seen.source(A), save=stubborn, flush=stubborn)
    run = chat.start(IDENTITY, log=seen.log, settle_timeout=0.02)
    got = await read(run.events())
    assert kinds(got)[-2:] == ["error", "session.run.failed"]
    assert (await run.outcome()).code == "settle_timeout"
    await ticks(10)
    seen.one_terminal()
    assert seen.completed == []


async def test_a_tap_that_hangs_on_the_terminal_does_not_keep_a_turn_open(seen):
    async def hang_at_the_end(event):
        seen.tap(event)
        if event["type"] in ("session.run.completed", "session.run.failed"):
            await asyncio.get_running_loop().create_future()

    chat = seven(seen, seen.source(A), tap=hang_at_the_end)
    run = chat.start(IDENTITY, log=seen.log, settle_timeout=0.02)
    got = await read(run.events())
    assert got[-1]["type"] in ("session.run.completed", "session.run.failed")
    assert (await run.outcome()).status in ("completed", "failed")


@pytest.mark.debug
async def test_the_seven_stages_run_in_debug_mode(seen):
    run = seven(seen, seen.source(A, [B, delta("c")])).start(IDENTITY)
    assert len(await read(run.body())) == 4
    assert seen.one_terminal() == "session.run.completed"
