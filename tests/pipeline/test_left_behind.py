"""A source that does not stop is left behind: every end is bounded by settle_timeout."""

import asyncio
import contextlib
from time import monotonic

import pytest

import operators as ops
from pipeline import Pipeline
from pipeline.mailbox import Mailbox

from .support import HANG_S, IDENTITY, A, B, C, kinds, read, seven

SETTLE_S = 0.05


class Stubborn:
    """A source whose cleanup hangs through its first `deaf` cancellations."""

    def __init__(self, seen, *, deaf=0):
        self.seen = seen
        self.deaf = deaf
        self.reached = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self):
        self.seen.opened += 1
        try:
            yield A
            self.reached.set()
            await asyncio.get_running_loop().create_future()
        finally:
            while not self.release.is_set():
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.deaf -= 1
                    if self.deaf < 0:
                        self.seen.closed += 1
                        raise
            self.seen.closed += 1


def saved(seen):
    return [(record.status, record.text) for record in seen.saved]


@pytest.mark.parametrize("mode", ["cancel", "detach"])
@pytest.mark.parametrize("deaf", [0, 1])
async def test_a_cancelled_turn_whose_source_hangs_in_its_cleanup_settles(
    seen, mode, deaf
):
    source = Stubborn(seen, deaf=deaf)
    run = seven(seen, source, partial=True).start(
        IDENTITY, log=seen.log, settle_timeout=SETTLE_S, on_disconnect=mode
    )
    reader = asyncio.create_task(read(run.events()))
    await source.reached.wait()
    run.cancel("enough")
    async with asyncio.timeout(HANG_S):
        outcome = await run.outcome()
        assert (outcome.status, outcome.code) == ("failed", "settle_timeout")
        assert saved(seen) == [("failed", "A")]
        assert seen.flushed == 1
        assert seen.one_terminal() == "session.run.failed"
        if deaf and mode == "cancel":  # the reader's own task is in the source still
            assert not reader.done()
            source.release.set()
        got = await reader
    assert kinds(got)[-2:] == ["error", "session.run.failed"]
    assert kinds(got).count("session.run.failed") == 1
    assert reader.cancelling() == 0
    source.release.set()
    await asyncio.sleep(0)


async def test_a_failure_stays_the_first_one_where_the_source_hangs_too(seen):
    source = Stubborn(seen)
    turns = []

    def note(event, turn):
        turns.append(turn)

    run = seven(seen, source, after=ops.tap(note)).start(
        IDENTITY, log=seen.log, settle_timeout=SETTLE_S
    )
    reader = asyncio.create_task(read(run.events()))
    await source.reached.wait()
    turns[0].stop(ops.TurnError("enough", code="mine"))
    async with asyncio.timeout(HANG_S):
        outcome = await run.outcome()
        await reader
    assert outcome.code == "mine"
    assert "the source was left behind" in seen.messages
    assert seen.one_terminal() == "session.run.failed"


async def test_an_idle_deadline_is_bounded_where_the_source_hangs_too(seen):
    source = Stubborn(seen)
    run = seven(seen, source, first=ops.timeout(idle=0.01), partial=True).start(
        IDENTITY, log=seen.log, settle_timeout=SETTLE_S
    )
    async with asyncio.timeout(HANG_S):
        got = await read(run.events())
        outcome = await run.outcome()
    assert outcome.code == "timeout.idle"
    assert saved(seen) == [("failed", "A")]
    assert kinds(got)[-1] == "session.run.failed"


async def test_detach_timeout_is_bounded_where_the_source_hangs_too(seen):
    source = Stubborn(seen)
    run = seven(seen, source, partial=True).start(
        IDENTITY,
        log=seen.log,
        settle_timeout=SETTLE_S,
        detach_timeout=0.01,
        on_disconnect="detach",
    )
    body = run.events()
    await anext(body)
    await anext(body)
    await body.aclose()
    async with asyncio.timeout(HANG_S):
        outcome = await run.outcome()
    assert (outcome.status, outcome.code) == ("failed", "settle_timeout")
    assert saved(seen) == [("failed", "A")]


def outliving(seen):
    """A source that takes its cancellation for nothing, and goes on."""

    async def produce():
        seen.opened += 1
        try:
            yield A
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
            yield B
        finally:
            seen.closed += 1

    return produce


@pytest.mark.parametrize("mode", ["cancel", "detach"])
@pytest.mark.parametrize("wire", ["events", "body"])
async def test_a_body_is_closed_while_its_source_outlives_the_cancellation(
    seen, mode, wire
):
    run = seven(seen, outliving(seen), partial=True).start(
        IDENTITY, log=seen.log, on_disconnect=mode, detach_timeout=0.01
    )
    body = run.events() if wire == "events" else run.body()
    reader = asyncio.create_task(read(body))
    while len(seen.events) < 2:
        await asyncio.sleep(0)
    async with asyncio.timeout(HANG_S):
        await body.aclose()
        await reader
        outcome = await run.outcome()
    assert outcome.status == "cancelled"
    assert seen.closed == 1
    assert seen.one_terminal() == "session.run.cancelled"
    assert reader.cancelling() == 0


