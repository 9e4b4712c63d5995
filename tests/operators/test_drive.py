import asyncio

import pytest
from aiostream import pipe

import operators as ops
from operators.alone import alone
from operators.drive import called
from operators.testing import deltas, feed

X, Y = {"type": "x"}, {"type": "y", "data": {"text": "secret", "id": "1"}}


async def hanging(*events):
    for event in events:
        yield event
    await asyncio.get_running_loop().create_future()


def boom(*_):
    raise ValueError("boom")


def kinds(events):
    return [event["type"] for event in events]


async def test_a_lifecycle_gives_the_envelope_and_keeps_failures_inside(turn):
    assert kinds(await feed(ops.lifecycle(), [X], turn=turn)) == [
        "session.run.started",
        "x",
        "session.run.completed",
    ]


async def test_a_failing_operator_fails_the_stream_or_the_turn(turn, logged):
    with pytest.raises(ValueError, match="boom"):
        await feed(ops.map(boom), [X])
    out = await feed(ops.lifecycle() | ops.map(boom, types=["x"]), [Y, X, Y], turn=turn)
    assert kinds(out) == ["session.run.started", "y", "error", "session.run.failed"]
    assert turn.ending.code == "operator_failed"
    assert logged[0][0] == "turn failed"


async def test_an_operator_that_raised_is_bypassed_and_a_guard_sends_no_free_text(turn):
    chain = ops.lifecycle() | ops.map(boom)
    out = await feed(chain, [X], turn=turn)
    assert kinds(out) == ["session.run.started", "error", "session.run.failed"]

    guard = ops.Operator(
        "guard", lambda turn: ops.Stage(boom, shape="map"), guards=True
    )
    out = await feed(ops.lifecycle() | guard, [Y])
    assert kinds(out) == ["session.run.started", "error", "session.run.failed"]
    assert out[1]["data"]["message"] == ""
    assert out[1]["data"]["code"] == "operator_failed"


async def test_a_started_event_that_an_operator_cannot_take_fails_the_turn(turn):
    for source in ([X], []):
        turn.ending = None
        out = await feed(ops.lifecycle() | ops.filter(boom), source, turn=turn)
        assert kinds(out) == ["session.run.started", "error", "session.run.failed"]
        assert turn.ending.status == "failed"


async def test_an_operator_that_cannot_be_opened_fails_the_turn():
    broken = ops.Operator("broken", boom)
    with pytest.raises(ValueError, match="boom"):
        await feed(broken | broken, [X])
    out = await feed(ops.lifecycle() | broken, [X])
    assert kinds(out) == ["session.run.started", "error", "session.run.failed"]


async def test_what_precedes_a_bad_event_of_the_same_read_is_delivered():
    got = []
    with pytest.raises(ops.InvalidEvent, match="the source gave int as an event"):
        async for event in alone(ops.Chain().operators, _given([X, Y, 7, X])):
            got.append(event)  # noqa: PERF401 - what came before the error counts
    assert got == [X, Y]


async def _given(*items):
    for item in items:
        yield item


@pytest.mark.parametrize(
    ("made", "mend"),
    [
        (None, "use ops.filter to drop it"),
        ("text", "str as an event: it must be a dict"),
        (asyncio.sleep, "declare the function with `async def`"),
    ],
)
async def test_what_is_no_event_is_refused_with_the_mend(made, mend):
    def give(event):
        return made(0) if callable(made) else made

    with pytest.raises(ops.InvalidEvent, match=mend):
        await feed(ops.map(give), [X])


async def test_an_awaitable_that_is_no_coroutine_is_refused_too():
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(ops.InvalidEvent, match="async def"):
        await feed(ops.map(lambda event: future), [X])


async def test_held_events_go_through_what_comes_after_ahead_of_the_terminal(turn):
    class Holding:
        shape = "filter"

        def on_event(self, event):
            return False

        def finish(self):
            return [X, Y]

    chain = (
        ops.operator(Holding) | ops.lifecycle() | ops.map(lambda e: {**e, "seen": 1})
    )
    out = await feed(chain, [X])
    assert kinds(out) == ["session.run.started", "x", "y", "session.run.completed"]
    assert all(event["seen"] for event in out)

    before = ops.operator(Holding) | ops.through(pipe.take(1)) | ops.filter(bool)
    assert await feed(before, [X]) == [X]


