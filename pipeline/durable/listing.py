"""Asking a store for all runs of a kind, where one answer is bounded."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from ..stores.contract import Run

_PAGE: Final = 100


class Listing(Protocol):
    """A store's `orphans`, or its `runs`."""

    def __call__(self, *, limit: int) -> Awaitable[Sequence[Run]]:
        """List at most so many."""
        ...


async def all_of(listing: Listing) -> Sequence[Run]:
    """List every one: those that are not the asker's must not hide the others."""
    limit = _PAGE
    while True:
        runs = await listing(limit=limit)
        if len(runs) < limit:
            return runs
        limit *= 10
