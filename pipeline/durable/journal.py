"""Group commit: the lines of all turns of a hub, appended together."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from operators.errors import LeaseLost

from ..stores.contract import Lines, Store
from .patience import patiently
from .tail import Room, Tail

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S: Final = 0.005
"""The least time between two groups: a lone line after a pause goes at once."""

GROUP_BYTES: Final = 1 << 20
"""From so many bytes on a group is not waited for."""

AHEAD_BYTES: Final = 256 << 10
"""How much of one turn may wait to be appended, before its source has to."""


class Account:
    """One turn's place in the journal: what waits, what is in the log, what went wrong."""

    __slots__ = (
        "_idle",
        "_room",
        "chunks",
        "count",
        "error",
        "fence",
        "queued",
        "run_id",
        "size",
        "tail",
        "told",
    )

    def __init__(
        self,
        run_id: str,
        fence: int,
        tail: Tail,
        told: Callable[[BaseException], object],
    ) -> None:
        """Begin where the log ends; `told` hears, once, why nothing more is taken."""
        self.run_id = run_id
        self.fence = fence
        self.tail = tail
        self.told = told
        self.chunks: list[bytes] = []
        self.count = 0
        self.size = 0
        self.queued = False
        self.error: BaseException | None = None
        self._idle: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def fail(self, error: BaseException) -> None:
        """Take nothing more."""
        if self.error is None:
            self.error = error
            self.told(error)
        self.chunks.clear()
        self.count = self.size = 0
        self.settled()

    def settled(self) -> None:
        """Let go who waits for the log to have it all, or for room."""
        for waiter in (self._idle, self._room):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self._idle = self._room = None

    async def room(self) -> None:
        """Wait until there is room for more of this turn."""
        while self.size >= AHEAD_BYTES and self.error is None:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    async def flushed(self) -> None:
        """Wait until the log has all that was put.

        Raises:
            DurableError: it will not have it: the lease is lost, the store gone.
        """
        while self.error is None and (self.size or self.queued):
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)
        if self.error is not None:
            raise self.error


class Journal:
    """Appends what turns put, one transaction for all, one in flight at a time.

    What comes while one is in flight goes with the next. A store that is busy, or does
    not answer, is asked again for `patience` seconds; appending is idempotent, so lines
    whose answer was lost are not there twice.
    """

    def __init__(self, store: Store, *, patience: float, room: Room) -> None:
        """Append to `store`."""
        self._store = store
        self._patience = patience
        self.room: Final = room
        self._queue: list[Account] = []
        self._size = 0
        self._wake: asyncio.Event = asyncio.Event()
        self._full: asyncio.Event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def put(self, account: Account, data: bytes, count: int) -> None:
        """Take lines of a turn; they reach its readers once the log has them."""
        if account.error is not None:
            return
        account.chunks.append(data)
        account.count += count
        account.size += len(data)
        self._size += len(data)
        if not account.queued:
            account.queued = True
            self._queue.append(account)
        if self._task is None:
            self._task = asyncio.create_task(self._flush(), name="turnpipe journal")
        self._wake.set()
        if self._size >= GROUP_BYTES:
            self._full.set()

    async def close(self) -> None:
        """End; what waits is given up."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            await self._wake.wait()
            pause = due - loop.time()
            if pause > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._full.wait()
            due = loop.time() + INTERVAL_S
            accounts, batch = self._taken()
            if batch:
                await self._append(accounts, batch)

    def _taken(self) -> tuple[list[Account], list[Lines]]:
        """Take all that waits: one piece a turn."""
        accounts, self._queue = self._queue, []
        self._size = 0
        self._wake.clear()
        self._full.clear()
        batch: list[Lines] = []
        kept: list[Account] = []
        for account in accounts:
            if account.error is not None or not account.chunks:
                account.queued = False
                continue
            chunks = account.chunks
            # A retained orjson result pins a page: keep a copy.
            data = (
                memoryview(chunks[0]).tobytes()
                if len(chunks) == 1
                else b"".join(chunks)
            )
            first = account.tail.lines + 1
            batch.append(
                Lines(account.run_id, account.fence, first, account.count, data)
            )
            kept.append(account)
            account.chunks = []
            account.count = 0
        return kept, batch

    async def _append(self, accounts: list[Account], batch: list[Lines]) -> None:
        try:
            answers = await patiently(lambda: self._store.append(batch), self._patience)
        except Exception as exc:
            for account in accounts:
                account.queued = False
                account.fail(exc)
            return
        for account, lines, answer in zip(accounts, batch, answers, strict=True):
            account.size -= len(lines.data)
            if answer is None:
                account.queued = False
                account.fail(LeaseLost(account.run_id))
                continue
            account.tail.put(lines.data, lines.count)
            if account.chunks:  # put meanwhile
                self._queue.append(account)
                self._wake.set()
            else:
                account.queued = False
            account.settled()
