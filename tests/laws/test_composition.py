import asyncio

from hypothesis import given
from hypothesis import strategies as st

import operators as ops
from operators.testing import feed

EVENTS = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from("abc"), "n": st.integers(0, 9)})
)


def plus(event):
    return {**event, "n": event["n"] + 1}


def twice(event):
    return {**event, "n": event["n"] * 2}


def even(event):
    return event["n"] % 2 == 0


def small(event):
    return event["n"] < 5


def copies(event):
    return [event] * (event["n"] % 3)


OPERATORS = st.sampled_from(
    [
        ops.map(plus),
        ops.map(twice, types=["a"]),
        ops.filter(even),
        ops.filter(small, types=["b", "c"]),
        ops.flat_map(copies),
        ops.tap(lambda event: None),
        ops.coalesce(),
        ops.coalesce(max_delay=1000),
        ops.timeout(total=1000),
    ]
)


def run(operator, events):
    return asyncio.run(feed(operator, events))


@given(OPERATORS, OPERATORS, OPERATORS, EVENTS)
def test_chains_are_associative(a, b, c, events):
    assert ((a | b) | c).operators == (a | (b | c)).operators
    assert run((a | b) | c, events) == run(a | (b | c), events)


@given(OPERATORS, OPERATORS, EVENTS)
def test_a_chain_is_its_operators_one_after_another(a, b, events):
    assert run(a | b, events) == run(b, run(a, events))


@given(OPERATORS, EVENTS)
def test_an_empty_chain_is_neutral(a, events):
    assert run(ops.Chain() | a, events) == run(a | ops.Chain(), events)
    assert run(ops.Chain(), events) == events


@given(EVENTS)
def test_a_tap_sees_what_passes_and_changes_nothing(events):
    seen = []
    out = run(ops.tap(seen.append), events)
    assert all(a is b for a, b in zip(out, events, strict=True))
    assert all(a is b for a, b in zip(seen, events, strict=True))


@given(EVENTS)
def test_map_and_filter_are_pythons_own(events):
    assert run(ops.map(plus), events) == list(map(plus, events))
    assert run(ops.filter(even), events) == list(filter(even, events))
    assert run(ops.map(plus) | ops.map(twice), events) == [
        twice(plus(event)) for event in events
    ]
    assert run(ops.filter(even) | ops.filter(small), events) == run(
        ops.filter(lambda event: even(event) and small(event)), events
    )


@given(EVENTS)
def test_map_filter_and_tap_are_flat_maps(events):
    assert run(ops.flat_map(lambda event: [plus(event)]), events) == run(
        ops.map(plus), events
    )
    assert run(ops.flat_map(lambda event: [event] * even(event)), events) == run(
        ops.filter(even), events
    )
    assert run(ops.flat_map(copies), events) == [
        copy for event in events for copy in copies(event)
    ]
