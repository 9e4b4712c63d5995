import pytest
from aiostream import stream

import operators as ops
from operators.testing import ManualClock, chop, chunkings, deltas, drain, feed

X = {"type": "x"}


async def test_feed_takes_events_reads_and_streams(turn):
    async def source():
        yield X
        yield [X, X]

    for events in ([X, [X, X]], source(), stream.iterate([X, X, X])):
        assert await feed(ops.tap(print, types=()), events) == [X, X, X]
    await feed(ops.accumulate(), deltas("a", part_id="p"), turn=turn)
    assert turn.parts()[0] == {"type": "text", "id": "p", "text": "a"}


async def test_drain_closes_what_it_reads():
    closed = []

    async def source():
        try:
            yield 1
            raise ValueError("boom")
        finally:
            closed.append(1)

    with pytest.raises(ValueError, match="boom"):
        await drain(source())
    assert closed == [1]
    assert await drain(stream.range(3)) == [0, 1, 2]


def test_chop_cuts_in_the_given_sizes_over_again():
    assert chop("abcdefgh", [1, 2]) == ["a", "bc", "d", "ef", "g", "h"]
    assert chop("", [1]) == []
    for sizes in ([], [0], [2, -1]):
        with pytest.raises(ValueError, match="from 1 on"):
            chop("abc", sizes)


def test_chunkings_are_all_ways_to_cut():
    assert sorted(chunkings("abc")) == [
        ["a", "b", "c"],
        ["a", "bc"],
        ["ab", "c"],
        ["abc"],
    ]
    assert list(chunkings("")) == [[]]
    made = list(chunkings("abcdef"))
    assert len(made) == 2**5
    assert {"".join(pieces) for pieces in made} == {"abcdef"}


def test_a_manual_clock_moves_when_told_and_never_back():
    clock = ManualClock(5.0)
    clock.advance(1.5)
    assert clock() == 6.5
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
