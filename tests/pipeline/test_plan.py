"""What stands where matters: order, failing operators, boundaries; and the plan's code."""

import asyncio
import linecache
import traceback

import pytest

import operators as ops
from pipeline import Pipeline
from pipeline.plan import plan_of
from pipeline.wire import encode

from .support import (
    IDENTITY,
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

X = {"type": "x", "data": {"text": "secret", "id": "1"}}
DELTA = A["type"]
READERS = pytest.mark.parametrize("mode", ["events", "body", "owned"])


async def run_all(chat, seen, mode="events", **options):
    """Run a turn; return its events and its outcome."""
    if mode == "owned":
        options["on_disconnect"] = "detach"
    run = chat.start(IDENTITY, log=seen.log, **options)
    got = await read(run.body() if mode != "events" else run.events())
    return (lines(got) if mode != "events" else got), await run.outcome()


def note(into):
    def noted(event):
        into.append(event)

    return noted


class Late:
    """One event behind; what it holds comes out in `finish`."""

    shape = "flat_map"

    def __init__(self):
        self.held = []
        self.finished = False

    def on_event(self, event):
        if self.finished:  # nothing may be held any more
            return [event]
        out, self.held = self.held, [event]
        return out

    def finish(self):
        self.finished = True
        return self.held


class LateAsync(Late):
    async def on_event(self, event):
        await asyncio.sleep(0)
        return super().on_event(event)

    async def finish(self):
        await asyncio.sleep(0)
        return super().finish()


# -- position


@READERS
async def test_operators_before_lifecycle_see_the_sources_events_alone(seen, mode):
    before, after = [], []
    chat = (
        Pipeline(seen.source(A, [B, C]))
        | ops.tap(note(before))
        | ops.lifecycle()
        | ops.tap(note(after))
    )
    got, _ = await run_all(chat, seen, mode)
    assert short(before) == ["a", "b", "c"]
    assert short(after) == ["started", "a", "b", "c", "completed"]
    assert got == after


@READERS
async def test_lifecycle_may_stand_last_or_not_at_all(seen, mode):
    got, _ = await run_all(Pipeline(seen.source(A)) | ops.lifecycle(), seen, mode)
    assert short(got) == ["started", "a", "completed"]
    got, outcome = await run_all(Pipeline(seen.source(A)), seen, mode)
    assert (short(got), outcome.status) == (["a"], "completed")


@READERS
async def test_types_limit_what_an_operator_sees(seen, mode):
    odd = [{"type": None}, {}, X]
    for types in (("x",), (DELTA,), (DELTA, "x"), ()):
        noted, mapped, parts, kept = [], [], [], []
        chat = (
            Pipeline(seen.source(A, *odd, [A, *odd]))
            | ops.tap(note(noted), types=types)
            | ops.map(lambda e, m=mapped: m.append(e) or e, types=types)
            | ops.flat_map(lambda e, p=parts: [p.append(e) or e], types=types)
            | ops.filter(lambda e, k=kept: k.append(e) or True, types=types)
        )
        got, _ = await run_all(chat, seen, mode)
        assert got == [A, *odd, A, *odd]
        wanted = [event for event in got if event.get("type") in types]
        assert noted == mapped == parts == kept == wanted


@READERS
async def test_a_map_that_changes_the_type_is_seen_by_what_follows(seen, mode):
    noted = []
    chat = (
        Pipeline(seen.source({"type": "y"}, [{"type": "y"}]))
        | ops.tap(lambda event: None, types=["y"])
        | ops.map(lambda event: dict(A), types=["y"])
        | ops.tap(note(noted), types=[DELTA])
        | ops.accumulate()
    )
    got, outcome = await run_all(chat, seen, mode)
    assert got == noted == [A, A]
    assert outcome.text == "aa"


@READERS
async def test_shapes_work_together_sync_and_async(seen, mode):
    async def twice(event):
        await asyncio.sleep(0)
        return [event, event]

    async def not_b(event):
        await asyncio.sleep(0)
        return event is not B

    async def same(event):
        await asyncio.sleep(0)
        return event

    async def look(event):
        await asyncio.sleep(0)
        seen.tap(event)

    drop = ops.Operator(
        "drop",
        lambda turn: ops.Stage(lambda e: None if e is C else e, shape="filter_map"),
    )
    chat = (
        Pipeline(seen.source(A, B, [B, A, C], C))
        | ops.flat_map(twice)
        | ops.filter(not_b)
        | drop
        | ops.map(same)
        | ops.tap(look)
        | ops.flat_map(lambda event: (event,) * 2)
        | ops.filter(lambda event: True)
    )
    got, outcome = await run_all(chat, seen, mode)
    assert got == [A] * 8
    assert seen.events == [A] * 4
    assert outcome.events == 8


# -- failing operators


def boom(event):
    raise ZeroDivisionError("boom")


async def boom_async(event):
    await asyncio.sleep(0)
    raise ZeroDivisionError("boom")


def gives(value):
    return lambda event: value


RAISING = {
    "tap": ops.tap(boom, types=["x"], on_error="fail"),
    "async tap": ops.tap(boom_async, types=["x"], on_error="fail"),
    "tap that returns an awaitable": ops.tap(
        lambda event: boom_async(event), types=["x"], on_error="fail"
    ),
    "queued tap": ops.tap(boom, types=["x"], on_error="fail", queue=1),
    "map": ops.map(boom, types=["x"]),
    "async map": ops.map(boom_async, types=["x"]),
    "filter": ops.filter(boom, types=["x"]),
    "async filter": ops.filter(boom_async, types=["x"]),
    "flat_map": ops.flat_map(boom, types=["x"]),
    "async flat_map": ops.flat_map(boom_async, types=["x"]),
    "finish": ops.Operator("late", lambda turn: ops.Stage(finish=lambda: boom(0))),
    "async finish": ops.Operator(
        "late", lambda turn: ops.Stage(finish=lambda: boom_async(0))
    ),
    "through": ops.through(lambda source: boom(source)),
}


@READERS
@pytest.mark.parametrize("listed", [False, True], ids=["singly", "as a list"])
@pytest.mark.parametrize("name", RAISING)
async def test_an_operator_that_raises_fails_the_turn_once(name, listed, mode, seen):
    items = [[A, B, X]] if listed else [A, B, X]
    chat = seven(seen, seen.source(*items), after=RAISING[name])
    got, outcome = await run_all(chat, seen, mode)
    if name != "through":
        assert short(got)[:3] == ["started", "a", "b"]
    assert short(got)[-2:] == ["error", "failed"]
    assert got == seen.events
    assert outcome.code == ("source_failed" if name == "through" else "operator_failed")
    assert isinstance(outcome.error, ZeroDivisionError)
    assert seen.messages == ["turn failed"]
    seen.one_terminal()


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (
            ops.map(gives(None), types=["x"]),
            "None as an event: return the event, or use",
        ),
        (ops.map(gives(5), types=["x"]), "int as an event: it must be a dict"),
        (ops.map(lambda e: boom_async(e), types=["x"]), "declare the function with"),
        (ops.flat_map(gives([5]), types=["x"]), "int as an event"),
        (ops.flat_map(gives(None), types=["x"]), "not iterable"),
    ],
    ids=["None", "int", "awaitable", "in a list", "no iterable"],
)
async def test_what_an_operator_returns_is_checked(operator, message, seen):
    for items in ([A, X], [[A, X]]):
        seen.__init__()
        chat = seven(seen, seen.source(*items), after=operator)
        got, _ = await run_all(chat, seen)
        assert message in got[-1]["data"]["message"]
        assert short(got)[:2] == ["started", "a"]
        if "event" in message:
            assert operator.name in got[-1]["data"]["message"]


