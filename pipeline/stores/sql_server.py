"""Transactions on a PostgreSQL server, and hearing what it notifies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

    from .sql_files import Way

T = TypeVar("T")

_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 30.0
"""How long a statement may take: beyond it, the server is held for gone."""

_FRESH_S: Final = 1.0
"""How long a connection is trusted after it was used, without a ping."""

# A worker that is stopped in the middle of a transaction holds locks that others wait
# for: the server ends it. And what was acknowledged is on the disk, whatever the
# server's default is.
_SETTINGS: Final = """
SELECT set_config('idle_in_transaction_session_timeout', '5000', false),
       set_config('synchronous_commit',
                  CASE current_setting('synchronous_commit')
                  WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
                  false)
"""


class Server:
    """A pool of connections to a server, one transaction each at a time."""

    def __init__(self, url: URL, *, size: int, prepared: bool) -> None:
        """Connect when first used; without `prepared` as poolers between need it."""
        self._url = url
        options: dict[str, Any] = {
            "hide_parameters": True,
            "isolation_level": "READ COMMITTED",
        }
        self._connect_args: dict[str, Any] = {
            "timeout": _CONNECT_S,
            "command_timeout": _ANSWER_S,
        }
        if not prepared:
            # https://docs.sqlalchemy.org/en/20/dialects/postgresql.html: names that no
            # other client of the pooler has.
            self._connect_args |= {
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: f"turnpipe_{uuid4().hex}",
            }
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=size,
            max_overflow=0,
            pool_timeout=30,
            connect_args=self._connect_args,
            **options,
        )
        _prepare(self._engine)
        self._ways: dict[Way, AsyncEngine] = {
            "write": self._engine,
            "read": self._engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            ),
            "look": self._engine.execution_options(isolation_level="AUTOCOMMIT"),
        }

    async def run(self, way: Way, work: Callable[[Connection], T]) -> T:
        """Run `work` as one transaction; a lone statement needs none around it."""

        def begun(connection: Connection) -> T:
            transaction = connection.begin()
            try:
                result = work(connection)
                transaction.commit()
            except BaseException as exc:
                if isinstance(exc, TimeoutError):
                    connection.invalidate()  # nothing more is heard on it
                transaction.rollback()
                raise
            return result

        async with self._ways[way].connect() as connection:
            return await connection.run_sync(begun)

    @asynccontextmanager
    async def listening(
        self, channel: str, heard: Callable[[str], None]
    ) -> AsyncGenerator[asyncio.Event]:
        """Listen to a channel, on a connection of its own; the event says that it broke."""
        engine = create_async_engine(
            self._url, poolclass=NullPool, connect_args=self._connect_args
        )
        gone = asyncio.Event()

        def ended(_: object) -> None:
            gone.set()

        def notified(_c: object, _pid: int, _channel: str, payload: str) -> None:
            heard(payload)

        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            driver.add_termination_listener(ended)
            await driver.add_listener(channel, notified)
            try:
                yield gone
            finally:
                driver.remove_termination_listener(ended)
                with suppress(Exception):
                    await driver.remove_listener(channel, notified)

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def _prepare(engine: AsyncEngine) -> None:
    """Set up connections when they are made, and look at those that lay idle."""

    def connected(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(_SETTINGS)
        cursor.close()
        connection.commit()

    def given_back(_: object, record: Any) -> None:
        record.info["used"] = time.monotonic()

    def taken(connection: Any, record: Any, _: object) -> None:
        used = record.info.get("used")
        if used is None or time.monotonic() - used < _FRESH_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except Exception as exc:
            raise InvalidatePoolError from exc

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "checkin", given_back)
    event.listen(engine.sync_engine, "checkout", taken)