async def test_a_turn_ends_whose_reader_idles_after_its_source_outlived_a_cancel(seen):
    run = seven(seen, outliving(seen), partial=True).start(IDENTITY, log=seen.log)
    body = run.events()
    read_three = asyncio.Event()
    leave = asyncio.Event()
    got = []

    async def reads():
        while len(got) < 3:
            got.append(await anext(body))
        read_three.set()
        await leave.wait()
        return [event async for event in body]

    reader = asyncio.create_task(reads())
    while len(got) < 2:
        await asyncio.sleep(0)
    run.cancel("enough")
    async with asyncio.timeout(HANG_S):
        await read_three.wait()
        outcome = await run.outcome()
        assert reader.cancelling() == 0
        leave.set()
        rest = await reader
    assert outcome.status == "cancelled"
    assert got[2] == B
    assert kinds(rest) == ["session.run.cancelled"]


async def test_an_operator_that_closes_its_own_body_is_stopped_there(seen):
    bodies = []

    async def closes(event):
        if event is B:
            await bodies[0].aclose()
            await asyncio.get_running_loop().create_future()

    run = seven(seen, seen.source(A, B, hang=True), after=ops.tap(closes)).start(
        IDENTITY, log=seen.log
    )
    bodies.append(run.events())
    async with asyncio.timeout(HANG_S):
        got = await read(bodies[0])
        outcome = await run.outcome()
    assert outcome.status == "cancelled"
    assert kinds(got) == ["session.run.started", A["type"]]
    assert seen.closed == 1


async def test_an_operator_that_awaits_its_own_outcome_is_told_so(seen):
    runs = []

    async def asks(event):
        await runs[0].outcome()

    tap = ops.tap(asks, types=[A["type"]], on_error="fail")
    run = seven(seen, seen.source(A), after=tap).start(IDENTITY, log=seen.log)
    runs.append(run)
    async with asyncio.timeout(HANG_S):
        await read(run.events())
        outcome = await run.outcome()
    assert outcome.code == "misuse"


async def test_a_headless_turn_over_a_source_that_never_waits_can_be_cancelled(seen):
    async def produce():
        while True:
            yield A

    run = seven(seen, produce).start(IDENTITY, log=seen.log)
    asyncio.get_running_loop().call_later(0.01, run.cancel, "enough")
    async with asyncio.timeout(HANG_S):
        assert (await run.outcome()).reason == "enough"


async def test_a_held_event_is_not_pushed_after_its_settlement_was_given_up(seen):
    release = asyncio.Event()
    tapped = []

    async def deaf(event):
        tapped.append(event)
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    def refuses(event):
        if event is C:
            raise ValueError
        return event

    chat = seven(
        seen,
        lambda: [[A, B, C]],
        first=ops.map(refuses) | ops.timeout(idle=HANG_S) | ops.tap(deaf),
    )
    run = chat.start(IDENTITY, log=seen.log, settle_timeout=SETTLE_S)
    async with asyncio.timeout(HANG_S):
        outcome = await run.outcome()
        release.set()
        for _ in range(10):
            await asyncio.sleep(0)
    assert outcome.status == "failed"
    assert tapped == [A]


async def test_a_turn_that_is_over_cannot_be_stopped(seen):
    turns = []

    def note(event, turn):
        turns.append(turn)

    run = seven(seen, seen.source(A), after=ops.tap(note)).start(IDENTITY)
    await run.outcome()
    with pytest.raises(ops.TurnMisuse, match="while a turn is read"):
        turns[0].stop(ValueError())


async def test_what_waits_in_a_mailbox_is_copied_out_of_its_encoders_page():
    box = Mailbox()
    first, second = b"a" * 100, b"b" * 100
    await box.put(first)
    await box.put(second)
    assert box.get() is first
    kept = box.get()
    assert kept == second
    assert kept is not second


