import functools

import pytest

import operators as ops
from operators.testing import feed

X, Y = {"type": "x"}, {"type": "y"}


def mark(event):
    return {**event, "seen": True}


async def test_map_replaces_every_event_sync_async_partial_and_with_the_turn(turn):
    async def awaited(event):
        return mark(event)

    def with_turn(event, turn):
        return {**event, "id": turn.execution_id}

    async def awaited_with_turn(event, turn):
        return {**event, "id": turn.execution_id}

    for function in (
        mark,
        awaited,
        functools.partial(mark),
        functools.partial(awaited),
    ):
        assert await feed(ops.map(function), [X, Y]) == [mark(X), mark(Y)]
    for function in (with_turn, awaited_with_turn):
        assert await feed(ops.map(function), [X], turn=turn) == [{**X, "id": "x-1"}]
    assert await feed(ops.map(dict), [X]) == [X]


async def test_filter_lets_pass_what_is_true(turn):
    async def awaited(event):
        return event["type"] == "x"

    def with_turn(event, turn):
        return event["type"] == turn.execution_id[0]

    for function in (lambda event: event["type"] == "x", awaited, with_turn):
        assert await feed(ops.filter(function), [X, Y], turn=turn) == [X]
    assert await feed(ops.filter(bool), [X, {}]) == [X]


async def test_flat_map_gives_none_or_several():
    def twice(event):
        yield event
        yield event

    async def awaited(event):
        return (event, event)

    for function in (twice, awaited, lambda event: [event] * 2):
        assert await feed(ops.flat_map(function), [X, Y]) == [X, X, Y, Y]
    assert await feed(ops.flat_map(lambda event: ()), [X]) == []


@pytest.mark.parametrize("make", [ops.map, ops.filter, ops.flat_map])
async def test_types_let_the_others_pass(make):
    gone = {ops.map: mark, ops.filter: lambda e: False, ops.flat_map: lambda e: ()}[
        make
    ]
    assert X in await feed(make(gone, types={"y"}), [X, Y])
    assert Y not in await feed(make(gone, types={"y"}), [X, Y])
    assert await feed(make(gone, types=()), [X, {}]) == [X, {}]
    with pytest.raises(ops.CompositionError, match="letter by letter"):
        make(gone, types="y")


@pytest.mark.parametrize("make", [ops.map, ops.filter, ops.flat_map])
async def test_what_the_function_raises_fails_the_stream(make):
    def boom(event):
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        await feed(make(boom), [X])


async def test_none_is_no_event_and_the_mend_is_named():
    with pytest.raises(ops.InvalidEvent, match=r"ops\.filter"):
        await feed(ops.map(lambda event: None), [X])
    with pytest.raises(ops.InvalidEvent, match="int as an event"):
        await feed(ops.flat_map(lambda event: [1]), [X])


def test_generator_functions_are_refused_where_their_body_would_never_run():
    def gen(event):
        yield event

    async def agen(event):
        yield event

    for make, function in [(ops.map, gen), (ops.filter, agen), (ops.flat_map, agen)]:
        with pytest.raises(ops.CompositionError, match=r"use ops\.flat_map"):
            make(function)


def test_names_and_details():
    assert ops.map(mark).name == "map(mark)"
    assert ops.filter(mark, name="wanted").name == "wanted"
    assert ops.flat_map(mark).detail == {"kind": "flat_map"}
