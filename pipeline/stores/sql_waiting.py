"""Waiting for a log of a SqlStore to grow: told where it can be, else looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from operators.errors import StoreError

if TYPE_CHECKING:
    from .sql_engine import Database

Ticket: TypeAlias = "asyncio.Future[None]"

_CHANNEL: Final = "turnpipe_log"
_MOST_BYTES: Final = 7_900
"""What fits a NOTIFY's payload (8,000 bytes with its end)."""

_AGAIN_S: Final = 0.25


class Waiting:
    """Who waits for which run, and one task that hears of other processes' writes.

    It runs only while somebody waits.
    """

    def __init__(self, db: Database, *, poll: float) -> None:
        """Look every `poll` seconds where nobody tells."""
        self._db = db
        self._poll = poll
        self._tickets: dict[str, set[Ticket]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def enter(self, run_id: str) -> Ticket:
        """Be told of the run from now on."""
        ticket: Ticket = asyncio.get_running_loop().create_future()
        self._tickets.setdefault(run_id, set()).add(ticket)
        if self._closed:
            ticket.set_result(None)
        elif self._task is None or self._task.done():
            work = self._look() if self._db.is_sqlite else self._listen()
            self._task = asyncio.create_task(work, name="turnpipe store waiting")
        return ticket

    def leave(self, run_id: str, ticket: Ticket) -> None:
        """Forget it."""
        waiting = self._tickets.get(run_id)
        if waiting is not None:
            waiting.discard(ticket)
            if not waiting:
                del self._tickets[run_id]

    async def wait(self, ticket: Ticket, limit_s: float) -> None:
        """Wait to be told, for so long."""
        await asyncio.wait((ticket,), timeout=limit_s)

    def wake(self, run_ids: Iterable[str]) -> None:
        """Tell who waits here for these runs."""
        for run_id in run_ids:
            for ticket in self._tickets.get(run_id, ()):
                if not ticket.done():
                    ticket.set_result(None)

    def tell(self, connection: Connection, run_ids: list[str]) -> None:
        """Tell other processes, when the transaction commits: once for all of it."""
        if self._db.is_sqlite:
            return
        payload = "\n".join(run_ids)
        if len(payload.encode()) > _MOST_BYTES:
            payload = ""
        connection.execute(
            text("SELECT pg_notify(:channel, :payload)"),
            {"channel": _CHANNEL, "payload": payload},
        )

    async def close(self) -> None:
        """End all waits."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        self.wake(list(self._tickets))

    async def _look(self) -> None:
        """See whether another connection has written to the SQLite file."""
        while self._tickets:
            with suppress(SQLAlchemyError, OSError, StoreError):
                file = await self._db.file()
                connection = await file.run(file.engine.raw_connection)
                try:
                    before: object = None
                    while self._tickets:
                        now = await file.run(partial(_version, connection))
                        if now != before:
                            self.wake(list(self._tickets))
                        before = now
                        await asyncio.sleep(self._poll)
                finally:
                    await asyncio.shield(file.run(connection.close))
            await asyncio.sleep(self._poll)

    async def _listen(self) -> None:
        """Hear of what is committed; whatever was missed while away is looked at."""
        while self._tickets:
            with suppress(SQLAlchemyError, OSError, StoreError):
                async with (await self._db.server()).connect() as connection:
                    raw = await connection.get_raw_connection()
                    driver: Any = raw.driver_connection
                    gone = asyncio.Event()

                    def ended(_: object, gone: asyncio.Event = gone) -> None:
                        gone.set()

                    driver.add_termination_listener(ended)
                    await driver.add_listener(_CHANNEL, self._heard)
                    try:
                        self.wake(list(self._tickets))
                        while self._tickets and not gone.is_set():
                            with suppress(TimeoutError):
                                async with asyncio.timeout(5):
                                    await gone.wait()
                    finally:
                        if not gone.is_set():
                            driver.remove_termination_listener(ended)
                            await driver.remove_listener(_CHANNEL, self._heard)
            self.wake(list(self._tickets))
            await asyncio.sleep(_AGAIN_S)

    def _heard(
        self, _connection: object, _pid: int, _channel: str, payload: str
    ) -> None:
        self.wake(payload.split("\n") if payload else list(self._tickets))


def _version(connection: Any) -> int:
    """Tell what changes whenever another connection has committed.

    See https://www.sqlite.org/pragma.html#pragma_data_version.
    """
    return int(connection.cursor().execute("PRAGMA data_version").fetchone()[0])