@pytest.mark.parametrize("mode", ["cancel", "detach"])
async def test_nothing_follows_the_terminal_when_a_left_source_comes_back(seen, mode):
    reached = asyncio.Event()
    release = asyncio.Event()

    async def produce():
        yield A
        reached.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        yield B

    run = seven(seen, produce, partial=True).start(
        IDENTITY, log=seen.log, settle_timeout=SETTLE_S, on_disconnect=mode
    )
    reader = asyncio.create_task(read(run.events()))
    await reached.wait()
    run.cancel("enough")
    async with asyncio.timeout(HANG_S):
        outcome = await run.outcome()
        if mode == "detach":
            await reader
        release.set()
        got = await reader
        await asyncio.wait(
            {task for task in asyncio.all_tasks() if task.get_name() == "turnpipe turn"}
            or {reader}
        )
    assert outcome.code == "settle_timeout"
    assert saved(seen) == [("failed", "A")]
    assert kinds(got)[-2:] == ["error", "session.run.failed"]
    assert (B in got) is (mode == "cancel")
    assert reader.cancelling() == 0


class Iterates:
    """An awaitable that hands every step on, as compiled code may."""

    def __init__(self, inner):
        self.inner = inner.__await__()
        vars(self)  # from now on its attributes are in a dict of their own

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        return self.inner.send(value)

    def throw(self, *error):
        return self.inner.throw(*error)


async def test_a_read_is_found_behind_an_object_that_awaits_for_its_task(seen):
    async def forwarded(body):
        return [await Iterates(anext(body)), await Iterates(take(body))]

    async def take(body):
        return await anext(body)

    source = seen.source(hang=True)
    run = seven(seen, source).start(IDENTITY, log=seen.log)
    body = run.events()
    reader = asyncio.create_task(forwarded(body))
    while not seen.opened:
        await asyncio.sleep(0)
    run.cancel("enough")
    async with asyncio.timeout(HANG_S):
        got = await reader
        await run.outcome()
        await body.aclose()
    assert kinds(got) == ["session.run.started", "session.run.cancelled"]


async def test_a_read_that_no_task_awaits_is_settled_when_it_has_ended(seen):
    held = asyncio.get_running_loop().create_future()

    async def produce():
        await held
        yield A
        yield B

    run = seven(seen, produce, partial=True).start(IDENTITY, log=seen.log)
    body = run.events()
    await anext(body)
    by_hand = body.__anext__()
    by_hand.send(None)
    run.cancel("enough")
    await asyncio.sleep(0)
    held.set_result(None)
    with pytest.raises(StopIteration) as ended:
        by_hand.send(None)
    assert ended.value.value == A
    async with asyncio.timeout(HANG_S):
        assert (await run.outcome()).reason == "enough"
    await body.aclose()


