"""`sandbox_prompt` cancelled at every await point, once and twice, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from pipeline.sources.sandbox_prompt import sandbox_prompt
from tests.sources.helpers import cancelled_after, cancelled_at, other_tasks, reads_of
from tests.sources.sandbox_server import RUN, RunServer, numbered, refusal, running
from tests.sources.test_sandbox_prompt import a_run

pytestmark = pytest.mark.usefixtures("transport")

SHORT = [RUN[0], RUN[1], RUN[-1]]
QUICK: dict[str, Any] = {"backoff": 0.001, "idle": 5.0}


def breaking() -> RunServer:
    """Make a server whose connections break, which is then busy, and then goes on."""
    return RunServer(
        numbered(SHORT), cuts=[150], answers=[None, refusal("503 Busy"), None]
    )


async def at_every_step(
    cancel: Callable[..., Awaitable[tuple[bool, int]]],
    again: int | None,
    own: bool,
    supervised: bool,
) -> int:
    """Cancel at each step in turn until the turn gets through uncancelled."""
    step = 0
    while True:
        step += 1
        async with running(breaking()) as server:
            before = asyncio.all_tasks()
            client = None if own else httpx.AsyncClient(trust_env=False)
            source = sandbox_prompt(server.url, client=client, **QUICK)
            steps = (step,) if again is None else (step, step + again)
            read = attached(source) if supervised else reads_of(source, a_run())
            cancelled, count = await cancel(read, *steps)
            assert await server.all_closed(), step
            if client is not None:
                await client.aclose()
            left = await other_tasks(before, collect=count < step)
            assert not left, (step, left)
        if count < step:
            assert not cancelled
            return step
        assert cancelled or count == step, step


async def attached(source: Any) -> list[Any]:
    handle = {"kind": "sandbox", "runId": "p:s:0", "first": "1"}
    async with aclosing(source.adapter(a_run()).attach(handle, None)) as stream:
        return [event async for event in stream]


@pytest.mark.parametrize("own", [True, False], ids=["own client", "a client of mine"])
@pytest.mark.parametrize("again", [None, 1, 2], ids=["once", "twice", "twice, later"])
def test_cancelled_at_any_await_it_leaves_nothing_open(
    again: int | None, own: bool
) -> None:
    assert asyncio.run(at_every_step(cancelled_at, again, own, supervised=False)) > 10


def test_cancelled_at_any_turn_of_the_loop_it_leaves_nothing_open() -> None:
    assert (
        asyncio.run(at_every_step(cancelled_after, None, True, supervised=False)) > 10
    )


def test_an_attached_run_cancelled_at_any_await_leaves_nothing_open() -> None:
    assert asyncio.run(at_every_step(cancelled_at, 1, own=True, supervised=True)) > 10


def test_closed_while_it_waits_to_reconnect_it_ends_at_once() -> None:
    async def main() -> None:
        records = numbered(RUN)
        server = RunServer(records, cuts=[len(records[0][1]) + 10])
        async with running(server):
            before = asyncio.all_tasks()
            source = sandbox_prompt(server.url, backoff=30.0, backoff_max=30.0)
            stream = source(a_run())
            await anext(stream)
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.wait({waiting}, timeout=1)
            assert waiting.cancelled()
            await stream.aclose()
            assert await server.all_closed()
            assert not await other_tasks(before)
            assert len(server.requests) == 1

    asyncio.run(main())


def test_closed_in_the_middle_it_closes_the_connection() -> None:
    async def main() -> None:
        async def never(index: int) -> None:
            if index > 2:
                await asyncio.sleep(3600)

        server = RunServer(numbered(RUN), each=never)
        async with running(server):
            before = asyncio.all_tasks()
            source = sandbox_prompt(server.url, **QUICK)
            for stream in (source(a_run()), source.adapter(a_run()).start()):
                await anext(stream)
                assert server.open == 1
                await stream.aclose()
                assert await server.all_closed()
                assert not await other_tasks(before)

    asyncio.run(main())


def test_closed_before_its_first_read_it_asks_nothing() -> None:
    async def main() -> None:
        async with running(RunServer(numbered(RUN))) as server:
            source = sandbox_prompt(server.url)
            await source(a_run()).aclose()
            await source.adapter(a_run()).start().aclose()
            assert not server.requests

    asyncio.run(main())