@READERS
async def test_an_operator_that_raised_is_bypassed_by_the_terminals(seen, mode):
    calls = []

    def once(event):
        calls.append(event)
        raise ZeroDivisionError("boom")

    chat = seven(seen, seen.source(A), first=None, after=ops.map(once, types=None))
    got, _ = await run_all(chat, seen, mode)
    assert kinds(calls) == ["session.run.started"]
    assert short(got) == ["error", "failed"]


@READERS
async def test_an_operator_that_raised_gives_no_finish_output(seen, mode):
    class Raises(Late):
        def on_event(self, event):
            if event["type"] == "x":
                raise ZeroDivisionError("boom")
            return super().on_event(event)

    chat = seven(seen, seen.source(A, B, X), first=ops.operator(Raises))
    got, _ = await run_all(chat, seen, mode)
    assert short(got) == ["started", "a", "error", "failed"]


@READERS
async def test_a_guard_is_never_bypassed_and_what_it_cannot_check_loses_its_text(
    seen, mode
):
    calls = []

    def check(event):
        calls.append(event)
        if event["type"] in ("x", "error"):
            raise ZeroDivisionError("boom")
        return event

    guard = ops.Operator(
        "guard", lambda turn: ops.Stage(check, shape="map"), guards=True
    )
    chat = seven(seen, seen.source(A, X, B), after=guard)
    got, _ = await run_all(chat, seen, mode)
    assert kinds(calls)[-2:] == ["error", "session.run.failed"]
    assert short(got) == ["started", "a", "error", "failed"]
    assert got[2]["data"]["message"] == ""
    assert got[3]["data"]["message"] == "boom"


