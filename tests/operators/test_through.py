import asyncio

import pytest
from aiostream import pipe

import operators as ops
from operators.testing import deltas, feed

X, Y = {"type": "x"}, {"type": "y"}


async def doubled(source):
    async for event in source:
        yield event
        yield event


async def signed(source, turn):
    async for event in source:
        yield {**event, "by": turn.execution_id}


async def test_an_aiostream_operator_or_a_generator_stands_in_the_stream(turn):
    assert await feed(ops.through(pipe.take(1)), [X, Y]) == [X]
    assert await feed(ops.through(doubled), [X, Y]) == [X, X, Y, Y]
    assert await feed(ops.through(signed), [X], turn=turn) == [{**X, "by": "x-1"}]
    both = ops.through(pipe.skip(1)) | ops.map(dict) | ops.through(doubled)
    assert await feed(both, [[X, Y]]) == [Y, Y]
    assert await feed(ops.through(ops.filter(lambda e: e is X)), [X, Y]) == [X]


async def test_it_may_give_lists(turn):
    async def batched(source):
        yield [event async for event in source]

    seen = []
    chain = ops.through(batched) | ops.tap(seen.append)
    assert await feed(chain, [X, Y]) == seen == [X, Y]


async def test_the_envelope_steps_over_it():
    chain = ops.lifecycle() | ops.through(pipe.take(1))
    assert [event["type"] for event in await feed(chain, [X, Y])] == [
        "session.run.started",
        "x",
        "session.run.completed",
    ]


async def test_an_aiostream_timeout_fails_the_stream_and_closes_the_source():
    closed = []

    async def hanging():
        try:
            yield X
            await asyncio.get_running_loop().create_future()
        finally:
            closed.append(1)

    with pytest.raises(TimeoutError):
        await feed(ops.through(pipe.timeout(0.001)), hanging())
    assert closed == [1]


async def test_its_errors_fail_the_stream():
    async def broken(source):
        async for event in source:
            yield event
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        await feed(ops.through(broken), deltas("a", "b"))


def test_what_is_no_function_is_refused_with_the_mend():
    with pytest.raises(ops.CompositionError, match=r"aiostream\.pipe\.timeout\(30\)"):
        ops.through(doubled(None))
    assert ops.through(doubled).name == "through(doubled)"
    assert ops.through(doubled, name="d").detail == {"kind": "through"}
