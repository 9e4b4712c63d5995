"""How a SqlStore reaches its database: connections, transactions, errors.

The one place that knows SQLite from PostgreSQL.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import (
    Connection,
    Double,
    Engine,
    create_engine,
    event,
    literal_column,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateTable

from operators.errors import DurableError, StoreBusy, StoreError, StoreFull, StoreSchema

from .sql_schema import VERSION, metadata, schema_info

T = TypeVar("T")

_BUSY_MS: Final = 5_000
_TRIES: Final = 8
_OPEN_AGAIN_S: Final = 0.01

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_AGAIN: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_AWAY: Final = frozenset({"53300", "57P01", "57P02", "57P03", "55P03"})
_FULL: Final = frozenset({"53100", "53200"})

_SQLITE_NOW: Final = "((julianday('now') - 2440587.5) * 86400.0)"
_POSTGRES_NOW: Final = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)"

CREATE_LOCK: Final = 0x7475726E  # any number: it names our advisory lock


class Database:
    """One database: a writer, readers, and whole transactions in tasks of their own.

    A caller that is cancelled leaves its transaction to end by itself, so no connection
    is returned to the pool in the middle of one. SQLite's transactions run as a whole
    in threads, one that writes and some that read: a hop each, not one a statement.
    """

    def __init__(self, url: str, *, pool_size: int) -> None:
        """Read the URL; nothing is opened."""
        self.url: Final = parsed(url)
        self.is_sqlite: Final = self.url.get_backend_name() == "sqlite"
        now = _SQLITE_NOW if self.is_sqlite else _POSTGRES_NOW
        self.now: Final = literal_column(now, Double)
        self._pool_size = pool_size
        self._server: AsyncEngine | None = None
        self._writer: _Threads | None = None
        self._reader: _Threads | None = None
        self._opening: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` as one transaction that may write, again where it met another.

        Raises:
            StoreError: the database could not; or as `work` raises.
        """
        return await self._run(self._write(work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` as one transaction that reads."""
        return await self._run(self._read(work))

    async def close(self) -> None:
        """End what is under way, then let go of all connections."""
        self.closed = True
        if self._opening is not None:
            await asyncio.wait((self._opening,))
        if self._work:
            await asyncio.wait(self._work)
        await self._disposed()
        self._opening = None

    async def server(self) -> AsyncEngine:
        """Return the engine of a server's connections, opened."""
        await self._opened()
        assert self._server is not None
        return self._server

    async def file(self) -> _Threads:
        """Return the threads that read a file, opened."""
        await self._opened()
        assert self._reader is not None
        return self._reader

    # -- transactions

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self.closed:
            work.close()
            raise StoreError("the store is closed: make another")
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone

    async def _write(self, work: Callable[[Connection], T]) -> T:
        await self._opened()
        return await self._transacted(self._writer, work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        await self._opened()
        return await self._transacted(self._reader, work)

    async def _transacted(
        self, threads: _Threads | None, work: Callable[[Connection], T]
    ) -> T:
        for left in range(_TRIES - 1, -1, -1):
            try:
                if threads is not None:
                    return await threads.run(lambda: threads.transaction(work))
                assert self._server is not None
                async with self._server.begin() as connection:
                    return await connection.run_sync(work)
            except (SQLAlchemyError, OSError) as exc:
                if left and _again(exc):
                    continue
                raise self._mapped(exc) from exc
        raise AssertionError("the last try raises")

    # -- opening

    async def _opened(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise StoreError(
                "the store is used from a second event loop: make one store a loop"
            )
        if self._opening is None or (
            self._opening.done() and self._opening.exception() is not None
        ):
            self._opening = asyncio.ensure_future(self._open())
            self._opening.add_done_callback(lambda task: task.exception())
        if not self._opening.done():
            await asyncio.shield(self._opening)
        self._opening.result()

    async def _open(self) -> None:
        if self.is_sqlite:
            _check_folder(self.url)
            self._writer = _Threads(self.url, 1, writes=True)
            self._reader = _Threads(self.url, self._pool_size, writes=False)
        else:
            self._server = create_async_engine(
                self.url,
                pool_size=self._pool_size,
                max_overflow=0,
                pool_timeout=30,
                pool_pre_ping=True,
                isolation_level="READ COMMITTED",
            )
        try:
            await self._created()
        except BaseException:
            await self._disposed()
            raise

    async def _created(self) -> None:
        """Create the tables, after others that are opening the same new file.

        SQLite does not wait by itself where two connections turn WAL on at once.
        """
        loop = asyncio.get_running_loop()
        gives_up = loop.time() + _BUSY_MS / 1000
        while True:
            try:
                await self._transacted(self._writer, self._create)
            except StoreBusy:
                if loop.time() > gives_up:
                    raise
                await asyncio.sleep(_OPEN_AGAIN_S)
            else:
                return

    def _create(self, connection: Connection) -> None:
        """Create the tables, or look whether those there are ours."""
        if not self.is_sqlite:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({CREATE_LOCK})"))
        connection.execute(CreateTable(schema_info, if_not_exists=True))
        version = connection.execute(select(schema_info.c.version)).scalar()
        if version is None:
            metadata.create_all(connection)
            connection.execute(schema_info.insert().values(version=VERSION))
        elif version != VERSION:
            raise StoreSchema(
                f"{shown(self.url)} has schema version {version}, this turnpipe knows "
                f"{VERSION}: upgrade turnpipe, or give it another database"
            )

    async def _disposed(self) -> None:
        threads, self._writer, self._reader = (self._writer, self._reader), None, None
        for one in threads:
            if one is not None:
                await one.close()
        server, self._server = self._server, None
        if server is not None:
            await server.dispose()

    # -- errors

    def _mapped(self, error: BaseException) -> Exception:
        """Tell what a database's error means to the contract."""
        if isinstance(error, DurableError):
            return error
        where = shown(self.url)
        origin = error.orig if isinstance(error, DBAPIError) else error
        said = f"{origin}".strip().partition("\n")[0] or type(origin).__name__
        state = _state(origin)
        low = said.lower()
        if isinstance(error, PoolTimeout):
            return StoreBusy(f"{where}: all connections are in use: try again")
        if state in _FULL or "database or disk is full" in low:
            return StoreFull(f"{where}: no room is left ({said}): free some")
        if state in _AWAY | _AGAIN or "database is locked" in low or "busy" in low:
            return StoreBusy(f"{where} is busy ({said}): try again")
        if isinstance(error, (InterfaceError, OSError)) or "unable to open" in low:
            return StoreError(
                f"{where} cannot be reached ({said}): is it there, and may it be used?"
            )
        return StoreError(f"{where} failed ({said})")


class _Threads:
    """Connections to an SQLite file, used in threads of their own."""

    def __init__(self, url: URL, count: int, *, writes: bool) -> None:
        self.engine: Final[Engine] = create_engine(
            url,
            pool_size=count,
            max_overflow=0,
            pool_timeout=30,
            connect_args={"check_same_thread": False},
        )
        self._threads = ThreadPoolExecutor(count, "turnpipe-sqlite")

        def connected(connection: Any, _: object) -> None:
            # https://docs.sqlalchemy.org/en/20/dialects/sqlite.html: the driver shall
            # begin no transactions of its own.
            connection.isolation_level = None
            cursor = connection.cursor()
            for pragma in (
                f"busy_timeout = {_BUSY_MS}",
                *(("journal_mode = WAL",) if writes else ("query_only = ON",)),
                "synchronous = FULL",
            ):
                cursor.execute(f"PRAGMA {pragma}")
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


def parsed(url: str) -> URL:
    """Read a store's URL, and name its driver.

    Raises:
        ValueError: it is not SQLite's or PostgreSQL's, or in memory.
    """
    try:
        given = make_url(url)
    except SQLAlchemyError as exc:
        raise ValueError(
            "a store's URL is sqlite:///turns.db or postgresql://user@host/name"
        ) from exc
    backend = given.get_backend_name()
    if backend == "sqlite":
        if given.database in (None, "", ":memory:") or "mode=memory" in url:
            raise ValueError("SQLite in memory keeps nothing: use MemoryStore()")
        return given.set(drivername="sqlite+pysqlite")
    if backend in ("postgresql", "postgres"):
        return given.set(drivername="postgresql+asyncpg")
    raise ValueError(
        f"no store speaks {backend!r}: use sqlite:///turns.db or "
        f"postgresql://user@host/name"
    )


def shown(url: URL) -> str:
    """Write a URL for a message: without its password."""
    if url.get_backend_name() == "sqlite":
        return f"the SQLite file {url.database}"
    return f"the database {url.database} on {url.host or 'a socket'}"


def _check_folder(url: URL) -> None:
    folder = Path(url.database or "").absolute().parent
    if not folder.is_dir():
        raise StoreError(f"{shown(url)}: its folder does not exist: make it first")
    if not os.access(folder, os.W_OK):
        raise StoreError(f"{shown(url)}: its folder may not be written to")


def _state(error: object) -> str:
    for one in (error, getattr(error, "__cause__", None)):
        state = getattr(one, "sqlstate", None) or getattr(one, "pgcode", None)
        if isinstance(state, str):
            return state
    return ""


def _again(error: BaseException) -> bool:
    """Tell whether the transaction met another, and is whole again when repeated."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return _state(origin) in _AGAIN
