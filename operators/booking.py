"""Write the ledger's row of a turn, with patience."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from .drive import failure_of

if TYPE_CHECKING:
    from .ledger import LedgerRow
    from .turn import Status, TurnContext

Ended: TypeAlias = "tuple[Status, str | None]"
"""The status of a turn, and the code of its failure."""


class Booking:
    """The row of one turn: written, and again where the turn ends otherwise."""

    def __init__(
        self,
        turn: TurnContext,
        row: Callable[[Ended], LedgerRow],
        write: Callable[[LedgerRow], Any],
        *,
        retries: int,
        backoff: float,
        fails: bool,
    ) -> None:
        """Write what `row` makes; a failure of `settle` is raised if it `fails`."""
        self._turn = turn
        self._row = row
        self._write = write
        self._retries = retries
        self._backoff = backoff
        self._fails = fails
        self._told: Ended | None = None

    def _ended(self) -> Ended:
        ending = self._turn.ending
        return ("completed", None) if ending is None else (ending.status, ending.code)

    async def settle(self) -> None:
        """Write before the terminal event."""
        await self._put(fails=self._fails)

    def close(self) -> Awaitable[None] | None:
        """Write after it, unless that row is written; None where it is."""
        return None if self._told == self._ended() else self._put(fails=False)

    async def _put(self, *, fails: bool) -> None:
        ended = self._ended()
        try:
            await written(
                self._write,
                self._row(ended),
                retries=self._retries,
                backoff=self._backoff,
                again=self._again,
            )
        except BaseException as exc:
            error = failure_of(exc)
            if fails:
                raise error from error.__cause__
            self._turn.log("the ledger raised", error, operator="meter")
        self._told = ended

    def _again(self, error: BaseException) -> None:
        self._turn.log("the ledger raised, trying again", error, operator="meter")


async def written(
    write: Callable[[LedgerRow], Any],
    row: LedgerRow,
    *,
    retries: int,
    backoff: float,
    again: Callable[[BaseException], object],
) -> None:
    """Write a row, and where that fails up to `retries` times more.

    The pauses are `backoff` seconds, doubling; `again` is told why.

    Raises: what the last try raised; a cancellation that somebody asked for at once.
    """
    left = retries
    while True:
        try:
            value = write(row)
            if inspect.isawaitable(value):
                await value
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
