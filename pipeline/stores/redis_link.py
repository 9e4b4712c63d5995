"""How a RedisLog reaches its server: connections, scripts, errors.

The one place that knows redis-py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, RedisCluster
from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import TimeoutError as Unanswered

from operators.errors import DurableError, StoreBusy, StoreError, StoreFull

from .redis_lua import Script

T = TypeVar("T")
Arg: TypeAlias = bytes | str | int

_CONNECT_S: Final = 5.0
_FIRST_PAUSE_S: Final = 0.01
_MOST_PAUSE_S: Final = 0.25

_AWAY: Final = (Unreachable, Unanswered, TimeoutError, OSError)

_REFUSED: Final = (AuthenticationError, AuthorizationError, NoPermissionError)
_NOT_READY: Final = (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    TryAgainError,
)
# First words of errors that redis-py has no class for.
_NOT_READY_WORDS: Final = ("BUSY ", "MISCONF ", "NOREPLICAS ")


class Call(NamedTuple):
    """One script, for one run where there are slots."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Arg]


class Link:
    """One server, or cluster, behind a bounded pool of connections.

    Calls run in tasks of their own: a caller that is cancelled leaves its call to end by
    itself, so no connection is returned to the pool with half an answer in it. What is
    sent may be sent twice, when a connection breaks before its answer: scripts are
    written so.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        timeout: float,
        patience: float,
        cluster: bool,
    ) -> None:
        """Read the URL; nothing is opened."""
        self._options = _options(url)
        self._secret = self._options.get("password")
        self._connections = connections
        self._timeout = timeout
        self._patience = patience
        self.is_cluster: Final = cluster
        self._pool: BlockingConnectionPool | None = None
        self._cluster: RedisCluster | None = None
        self._room = asyncio.Semaphore(connections)
        self._work: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._checked = False
        self.closed = False
        place = self._options.get("path") or (
            f"{self._options.get('host', 'localhost')}:{self._options.get('port', 6379)}"
        )
        self.where: Final = f"the Redis or Valkey server at {place}"

    async def call(self, calls: Sequence[Call]) -> list[Any]:
        """Run the scripts, all sent before the first answer; return their answers.

        Raises:
            StoreError: the server could not be reached, or one of them failed; of the
                others it is not known then whether they ran.
        """
        return await self._seen_through(self._patiently(calls))

    async def listener(self) -> Connection:
        """Open a connection beside the pool, to subscribe on; it is the caller's."""
        self._check_loop()
        try:
            return await self._listening()
        except (*_AWAY, RedisError) as exc:
            raise self.mapped(exc) from exc

    async def close(self) -> None:
        """End what is under way, then let go of all connections."""
        self.closed = True
        if self._work:
            await asyncio.wait(self._work)
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.aclose()

    def mapped(self, error: BaseException) -> Exception:
        """Tell what an error of the server's means to the contract."""
        if isinstance(error, DurableError):
            return error
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        if self._secret:
            said = said.replace(str(self._secret), "***")
        if isinstance(error, _REFUSED) or said.startswith(("NOAUTH ", "NOPERM ")):
            return StoreError(
                f"{self.where} does not let us in ({said}): see the URL's user and "
                f"password, and the rights that RedisLog names"
            )
        moved = isinstance(error, (AskError, ClusterCrossSlotError))  # MOVED is an ASK
        if moved or said.startswith(("MOVED ", "ASK ")):  # redis-py 5 has them so
            return StoreError(
                f"{self.where} is of a cluster ({said}): give cluster=True"
            )
        full = isinstance(error, OutOfMemoryError) or said.startswith("OOM ")
        if full or "No space left" in said:
            return StoreFull(
                f"{self.where} has no room left ({said}): raise maxmemory, or free some"
            )
        if "No connection available" in said or "max number of clients" in said:
            return StoreBusy(f"{self.where}: all connections are in use: try again")
        if isinstance(error, _NOT_READY) or said.startswith(_NOT_READY_WORDS):
            return StoreBusy(f"{self.where} is not ready ({said}): try again")
        if isinstance(error, (Unanswered, TimeoutError)):
            return StoreBusy(f"{self.where} did not answer in time: try again")
        if isinstance(error, _AWAY):
            return StoreError(f"{self.where} cannot be reached ({said}): is it there?")
        return StoreError(f"{self.where} failed ({said})")

    # -- calls

    async def _seen_through(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._check_loop()
        except StoreError:
            work.close()
            raise
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self.closed:
            raise StoreError("the log is closed: make another")
        if self._loop is not loop:
            raise StoreError(
                "the log is used from a second event loop: make one log a loop"
            )

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone

    async def _patiently(self, calls: Sequence[Call]) -> list[Any]:
        loop = asyncio.get_running_loop()
        gives_up = loop.time() + self._patience
        pause = 0.0
        while True:
            try:
                answers = await self._answers(calls)
                break
            except _REFUSED as exc:
                raise self.mapped(exc) from exc
            except _AWAY as exc:
                full = "No connection available" in str(exc)
                if full or self.closed or loop.time() + pause > gives_up:
                    raise self.mapped(exc) from exc
            except RedisError as exc:
                raise self.mapped(exc) from exc
            await asyncio.sleep(pause)
            pause = min(max(pause * 2, _FIRST_PAUSE_S), _MOST_PAUSE_S)
        for answer in answers:
            if isinstance(answer, Exception):
                raise self.mapped(answer) from answer
        return answers

    async def _answers(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts by their names; those that the server has not, by their text."""
        if self.is_cluster:
            return await asyncio.gather(*(self._routed(call) for call in calls))
        pool = self._pool
        if pool is None:
            pool = self._pool = BlockingConnectionPool(
                max_connections=self._connections,
                timeout=self._timeout,
                **self._options,
            )
        # Connecting reads, too, after redis-py's own timeout for it.
        async with asyncio.timeout(2 * self._timeout):
            connection: Any = await cast("Any", pool).get_connection()
        try:
            async with asyncio.timeout(self._timeout):
                if not self._checked:
                    await self._check(connection)
                answers = await _exchanged(connection, [_named(one) for one in calls])
                unknown = [
                    k
                    for k, answer in enumerate(answers)
                    if isinstance(answer, NoScriptError)
                ]
                if unknown:
                    sent: set[bytes] = set()
                    again: list[list[Arg]] = []
                    for k in unknown:
                        script = calls[k].script
                        known = script.sha in sent
                        again.append((_named if known else _spelt)(calls[k]))
                        sent.add(script.sha)
                    found = await _exchanged(connection, again)
                    for k, answer in zip(unknown, found, strict=True):
                        answers[k] = answer
                return answers
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    async def _check(self, connection: Any) -> None:
        """Refuse a server that may throw away what is not stored elsewhere yet."""
        (answer,) = await _exchanged(connection, [["INFO", "memory"]])
        if isinstance(answer, bytes):
            facts = {
                name: value
                for line in answer.decode().splitlines()
                for name, _, value in (line.partition(":"),)
            }
            policy = facts.get("maxmemory_policy", "noeviction")
            if facts.get("maxmemory", "0") != "0" and policy != "noeviction":
                raise StoreError(
                    f"{self.where} may evict lines that are nowhere else "
                    f"(maxmemory-policy {policy}): set it to noeviction, or use a "
                    f"server of its own"
                )
        self._checked = True

    async def _routed(self, call: Call) -> Any:
        """Run one script on the cluster's node that has its slot."""
        cluster = self._nodes()
        async with self._room, asyncio.timeout(self._timeout):
            try:
                return await cluster.execute_command(*_named(call))
            except NoScriptError:
                pass
            except ResponseError as exc:
                return exc
            try:
                return await cluster.execute_command(*_spelt(call))
            except ResponseError as exc:
                return exc

    async def _listening(self) -> Connection:
        options = dict(self._options)
        if self.is_cluster:
            cluster = self._nodes()
            await cluster.initialize()
            node = cluster.get_random_node()
            options |= {"host": node.host, "port": node.port}
            options.pop("db", None)
        kind: Any = options.pop("connection_class", Connection)
        connection = kind(**options)
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return cast("Connection", connection)

    def _nodes(self) -> Any:
        if self._cluster is None:
            options = dict(self._options)
            options.pop("db", None)
            self._cluster = RedisCluster(**options)
        return self._cluster


async def _exchanged(connection: Any, commands: Sequence[Sequence[Arg]]) -> list[Any]:
    """Send commands, then read their answers; an error is an answer."""
    await connection.send_packed_command(_packed(commands), check_health=False)
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await connection.read_response())
        except ResponseError as exc:
            answers.append(exc)
    return answers


def _packed(commands: Sequence[Sequence[Arg]]) -> bytes:
    """Write commands as the protocol has them.

    https://redis.io/docs/latest/develop/reference/protocol-spec/#sending-commands-to-a-redis-server
    """
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for arg in command:
            if isinstance(arg, bytes):
                data = arg
            elif isinstance(arg, str):
                data = arg.encode()
            else:
                data = b"%d" % arg
            parts += (b"$%d\r\n" % len(data), data, b"\r\n")
    return b"".join(parts)


def _named(call: Call) -> list[Arg]:
    return ["EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args]


def _spelt(call: Call) -> list[Arg]:
    return ["EVAL", call.script.text, len(call.keys), *call.keys, *call.args]


def _options(url: str) -> dict[str, Any]:
    """Read a URL into a connection's options; ours go before its own.

    Raises:
        ValueError: it is not of Redis' kind. The message does not repeat it.
    """
    given: dict[str, Any] | None = None
    with suppress(ValueError):
        given = dict(cast("dict[str, Any]", parse_url(url)))
    if given is None:  # outside of the except: a cause could show the password
        raise ValueError(
            "a log's URL is redis://user:password@host:6379/0, rediss:// with TLS, or "
            "unix:///path/to/socket; a password's /, @, : and # are percent-encoded"
        )
    for name in ("max_connections", "timeout"):
        given.pop(name, None)
    # Answers are bytes, and deadlines are around whole exchanges, not single reads.
    return given | {
        "protocol": 2,
        "decode_responses": False,
        "socket_timeout": None,
        "socket_connect_timeout": given.get("socket_connect_timeout", _CONNECT_S),
        "socket_keepalive": True,
        "health_check_interval": 0,
    }
