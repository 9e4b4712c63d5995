"""What holds of scan, switch, dedupe and share for any events."""

import asyncio
from collections import deque
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

import operators as ops
from operators.testing import feed
from pipeline import Pipeline, TurnIdentity

IDENTITY = TurnIdentity(session_id="s", turn_index=0)
EVENTS = st.lists(
    st.builds(
        lambda kind, n: {"type": kind, "n": n},
        st.sampled_from(["a", "a.b", "b", "c"]),
        st.integers(0, 5),
    ),
    max_size=20,
)


def fed(operator, events):
    return asyncio.run(feed(operator, events))


@given(EVENTS)
def test_a_scan_is_what_accumulate_gives(events):
    got = fed(ops.scan(lambda n, one: (n + one["n"], {"n": n + one["n"]}), 0), events)
    assert [one["n"] for one in got] == list(accumulate(one["n"] for one in events))


@given(EVENTS)
def test_a_switch_gives_what_each_route_gives_in_the_order_of_the_events(events):
    def routed(event):
        kind = event["type"]
        if kind == "a.b":
            return [] if event["n"] % 2 else [event]
        if kind.startswith("a"):
            return [event, {**event, "again": True}]
        return [{**event, "other": True}] if kind == "c" else [event]

    operator = ops.switch(
        {
            "a.b": ops.filter(lambda one: one["n"] % 2 == 0),
            "a*": ops.flat_map(lambda one: [one, {**one, "again": True}]),
            "b": ops.tap(lambda one: None),
        },
        default=ops.map(lambda one: {**one, "other": True}),
    )
    assert fed(operator, events) == [out for one in events for out in routed(one)]


@given(EVENTS, st.integers(1, 6))
def test_dedupe_forgets_all_but_the_last_that_passed(events, window):
    last = deque(maxlen=window)
    want = []
    for event in events:
        if event["n"] not in last:
            last.append(event["n"])
            want.append(event)
    assert fed(ops.dedupe("n", window=window), events) == want


@given(EVENTS, st.integers(0, 5), st.integers(1, 5), st.integers(0, 20))
def test_a_reader_gets_the_end_of_the_turn_without_a_hole(events, replay, buffer, at):
    shared = ops.share(replay=replay, buffer=buffer)

    async def run():
        readers = []

        async def source():
            for n, event in enumerate(events):
                if n == at:
                    readers.append((n, shared.subscribe(turn.context)))
                yield event

        turn = (Pipeline(source) | shared).start(IDENTITY)
        readers.append((0, shared.subscribe(turn.context)))
        await turn.outcome()
        return [
            (since, one.dropped, [event async for event in one])
            for since, one in readers
        ]

    for since, dropped, got in asyncio.run(run()):
        due = events[max(0, since - replay) :]
        assert dropped == len(due) - len(got)
        assert got == due[dropped:]
        assert len(got) <= max(buffer, replay)
