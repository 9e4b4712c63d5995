"""persist: what is saved, when, how often, and what becomes of a save that fails."""

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

import operators as ops
from operators import TurnContext, TurnIdentity
from operators import event as ev
from operators.testing import ManualClock, deltas, feed
from pipeline import Pipeline

IDENTITY = TurnIdentity(session_id="s-1", turn_index=0)
BEAT = 0.002


async def settled(turn, *operators, events=None):
    chain = ops.Chain((ops.accumulate(), *operators))
    return await feed(chain, deltas("a", "b") if events is None else events, turn=turn)


class Saves:
    """An async `save` that can be waited for, made to fail, and made to hang."""

    def __init__(self):
        self.records = []
        self.begun = asyncio.Event()
        self.done = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()
        self.errors = []
        self.cancelled = 0

    async def __call__(self, record):
        self.begun.set()
        try:
            await self.release.wait()
            if self.errors:
                raise self.errors.pop(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.done.set()
        self.records.append(record)

    async def next(self):
        """Wait for the next save to end."""
        self.done.clear()
        await self.done.wait()

    @property
    def seen(self):
        return [(record.status, record.text) for record in self.records]


def chat(source, save, *operators, **options):
    options = {"every": BEAT, **options}
    return (
        Pipeline(source)
        | ops.lifecycle()
        | ops.Chain((ops.accumulate(), *operators))
        | ops.persist(save, **options)
    )


# what may be given


@pytest.mark.parametrize("bad", [-1, 0, float("nan"), float("inf"), True, "2"])
@pytest.mark.parametrize("name", ["timeout", "every"])
def test_a_limit_that_is_no_positive_number_of_seconds_is_refused(name, bad):
    with pytest.raises(ops.CompositionError, match=f"{name} must be a positive number"):
        ops.persist(print, **{name: bad})


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), False, "1", None])
def test_a_backoff_that_is_no_number_of_seconds_is_refused(bad):
    with pytest.raises(ops.CompositionError, match="backoff must be a number of sec"):
        ops.persist(print, backoff=bad)


@pytest.mark.parametrize("bad", [-1, True, 1.0, "1", None])
def test_retries_that_are_no_count_are_refused(bad):
    with pytest.raises(ops.CompositionError, match="retries must be an int, 0 or more"):
        ops.persist(print, retries=bad)


def test_a_partial_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(ops.CompositionError, match="partial must be True or False"):
        ops.persist(print, partial="no")


def test_what_it_does_is_described():
    assert ops.persist(print, backoff=0, timeout=1, every=2).detail == {
        "kind": "persist",
        "partial": True,
        "retries": 0,
        "every": 2,
    }


# what a save may do


class Odd(BaseException):
    """Neither an Exception nor a cancellation."""


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Odd("odd")])
@pytest.mark.parametrize("options", [{}, {"timeout": 10}, {"every": 100}])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_save_that_raises_no_exception_of_its_own_fails_the_turn(
    error, options, waits
):
    def save(record):
        raise error

    async def save_later(record):
        raise error

    run = chat(
        lambda: aiter_of(deltas("a")),
        save_later if waits else save,
        **{"every": None, **options},
    ).start(IDENTITY)
    events = [event async for event in run.events()]
    outcome = await run.outcome()
    assert (outcome.status, outcome.code) == ("failed", "persist_failed")
    assert not outcome.persisted
    assert error in (outcome.error, outcome.error.__cause__)
    assert [event["type"] for event in events][-2:] == [ev.ERROR, ev.RUN_FAILED]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Odd("odd")])
async def test_such_a_save_is_tried_again(turn, error):
    tries = []

    async def save(record):
        tries.append(record)
        if len(tries) == 1:
            raise error

    await settled(turn, ops.persist(save, retries=1, backoff=0))
    assert (len(tries), turn.persisted) == (2, True)


async def aiter_of(events):
    for event in events:
        yield event


# drafts


