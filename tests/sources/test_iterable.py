"""`events`: what is at hand as a source, each turn anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from operators.errors import CompositionError
from pipeline.sources import events
from tests.sources.helpers import a_turn, reads_of

ONE: dict[str, Any] = {"type": "a"}
TWO: dict[str, Any] = {"type": "b"}


def generator() -> Iterator[Any]:
    yield ONE
    yield [ONE, TWO]


async def async_generator() -> AsyncIterator[Any]:
    yield ONE
    yield [ONE, TWO]


async def coroutine() -> list[Any]:
    return [ONE, [ONE, TWO]]


class Again:
    def __iter__(self) -> Iterator[Any]:
        return generator()


class AgainAsync:
    def __aiter__(self) -> AsyncIterator[Any]:
        return async_generator()


@pytest.mark.parametrize(
    "given",
    [
        [ONE, [ONE, TWO]],
        (ONE, [ONE, TWO]),
        Again(),
        AgainAsync(),
        generator,
        async_generator,
        coroutine,
        lambda: [ONE, [ONE, TWO]],
        lambda: async_generator(),
        lambda turn: [turn and ONE, [ONE, TWO]],
    ],
    ids=lambda given: getattr(given, "__name__", type(given).__name__),
)
def test_every_turn_gets_the_same_events(given: Any) -> None:
    source = events(given)
    for _ in range(2):
        assert asyncio.run(reads_of(source)) == [ONE, [ONE, TWO]]


def test_a_function_that_takes_the_turn_gets_it() -> None:
    source = events(lambda turn: [{"type": turn.request}])
    assert asyncio.run(reads_of(source, a_turn("q"))) == [{"type": "q"}]


@pytest.mark.parametrize("make", [generator, async_generator])
def test_a_generator_is_refused_when_composed(make: Any) -> None:
    with pytest.raises(CompositionError, match=r"events\(produce\) instead of"):
        events(make())


def test_a_coroutine_is_refused_when_composed() -> None:
    with pytest.raises(CompositionError, match="pass the function itself"):
        events(coroutine())  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [ONE, "abc", b"abc", 7, None])
def test_what_holds_no_events_is_refused_when_composed(given: Any) -> None:
    with pytest.raises(CompositionError):
        events(given)
    with pytest.raises(CompositionError):
        asyncio.run(reads_of(events(lambda: given)))


def test_nothing_is_pulled_that_was_not_asked_for_and_the_generator_is_closed() -> None:
    log: list[str] = []

    def sync() -> Iterator[Any]:
        try:
            for n in range(100):
                log.append(f"{n}")
                yield ONE
        finally:
            log.append("closed")

    async def asynchronous() -> AsyncIterator[Any]:
        try:
            for n in range(100):
                log.append(f"{n}")
                yield ONE
        finally:
            log.append("closed")

    async def main(source: Any) -> None:
        async with aclosing(events(source)(a_turn())) as stream:
            await anext(stream)
            await anext(stream)

    for source in (sync, asynchronous):
        log.clear()
        asyncio.run(main(source))
        assert log == ["0", "1", "closed"]
