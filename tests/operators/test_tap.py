import asyncio
import functools

import pytest

import operators as ops
from operators.testing import deltas, feed

X, Y, Z = {"type": "x"}, {"type": "y"}, {"type": "z"}


def fails_on_y(event):
    if event["type"] == "y":
        raise ValueError("boom")


class Seen(list):
    """A callable object."""

    def __call__(self, event):
        self.append(event["type"])


class AsyncSeen(list):
    async def __call__(self, event):
        self.append(event["type"])


async def test_every_kind_of_function_sees_every_event_and_changes_none(turn, capsys):
    seen = []

    async def awaited(event):
        seen.append(event["type"])

    def wants_turn(event, turn):
        seen.append((event["type"], turn.execution_id))

    async def awaited_wants_turn(event, turn):
        seen.append((event["type"], turn.execution_id))

    def tagged(tag, event):
        seen.append((tag, event["type"]))

    objects = Seen(), AsyncSeen()
    chain = (
        ops.tap(awaited)
        | ops.tap(wants_turn)
        | ops.tap(awaited_wants_turn)
        | ops.tap(functools.partial(tagged, "p"))
        | ops.tap(functools.partial(awaited))
        | ops.tap(lambda event: awaited(event))
        | ops.tap(lambda event: False)
        | ops.tap(print)
        | ops.tap(objects[0])
        | ops.tap(objects[1])
    )
    out = await feed(chain, [X], turn=turn)
    assert out[0] is X
    assert seen == ["x", ("x", "x-1"), ("x", "x-1"), ("p", "x"), "x", "x"]
    assert [*objects[0], *objects[1]] == ["x", "x"]
    assert capsys.readouterr().out == "{'type': 'x'}\n"


async def test_types_limit_what_it_sees():
    seen = Seen()
    assert await feed(ops.tap(seen, types=["y"]), [X, Y, {}, Z]) == [X, Y, {}, Z]
    assert seen == ["y"]


@pytest.mark.parametrize("queue", [None, 1, 8])
async def test_an_error_is_logged_once_per_event_and_the_stream_goes_on(
    turn, logged, queue
):
    tap = ops.tap(fails_on_y, queue=queue)
    assert await feed(tap, [X, Y, Z, Y], turn=turn) == [X, Y, Z, Y]
    assert [message for message, _ in logged] == ["tap(fails_on_y) raised"] * 2
    assert logged[0][1]["error"] == "boom"


@pytest.mark.parametrize("queue", [None, 1, 8])
async def test_on_error_fail_fails_the_turn(turn, queue):
    tap = ops.tap(fails_on_y, on_error="fail", queue=queue)
    with pytest.raises(ValueError, match="boom"):
        await feed(tap, [X, Y, Z], turn=turn)
    out = await feed(ops.lifecycle() | tap, [X, Y, Z, Z, Z, Z])
    assert out[-1]["type"] == "session.run.failed"


@pytest.mark.parametrize("queue", [None, 1, 2, 8])
async def test_on_error_disable_calls_it_no_more(turn, logged, queue):
    calls = Seen()

    def once(event):
        calls(event)
        fails_on_y(event)

    tap = ops.tap(once, on_error="disable", queue=queue)
    events = [X, Y, Z, Z, Z]
    assert await feed(tap, events, turn=turn) == events
    assert calls == ["x", "y"]
    assert len(logged) == 1


async def test_each_disabled_tap_is_disabled_by_itself(turn, logged):
    taps = [ops.tap(fails_on_y, on_error="disable") for _ in range(3)]
    assert await feed(ops.Chain(taps[:2]) | taps[2], [Y, Y], turn=turn) == [Y, Y]
    assert len(logged) == 3


async def test_a_queued_tap_runs_beside_the_stream_and_is_drained_before_settling(turn):
    steps = []
    release = asyncio.Event()

    async def slow(event):
        await release.wait()
        steps.append(event["type"])

    def passed(event):
        steps.append(f"{event['type']} passed")
        if event["type"] == "y":
            release.set()

    chain = (
        ops.accumulate()
        | ops.tap(slow, queue=2)
        | ops.tap(passed)
        | ops.persist(lambda record: steps.append("saved"))
    )
    await feed(chain, [X, Y], turn=turn)
    assert steps == ["x passed", "y passed", "x", "y", "saved"]


async def test_a_full_queue_makes_the_stream_wait():
    steps = []
    tasks = set()

    async def slow(event):
        tasks.add(asyncio.current_task())
        await asyncio.sleep(0)
        steps.append(event["type"])

    def passed(event):
        steps.append(f"{event['type']} passed")

    await feed(ops.tap(slow, queue=1) | ops.tap(passed), [X, Y, Z])
    assert steps == ["x passed", "x", "y passed", "y", "z passed", "z"]
    assert asyncio.current_task() not in tasks


async def test_a_queued_tap_sees_the_terminals_and_their_errors_are_logged(
    turn, logged
):
    seen = Seen()
    await feed(ops.lifecycle() | ops.tap(seen, queue=3), [X], turn=turn)
    assert seen == ["session.run.started", "x", "session.run.completed"]

    def late(event):
        if event["type"] == "session.run.completed":
            raise ValueError("late")

    await feed(ops.lifecycle() | ops.tap(late, queue=3, on_error="fail"), [], turn=turn)
    assert logged[-1] == (
        "tap(late) raised",
        {"error": "late", "operator": "tap(late)"},
    )


async def test_a_queued_tap_that_saw_nothing_has_no_task():
    assert await feed(ops.tap(print, queue=1), []) == []


async def test_a_cancelled_turn_leaves_no_queued_task_behind():
    at = asyncio.Event()

    async def stuck(event):
        at.set()
        await asyncio.get_running_loop().create_future()

    reader = asyncio.create_task(feed(ops.tap(stuck, queue=1), deltas("a")))
    await at.wait()
    for _ in range(2):  # the first waits for the queue to drain, the second ends that
        reader.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await reader


def gen(event):
    yield event


async def agen(event):
    yield event


@pytest.mark.parametrize("function", [gen, agen, functools.partial(gen)])
def test_bad_taps_are_refused_with_the_mend(function):
    with pytest.raises(ops.CompositionError, match="its body would never run"):
        ops.tap(function)
    with pytest.raises(ops.CompositionError, match='"log", "fail" or "disable"'):
        ops.tap(print, on_error="ignore")
    with pytest.raises(
        ops.CompositionError, match="queue must be an int, at least 1, not 0"
    ):
        ops.tap(print, queue=0)
    with pytest.raises(ops.CompositionError, match=r"write types=\('error',\)"):
        ops.tap(print, types="error")


async def test_a_queued_tap_that_raises_cancellederror_of_itself_is_logged():
    async def odd(event):
        raise asyncio.CancelledError

    events = deltas("a", "b", "c")
    assert await feed(ops.tap(odd, queue=1), events) == events