async def test_drafts_are_saved_while_it_streams_and_the_whole_at_the_end():
    save = Saves()

    async def source():
        for text in ("a", "b"):
            for event in deltas(text):
                yield event
            await save.next()
        for event in deltas("c"):
            yield event

    run = chat(source, save).start(IDENTITY, execution_id="x-1")
    outcome = await run.outcome()
    assert save.seen == [("streaming", "a"), ("streaming", "ab"), ("completed", "abc")]
    assert {record.execution_id for record in save.records} == {"x-1"}
    assert outcome.persisted
    draft = save.records[0]
    assert draft.message == {
        "role": "assistant",
        "parts": [{"type": "text", "id": "p1", "text": "a"}],
    }
    assert draft.started_at <= draft.ended_at <= save.records[1].ended_at


async def test_drafts_come_by_the_turns_clock():
    save = Saves()
    looked = asyncio.Event()
    clock = ManualClock()

    def watched():
        looked.set()
        return clock()

    async def source():
        yield deltas("a")[0]
        for _ in range(3):  # the timer looks at a clock that stands still
            looked.clear()
            await looked.wait()
        assert save.seen == []
        clock.advance(BEAT)
        await save.next()

    await chat(source, save).start(IDENTITY, clock=watched).outcome()
    assert save.seen == [("streaming", "a"), ("completed", "a")]


async def test_a_draft_has_passed_the_transforms_that_stand_before():
    save = Saves()

    async def awaited(text):
        await asyncio.sleep(0)
        return f"<{text}>"

    def with_turn(text, turn):
        return f"{text}{turn.identity.session_id}"

    async def source():
        yield ev.delta(ev.reasoning_part("r"), "why")
        yield deltas("a")[0]
        await save.next()

    pipeline = chat(
        source, save, ops.transform(str.upper), ops.transform(awaited)
    ) | ops.transform(with_turn)
    outcome = await pipeline.start(IDENTITY).outcome()
    assert save.seen == [("streaming", "<A>"), ("completed", "<A>")]
    for record in save.records:
        assert [part["text"] for part in record.parts] == ["<WHY>", "<A>"]
    assert outcome.final_text == "<A>s-1"


async def test_a_draft_whose_transform_raises_is_not_saved(logged):
    save = Saves()
    failed = asyncio.Event()

    def log(message, meta):
        logged.append((message, dict(meta)))
        failed.set()

    def once(text):
        if not failed.is_set():
            raise ValueError("not yet")
        return text

    async def source():
        yield deltas("a")[0]
        await failed.wait()

    run = chat(source, save, ops.transform(once)).start(IDENTITY, log=log)
    assert (await run.outcome()).status == "completed"
    assert save.seen == [("completed", "a")]
    message = "persist(Saves) did not save a draft"
    assert logged == [(message, {"error": "not yet", "operator": "persist(Saves)"})]


@pytest.mark.parametrize(
    "error", [ConnectionError("down"), asyncio.CancelledError(), Odd("odd")]
)
async def test_a_draft_that_fails_is_logged_and_the_next_beat_saves_it(error, logged):
    save = Saves()
    save.errors = [error]

    async def source():
        for text in ("a", "b"):
            yield deltas(text)[0]
            await save.next()

    run = chat(source, save).start(
        IDENTITY, log=lambda message, meta: logged.append(message)
    )
    outcome = await run.outcome()
    assert (outcome.status, outcome.persisted) == ("completed", True)
    assert save.seen == [("streaming", "ab"), ("completed", "ab")]
    assert logged == ["persist(Saves) did not save a draft"]


async def test_a_draft_may_take_no_longer_than_a_try(logged):
    save = Saves()
    save.release.clear()

    async def source():
        yield deltas("a")[0]
        await save.next()
        save.release.set()

    run = chat(source, save, timeout=0.01).start(
        IDENTITY, log=lambda message, meta: logged.append(message)
    )
    await run.outcome()
    assert save.seen == [("completed", "a")]
    assert logged == ["persist(Saves) did not save a draft"]


