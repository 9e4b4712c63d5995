import asyncio
from contextlib import aclosing

import pytest

import operators as ops
from operators import event as ev
from operators.coalesce import _Delayed
from operators.merger import Merger
from operators.pump import Pump
from operators.testing import ManualClock, deltas, drain, feed

BRIEF = 0.001
LONG = 1000.0
OTHER = {"type": "other"}


def texts(events):
    return [
        event["data"]["delta"] if event["type"] == ev.PART_UPDATED else event["type"]
        for item in events
        for event in (item if isinstance(item, list) else [item])
    ]


async def coalesced(*events, **limits):
    return texts(await feed(ops.coalesce(**limits), events))


async def test_adjacent_deltas_of_one_part_become_one_and_the_first_never_waits():
    assert await coalesced(*deltas("a", "b", "c", "d")) == ["a", "bcd"]


async def test_a_merged_delta_holds_at_most_max_events():
    given = deltas(*"abcdefg")
    assert await coalesced(*given, max_events=3) == ["a", "bcd", "efg"]
    assert await coalesced(*given, max_events=1) == list("abcdefg")


async def test_a_merged_delta_has_at_most_max_chars_unless_one_is_longer():
    given = deltas("a", "bb", "cc", "ddddd", "e", "fff", "g")
    assert await coalesced(*given, max_chars=4) == ["a", "bbcc", "ddddd", "efff", "g"]
    assert await coalesced(*given, max_chars=3) == [
        "a",
        "bb",
        "cc",
        "ddddd",
        "e",
        "fff",
        "g",
    ]


async def test_it_never_crosses_another_event():
    empty = deltas("")[0]
    given = [*deltas("a", "b", "c"), OTHER, *deltas("d", "e"), empty, *deltas("f")]
    assert await coalesced(*given) == ["a", "bc", "other", "de", "", "f"]
    a, b = deltas(*"ab")
    assert await coalesced(a, OTHER, OTHER, b) == ["a", "other", "other", "b"]
    assert await coalesced(OTHER, a, b, OTHER) == ["other", "a", "b", "other"]


async def test_parts_are_never_mixed():
    given = [*deltas("a", "b"), *deltas("c", "d", part_id="p2"), *deltas("e")]
    assert await coalesced(*given) == ["a", "b", "cd", "e"]
    reasoning = ev.delta(ev.reasoning_part("p1"), "r")
    assert await coalesced(*deltas("a", "b"), reasoning) == ["a", "b", "r"]


async def test_other_keys_are_kept_and_where_they_differ_nothing_is_merged():
    a, b, c, d = deltas(*"abcd")
    same = [{**event, "seq": 1} for event in (b, c)]
    assert await feed(ops.coalesce(), [a, *same]) == [
        a,
        {**b, "seq": 1, "data": {**b["data"], "delta": "bc"}},
    ]
    differing = [a, {**b, "seq": 1}, {**c, "seq": 2}, d]
    assert await feed(ops.coalesce(), differing) == differing
    inside = [a, b, {**c, "data": {**c["data"], "x": 1}}, d]
    assert await feed(ops.coalesce(), inside) == inside


async def test_equal_parts_merge_and_the_later_snapshot_is_kept():
    given = [
        ev.delta({"type": "text", "id": "p", "text": whole}, whole[-1])
        for whole in ("a", "ab", "abc")
    ]
    made = await feed(ops.coalesce(), given)
    assert made == [
        given[0],
        ev.delta({"type": "text", "id": "p", "text": "abc"}, "bc"),
    ]
    apart = [*deltas("a", "b"), ev.delta({**ev.text_part("p1"), "text": "abc"}, "c")]
    assert await coalesced(*apart) == ["a", "b", "c"]
    bare = [{"type": ev.PART_UPDATED, "data": {"delta": text}} for text in "abc"]
    assert await coalesced(*bare) == ["a", "bc"]
    named = [
        {"type": ev.PART_UPDATED, "data": {"part": "p", "delta": t}} for t in "abc"
    ]
    assert await coalesced(*named) == ["a", "bc"]


async def test_an_event_without_neighbour_is_the_object_that_came_in():
    given = [*deltas("a", "b"), OTHER, {"data": 1}, {"type": ev.PART_UPDATED}]
    made = await feed(ops.coalesce(), given)
    assert all(a is b for a, b in zip(made, given, strict=True))


