"""Chaos is the same every time."""

import pytest

import operators as ops
from operators.event import delta, text_part
from operators.testing import deltas, feed
from pipeline import Pipeline, TurnIdentity
from pipeline.testing import chaos, loop_clock, run_virtual, scripted

PART = text_part("p1")
EVENTS = deltas("ab", "cde", "f")


def texts(events):
    return [event["data"]["delta"] for event in events]


async def test_dup_gives_one_event_twice():
    assert texts(await feed(chaos.dup(at=1), EVENTS)) == ["ab", "cde", "cde", "f"]


async def test_drop_leaves_one_out():
    assert texts(await feed(chaos.drop(at=0), EVENTS)) == ["cde", "f"]


async def test_kill_raises_what_it_is_given():
    with pytest.raises(ConnectionResetError):
        await feed(chaos.kill(at=2), EVENTS)
    with pytest.raises(KeyError):
        await feed(chaos.kill(at=0, error=KeyError("x")), EVENTS)
    assert texts(await feed(chaos.kill(at=3), EVENTS)) == ["ab", "cde", "f"]


async def test_split_cuts_texts_alone():
    note = {"type": "note", "data": {"delta": "abc"}}
    given = [*EVENTS, note, delta(PART, "")]
    got = await feed(chaos.split(every=1), given)
    assert texts(got) == ["a", "b", "c", "d", "e", "f", "abc", ""]
    got = await feed(chaos.split(at=2), EVENTS)
    assert texts(got) == ["ab", "cd", "e", "f"]


async def test_shuffle_keeps_all_within_its_window_and_is_the_same_for_a_seed():
    given = deltas(*"abcdefghij")
    got = texts(await feed(chaos.shuffle(window=4, seed=3), given))
    assert got != list("abcdefghij")
    assert sorted(got[:4]) == list("abcd")
    assert sorted(got) == list("abcdefghij")
    assert got == texts(await feed(chaos.shuffle(window=4, seed=3), given))
    assert got != texts(await feed(chaos.shuffle(window=4, seed=4), given))


async def test_each_turn_counts_anew():
    dup = chaos.dup(at=0)
    for _ in range(2):
        assert texts(await feed(dup, EVENTS)) == ["ab", "ab", "cde", "f"]


def test_stall_trips_a_timeout_in_virtual_time():
    async def main():
        pipeline = (
            Pipeline(scripted(EVENTS))
            | chaos.stall(at=1, seconds=40)
            | ops.timeout(idle=30)
            | ops.lifecycle()
        )
        run = pipeline.start(
            TurnIdentity(session_id="s", turn_index=0), clock=loop_clock
        )
        async for _ in run.events():
            pass
        return (await run.outcome()).code

    assert run_virtual(main()) == "timeout.idle"


@pytest.mark.parametrize(
    "make",
    [
        lambda: chaos.dup(at=-1),
        lambda: chaos.split(),
        lambda: chaos.split(at=1, every=1),
        lambda: chaos.split(every=0),
        lambda: chaos.shuffle(window=1),
        lambda: chaos.stall(at=True, seconds=1),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(ops.CompositionError):
        make()
