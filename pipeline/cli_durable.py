"""`turnpipe status, attach, tail, cancel`: a turn of a store, from another terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from operators.errors import DurableError

from .cli_run import BadUsageError

if TYPE_CHECKING:
    from .durable import TurnHub
    from .stores import Store

_EXIT: Final = {"completed": 0, "running": 0, "failed": 1, "lost": 1, "cancelled": 130}
_LEFT: Final = 130


class Where(NamedTuple):
    """Where turns are kept: a database, and the log beside it, if it has one."""

    db: str
    log: str | None = None

    def opened(self) -> Store:
        """Make the store."""
        from .stores import RedisLog, SqlStore

        log = None if self.log is None else RedisLog(self.log)
        return SqlStore(store_url(self.db), log=log)


def status(where: Where, execution_id: str) -> int:
    """Print how a turn stands, as one JSON object; the exit code tells too."""

    async def ask(hub: TurnHub) -> int:
        found = await hub.status(execution_id)
        shown = {
            "executionId": found.execution_id,
            "sessionId": found.session_id,
            "status": found.status,
            "cursor": found.cursor,
            "owner": found.owner,
            "errorCode": found.error_code,
            "cancelReason": found.cancel_reason,
            "startedAt": _time(found.started_at),
            "updatedAt": _time(found.updated_at),
            "endedAt": None if found.ended_at is None else _time(found.ended_at),
        }
        print(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
        return _EXIT[found.status]

    return _asked(where, ask)


def cancel(where: Where, execution_id: str, reason: str) -> int:
    """Ask a turn to stop, and wait until it has."""

    async def ask(hub: TurnHub) -> int:
        if not await hub.cancel(execution_id, reason):
            _say(f"{execution_id} had ended before")
            return 1
        outcome = await hub.attach(execution_id).outcome()
        _say(f"{execution_id} is {outcome.status}")
        return 0

    return _asked(where, ask)


def attach(where: Where, execution_id: str, after: int) -> int:
    """Print a turn's lines after a cursor until it ends; leaving does not end it."""

    async def ask(hub: TurnHub) -> int:
        cursor = after
        turn = hub.attach(execution_id, after)
        try:
            async for chunk in turn.body():
                sys.stdout.buffer.write(chunk)
                sys.stdout.flush()
                cursor += chunk.count(b"\n")
        except asyncio.CancelledError:
            _say(f"left after line {cursor}: go on with --after {cursor}")
            raise
        found = await hub.status(execution_id)
        _say(f"{execution_id} {found.status}, {found.cursor} lines")
        return _EXIT[found.status]

    return _asked(where, ask)


def tail(where: Where, execution_id: str, lines: int) -> int:
    """Print a turn's last lines, and go on until it ends."""

    async def ask(hub: TurnHub) -> int:
        return max((await hub.status(execution_id)).cursor - lines, 0)

    found = _asked(where, ask, failed=-1)
    return 1 if found < 0 else attach(where, execution_id, found)


def _asked(
    where: Where, ask: Callable[[TurnHub], Awaitable[int]], *, failed: int = 1
) -> int:
    async def work() -> int:
        from .durable import TurnHub

        async with TurnHub(where.opened()) as hub:
            return await ask(hub)

    try:
        return asyncio.run(work())
    except (DurableError, ValueError) as error:
        _say(str(error))
        return failed
    except KeyboardInterrupt:
        return _LEFT


def store_url(db: str) -> str:
    """Take a path for an SQLite file that must be there.

    Raises:
        BadUsageError: there is no such file.
    """
    if "://" in db:
        return db
    path = Path(db)
    if not path.is_file():
        raise BadUsageError(
            f"--db {db}: there is no such file; give one, or a URL such as "
            f"postgresql://user@host/name"
        )
    return f"sqlite:///{path.absolute()}"


def _time(seconds: float) -> str:
    return (
        datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")
    )


def _say(message: str) -> None:
    print(f"turnpipe: {message}", file=sys.stderr)
