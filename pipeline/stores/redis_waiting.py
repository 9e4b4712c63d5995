"""Waiting for a run of a RedisLog to grow: one connection, which is told of each append.

Publish and subscribe, not a blocking XREAD: that has to be interrupted and sent again,
with every run in it, whenever one of them has grown or another reader comes, brings the
data along that a read will bring again, and cannot span a cluster's slots.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError

from operators.errors import StoreError

if TYPE_CHECKING:
    from redis.asyncio.connection import Connection

Ticket: TypeAlias = "tuple[asyncio.Future[None], int]"
Look: TypeAlias = Callable[[list[str]], Awaitable[list[tuple[int, bool] | None]]]

_PING_S: Final = 5.0
_LINGER_S: Final = 10.0
"""How long a run without readers is listened to: readers come back after each page."""
_FIRST_PAUSE_S: Final = 0.02
_MOST_PAUSE_S: Final = 1.0


@dataclass(slots=True, eq=False)
class _Heard:
    """What is known of one run, for those who wait for it.

    `lines` and `closed` hold from when the subscription was confirmed and the run looked
    at after that (`sure`): whatever comes later is told.
    """

    tickets: set[Ticket] = field(default_factory=set["Ticket"])
    lines: int = -1
    closed: bool = False
    subscribed: bool = False
    sure: bool = False
    told: int = 0
    idle_since: float = 0.0


class Waiting:
    """Who waits for which run, and one task that listens while somebody does."""

    def __init__(
        self,
        listener: Callable[[], Awaitable[Connection]],
        look: Look,
        *,
        channel: Callable[[str], str],
    ) -> None:
        """Listen on what `listener` opens; `look` tells how runs stand."""
        self._listener = listener
        self._look = look
        self._channel = channel
        self._runs: dict[str, _Heard] = {}
        self._names: dict[bytes, str] = {}
        self._unasked: set[str] = set()
        self._unlooked: set[str] = set()
        self._connection: Connection | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    async def wait(self, run_id: str, *, after: int, limit_s: float) -> None:
        """Wait until the run has grown past `after`, or closed, or for so long."""
        if self._closed:
            return
        heard = self._runs.get(run_id)
        if heard is None:
            heard = self._runs[run_id] = _Heard()
            self._names[self._channel(run_id).encode()] = run_id
            self._unasked.add(run_id)
        if heard.sure and (heard.closed or heard.lines > after):
            return
        ticket: Ticket = (asyncio.get_running_loop().create_future(), after)
        heard.tickets.add(ticket)
        self._run("listen", self._listen)
        if not heard.subscribed:
            self._run("subscribe", self._subscribe)
        elif not heard.sure:
            self._unlooked.add(run_id)
            self._run("look", self._look_at)
        try:
            await asyncio.wait((ticket[0],), timeout=limit_s)
        finally:
            heard.tickets.discard(ticket)
            if not heard.tickets:
                heard.idle_since = asyncio.get_running_loop().time()

    def tell(self, run_id: str, *, lines: int | None = None) -> None:
        """Tell who waits here that a run has so many lines; that it closed, without."""
        heard = self._runs.get(run_id)
        if heard is None:
            return
        heard.told += 1
        if lines is None:
            heard.closed = True
        else:
            heard.lines, heard.closed = lines, False
        _wake(heard)

    async def close(self) -> None:
        """End all waits."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._tasks.clear()
        _wake_all(self._runs.values())

    # -- one task of each kind

    def _run(self, name: str, work: Callable[[], Any]) -> None:
        task = self._tasks.get(name)
        if not self._closed and (task is None or task.done()):
            self._tasks[name] = asyncio.create_task(work(), name=f"turnpipe log {name}")

    async def _listen(self) -> None:
        """Hear of what is appended; whatever was missed while away is looked at."""
        pause = _FIRST_PAUSE_S
        while self._runs:
            try:
                connection = await self._listener()
                try:
                    pause = _FIRST_PAUSE_S
                    await self._hear(connection)
                finally:
                    self._connection = None
                    for heard in self._runs.values():
                        heard.subscribed = heard.sure = False
                    _wake_all(self._runs.values())
                    await connection.disconnect(nowait=True)
            except (RedisError, OSError, StoreError):
                pass
            self._forget_idle(0.0)
            if self._runs:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _MOST_PAUSE_S)

    async def _hear(self, connection: Any) -> None:
        loop = asyncio.get_running_loop()
        self._connection = connection
        self._unasked = set(self._runs)
        await self._subscribe()
        heard_at = swept_at = pinged_at = loop.time()
        while self._runs:
            # A read that times out keeps what came of a message so far.
            answer = await connection.read_response(
                timeout=_PING_S, disconnect_on_error=False
            )
            now = loop.time()
            if answer is not None:
                heard_at = now
                self._take(answer)
            elif pinged_at > heard_at:
                raise Unreachable("no answer to a ping")
            else:
                pinged_at = now
                await connection.send_command("PING", check_health=False)
            if now - swept_at >= _PING_S:
                swept_at = now
                gone = self._forget_idle(_LINGER_S)
                if gone and self._runs:
                    await connection.send_command(
                        "UNSUBSCRIBE", *gone, check_health=False
                    )

    def _take(self, answer: Any) -> None:
        kind, name = answer[0], self._names.get(answer[1])
        if name is None:
            return
        if kind == b"message":
            said = answer[2]
            self.tell(name, lines=None if said == b"closed" else int(said))
        elif kind == b"subscribe":
            self._runs[name].subscribed = True
            self._unlooked.add(name)
            self._run("look", self._look_at)

    async def _subscribe(self) -> None:
        """Ask to be told of the runs that are new."""
        while self._unasked:
            connection = self._connection
            if connection is None or not connection.is_connected:
                return  # the listener asks for all of them when it is back
            names = [self._unasked.pop() for _ in range(min(len(self._unasked), 500))]
            with suppress(RedisError, OSError):  # the listener meets it too
                await connection.send_command(
                    "SUBSCRIBE", *map(self._channel, names), check_health=False
                )

    async def _look_at(self) -> None:
        """See how runs stand, now that nothing of them can be missed any more."""
        while self._unlooked:
            names = [name for name in self._unlooked if name in self._runs]
            self._unlooked.clear()
            runs = [self._runs[name] for name in names]
            told = [heard.told for heard in runs]
            try:
                found = await self._look(names)
            except StoreError:
                _wake_all(runs)
                return
            for heard, before, one in zip(runs, told, found, strict=True):
                if heard.told == before and one is not None:
                    heard.lines, heard.closed = one
                heard.sure = True
                _wake(heard)

    def _forget_idle(self, linger_s: float) -> list[str]:
        """Forget the runs that nobody has waited for lately; return their channels."""
        now = asyncio.get_running_loop().time()
        gone = [
            run_id
            for run_id, heard in self._runs.items()
            if not heard.tickets and now - heard.idle_since >= linger_s
        ]
        channels = [self._channel(run_id) for run_id in gone]
        for run_id, channel in zip(gone, channels, strict=True):
            del self._runs[run_id]
            del self._names[channel.encode()]
            self._unasked.discard(run_id)
        return channels


def _wake(heard: _Heard) -> None:
    for future, after in heard.tickets:
        if (heard.closed or heard.lines > after) and not future.done():
            future.set_result(None)


def _wake_all(runs: Iterable[_Heard]) -> None:
    for heard in runs:
        for future, _ in heard.tickets:
            if not future.done():
                future.set_result(None)