async def test_nothing_new_is_no_draft():
    save = Saves()
    beats = []

    async def source():
        yield {"type": "custom"}  # of no part of the message
        await looked(2)
        assert save.seen == []
        yield deltas("a")[0]
        await save.next()
        yield {"type": "custom"}
        await looked(2)

    async def looked(times):
        """Wait until the timer has come round, and its draft had its turn."""
        seen = len(beats)
        while len(beats) < seen + times:
            await asyncio.sleep(BEAT)
            beats.append(1)

    await chat(source, save).start(IDENTITY).outcome()
    assert save.seen == [("streaming", "a"), ("completed", "a")]


async def test_drafts_go_on_where_the_events_themselves_do_not_get_through():
    save = Saves()

    async def source():
        for text in ("a", "b"):
            yield deltas(text)[0]
            await save.next()

    no_parts = ops.filter(lambda event: event["type"] != ev.PART_UPDATED)
    await chat(source, save, no_parts).start(IDENTITY).outcome()
    assert save.seen == [("streaming", "a"), ("streaming", "ab"), ("completed", "ab")]


async def test_a_slow_draft_delays_no_event_and_skips_beats():
    save = Saves()
    save.release.clear()
    read = []

    async def source():
        yield deltas("a")[0]
        await save.begun.wait()
        for text in "bcdef":
            yield deltas(text)[0]
            await asyncio.sleep(BEAT * 2)  # beats that must be skipped
        assert read[1:] == list("abcdef")  # after the event that opens the turn
        save.release.set()
        await save.next()  # the one in flight
        await save.next()  # the next: no event has come since, the beat comes

    run = chat(source, save).start(IDENTITY)
    async for event in run.events():
        read.append(event["data"].get("delta"))  # noqa: PERF401 - read along
    await run.outcome()
    assert save.seen == [
        ("streaming", "a"),
        ("streaming", "abcdef"),
        ("completed", "abcdef"),
    ]


async def test_the_last_save_waits_for_the_draft_in_flight():
    save = Saves()
    save.release.clear()

    async def source():
        yield deltas("a")[0]
        await save.begun.wait()
        asyncio.get_running_loop().call_later(0.01, save.release.set)
        yield deltas("b")[0]

    await chat(source, save).start(IDENTITY).outcome()
    assert save.seen == [("streaming", "a"), ("completed", "ab")]
    assert save.cancelled == 0


@pytest.mark.parametrize("waits", [False, True])
async def test_a_draft_that_hangs_is_cancelled_before_the_last_save(
    turn, waits, logged
):
    steps = []

    async def save(record):
        steps.append(("begin", record.status))
        if record.status == "streaming":
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                steps.append("cancelled")
                await asyncio.sleep(0)
                steps.append("cleaned up")
        elif waits:
            await asyncio.sleep(0)
        steps.append(("end", record.status))

    async def source():
        yield deltas("a")[0]
        while not steps:
            await asyncio.sleep(BEAT)

    turn.settle_timeout = 0.04
    await settled(turn, ops.persist(save, every=BEAT), events=source())
    assert steps == [
        ("begin", "streaming"),
        "cancelled",
        "cleaned up",
        ("begin", "completed"),
        ("end", "completed"),
    ]
    assert turn.persisted
    assert [message for message, _ in logged] == [
        "persist(save) gave a draft up that was not saved when the turn ended"
    ]


async def test_the_last_save_has_its_time_after_a_draft_that_hangs():
    save = Saves()
    save.release.clear()

    async def source():
        yield deltas("a")[0]
        await save.begun.wait()
        asyncio.get_running_loop().call_later(0.3, save.release.set)

    run = chat(source, save).start(IDENTITY, settle_timeout=0.8, log=lambda *_: None)

    assert (await run.outcome()).status == "completed"
    assert (save.seen, save.cancelled) == ([("completed", "a")], 1)