@READERS
async def test_a_tap_that_raises_is_logged_for_each_event_or_disabled(seen, mode):
    def look(event):
        raise ZeroDivisionError("boom")

    async def look_async(event):
        await asyncio.sleep(0)
        raise ZeroDivisionError("boom")

    for tap in (look, look_async, lambda event: look_async(event)):
        for items in ([A, B], [[A, B]]):
            seen.__init__()
            chat = seven(seen, seen.source(*items), after=ops.tap(tap, name="look"))
            got, outcome = await run_all(chat, seen, mode)
            assert short(got) == ["started", "a", "b", "completed"]
            assert seen.messages == ["look raised"] * 4

            seen.__init__()
            disabled = ops.tap(tap, name="look", on_error="disable")
            chat = seven(seen, seen.source(*items), after=disabled)
            got, outcome = await run_all(chat, seen, mode)
            assert short(got) == ["started", "a", "b", "completed"]
            assert seen.messages == ["look raised"]
            assert outcome.status == "completed"


async def test_an_operator_that_cannot_be_opened_fails_the_turn_in_its_envelope(seen):
    def refuse(turn):
        raise ZeroDivisionError("closed")

    chat = seven(seen, seen.source(A), after=ops.Operator("shut", refuse))
    got, outcome = await run_all(chat, seen)
    assert short(got) == ["started", "error", "failed"]
    assert (outcome.code, seen.opened) == ("operator_failed", 0)


# -- held back


@READERS
@pytest.mark.parametrize("late", [Late, LateAsync])
async def test_held_back_events_come_before_the_terminal_through_what_follows(
    seen, mode, late
):
    chat = seven(seen, seen.source(A, B), first=ops.operator(late))
    got, outcome = await run_all(chat, seen, mode)
    assert short(got) == ["started", "a", "b", "completed"]
    assert (seen.events, outcome.text) == (got, "ab")

    seen.__init__()
    chat = seven(seen, seen.source(A, B), after=ops.operator(late))
    got, _ = await run_all(chat, seen, mode)
    assert short(got) == ["started", "a", "b", "completed"]

    seen.__init__()
    chat = seven(
        seen, seen.source(A, B, error=ValueError("no")), first=ops.operator(late)
    )
    got, _ = await run_all(chat, seen, mode)
    assert short(got) == ["started", "a", "b", "error", "failed"]


