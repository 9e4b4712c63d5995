"""Calling a `save` with patience: what `persist` and its drafts stand on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .drive import failure_of

if TYPE_CHECKING:
    from .turn import TurnRecord


async def saved(
    save: Callable[[TurnRecord], Any], record: TurnRecord, *, limit: float | None
) -> None:
    """Call `save(record)`, and await it for at most `limit` seconds.

    Raises: TimeoutError: it took longer; what `save` raises.
    """
    value = save(record)
    if inspect.isawaitable(value):
        async with asyncio.timeout(limit):
            await value


async def tried(
    save: Callable[[TurnRecord], Any],
    record: TurnRecord,
    *,
    retries: int,
    backoff: float,
    limit: float | None,
    again: Callable[[BaseException], object],
) -> None:
    """Save, and where that fails up to `retries` times more; `again` is told why.

    The pauses are `backoff` seconds, doubling.

    Raises: what the last try raised; a cancellation that somebody asked for at once.
    """
    left = retries
    while True:
        try:
            await saved(save, record, limit=limit)
        except BaseException as exc:
            error = failure_of(exc)
            if not left:
                raise error from error.__cause__
        else:
            return
        again(error)
        await asyncio.sleep(backoff)
        backoff *= 2
        left -= 1