async def test_nothing_is_drafted_of_a_turn_that_settles():
    save = Saves()

    async def slow(text):
        await asyncio.sleep(BEAT * 5)  # beats pass
        return text

    chain = chat(lambda: aiter_of(deltas("a")), save, ops.transform(slow))
    await chain.start(IDENTITY).outcome()
    assert save.seen == [("completed", "a")]


@pytest.mark.parametrize("how", ["fails", "cancelled", "left"])
async def test_a_turn_with_drafts_has_a_last_save_on_every_end(how):
    save = Saves()

    async def source():
        yield deltas("a")[0]
        await save.next()
        yield deltas("b")[0]
        if how == "fails":
            raise ValueError("cut")
        await asyncio.get_running_loop().create_future()

    run = chat(source, save).start(IDENTITY, log=lambda *_: None)
    body = run.events()
    async for event in body:
        if event.get("data", {}).get("delta") == "b":
            if how == "cancelled":
                run.cancel("stop")
            elif how == "left":
                break
    await body.aclose()
    await run.outcome()
    status = "failed" if how == "fails" else "cancelled"
    assert save.seen == [("streaming", "a"), (status, "ab")]


@pytest.mark.parametrize("how", ["settle raises", "settle hangs"])
async def test_a_draft_in_flight_does_not_outlive_a_turn_that_cannot_save(how):
    save = Saves()
    save.release.clear()

    async def last(text):
        if not save.begun.is_set():
            return text
        if how == "settle raises":
            raise ValueError("boom")
        await asyncio.get_running_loop().create_future()

    async def source():
        yield deltas("a")[0]
        await save.begun.wait()

    run = chat(source, save, ops.transform(last)).start(
        IDENTITY, settle_timeout=0.05, log=lambda *_: None
    )
    outcome = await run.outcome()
    assert outcome.status == "failed"
    assert (save.seen, save.cancelled) == ([], 1)


async def test_a_draft_that_ignores_its_cancellation_fails_the_turn_not_the_order(
    turn,
):
    release = asyncio.Event()
    begun = []

    async def save(record):
        begun.append(record.status)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def source():
        yield deltas("a")[0]
        while not begun:
            await asyncio.sleep(BEAT)

    run = chat(source, save).start(IDENTITY, settle_timeout=0.05, log=lambda *_: None)

    outcome = await run.outcome()
    assert outcome.code == "settle_timeout"
    assert begun == ["streaming"]
    release.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_turn_that_ends_before_the_first_beat_has_no_draft_and_no_timer():
    save = Saves()
    run = chat(lambda: aiter_of(deltas("a")), save, every=1000).start(IDENTITY)
    await run.outcome()
    assert save.seen == [("completed", "a")]
    scheduled = asyncio.get_running_loop()._scheduled
    assert [h for h in scheduled if not h.cancelled() and "Drafts" in repr(h)] == []


async def test_a_draft_shows_tools_at_work_and_the_last_save_shows_them_cut_off():
    save = Saves()

    async def source():
        yield ev.tool_part("t", tool="f", call_id="c", status="running", input={"a": 1})
        await save.next()

    await chat(source, save).start(IDENTITY).outcome()
    states = [record.parts[0]["state"] for record in save.records]
    assert states == [
        {"status": "running", "input": {"a": 1}},
        {"status": "interrupted", "input": {"a": 1}},
    ]


async def test_a_sync_save_has_drafts_too():
    records = []

    async def source():
        yield deltas("a")[0]
        while not records:
            await asyncio.sleep(BEAT)

    await chat(source, records.append).start(IDENTITY).outcome()
    assert [record.status for record in records] == ["streaming", "completed"]


# a database

UPSERT = """
    INSERT INTO turns (id, status, text) VALUES (?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET status = excluded.status, text = excluded.text
    WHERE turns.status = 'streaming'
"""


