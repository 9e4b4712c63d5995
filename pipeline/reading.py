"""Find the task that waits for an async generator.

asyncio does not say who awaits a generator, and asking `current_task()` at every read
would cost more than the read. So the one who cancels looks it up: along each task's
chain of awaits, which the interpreter exposes.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncGenerator, Iterator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, cast

_DEPTH: Final = 200
_LINKS: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)


def reading_task(
    generator: AsyncGenerator[Any, Any], loop: asyncio.AbstractEventLoop
) -> asyncio.Task[Any] | None:
    """Return the task of `loop` in whose chain of awaits `generator` is, or None."""
    for task in asyncio.all_tasks(loop):
        if _awaits(task.get_coro(), generator):
            return task
    return None


def is_within(generator: AsyncGenerator[Any, Any]) -> bool:
    """Tell whether the caller is run by a step of `generator`."""
    target = cast("Any", generator).ag_frame
    frame = inspect.currentframe()
    while frame is not None:
        if frame is target:
            return True
        frame = frame.f_back
    return False


def _awaits(link: Any, generator: object) -> bool:
    for _ in range(_DEPTH):
        if link is generator:
            return True
        if isinstance(link, CoroutineType):
            link = link.cr_await
        elif isinstance(link, GeneratorType):
            link = cast("Any", link).gi_yieldfrom
        elif isinstance(link, AsyncGeneratorType):
            link = link.ag_await
        elif link is None or isinstance(link, asyncio.Future):
            return False
        else:  # the awaitable of an `__anext__`, a coroutine's iterator, an object's
            refers: list[Any] = gc.get_referents(link)
            for one in tuple(refers):
                if isinstance(one, dict):
                    refers += cast("dict[str, Any]", one).values()
            links: list[Any] = [one for one in refers if isinstance(one, _LINKS)]
            links += [one for one in refers if isinstance(one, Iterator)]
            link = generator if generator in refers else links[0] if links else None
    return False
