"""A scripted source does what it is told, and tells what was done to it."""

import asyncio
from contextlib import aclosing

import pytest

from pipeline.testing import loop_clock, run_virtual, scripted

A, B, C = ({"type": kind} for kind in "abc")


async def reads(source):
    async with aclosing(source()) as stream:
        return [(loop_clock(), item) async for item in stream]


def test_events_and_lists_come_as_given_after_their_delays():
    source = scripted([A, [B, C], C], delays=[1.0, 0.0, 2.5])
    got = run_virtual(reads(source))
    assert got == [(1.0, A), (1.0, [B, C]), (3.5, C)]
    assert (source.opened, source.closed, source.pulled) == (1, 1, 3)
    assert source.turns[0].ended


def test_one_delay_is_for_all():
    assert [at for at, _ in run_virtual(reads(scripted([A, B], delays=2)))] == [2, 4]


def test_an_error_comes_instead_of_its_event():
    source = scripted([A, B], errors={1: OSError("gone")})
    with pytest.raises(OSError, match="gone"):
        run_virtual(reads(source))
    assert (source.pulled, source.closed) == (1, 1)
    assert not source.turns[0].ended


def test_an_error_may_come_at_the_end():
    source = scripted([A], errors={1: ValueError})
    with pytest.raises(ValueError):
        run_virtual(reads(source))
    assert source.pulled == 1


def test_it_hangs_until_it_is_cancelled_and_counts_that():
    source = scripted([A, B], hang=1, finally_steps=3)

    async def main():
        task = asyncio.ensure_future(reads(source))
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert run_virtual(main())
    assert (source.pulled, source.cancelled, source.closed) == (1, 1, 1)


def test_it_ignores_as_many_cancellations_as_it_is_told():
    source = scripted([A, B], delays={1: 10}, ignores_cancel=1)

    async def main():
        task = asyncio.ensure_future(reads(source))
        for _ in range(2):
            await asyncio.sleep(1)
            task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert run_virtual(main())
    assert source.cancelled == 2


def test_a_cleanup_that_hangs_is_not_closed_until_cancelled():
    source = scripted([A], finally_hangs=True)

    async def main():
        task = asyncio.ensure_future(reads(source))
        await asyncio.sleep(5)
        assert (source.opened, source.closed) == (1, 0)
        task.cancel()
        await asyncio.wait({task})

    run_virtual(main())
    assert source.closed == 1


def test_what_the_pipeline_writes_into_an_event_shows():
    part = {"id": "p"}
    source = scripted([{"part": part}, {"part": part}])
    got = run_virtual(reads(source))
    assert source.changed() == []
    assert got[0][1]["part"] is got[1][1]["part"]
    got[0][1]["part"]["id"] = "q"
    assert source.changed() == [({"part": {"id": "p"}}, {"part": {"id": "q"}})] * 2
    assert part == {"id": "p"}


def test_each_turn_has_its_own_record():
    source = scripted([A])

    async def main():
        await reads(source)
        await reads(source)

    run_virtual(main())
    assert source.opened == source.closed == len(source.turns) == 2


@pytest.mark.parametrize("wrong", [{"hang": 3}, {"errors": {-1: ValueError}}])
def test_a_place_outside_of_the_script_is_refused(wrong):
    with pytest.raises(ValueError, match="there are 2, from 0 on"):
        scripted([A, B], **wrong)
