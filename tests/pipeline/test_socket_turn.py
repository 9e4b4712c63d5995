"""A whole turn over `openai_chat` and a real socket, stopped at every await point."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import operators as ops
from operators.event import TERMINALS
from pipeline import Pipeline
from pipeline.run import TurnRun
from pipeline.sources import openai_chat
from tests.pipeline.support import IDENTITY, Seen
from tests.sources.helpers import other_tasks, stepped
from tests.sources.server import DONE, Server, chunk, chunked, finish, serving

GOOD = chunked(chunk(content="a"), chunk(content="b"), finish() + DONE, b"")
WAYS = ("cancel", "task", "task twice", "cancel and task")


def turn_over(server: Server, seen: Seen) -> TurnRun:
    source = openai_chat(base_url=server.url, model="m", messages="hi", attempts=1)
    chat = (
        Pipeline(source)
        | ops.lifecycle()
        | ops.tap(seen.tap)
        | ops.timeout(idle=20.0)
        | ops.accumulate()
        | ops.transform(str.upper)
        | ops.persist(seen.save, partial=True)
        | ops.complete(seen.complete)
        | ops.trace_flush(seen.flush)
    )
    return chat.start(IDENTITY, log=seen.log)


async def read(run: TurnRun) -> list[bytes]:
    return [chunk async for chunk in run.body()]


async def stopped_at(step: int, way: str) -> bool:
    """Stop a turn at one await point; tell whether it got that far."""
    seen = Seen()
    async with serving(GOOD) as server:
        before = asyncio.all_tasks()
        run = turn_over(server, seen)
        loop = asyncio.get_running_loop()
        reached = False

        def stop() -> None:
            if way.startswith("cancel"):
                run.cancel("stop")
            if way != "cancel":
                reader.cancel()

        def on_step(number: int) -> None:
            nonlocal reached
            if number == step:
                reached = True
                loop.call_soon(stop)
            if number == step + 1 and way == "task twice":
                loop.call_soon(reader.cancel)

        async def whole() -> Any:
            return await stepped(read(run), on_step)

        reader = asyncio.create_task(whole())
        async with asyncio.timeout(30):
            await asyncio.wait({reader})
            outcome = await run.outcome()
        assert await server.all_closed(), step
        assert not await other_tasks(before), step
    kinds = [event["type"] for event in seen.events]
    assert [kind for kind in kinds if kind in TERMINALS] == kinds[-1:], (step, kinds)
    assert len(seen.saved) == 1, (step, seen.saved)
    assert seen.saved[0].status == outcome.status
    assert seen.saved[0].text == outcome.text.upper()
    assert seen.flushed == 1
    assert len(seen.completed) == (outcome.status == "completed")
    assert outcome.status in ("completed", "cancelled"), outcome
    if way == "cancel":
        last = reader.result()[-1]
        assert kinds[-1].encode() in last
    elif reached and not reader.cancelled():
        assert outcome.status == "completed"
    return reached


@pytest.mark.parametrize("way", WAYS)
def test_a_turn_over_a_socket_stopped_at_any_await_settles_once(way: str) -> None:
    step = 1
    while asyncio.run(stopped_at(step, way)):
        step += 1
    assert step > 5