@READERS
async def test_held_back_events_come_on_a_cancel_too(seen, mode):
    options = {"on_disconnect": "detach"} if mode == "owned" else {}
    chat = seven(
        seen, seen.source(A, B, hang=True), first=ops.operator(Late), partial=True
    )
    run = chat.start(IDENTITY, **options)
    reader = asyncio.ensure_future(read(run.events()))
    await ticks(10)
    run.cancel("stop")
    assert short(await reader) == ["started", "a", "b", "cancelled"]
    assert [record.text for record in seen.saved] == ["AB"]


async def test_what_finish_gives_is_checked(seen):
    for value in ([5], 5):
        seen.__init__()
        chat = seven(
            seen,
            seen.source(A),
            after=ops.Operator(
                "late", lambda turn, v=value: ops.Stage(finish=lambda: v)
            ),
        )
        got, _ = await run_all(chat, seen)
        assert short(got) == ["started", "a", "error", "failed"]


async def test_finish_may_give_nothing(seen):
    chat = seven(
        seen,
        seen.source(A),
        after=ops.Operator("late", lambda turn: ops.Stage(finish=lambda: None)),
    )
    got, _ = await run_all(chat, seen)
    assert short(got) == ["started", "a", "completed"]


# -- boundaries


def counted(into):
    async def passing(source):
        async for event in source:
            into.append(event)
            yield event

    return ops.through(passing)


@READERS
async def test_a_boundary_sees_the_sources_events_and_what_was_held_before(seen, mode):
    through = []
    late = ops.operator(Late)
    chat = seven(
        seen,
        seen.source(A, [B, C]),
        first=late | counted(through),
        after=late | counted(through) | late,
    )
    got, _ = await run_all(chat, seen, mode)
    # the envelope steps over the second one, but what was held before it does not
    assert short(through) == ["a", "started", "b", "a", "c", "b", "c"]
    assert short(got) == ["started", "a", "b", "c", "completed"]

    through.clear()
    chat = seven(seen, seen.source(A, B), after=counted(through))
    got, _ = await run_all(chat, seen, mode)
    assert short(through) == ["a", "b"]


@READERS
async def test_terminals_and_output_after_a_stop_step_over_a_boundary(seen, mode):
    through = []
    late = ops.operator(Late)
    chat = seven(
        seen,
        seen.source(A, B, error=ValueError("no")),
        first=late | counted(through) | late,
    )
    got, _ = await run_all(chat, seen, mode)
    assert short(through) == ["a"]
    assert short(got) == ["started", "a", "b", "error", "failed"]


async def test_each_boundary_closes_what_it_reads(seen):
    closed = []

    def closing(name):
        async def passing(source):
            try:
                async for event in source:
                    yield event
            finally:
                closed.append(name)

        return ops.through(passing)

    chat = (
        Pipeline(seen.source(A, hang=True))
        | closing("inner")
        | ops.tap(seen.tap)
        | closing("outer")
        | ops.lifecycle()
    )
    run = chat.start(IDENTITY)
    body = run.events()
    await anext(body)
    await anext(body)
    await body.aclose()
    assert closed == ["outer", "inner"]
    assert seen.order == ["closed"]


async def test_a_boundary_that_ends_early_ends_the_turn(seen):
    async def first_only(source):
        async for event in source:
            yield event
            return

    chat = seven(seen, seen.source(A, B, C), first=ops.through(first_only))
    got, outcome = await run_all(chat, seen)
    assert short(got) == ["started", "a", "completed"]
    assert (outcome.status, seen.closed) == ("completed", 1)


