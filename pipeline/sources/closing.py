"""Closing that is carried through, however often its caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import Any, Final

CLOSE_TIMEOUT: Final = 5.0


async def carried_through(
    work: Coroutine[Any, Any, None], *, limit: float = CLOSE_TIMEOUT
) -> None:
    """Run `work` to its end in a task of its own, for `limit` seconds at most.

    `asyncio.shield` alone would return at the first cancellation, with the work still
    going on. Here cancellations are remembered, and raised when it is done.
    """
    task = asyncio.ensure_future(work)
    ends = monotonic() + limit
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task}, timeout=max(ends - monotonic(), 0.0))
        except asyncio.CancelledError as error:
            cancellation = error
        if monotonic() >= ends:
            task.cancel()
            ends = monotonic() + limit
    if cancellation is not None:
        raise cancellation
    if not task.cancelled():
        task.result()
