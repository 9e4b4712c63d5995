"""Where a store under test keeps its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ...stores.contract import Store

SHORT_S: Final = 0.3
"""A lease that a test waits out, where the store's clock cannot be moved."""

LONG_S: Final = 1_000.0


@dataclass(slots=True)
class Place:
    """Fresh data for one test: `open` makes a store object on it, another each time.

    A store that lives in its object alone is given each time. `advance(seconds)` moves
    the store's clock on, or all the times it holds back. Without it the claims take
    short leases, and wait; `drive` and `explore` need it.
    """

    open: Callable[[], Store]
    advance: Callable[[float], Awaitable[None]] | None = None
    _opened: list[Store] = field(default_factory=list["Store"])

    def store(self) -> Store:
        """Make a store object; `close` closes it."""
        made = self.open()
        self._opened.append(made)
        return made

    @property
    def lease(self) -> float:
        """Seconds of a lease that `lapsed` shall end."""
        return LONG_S if self.advance is not None else SHORT_S

    async def lapsed(self, store: Store, run_id: str) -> None:
        """Wait until the lease of a running run is over."""
        if self.advance is not None:
            await self.advance(LONG_S + 1)
        while (await store.status(run_id)).lapsed_s is None:
            await asyncio.sleep(SHORT_S / 10)

    async def close(self) -> None:
        """Close what was made."""
        opened, self._opened = self._opened, []
        for store in opened:
            await store.close()