async def test_a_boundary_that_raises_and_one_whose_close_raises(seen):
    async def raising(source):
        async for event in source:
            yield event
            raise KeyError("inside")

    async def bad_close(source):
        try:
            async for event in source:
                yield event
        finally:
            raise KeyError("closing")

    got, _ = await run_all(
        seven(seen, seen.source(A), first=ops.through(raising)), seen
    )
    assert short(got) == ["started", "a", "error", "failed"]
    assert seen.closed == 1

    seen.__init__()
    chat = seven(seen, seen.source(A, hang=True), first=ops.through(bad_close))
    run = chat.start(IDENTITY, log=seen.log)
    body = run.events()
    await anext(body)
    await anext(body)
    await body.aclose()
    assert seen.one_terminal() == "session.run.cancelled"
    assert seen.closed == 1
    assert seen.messages == ["closing the source raised"]


async def test_finish_before_a_boundary_that_raises_fails_the_turn(seen):
    def bad():
        raise KeyError("late")

    held = ops.Operator("held", lambda turn: ops.Stage(finish=bad))
    chat = seven(
        seen,
        seen.source(A),
        first=ops.operator(Late) | held | ops.through(lambda source: source),
    )
    got, outcome = await run_all(chat, seen)
    assert short(got) == ["started", "a", "error", "failed"]
    assert outcome.code == "operator_failed"


async def test_what_is_no_stream_is_refused_by_name(seen):
    chat = seven(seen, seen.source(A), first=ops.through(lambda source: 5))
    got, _ = await run_all(chat, seen)
    assert "returned int" in got[-1]["data"]["message"]


# -- the code


async def test_a_traceback_shows_the_users_line_and_the_operators_name(seen):
    def broadcast(event):
        raise ZeroDivisionError("the socket is closed")

    chat = seven(seen, seen.source(A), after=ops.tap(broadcast, on_error="fail"))
    _, outcome = await run_all(chat, seen)
    text = "".join(traceback.format_exception(outcome.error))
    assert 'raise ZeroDivisionError("the socket is closed")' in text
    assert "test_plan.py" in text
    assert "tap(broadcast)" in text
    assert "turnpipe plan" in text


def test_fresh_closures_of_one_shape_never_compile_again():
    async def one():
        seen = Seen()
        mark = object()
        chat = seven(
            seen,
            seen.source(A),
            tap=lambda event: (mark, seen.tap(event))[1],
            after=ops.filter(lambda event: mark is not None),
        )
        await read(chat.start(IDENTITY).body())
        return seen

    asyncio.run(one())
    misses = plan_of.cache_info().misses
    plans = [name for name in linecache.cache if name.startswith("<turnpipe plan")]
    for _ in range(20):
        seen = asyncio.run(one())
        assert seen.kinds[-1] == "session.run.completed"
    assert plan_of.cache_info().misses == misses
    assert plans == [n for n in linecache.cache if n.startswith("<turnpipe plan")]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a\nb",
        "a\rb\0\u2028\ud800",
        "'; import os #",
        "1",
        "ü",
        "class",
        "types",
        "fold",
        "append",
        "n",
    ],
)
async def test_an_operators_name_cannot_break_the_plan(name, seen):
    chat = Pipeline(seen.source(A, [X])) | ops.lifecycle()
    for make in (ops.tap, ops.map, ops.filter, ops.flat_map):
        function = (lambda e: [e]) if make is ops.flat_map else (lambda e: e)
        chat |= make(function, name=name, types=[DELTA])
        chat |= make(function, name=name)
    got, _ = await run_all(chat, seen, "body")
    assert kinds(got)[-1] == "session.run.completed"


async def test_a_wire_of_ones_own_encodes_each_event_and_each_list(seen, monkeypatch):
    class Wire:
        content_type = "text/x"

        def encode(self, event):
            return b"<" + encode(event)[:-1] + b">"

        def encode_many(self, events):
            return b"".join(map(self.encode, events))

    monkeypatch.setitem(__import__("pipeline.wire").wire.WIRES, "angle", Wire())
    chat = seven(seen, seen.source(A, [B, C]), tap=seen.tap)
    chunks = await read(chat.start(IDENTITY).body("angle"))
    assert len(chunks) == 4
    assert chunks[2] == Wire().encode_many([B, C])
    assert chunks[3][:1] + chunks[3][-1:] == b"<>"
