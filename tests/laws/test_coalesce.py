import asyncio
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

import operators as ops
from operators import event as ev
from operators.testing import feed

DELTAS = st.builds(
    lambda part_id, text: ev.delta(ev.text_part(part_id), text),
    st.sampled_from(["p1", "p2"]),
    st.text(alphabet="abc", max_size=4),
)
OTHERS = st.builds(lambda n: {"type": "other", "n": n}, st.integers(0, 3))
EVENTS = st.lists(DELTAS | DELTAS | DELTAS | OTHERS, max_size=40)
READS = st.lists(DELTAS | DELTAS | OTHERS | st.lists(DELTAS | OTHERS, max_size=5))
MODES = pytest.mark.parametrize("mode", [{}, {"max_delay": 1000.0}])


def coalesced(events, **limits):
    return asyncio.run(feed(ops.coalesce(**limits), events))


def is_delta(event):
    return event["type"] == ev.PART_UPDATED and bool(event["data"]["delta"])


def runs(events):
    """Adjacent deltas of one part, joined; everything else by itself."""

    def key(numbered):
        k, event = numbered
        return event["data"]["part"]["id"] if is_delta(event) else k

    made = []
    for _, group in groupby(enumerate(events), key):
        of_one = [event for _, event in group]
        if is_delta(of_one[0]):
            made.append(
                (
                    of_one[0]["data"]["part"]["id"],
                    "".join(event["data"]["delta"] for event in of_one),
                )
            )
        else:
            made.append(of_one[0])
    return made


@MODES
@given(events=EVENTS, max_events=st.integers(1, 6), max_chars=st.integers(1, 12))
def test_text_and_order_stay_and_nothing_crosses(mode, events, max_events, max_chars):
    out = coalesced(events, max_events=max_events, max_chars=max_chars, **mode)
    assert runs(out) == runs(events)


@MODES
@given(reads=READS)
def test_lists_of_one_read_change_nothing(mode, reads):
    flat = [
        event
        for read in reads
        for event in (read if isinstance(read, list) else [read])
    ]
    assert coalesced(reads, **mode) == coalesced(flat)


@MODES
@given(events=EVENTS)
def test_the_first_delta_of_the_turn_passes_as_it_came(mode, events):
    out = coalesced(events, **mode)
    first = [event for event in events if is_delta(event)][:1]
    assert [event for event in out if is_delta(event)][:1] == first


@given(EVENTS, st.integers(1, 6), st.integers(1, 12))
def test_its_limits_hold_and_neighbours_that_fit_are_merged(
    events, max_events, max_chars
):
    longest = max((len(e["data"]["delta"]) for e in events if is_delta(e)), default=0)
    out = coalesced(events, max_events=max_events, max_chars=max_chars)
    assert all(
        len(event["data"]["delta"]) <= max(max_chars, longest)
        for event in out
        if is_delta(event)
    )
    assert len(out) <= len(events)


@given(EVENTS)
def test_doing_it_twice_changes_nothing_but_the_first_pair(events):
    unlimited = {"max_events": 10**6, "max_chars": 10**6}
    once = coalesced(events, **unlimited)
    assert coalesced(once, **unlimited) == once
