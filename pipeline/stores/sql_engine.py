"""How a SqlStore reaches its database: opening, transactions, trying again.

SQLite and PostgreSQL differ here, and in `sql_files` and `sql_server`, nowhere else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, Double, inspect, literal_column, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from operators.errors import StoreBusy, StoreError, StoreSchema

from .sql_errors import conflicted, disconnected, driven, mapped, shown
from .sql_files import Files, Way
from .sql_schema import VERSION, metadata, schema_info
from .sql_server import Server

T = TypeVar("T")

_BUSY_MS: Final = 5_000
_TRIES: Final = 8
_PAUSE_S: Final = 0.01

_SQLITE_NOW: Final = "((julianday('now') - 2440587.5) * 86400.0)"
_POSTGRES_NOW: Final = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)"

CREATE_LOCK: Final = 0x7475726E  # any number: it names our advisory lock


class Engine(Protocol):
    """What runs transactions: a file's threads, or a server's connections."""

    async def run(self, way: Way, work: Callable[[Connection], T]) -> T:
        """Run `work` as one transaction."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


class Database:
    """One database, and whole transactions in tasks of their own.

    A caller that is cancelled leaves its transaction to end by itself, so no connection
    is returned to the pool in the middle of one.
    """

    def __init__(self, url: str, *, pool_size: int, prepared: bool = True) -> None:
        """Read the URL; nothing is opened."""
        if pool_size < 1:
            raise ValueError(f"pool_size must be 1 or more, not {pool_size}")
        self.url: Final = parsed(url)
        self.is_sqlite: Final = self.url.get_backend_name() == "sqlite"
        now = _SQLITE_NOW if self.is_sqlite else _POSTGRES_NOW
        self.now: Final = literal_column(now, Double)
        self._pool_size = pool_size
        self._prepared = prepared
        self._engine: Files | Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._left: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` as one transaction that may write, again where it met another.

        Raises:
            StoreError: the database could not; it may have happened all the same. Or as
                `work` raises.
        """
        return await self.whole(self._transacted("write", work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` as one transaction that reads, all of it as of one moment."""
        return await self.whole(self._transacted("read", work))

    async def look(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which is one statement that reads."""
        return await self.whole(self._transacted("look", work))

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Do all of it, also where the caller is cancelled meanwhile.

        What is asked later waits for what such a caller left: it does not happen after.

        Raises:
            StoreError: the store is closed. Or as `work` raises.
        """
        if asyncio.current_task() in self._work:
            return await work
        try:
            while self._left:
                await asyncio.wait(self._left)
            if self.closed:
                raise StoreError("the store is closed: make another")
        except BaseException:
            work.close()
            raise
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                self._left.add(task)
            raise

    async def close(self) -> None:
        """End what is under way, then let go of all connections."""
        self.closed = True
        if self._opening is not None:
            await asyncio.wait((self._opening,))
        while self._work:
            await asyncio.wait(self._work)
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
        self._opening = None

    async def server(self) -> Server:
        """Return the server, opened."""
        await self._open()
        assert isinstance(self._engine, Server)
        return self._engine

    async def files(self) -> Files:
        """Return the file, opened."""
        await self._open()
        assert isinstance(self._engine, Files)
        return self._engine

    # -- transactions

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone

    async def _transacted(self, way: Way, work: Callable[[Connection], T]) -> T:
        await self._open()
        assert self._engine is not None
        return await self._tried(self._engine, way, work)

    async def _tried(
        self, engine: Engine, way: Way, work: Callable[[Connection], T]
    ) -> T:
        for tried in range(_TRIES):
            worked = False

            def working(connection: Connection) -> T:
                nonlocal worked
                result = work(connection)
                worked = True
                return result

            try:
                result = await engine.run(way, working)
            except Exception as exc:
                if not driven(exc):
                    raise
                # Before its commit was asked for, a transaction that ends is undone.
                lost = disconnected(exc) and (way != "write" or not worked)
                if tried + 1 < _TRIES and (conflicted(exc) or lost):
                    await asyncio.sleep(_PAUSE_S * tried * random.random())
                    continue
                raise mapped(exc, self.url) from exc
            return result
        raise AssertionError("the last try returns or raises")

    # -- opening

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise StoreError(
                "the store is used from a second event loop: make one store a loop"
            )
        opening = self._opening
        if opening is None or (
            opening.done() and (opening.cancelled() or opening.exception() is not None)
        ):
            opening = self._opening = asyncio.ensure_future(self._made())
            opening.add_done_callback(_looked_at)
        if not opening.done():
            await asyncio.shield(opening)
        opening.result()

    async def _made(self) -> None:
        engine: Files | Server
        if self.is_sqlite:
            engine = Files(self.url, readers=self._pool_size, busy_ms=_BUSY_MS)
        else:
            engine = Server(self.url, size=self._pool_size, prepared=self._prepared)
        try:
            await self._created(engine)
        except BaseException:
            await engine.close()
            raise
        self._engine = engine

    async def _created(self, engine: Engine) -> None:
        """Create the tables, after others that are opening the same new file.

        SQLite does not wait by itself where two connections turn WAL on at once.
        """
        loop = asyncio.get_running_loop()
        gives_up = loop.time() + _BUSY_MS / 1000
        while True:
            try:
                # Most often they are there, and nothing has to be written or locked.
                if not await self._tried(engine, "write", self._known):
                    await self._tried(engine, "write", self._create)
            except StoreBusy:
                if loop.time() > gives_up:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    def _known(self, connection: Connection) -> bool:
        """Look whether the tables are there, and ours."""
        if not inspect(connection).has_table(schema_info.name):
            return False
        version = connection.execute(select(schema_info.c.version)).scalar()
        if version is not None and version != VERSION:
            mend = "upgrade turnpipe" if version > VERSION else "move its runs over"
            raise StoreSchema(
                f"{shown(self.url)} has schema version {version}, this turnpipe knows "
                f"{VERSION}: {mend}, or give it another database"
            )
        return version is not None

    def _create(self, connection: Connection) -> None:
        """Create the tables, where nobody else has meanwhile."""
        if not self.is_sqlite:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({CREATE_LOCK})"))
        if self._known(connection):
            return
        metadata.create_all(connection)
        connection.execute(schema_info.insert().values(version=VERSION))


def parsed(url: str) -> URL:
    """Read a store's URL, and name its driver.

    Raises:
        ValueError: it is not SQLite's or PostgreSQL's, or in memory.
    """
    try:
        given = make_url(url)
    except SQLAlchemyError:
        # Without what was given: it may hold a password.
        raise ValueError(
            "a store's URL is sqlite:///turns.db or postgresql://user@host/name"
        ) from None
    backend = given.get_backend_name()
    if backend == "sqlite":
        if given.database in (None, "", ":memory:") or "mode=memory" in url:
            raise ValueError("SQLite in memory keeps nothing: use MemoryStore()")
        if str(given.database).startswith("file:"):
            raise ValueError("name the SQLite file by its path: sqlite:///turns.db")
        return given.set(drivername="sqlite+pysqlite")
    if backend in ("postgresql", "postgres"):
        return given.set(drivername="postgresql+asyncpg")
    raise ValueError(
        f"no store speaks {backend!r}: use sqlite:///turns.db or "
        f"postgresql://user@host/name"
    )


def _looked_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
