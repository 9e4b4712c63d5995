"""What a database's errors mean to the contract: the one place that tells."""

from __future__ import annotations

from typing import Final

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from operators.errors import DurableError, StoreBusy, StoreError, StoreFull

_DRIVERS: Final = frozenset({"asyncpg", "sqlite3"})

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONFLICTS: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_AWAY: Final = frozenset(
    {
        "53300",  # too many connections
        "55P03",  # a lock was not to be had
        "57P01",  # the server shuts down,
        "57P02",  # crashed,
        "57P03",  # is starting
        "25P03",  # a transaction was idle for too long
    }
)
_FULL: Final = frozenset({"53100", "53200"})  # its disk, its memory
_NOT_TEXT: Final = frozenset({"22000", "22021"})
_MENDS: Final = {
    "28000": "may this user log in there?",
    "28P01": "is the password right?",
    "3D000": "make the database first",
    "42501": "grant this user what it lacks",
    "25006": "this is a replica, or read-only: name the primary",
}

# https://www.sqlite.org/rescode.html
_SQLITE_AWAY: Final = frozenset({5, 6})  # busy, locked
_SQLITE_FULL: Final = frozenset({13})
_SQLITE_MENDS: Final = {
    8: "may this user write the file and its folder?",
    10: "is its disk well?",
    11: "the file is damaged: take a backup",
    14: "is it there, and may it be used?",
    26: "name another file: this one is something else",
}


def driven(error: BaseException) -> bool:
    """Tell whether an error is the database's or its driver's, not a caller's."""
    # The driver's own are not wrapped everywhere: not where they come from connecting.
    driver = type(error).__module__.partition(".")[0]
    return isinstance(error, (SQLAlchemyError, OSError)) or driver in _DRIVERS


def conflicted(error: BaseException) -> bool:
    """Tell whether the transaction met another, and is whole when repeated."""
    return _state(_origin(error)) in _CONFLICTS


def disconnected(error: BaseException) -> bool:
    """Tell whether the connection had ended, or ended meanwhile."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def mapped(error: BaseException, url: URL) -> Exception:
    """Tell what a database's error means; without the URL's password."""
    if isinstance(error, DurableError):
        return error
    where = shown(url)
    origin = _origin(error)
    said = _said(origin)
    state = _state(origin)
    code = getattr(origin, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, PoolTimeout):
        return StoreBusy(f"{where}: all connections are in use: try again")
    if state in _FULL or code in _SQLITE_FULL:
        return StoreFull(f"{where}: no room is left ({said}): free some")
    if state in _AWAY | _CONFLICTS or code in _SQLITE_AWAY:
        return StoreBusy(f"{where} is busy ({said}): try again")
    if state in _NOT_TEXT:
        return ValueError(f"{where} keeps no such text, NUL has no place in it: {said}")
    mend = _MENDS.get(state) or _SQLITE_MENDS.get(code)
    if mend is not None:
        return StoreError(f"{where} cannot be used ({said}): {mend}")
    if isinstance(origin, TimeoutError):
        return StoreBusy(f"{where} does not answer: try again")
    if (
        isinstance(origin, OSError)
        or state[:2] == "08"
        or disconnected(error)
        or "connect" in said
    ):
        return StoreError(
            f"{where} cannot be reached ({said}): is it there, and may it be used?"
        )
    return StoreError(f"{where} failed ({said})")


def shown(url: URL) -> str:
    """Write a URL for a message: without its password."""
    if url.get_backend_name() == "sqlite":
        return f"the SQLite file {url.database}"
    return f"the database {url.database} on {url.host or 'a socket'}"


def _origin(error: BaseException) -> BaseException:
    """Find the driver's own error."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    # What speaks to asyncpg wraps its errors once more.
    under = error.__cause__
    if under is not None and type(under).__module__.startswith("asyncpg"):
        return under
    return error


def _state(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else ""


def _said(error: BaseException) -> str:
    return f"{error}".strip().partition("\n")[0] or type(error).__name__