async def test_a_wait_whose_time_is_up_as_its_item_comes_gets_the_item():
    box = Mailbox()
    waiting = asyncio.ensure_future(box.wait(0.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # now the timer is due in this very round, behind us
    await box.put(b"x")
    assert await waiting is True
    assert await Mailbox().wait(0.0) is None


@pytest.mark.parametrize("how", ["leaves", "cancels"])
async def test_the_rest_of_a_list_is_not_lost_when_its_reader_stops_in_it(seen, how):
    run = seven(seen, seen.source([A, B, C, 5, A], hang=True), partial=True).start(
        IDENTITY, log=seen.log
    )
    body = run.events()
    got = [await anext(body), await anext(body)]
    if how == "leaves":
        await body.aclose()
    else:
        run.cancel("enough")
        got += await read(body)
    outcome = await run.outcome()
    assert outcome.status == "cancelled"
    assert saved(seen) == [("cancelled", "ABC")]
    assert seen.events[1:-1] == [A, B, C]
    assert seen.one_terminal() == "session.run.cancelled"
    if how == "cancels":
        assert got == seen.events


class HangsInClose:
    """An iterator of A and B whose `aclose` hangs; it is not deaf."""

    def __init__(self):
        self.left = [B, A]

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.left:
            return self.left.pop()
        raise StopAsyncIteration

    async def aclose(self):
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("mode", ["cancel", "detach"])
@pytest.mark.parametrize("hangs", [True, False], ids=["save hangs", "save returns"])
async def test_a_close_and_a_save_that_hang_are_given_up_once_each(seen, mode, hangs):
    saves = []

    async def save(record):
        saves.append(record.text)
        if hangs:
            await asyncio.get_running_loop().create_future()

    run = seven(seen, HangsInClose, save=save).start(
        IDENTITY, log=seen.log, settle_timeout=SETTLE_S, on_disconnect=mode
    )
    async with asyncio.timeout(HANG_S):
        got = await read(run.events())
        outcome = await run.outcome()
    assert (outcome.status, outcome.code) == ("failed", "settle_timeout")
    assert saves == ["AB"]
    assert kinds(got)[-2:] == ["error", "session.run.failed"]
    assert seen.one_terminal() == "session.run.failed"


async def test_a_turn_with_beats_ends_though_its_source_hangs_in_its_close(seen):
    chat = seven(seen, HangsInClose) | ops.heartbeat(HANG_S)
    run = chat.start(IDENTITY, log=seen.log, settle_timeout=SETTLE_S)
    async with asyncio.timeout(HANG_S):
        assert b"session.run.failed" in (await read(run.body()))[-1]


def deaf(times, *rest):
    """A source that takes so many cancellations for nothing, then goes on."""

    async def produce():
        yield A
        for _ in range(times):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
        for event in rest:
            yield event

    return produce


async def test_to_detach_what_is_being_cancelled_changes_nothing(seen):
    run = seven(seen, deaf(2, B, C)).start(
        IDENTITY, log=seen.log, settle_timeout=SETTLE_S
    )
    reader = asyncio.create_task(read(run.events()))
    while len(seen.events) < 2:
        await asyncio.sleep(0)
    run.cancel("enough")
    run.detach()
    async with asyncio.timeout(HANG_S):
        got = await reader
        await run.outcome()
    assert kinds(got)[-1] == "session.run.failed"


@pytest.mark.parametrize("answer", ["raises", "ends"])
async def test_a_cancellation_from_outside_wins_over_ours_whatever_the_source_answers(
    seen, answer
):
    async def produce():
        yield A
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if answer == "raises":
                raise ValueError("converted") from None

    run = seven(seen, produce).start(IDENTITY, log=seen.log)
    reader = asyncio.create_task(read(run.events()))
    while len(seen.events) < 2:
        await asyncio.sleep(0)
    run.cancel("enough")
    reader.cancel()
    async with asyncio.timeout(HANG_S):
        await asyncio.wait({reader})
        outcome = await run.outcome()
    assert reader.cancelled()
    assert (outcome.status, outcome.reason) == ("cancelled", "enough")


@pytest.mark.parametrize("why", ["cancel", "idle"])
async def test_a_cancellation_that_the_reader_swallowed_before_is_not_counted(
    seen, why
):
    begun = asyncio.Event()

    async def reads(body):
        with contextlib.suppress(asyncio.CancelledError):
            begun.set()
            await asyncio.get_running_loop().create_future()
        return await read(body)

    first = ops.timeout(idle=0.01) if why == "idle" else None
    run = seven(seen, seen.source(A, hang=True), first=first).start(
        IDENTITY, log=seen.log
    )
    reader = asyncio.create_task(reads(run.events()))
    await begun.wait()
    reader.cancel()
    if why == "cancel":
        while len(seen.events) < 2:
            await asyncio.sleep(0)
        run.cancel("enough")
    async with asyncio.timeout(HANG_S):
        got = await reader
    assert kinds(got)[-1] == (
        "session.run.failed" if why == "idle" else "session.run.cancelled"
    )
    assert reader.cancelling() == 1


async def test_a_full_reader_gets_the_end_though_its_left_source_raises_later(seen):
    release = asyncio.Event()

    async def produce():
        for _ in range(255):
            yield A
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        raise ValueError("late")

    run = seven(seen, produce).start(
        IDENTITY, log=seen.log, settle_timeout=SETTLE_S, on_disconnect="detach"
    )
    body = run.events()
    await anext(body)
    while len(seen.events) < 256:
        await asyncio.sleep(0)
    run.cancel("enough")
    while seen.kinds[-1] != "session.run.failed":
        await asyncio.sleep(0.001)
    release.set()
    async with asyncio.timeout(HANG_S):
        got = await read(body)
        await run.outcome()
    assert kinds(got)[-2:] == ["error", "session.run.failed"]


async def test_a_turn_that_is_detached_and_left_in_mid_read_is_bounded(seen):
    run = seven(seen, seen.source(A, hang=True)).start(
        IDENTITY, log=seen.log, detach_timeout=0.05
    )
    body = run.events()
    reader = asyncio.create_task(read(body))
    while len(seen.events) < 2:
        await asyncio.sleep(0)
    run.detach()
    await body.aclose()
    async with asyncio.timeout(HANG_S):
        outcome = await run.outcome()
        await reader
        await body.aclose()
    assert (outcome.status, outcome.reason) == ("cancelled", "detach_timeout")


def test_a_full_queued_tap_does_not_hold_up_the_end_of_the_loop(seen):
    async def slow(event):
        await asyncio.sleep(0.01)

    async def main():
        chat = Pipeline(seen.source(A, A, A, A, hang=True)) | ops.lifecycle()
        run = (chat | ops.tap(slow, queue=1) | ops.tap(seen.tap)).start(
            IDENTITY, log=seen.log, settle_timeout=HANG_S
        )
        reader = asyncio.create_task(read(run.events()))
        while len(seen.events) < 2:
            await asyncio.sleep(0)
        return reader

    began = monotonic()
    asyncio.run(main())
    assert monotonic() - began < HANG_S / 2
    assert seen.one_terminal() == "session.run.cancelled"