@pytest.mark.parametrize("limits", [{}, {"max_delay": LONG}])
async def test_held_text_leaves_before_an_error(limits):
    async def source():
        for event in deltas("a", "b", "c"):
            yield event
        raise ValueError("boom")

    seen = []
    with pytest.raises(ValueError, match="boom"):
        await feed(ops.coalesce(**limits) | ops.tap(seen.append), source())
    assert texts(seen) == ["a", "bc"]


@pytest.mark.parametrize("limits", [{}, {"max_delay": LONG}])
async def test_held_text_leaves_when_the_reader_has_left(limits):
    closed_in = []

    async def source():
        try:
            for event in deltas("a", "b", "c"):
                yield event
            await asyncio.get_running_loop().create_future()
        finally:
            closed_in.append(asyncio.current_task())

    seen = []
    first = asyncio.Event()

    def look(event):
        seen.append(event)
        first.set()

    chain = ops.coalesce(**limits) | ops.tap(look)
    reader = asyncio.create_task(feed(chain, source()))
    await first.wait()
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert texts(seen) == ["a", "bc"]
    assert len(closed_in) == 1


async def test_what_it_holds_leaves_before_what_an_operator_before_it_holds():
    class Last:
        shape = "flat_map"

        def __init__(self):
            self.last = []

        def on_event(self, event):
            out, self.last = self.last, [event]
            return out

        def finish(self):
            return self.last

    seen = []
    second = asyncio.Event()

    async def source():
        for event in deltas(*"abcd"):
            yield event
        second.set()
        await asyncio.get_running_loop().create_future()

    chain = ops.operator(Last) | ops.coalesce(max_delay=LONG) | ops.tap(seen.append)
    reader = asyncio.create_task(feed(chain, source()))
    await second.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert texts(seen) == ["a", "bc", "d"]


def delayed(source, turn, **limits):
    stage = ops.coalesce(**{"max_delay": LONG, **limits}).open(turn)
    return stage.through(source), stage


async def given(*items):
    for item in items:
        yield item


async def test_with_max_delay_the_same_comes_out_and_lists_stay_lists(turn):
    items = [[], deltas("a", "b", "c"), *deltas("d"), OTHER, [OTHER, *deltas("e", "f")]]
    out, stage = delayed(given(*items), turn)
    a = deltas("a")
    merged = deltas("bcd")
    assert await drain(out) == [a, [*merged, OTHER], [OTHER], *deltas("ef")]
    assert stage.finish() == []
    assert await coalesced(*items, max_delay=LONG) == [
        "a",
        "bcd",
        "other",
        "other",
        "ef",
    ]


async def test_held_text_leaves_a_silent_source_after_max_delay(turn):
    release = asyncio.Event()

    async def source():
        for event in deltas("a", "b", "c"):
            yield event
        await release.wait()
        for event in deltas("d"):
            yield event

    out, _ = delayed(source(), turn, max_delay=BRIEF)
    async with aclosing(out):
        assert texts([await anext(out), await anext(out)]) == ["a", "bc"]
        release.set()
        assert texts([event async for event in out]) == ["d"]


async def test_the_timer_waits_for_the_text_that_is_held_now(turn):
    times = iter([0.0, 0.0, BRIEF])
    turn.clock = lambda: next(times)

    async def source():
        for event in deltas("a", "b"):
            yield event
        await asyncio.get_running_loop().create_future()

    out, _ = delayed(source(), turn, max_delay=BRIEF)
    async with aclosing(out):
        assert texts([await anext(out), await anext(out)]) == ["a", "b"]
    assert list(times) == []


async def test_a_timer_with_nothing_held_does_nothing(turn):
    stage = _Delayed(Merger(16, 16), 16, BRIEF, turn)

    async def source():
        for event in [*deltas("a", "b"), OTHER]:
            yield event
        while stage.handle is not None:
            await asyncio.sleep(0)

    assert texts(await drain(stage.through(source()))) == ["a", "b", "other"]


