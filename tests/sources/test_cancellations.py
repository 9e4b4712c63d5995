"""`openai_chat` cancelled at every await point, once and twice, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from operators.errors import SourceStatus
from pipeline.sources import openai_chat
from tests.sources.helpers import (
    a_turn,
    cancelled_after,
    cancelled_at,
    other_tasks,
    reads_of,
    text_of,
)
from tests.sources.server import (
    DONE,
    Server,
    Step,
    chunk,
    chunked,
    finish,
    head,
    serving,
)

pytestmark = pytest.mark.usefixtures("transport")

GOOD = chunked(chunk(content="a"), chunk(content="b"), finish() + DONE, b"")
BUSY = [head("503 Busy", "text/plain", "Content-Length: 4"), b"busy"]


def chat(server: Server, **more: Any) -> Any:
    return openai_chat(
        base_url=server.url, model="m", attempts=2, backoff=0.001, idle=5.0, **more
    )


async def at_every_step(
    scripts: Sequence[Sequence[Step]],
    cancel: Callable[..., Awaitable[tuple[bool, int]]],
    again: int | None,
    own: bool,
) -> int:
    """Cancel at each step in turn until the turn gets through uncancelled."""
    step = 0
    while True:
        step += 1
        async with serving(*scripts) as server:
            before = asyncio.all_tasks()
            client = None if own else httpx.AsyncClient(trust_env=False)
            source = chat(server, client=client)
            steps = (step,) if again is None else (step, step + again)
            cancelled, count = await cancel(reads_of(source), *steps)
            assert await server.all_closed(), step
            if client is not None:
                await client.aclose()
            left = await other_tasks(before, collect=count < step)
            assert not left, (step, left)
        if count < step:
            assert not cancelled
            return step
        assert cancelled or count == step, step


@pytest.mark.parametrize("own", [True, False], ids=["own client", "a client of mine"])
@pytest.mark.parametrize("again", [None, 1, 2], ids=["once", "twice", "twice, later"])
def test_cancelled_at_any_await_it_leaves_nothing_open(
    again: int | None, own: bool
) -> None:
    steps = asyncio.run(at_every_step([GOOD], cancelled_at, again, own))
    assert steps > 5


@pytest.mark.parametrize("own", [True, False], ids=["own client", "a client of mine"])
@pytest.mark.parametrize("again", [None, 1], ids=["once", "twice"])
def test_cancelled_at_any_turn_of_the_loop_it_leaves_nothing_open(
    again: int | None, own: bool
) -> None:
    quick = [head() + chunk(content="a") + finish() + DONE]
    steps = asyncio.run(at_every_step([quick], cancelled_after, again, own))
    assert steps > 5


@pytest.mark.parametrize("again", [None, 1], ids=["once", "twice"])
def test_cancelled_anywhere_between_attempts_it_leaves_nothing_open(
    again: int | None,
) -> None:
    steps = asyncio.run(at_every_step([BUSY, GOOD], cancelled_at, again, True))
    assert steps > 8


def test_cancelled_while_nothing_comes_it_ends_at_once() -> None:
    async def main(script: list[Step]) -> None:
        async with serving(script) as server:
            before = asyncio.all_tasks()
            turn = asyncio.create_task(reads_of(chat(server)))
            while not server.requests:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
            turn.cancel()
            await asyncio.wait({turn}, timeout=1)
            assert turn.cancelled()
            assert await server.all_closed()
            assert not await other_tasks(before)

    asyncio.run(main(["hang"]))
    asyncio.run(main([head(), "hang"]))
    asyncio.run(main([head(), chunk(content="a"), "hang"]))


def test_closed_in_the_middle_it_closes_the_connection() -> None:
    async def main() -> None:
        async with serving([head(), chunk(content="a"), "hang"]) as server:
            before = asyncio.all_tasks()
            stream = chat(server)(a_turn())
            assert text_of(await anext(stream)) == "a"
            assert server.open == 1
            await stream.aclose()
            assert await server.all_closed()
            assert not await other_tasks(before)

    asyncio.run(main())


def test_closed_before_its_first_read_it_asks_nothing() -> None:
    async def main() -> None:
        async with serving(GOOD) as server:
            await chat(server)(a_turn()).aclose()
            assert not server.requests

    asyncio.run(main())


def test_an_error_of_the_reader_closes_the_connection_and_goes_on() -> None:
    async def main() -> None:
        async with serving([head(), chunk(content="a"), "hang"]) as server:
            with pytest.raises(ZeroDivisionError):
                async with aclosing(chat(server)(a_turn())) as stream:
                    async for _ in stream:
                        raise ZeroDivisionError
            assert await server.all_closed()

    asyncio.run(main())


def test_a_timeout_around_the_reader_is_a_timeout() -> None:
    async def main() -> None:
        async with serving([head(), chunk(content="a"), "hang"]) as server:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await reads_of(chat(server))
            assert await server.all_closed()

    asyncio.run(main())


def test_a_cancellation_is_no_attempt() -> None:
    async def main() -> None:
        async with serving(BUSY) as server:
            with pytest.raises(SourceStatus):
                await reads_of(chat(server))
            turn = asyncio.create_task(reads_of(chat(server, first_event=0.2)))
            await asyncio.sleep(0)
            turn.cancel()
            await asyncio.wait({turn})
            assert turn.cancelled()
            assert len(server.requests) == 2

    asyncio.run(main())
