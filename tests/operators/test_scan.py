"""scan and resequence: what keeps a state between events."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import operators as ops
from operators.errors import CompositionError, TurnError
from operators.testing import feed
from pipeline import Pipeline, TurnIdentity

IDENTITY = TurnIdentity(session_id="s", turn_index=0)


def numbered(*numbers):
    return [{"type": "x", "n": n} for n in numbers]


def numbers(events):
    return [event["n"] for event in events]


def fed(operator, events):
    return asyncio.run(feed(operator, events))


def total(state, event):
    state += event["n"]
    return state, {**event, "n": state}


async def total_later(state, event):
    await asyncio.sleep(0)
    return total(state, event)


def pairs(state, event):
    state.append(event)
    return ([], state) if len(state) == 2 else (state, None)


@pytest.mark.parametrize("step", [total, total_later])
def test_a_step_sees_the_state_that_the_one_before_left(step):
    operator = ops.scan(step, 0)
    assert numbers(fed(operator, numbered(1, 2, 3))) == [1, 3, 6]
    assert numbers(fed(operator, numbered(1))) == [1]  # a turn of its own


def test_a_step_gives_none_one_or_several_and_the_end_gives_the_rest():
    async def rest(state):
        return state

    for end in (lambda state: state, rest):
        operator = ops.scan(pairs, list, end=end)
        for n in range(5):
            assert numbers(fed(operator, numbered(*range(n)))) == list(range(n))
    assert numbers(fed(ops.scan(pairs, list), numbered(1, 2, 3))) == [1, 2]


def test_a_step_may_take_the_turn():
    def step(state, event, turn):
        return state, {**event, "n": turn.identity.session_id}

    assert numbers(fed(ops.scan(step, None), numbered(1))) == ["stream"]


def test_a_state_that_turns_would_share_is_refused():
    for make, mend in (
        (lambda: ops.scan(pairs, []), "pass a function that makes it, such as list"),
        (lambda: ops.scan(pairs, {}), "such as dict"),
        (lambda: ops.scan(pairs, lambda x: x), "no parameters"),
        (lambda: ops.scan(pairs, list, end=lambda a, b: a), "the state alone"),
        (lambda: ops.scan(3, 0), "not callable"),
    ):
        with pytest.raises(CompositionError, match=mend):
            make()


def test_a_step_that_raises_fails_the_turn_and_its_rest_is_not_given():
    def step(state, event):
        return state, 1 / 0

    async def main():
        chat = Pipeline(lambda: numbered(1)) | ops.lifecycle()
        run = (chat | ops.scan(step, 0, end=lambda state: numbered(9))).start(
            IDENTITY, log=lambda message, meta: None
        )
        return await run.outcome()

    outcome = asyncio.run(main())
    assert (outcome.status, outcome.code) == ("failed", "operator_failed")
    assert outcome.events == 0


@given(st.permutations(range(6)))
def test_any_order_within_the_window_comes_out_in_order(order):
    assert numbers(fed(ops.resequence("n", first=0), numbered(*order))) == list(
        range(6)
    )


@given(st.permutations(range(7)), st.integers(1, 7))
def test_whatever_the_window_all_that_passes_is_in_order_and_once(order, window):
    got = numbers(fed(ops.resequence("n", first=0, window=window), numbered(*order)))
    assert got == sorted(set(got))
    assert set(got) <= set(range(7))


def test_at_most_a_window_waits_and_what_is_missing_is_told():
    logs = []

    async def main():
        chat = Pipeline(lambda: numbered(0, 2, 3, 4, 5, 9)) | ops.resequence(
            "n", first=0, window=2
        )
        run = chat.start(IDENTITY, log=lambda message, meta: logs.append(message))
        return [event async for event in run.events()]

    assert numbers(asyncio.run(main())) == [0, 2, 3, 4, 5, 9]
    assert logs == ["events 1 never came", "events 6 to 8 never came"]


def test_what_a_full_window_gives_up_does_not_wait_and_is_late_for_good():
    other = {"type": "y", "n": None}
    events = [*numbered(0, 2, 3), other, *numbered(4), other, *numbered(1, 5)]
    got = fed(ops.resequence("n", first=0, window=2), events)
    assert numbers(got) == [0, None, 2, 3, 4, None, 5]


def test_of_two_that_wait_with_one_number_the_first_stays():
    one, other = ({"type": "x", "n": 1, "which": n} for n in range(2))
    (_, got) = fed(ops.resequence("n", first=0), [one, other, *numbered(0)])
    assert got is one


def test_duplicates_go_and_what_has_no_number_passes_at_once():
    events = [*numbered(2), {"type": "y"}, *numbered(1, 1, 2, 3)]
    got = fed(ops.resequence(lambda event: event.get("n"), first=1), events)
    assert got == [{"type": "y"}, *numbered(1, 2, 3)]


@pytest.mark.parametrize("given_", [(0, 2), (0, 2, 3, 4)])
def test_a_gap_may_fail_the_turn(given_):
    operator = ops.resequence("n", first=0, window=2, on_gap="fail")
    with pytest.raises(TurnError, match="events 1 never came") as caught:
        fed(operator, numbered(*given_))
    assert caught.value.code == "resequence.gap"


def test_a_stopped_turn_gives_what_waits_and_is_not_failed_by_it():
    async def produce():
        for event in numbered(0, 2):
            yield event
        await asyncio.get_running_loop().create_future()

    async def main():
        got = []
        operator = ops.resequence("n", first=0, on_gap="fail")
        chat = Pipeline(produce) | operator | ops.lifecycle() | ops.tap(got.append)
        run = chat.start(IDENTITY)
        reader = asyncio.create_task(run.outcome())
        while len(got) < 2:
            await asyncio.sleep(0)
        run.cancel("enough")
        return await reader, got

    outcome, got = asyncio.run(main())
    assert outcome.status == "cancelled"
    assert [event.get("n") for event in got] == [None, 0, 2, None]


def test_a_number_that_is_none_fails_the_turn():
    with pytest.raises(TurnError, match="no event's number") as caught:
        fed(ops.resequence("n", first=0), numbered("1"))
    assert caught.value.code == "resequence.number"
    for bad in ({"first": 1.5}, {"first": 0, "window": 0}, {"first": 0, "on_gap": "x"}):
        with pytest.raises(CompositionError, match="resequence"):
            ops.resequence("n", **bad)


def test_every_turn_begins_anew():
    operator = ops.resequence("n", first=0)
    for _ in itertools.repeat(None, 2):
        assert numbers(fed(operator, numbered(1, 0))) == [0, 1]
