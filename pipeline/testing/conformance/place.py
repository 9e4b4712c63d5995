"""Where a store under test keeps its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ...stores.contract import Store

SHORT_S: Final = 0.25
"""A lease that a test waits out, where the store's clock cannot be moved."""

LONG_S: Final = 1_000.0


@dataclass(slots=True)
class Place:
    """Fresh data for one test: `open` makes a store object on it, another each time.

    `lapse` moves the store's clock on, or its leases back, so that every lease of at
    most `LONG_S` seconds is over. Without it the tests take short leases, and wait.
    """

    open: Callable[[], Store]
    lapse: Callable[[], Awaitable[None]] | None = None
    _opened: list[Store] = field(default_factory=list["Store"])

    def store(self) -> Store:
        """Make a store object; `close` closes it."""
        made = self.open()
        self._opened.append(made)
        return made

    @property
    def lease(self) -> float:
        """Seconds of a lease that `lapsed` shall end."""
        return LONG_S if self.lapse is not None else SHORT_S

    async def lapsed(self, store: Store, run_id: str) -> None:
        """Wait until the lease of a running run is over."""
        if self.lapse is not None:
            await self.lapse()
        while run_id not in [run.id for run in await store.orphans(limit=10_000)]:
            await asyncio.sleep(SHORT_S / 10)

    async def close(self) -> None:
        """Close what was made."""
        for store in self._opened:
            await store.close()