async def test_a_finish_or_a_settle_that_raises_fails_the_turn(turn, logged):
    ran = []

    def stage(**parts):
        return ops.Operator("bad", lambda turn: ops.Stage(**parts))

    for parts in ({"finish": boom}, {"settle": boom}, {"finish": lambda: [None]}):
        chain = ops.lifecycle() | stage(**parts) | stage(settle=lambda: ran.append(1))
        assert kinds(await feed(chain, [X]))[-2:] == ["error", "session.run.failed"]
    assert (
        len(ran) == 2
    )  # a failed settle skips those after it, a failed finish does not

    out = await feed(
        stage(settle=boom) | ops.lifecycle() | stage(finish=boom), [], turn=turn
    )
    assert kinds(out)[-1] == "session.run.failed"
    assert [message for message, _ in logged] == [
        "turn failed",
        "failed again while settling",
    ]


async def test_on_a_stop_only_what_is_always_due_settles_and_what_it_needs():
    ran = []

    def settling(name, when):
        stage = ops.Stage(settle=lambda: ran.append(name), when=when)
        return ops.Operator(name, lambda turn: stage)

    chain = (
        settling("needed", "needed")
        | settling("drained", "drained")
        | settling("always", "always")
        | settling("not needed", "needed")
    )
    with pytest.raises(ValueError, match="boom"):
        await feed(chain | ops.map(boom), [X])
    assert ran == ["needed", "always"]
    ran.clear()
    await feed(chain, [X])
    assert ran == ["needed", "drained", "always", "not needed"]


async def test_a_reader_that_leaves_settles_the_turn_as_cancelled(turn):
    seen = []
    chain = ops.lifecycle() | ops.tap(seen.append)
    stream = alone(chain.operators, hanging(X), turn)
    assert kinds([await anext(stream), await anext(stream)])[-1] == "x"
    await stream.aclose()
    assert kinds(seen) == ["session.run.started", "x", "session.run.cancelled"]
    assert turn.ending.status == "cancelled"


async def test_close_runs_on_every_end_and_its_errors_are_logged(turn, logged):
    closed = []
    chain = ops.Chain(
        [
            ops.Operator("bad", lambda turn: ops.Stage(close=boom)),
            ops.Operator(
                "good", lambda turn: ops.Stage(close=lambda: closed.append(1))
            ),
        ]
    )
    assert await feed(chain, [X], turn=turn) == [X]
    assert closed == [1]
    assert logged == [("bad raised", {"error": "boom", "operator": "bad"})]


async def test_stop_ends_the_turn_at_the_next_event_or_the_end(turn):
    def stop(event, turn):
        turn.stop(ops.PublicError("enough"))

    with pytest.raises(ops.PublicError, match="enough"):
        await feed(ops.tap(stop), [X])
    with pytest.raises(ops.PublicError, match="enough"):
        await feed(ops.tap(stop) | ops.filter(lambda event: False), [X])
    with pytest.raises(ops.TurnMisuse, match="raise from on_event instead"):
        turn.stop(ValueError())


async def test_an_in_band_error_makes_the_turn_fail(turn):
    error = {"type": "error", "data": {"message": "quota"}}
    out = await feed(ops.lifecycle(), [error], turn=turn)
    assert kinds(out) == ["session.run.started", "error", "session.run.failed"]
    assert out[-1]["data"]["message"] == "quota"


async def test_a_cancellation_made_up_by_a_source_or_a_hook_is_a_failure():
    async def source():
        yield X
        raise asyncio.CancelledError

    assert kinds(await feed(ops.lifecycle(), source()))[-1] == "session.run.failed"

    async def settle(record):
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="of itself"):
        await feed(ops.accumulate() | ops.persist(settle), [X])


async def test_a_hook_that_is_cancelled_from_outside_stays_cancelled():
    async def hook():
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(called(hook))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_through_sees_single_events_of_the_source_and_of_finish(turn):
    seen = []

    async def look(source):
        async for event in source:
            seen.append(event)
            yield event

    chain = (
        ops.lifecycle() | ops.coalesce() | ops.through(look) | ops.tap(print, types=())
    )
    out = await feed(chain, [deltas("a", "b"), *deltas("c")], turn=turn)
    assert seen == deltas("a", "bc")
    assert len(out) == 4
