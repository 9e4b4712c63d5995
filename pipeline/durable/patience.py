"""Asking a store again that could not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from operators.errors import StoreError
from operators.turn import logger

T = TypeVar("T")

_FIRST_S = 0.02
_MOST_S = 1.0


async def patiently(ask: Callable[[], Awaitable[T]], patience: float) -> T:
    """Call `ask`, again while it raises StoreError, for at most `patience` seconds.

    Raises:
        StoreError: the last one.
    """
    loop = asyncio.get_running_loop()
    gives_up = loop.time() + patience
    pause = _FIRST_S
    told = False
    while True:
        try:
            return await ask()
        except StoreError as exc:
            if loop.time() + pause > gives_up:
                raise
            if not told:
                logger.warning("the store did not answer, asking again: %s", exc)
                told = True
        await asyncio.sleep(pause)
        pause = min(pause * 2, _MOST_S)
