"""Transactions on an SQLite file, in threads: one that writes, some that read."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from sqlalchemy import Connection, create_engine, event

from operators.errors import StoreError

from .sql_errors import shown

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

T = TypeVar("T")

Way: TypeAlias = Literal["write", "read", "look"]
"""A transaction that may write, one that reads as of one moment, a lone statement."""

_WAL_BYTES: Final = 64 << 20
"""How large the write-ahead log stays after it was larger."""

_PRIVATE: Final = 0o600


class Files:
    """An SQLite file: a hop to a thread each transaction, not one each statement."""

    def __init__(self, url: URL, *, readers: int, busy_ms: int) -> None:
        """Look at the folder; make the file where it is missing, for its user alone."""
        _check_folder(url)
        # SQLite gives the files it makes beside this one the same permissions.
        with suppress(FileExistsError):
            path = str(url.database)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE))
        self._url = url
        self._busy_ms = busy_ms
        self._writer = Threads(url, 1, busy_ms=busy_ms, writes=True)
        self._readers = Threads(url, readers, busy_ms=busy_ms, writes=False)

    async def run(self, way: Way, work: Callable[[Connection], T]) -> T:
        """Run `work` as one transaction."""
        threads = self._writer if way == "write" else self._readers
        return await threads.run(lambda: threads.transaction(work))

    def watcher(self) -> Watcher:
        """Make a connection of its own, for whoever looks at the file for long."""
        return Watcher(Threads(self._url, 1, busy_ms=self._busy_ms, writes=False))

    async def close(self) -> None:
        """Close all connections."""
        await self._readers.close()
        await self._writer.close()


class Threads:
    """Connections to an SQLite file, used in threads of their own."""

    def __init__(self, url: URL, count: int, *, busy_ms: int, writes: bool) -> None:
        """Connect when first used."""
        self.engine: Final[Engine] = create_engine(
            url,
            pool_size=count,
            max_overflow=0,
            pool_timeout=30,
            hide_parameters=True,
            connect_args={"check_same_thread": False},
        )
        self._threads = ThreadPoolExecutor(count, "turnpipe-sqlite")

        def connected(connection: Any, _: object) -> None:
            # https://docs.sqlalchemy.org/en/20/dialects/sqlite.html: the driver shall
            # begin no transactions of its own.
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {busy_ms}")
            if writes:
                _wal(cursor, busy_ms)
                cursor.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            else:
                cursor.execute("PRAGMA query_only = ON")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.close()

        def begun(connection: Connection) -> None:
            # A transaction that reads first and writes then fails at once where another
            # wrote between, whatever the timeout: this one waits at its beginning.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        event.listen(self.engine, "connect", connected)
        event.listen(self.engine, "begin", begun)

    async def run(self, work: Callable[[], T]) -> T:
        """Call `work` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def transaction(self, work: Callable[[Connection], T]) -> T:
        """Run `work` as one transaction, in the thread that calls."""
        with self.engine.begin() as connection:
            return work(connection)

    async def close(self) -> None:
        """Close the connections, end the threads."""
        await self.run(self.engine.dispose)
        self._threads.shutdown()


class Watcher:
    """Looks at a file, in a thread and on a connection of its own."""

    def __init__(self, threads: Threads) -> None:
        """Connect when first asked."""
        self._threads = threads
        self._connection: Any = None

    async def version(self) -> int:
        """Tell what changes whenever another connection has committed.

        See https://www.sqlite.org/pragma.html#pragma_data_version.
        """
        return await self._threads.run(self._version)

    async def close(self) -> None:
        """Close the connection, end the thread."""
        await self._threads.run(self._closed)
        await self._threads.close()

    def _version(self) -> int:
        if self._connection is None:
            self._connection = self._threads.engine.raw_connection()
        cursor = self._connection.cursor()
        version = int(cursor.execute("PRAGMA data_version").fetchone()[0])
        cursor.close()
        return version

    def _closed(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _wal(cursor: Any, busy_ms: int) -> None:
    """Write ahead; SQLite does not wait by itself where others open the file, too."""
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return
    gives_up = time.monotonic() + busy_ms / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            locked = getattr(exc, "sqlite_errorcode", 0) & 0xFF in (5, 6)
            if not locked or time.monotonic() > gives_up:
                raise
            time.sleep(0.01)
        else:
            return


def _check_folder(url: URL) -> None:
    folder = Path(url.database or "").absolute().parent
    if not folder.is_dir():
        raise StoreError(f"{shown(url)}: its folder does not exist: make it first")
    if not os.access(folder, os.W_OK):
        raise StoreError(
            f"{shown(url)}: its folder may not be written to, and SQLite puts files "
            f"beside it: let this user"
        )