class Turns:
    """A table in a SQLite file, written to by threads."""

    def __init__(self, path):
        self.path = path
        self.execute("CREATE TABLE turns (id TEXT PRIMARY KEY, status TEXT, text TEXT)")

    def execute(self, *statement):
        with closing(sqlite3.connect(self.path)) as db, db:
            return db.execute(*statement).fetchall()

    def write(self, record):
        self.execute(UPSERT, (record.execution_id, record.status, record.text))

    @property
    def rows(self):
        return self.execute("SELECT id, status, text FROM turns ORDER BY id")


async def test_a_turn_is_one_row_however_often_it_is_saved(tmp_path):
    turns = Turns(tmp_path / "turns.db")
    drafted = asyncio.Event()

    async def save(record):
        await asyncio.to_thread(turns.write, record)
        drafted.set()

    async def source():
        for text in "abc":
            yield deltas(text)[0]
            drafted.clear()
            await drafted.wait()
            assert turns.rows == [("x-1", "streaming", "abc"[: "abc".index(text) + 1])]

    pipeline = chat(source, save)
    for _ in range(2):  # the second is a retry of the whole turn
        turns.execute("DELETE FROM turns WHERE status <> 'completed'")
        run = pipeline.start(IDENTITY, execution_id="x-1", log=lambda *_: None)
        await run.outcome()
        assert turns.rows == [("x-1", "completed", "abc")]
        pipeline = chat(lambda: aiter_of(deltas("other")), save)


async def test_a_write_that_lands_after_its_cancellation_does_not_undo_the_last_save(
    tmp_path, turn
):
    turns = Turns(tmp_path / "turns.db")
    begun, release, landed = asyncio.Event(), threading.Event(), threading.Event()

    def late(record):
        release.wait(10)
        turns.write(record)
        landed.set()

    async def save(record):
        if record.status == "streaming":
            begun.set()
            await asyncio.to_thread(late, record)  # a cancellation leaves the thread on
        else:
            turns.write(record)

    async def source():
        yield deltas("a")[0]
        await begun.wait()
        yield deltas("b")[0]

    turn.settle_timeout = 0.02
    await settled(turn, ops.persist(save, every=BEAT), events=source())
    assert turns.rows == [("x-1", "completed", "ab")]
    release.set()
    await asyncio.to_thread(landed.wait, 10)
    assert turns.rows == [("x-1", "completed", "ab")]


async def test_two_sinks_draft_each_by_itself():
    first, second = Saves(), Saves()

    async def source():
        yield deltas("a")[0]
        await asyncio.gather(first.next(), second.next())

    pipeline = chat(source, first) | ops.persist(second, every=BEAT * 2, name="second")
    await pipeline.start(IDENTITY).outcome()
    for save in (first, second):
        assert save.seen == [("streaming", "a"), ("completed", "a")]


def test_a_record_does_not_depend_on_the_turn_going_on():
    turn = TurnContext(identity=IDENTITY)
    stage = ops.accumulate().open(turn)
    part = ev.tool_part("t", tool="f", call_id="c", status="running", input={})
    stage.on_event(part)
    record = turn.record()
    stage.on_event(ev.delta(part["data"]["part"], "{}"))
    assert record.parts == (part["data"]["part"],)


async def test_drafts_may_be_saved_async_and_the_end_at_once():
    saved = []
    begun, gate = asyncio.Event(), asyncio.Event()

    async def later(record):
        begun.set()
        await gate.wait()
        saved.append(record.status)

    def save(record):
        if record.status == "streaming":
            return later(record)
        saved.append(record.status)
        return None

    async def source():
        for one in deltas("a", "b"):
            yield one
        await begun.wait()
        asyncio.get_running_loop().call_later(BEAT, gate.set)

    outcome = await chat(source, save).start(IDENTITY).outcome()
    assert (outcome.status, saved) == ("completed", ["streaming", "completed"])
