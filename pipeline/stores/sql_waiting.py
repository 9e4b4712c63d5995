"""Waiting for a log of a SqlStore to grow: told where it can be, else looked at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, func, select

from operators.errors import StoreError

from .sql_errors import driven

if TYPE_CHECKING:
    from .sql_engine import Database
    from .sql_files import Watcher
    from .sql_rows import Statements

_CHANNEL: Final = "turnpipe_log"
_MOST_BYTES: Final = 7_900
"""What fits a NOTIFY's payload (8,000 bytes with its end)."""

_AGAIN_S: Final = 0.25
_SURE_S: Final = 1.0
"""How often the runs are looked at all the same, while the server tells of them."""

_LINGER_S: Final = 10.0
"""How long it listens on after the last waiter left: another may come."""

_IDLE_S: Final = 1.0
_SLOWER: Final = 2.5


class Ticket(asyncio.Future[None]):
    """One waiter, for what comes after a line."""

    def __init__(self, after: int) -> None:
        """Wait in the running loop."""
        super().__init__(loop=asyncio.get_running_loop())
        self.after = after


class Waiting:
    """Who waits for which run, and one task that hears of other processes' writes.

    It runs only while somebody waits.
    """

    def __init__(self, db: Database, sql: Statements, *, poll: float) -> None:
        """Look every `poll` seconds where nobody tells, less often where it is quiet."""
        if poll <= 0:
            raise ValueError(f"poll must be above 0 seconds, not {poll}")
        self._db = db
        self._sql = sql
        self._poll = poll
        self._tickets: dict[str, set[Ticket]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def enter(self, run_id: str, after: int) -> Ticket:
        """Be told of the run from now on."""
        ticket = Ticket(after)
        self._tickets.setdefault(run_id, set()).add(ticket)
        if self._closed:
            ticket.set_result(None)
        elif self._task is None or self._task.done():
            work = self._watch() if self._db.is_sqlite else self._listen()
            self._task = asyncio.create_task(work, name="turnpipe store waiting")
        return ticket

    def leave(self, run_id: str, ticket: Ticket) -> None:
        """Forget it."""
        waiting = self._tickets.get(run_id)
        if waiting is not None:
            waiting.discard(ticket)
            if not waiting:
                del self._tickets[run_id]

    def wake(self, run_ids: Iterable[str]) -> None:
        """Tell who waits here for these runs."""
        for run_id in run_ids:
            for ticket in self._tickets.get(run_id, ()):
                if not ticket.done():
                    ticket.set_result(None)

    def tell(self, connection: Connection, run_ids: Sequence[str]) -> None:
        """Tell other processes, when the transaction commits: once for all of it."""
        if self._db.is_sqlite or not run_ids:
            return
        payload = json.dumps(run_ids, separators=(",", ":"))
        if len(payload.encode()) > _MOST_BYTES:
            payload = ""
        connection.execute(select(func.pg_notify(_CHANNEL, payload)))

    async def close(self) -> None:
        """End all waits."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        self.wake(list(self._tickets))

    # -- looking

    async def _look(self) -> None:
        """Wake those whose runs have grown, ended, or are not there."""
        asked = list(self._tickets)
        if not asked:
            return
        params = self._sql.ids(asked)

        def work(connection: Connection) -> dict[str, tuple[int, bool]]:
            rows = connection.execute(self._sql.grown, params)
            return {row.id: (row.lines, row.status != "running") for row in rows}

        found = await self._db.look(work)
        for run_id in asked:
            lines, ended = found.get(run_id, (0, True))
            for ticket in self._tickets.get(run_id, ()):
                if not ticket.done() and (ended or lines > ticket.after):
                    ticket.set_result(None)

    async def _watch(self) -> None:
        """See whether another connection has written to the SQLite file."""
        loop = asyncio.get_running_loop()
        while self._tickets:
            watcher: Watcher | None = None
            try:
                watcher = (await self._db.files()).watcher()
                before: int | None = None
                changed = loop.time()
                while self._tickets:
                    version = await watcher.version()
                    if version != before:
                        before, changed = version, loop.time()
                        await self._look()
                    quiet = loop.time() - changed > _IDLE_S
                    await asyncio.sleep(self._poll * (_SLOWER if quiet else 1))
            except Exception as exc:
                if not _away(exc):
                    raise
                self.wake(list(self._tickets))  # they ask, and are told what is wrong
                await asyncio.sleep(_AGAIN_S)
            finally:
                if watcher is not None:
                    await asyncio.shield(watcher.close())

    async def _listen(self) -> None:
        """Hear of what is committed; look, too: a pooler between may keep it back."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        while loop.time() - asked < _LINGER_S:
            try:
                async with (await self._db.server()).listening(
                    _CHANNEL, self._heard
                ) as gone:
                    while loop.time() - asked < _LINGER_S and not gone.is_set():
                        if self._tickets:
                            asked = loop.time()
                        await self._look()
                        with suppress(TimeoutError):
                            async with asyncio.timeout(_SURE_S):
                                await gone.wait()
            except Exception as exc:
                if not _away(exc):
                    raise
            if self._tickets:
                asked = loop.time()
                with suppress(StoreError):
                    await self._look()
                await asyncio.sleep(_AGAIN_S)

    def _heard(self, payload: str) -> None:
        self.wake(json.loads(payload) if payload else list(self._tickets))


def _away(error: Exception) -> bool:
    """Tell whether it is the database that failed."""
    return driven(error) or isinstance(error, StoreError)