async def test_one_timer_serves_text_that_flows(turn, monkeypatch):
    loop = asyncio.get_running_loop()
    armed = []
    call_later = loop.call_later

    def counted(*args):
        armed.append(args[0])
        return call_later(*args)

    monkeypatch.setattr(loop, "call_later", counted)
    turn.clock = ManualClock()
    out, _ = delayed(given(*deltas(*["x"] * 500)), turn, max_events=4)
    assert "".join(texts(await drain(out))) == "x" * 500
    assert len(armed) == 1


@pytest.mark.parametrize("event", [OTHER, deltas("a")[0]])
async def test_the_source_is_pulled_at_most_max_events_ahead(turn, event):
    pulled = 0

    async def source():
        nonlocal pulled
        while True:
            pulled += 1
            yield event

    out, stage = delayed(source(), turn, max_events=4)
    async with aclosing(out):
        read = 0
        for _ in range(10):
            item = await anext(out)
            read += 1 if item is OTHER else len(item["data"]["delta"])
            for _ in range(10):
                await asyncio.sleep(0)
            assert pulled <= read + 4
    left = stage.finish()
    assert (
        read + sum(1 if item is OTHER else len(item["data"]["delta"]) for item in left)
        == pulled
    )


async def test_closing_it_closes_the_source_in_the_task_that_iterated_it(turn):
    tasks = []

    async def source():
        tasks.append(asyncio.current_task())
        try:
            for event in [*deltas("a", "b"), [OTHER, *deltas("c")]]:
                yield event
            await asyncio.get_running_loop().create_future()
        finally:
            tasks.append(asyncio.current_task())

    out, stage = delayed(source(), turn)
    async with aclosing(out):
        await anext(out)
        await asyncio.sleep(0)
    assert tasks[0] is tasks[1] is not asyncio.current_task()
    assert tasks[0].done()
    assert texts(stage.finish()) == ["b", "other", "c"]
    assert stage.finish() == []


async def test_closed_before_it_is_read_it_never_opens_the_source(turn):
    source = given(OTHER)
    out, stage = delayed(source, turn)
    await out.aclose()
    assert stage.finish() == []
    assert await drain(source) == [OTHER]


async def test_a_cancelled_reader_waits_for_the_source_and_each_cancel_reaches_it(turn):
    at = asyncio.Event()
    steps = []

    async def source():
        try:
            at.set()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            steps.append("cancelled")
            at.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                steps.append("cancelled again")
        yield OTHER

    out, _ = delayed(source(), turn)
    reader = asyncio.create_task(drain(out))
    for _ in range(2):
        at.clear()
        await at.wait()
        reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert steps == ["cancelled", "cancelled again"]
    assert reader.cancelling() == 2


async def test_an_error_of_the_source_while_it_closes_is_raised(turn):
    async def source():
        try:
            yield OTHER
            await asyncio.get_running_loop().create_future()
        finally:
            raise ValueError("while closing")

    out, _ = delayed(source(), turn)
    assert await anext(out) is OTHER
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="while closing"):
        await out.aclose()


async def test_a_cancellation_that_the_source_made_up_is_the_sources_error(turn):
    async def source():
        for event in deltas("a", "b"):
            yield event
        raise asyncio.CancelledError

    out, _ = delayed(source(), turn)
    got = []
    with pytest.raises(asyncio.CancelledError):
        async for item in out:
            got.append(item)  # noqa: PERF401 - what came before the error counts
    assert texts(got) == ["a", "b"]
    assert asyncio.current_task().cancelling() == 0


async def test_a_pump_gives_each_item_once_and_in_order():
    pump = Pump(2, take=lambda item: pump.put(item, 0), end=lambda: pump.put("end", 0))
    read = pump.read(given(1, 2, 3), name="numbers")
    assert await drain(read) == [1, 2, 3, "end"]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "8", None])
def test_limits_that_make_no_sense_are_refused_with_the_mend(limit):
    for name in ("max_events", "max_chars"):
        with pytest.raises(ops.CompositionError, match=f"{name}.*at least 1"):
            ops.coalesce(**{name: limit})


@pytest.mark.parametrize("delay", [0, -1, float("nan"), float("inf"), True, "1"])
def test_delays_that_make_no_sense_are_refused_with_the_mend(delay):
    with pytest.raises(ops.CompositionError, match="leave it out for no limit"):
        ops.coalesce(max_delay=delay)
    assert ops.coalesce().detail["max_events"] == 16
