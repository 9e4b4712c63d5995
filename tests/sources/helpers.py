"""What the tests of sources share."""

from __future__ import annotations

import asyncio
import gc
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from operators.turn import TurnContext, TurnIdentity

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "transcripts"


def a_turn(request: object = "hi") -> TurnContext:
    identity = TurnIdentity(session_id="s", turn_index=0)
    return TurnContext(identity=identity, request=request)


async def reads_of(source: Any, turn: TurnContext | None = None) -> list[Any]:
    """Run a source to its end; give what it yielded."""
    async with aclosing(source(turn or a_turn())) as stream:
        return [events async for events in stream]


async def events_until_failure(
    source: Any, turn: TurnContext | None = None
) -> tuple[list[Any], Exception | None]:
    """Run a source to its end or failure; give its events, and the failure."""
    events: list[Any] = []
    try:
        async with aclosing(source(turn or a_turn())) as stream:
            async for read in stream:
                events += read
    except Exception as error:
        return events, error
    return events, None


def flat(reads: list[list[Any]]) -> list[Any]:
    return [event for read in reads for event in read]


def text_of(events: list[Any]) -> str:
    return "".join(
        event["data"].get("delta", "")
        for event in events
        if event["type"] == "message.part.updated"
        and event["data"]["part"]["type"] == "text"
    )


@types.coroutine
def stepped(
    work: Coroutine[Any, Any, Any], on_step: Callable[[int], None]
) -> Generator[Any, Any, Any]:
    """Await `work`, telling `on_step` the number of each of its suspensions."""
    step = 0
    error: BaseException | None = None
    while True:
        try:
            awaited = work.send(None) if error is None else work.throw(error)
        except StopIteration as stop:
            return stop.value
        error = None
        step += 1
        on_step(step)
        try:
            yield awaited
        except BaseException as thrown:
            error = thrown


async def cancelled_at(work: Coroutine[Any, Any, Any], *steps: int) -> tuple[bool, int]:
    """Run it in a task that is cancelled at these suspensions.

    Gives whether the task ended cancelled, and how often it was suspended.
    """
    loop = asyncio.get_running_loop()
    count = 0

    def on_step(number: int) -> None:
        nonlocal count
        count = number
        if number in steps:
            loop.call_soon(task.cancel)

    async def whole() -> Any:
        return await stepped(work, on_step)

    task = asyncio.create_task(whole())
    await asyncio.wait({task})
    if task.cancelled():
        return True, count
    error = task.exception()
    if error is not None:
        raise error
    return False, count


async def cancelled_after(
    work: Coroutine[Any, Any, Any], *turns: int
) -> tuple[bool, int]:
    """Run it in a task that is cancelled after so many turns of the loop."""
    task = asyncio.create_task(work)
    count = 0
    while not task.done():
        await asyncio.sleep(0)
        count += 1
        if count in turns:
            task.cancel()
    if task.cancelled():
        return True, count
    await task
    return False, count


async def other_tasks(
    before: set[asyncio.Task[Any]], *, collect: bool = True
) -> set[asyncio.Task[Any]]:
    """Tell which tasks are there that were not, after the loop has come around."""
    if collect:
        gc.collect()
    for _ in range(3):
        await asyncio.sleep(0)
    return {task for task in asyncio.all_tasks() - before if not task.done()}
