"""How long a source waits, and how often it tries again."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import uniform
from time import monotonic
from typing import Final, TypeVar

from operators.deadline import Deadline, is_seconds
from operators.errors import SourceError, SourceStatus, SourceTimeout, SourceUnreachable

T = TypeVar("T")

RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
JITTER: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Limits in seconds, None for none; `attempts` counts the first one too.

    `retried`: the HTTP statuses that another attempt may mend.

    Raises:
        ValueError: a limit is not a positive number, or there is no attempt.
    """

    first_event: float | None = 60.0
    idle: float | None = 60.0
    total: float | None = None
    connect: float | None = 10.0
    attempts: int = 3
    backoff: float = 0.5
    backoff_max: float = 8.0
    retried: frozenset[int] = RETRIED

    def __post_init__(self) -> None:
        """Check every limit."""
        for name in ("first_event", "idle", "total", "connect"):
            limit = getattr(self, name)
            if limit is not None and not is_seconds(limit):
                raise ValueError(
                    f"{name}={limit!r}: give a positive number of seconds, or None"
                )
        for name in ("backoff", "backoff_max"):
            pause = getattr(self, name)
            if not is_seconds(pause):
                raise ValueError(f"{name}={pause!r}: give a positive number of seconds")
        if type(self.attempts) is not int or self.attempts < 1:
            raise ValueError(f"attempts={self.attempts!r}: give 1 or more")

    def pause(self, attempt: int, error: SourceError) -> float | None:
        """Tell the seconds to wait after attempt number `attempt`; None: give up.

        They double from `backoff` up to `backoff_max`, give or take a quarter, and are
        never less than what the provider asked for in `Retry-After`.
        """
        if attempt >= self.attempts:
            return None
        asked = 0.0
        if isinstance(error, SourceStatus):
            if error.status not in self.retried:
                return None
            asked = error.retry_after or 0.0
        elif not isinstance(error, SourceUnreachable):
            return None
        doubled = min(self.backoff * 2.0 ** min(attempt - 1, 60), self.backoff_max)
        return max(asked, doubled * uniform(1 - JITTER, 1 + JITTER))


class Waiting:
    """The deadlines of one turn's exchange, put around each of its waits alone.

    `first_event` runs from the beginning, through all attempts, to the first record.
    `idle` runs while the source waits for the next one; a reader's own time does not
    count, and a ping neither stops nor restarts it. `total` runs from the beginning.
    """

    __slots__ = ("_at", "_ends", "_limit", "_patience", "_phase", "_timer")

    def __init__(self, patience: Patience) -> None:
        """Begin to wait for the first event."""
        self._patience = patience
        self._timer = Deadline(monotonic)
        self._ends = monotonic() + (patience.total or math.inf)
        self._begin("first_event", patience.first_event)

    def progress(self) -> None:
        """Begin to wait for the next event: there has been one."""
        self._begin("idle", self._patience.idle)

    async def wait(self, begin: Callable[[], Awaitable[T]]) -> T:
        """Await what `begin` begins; it is interrupted when a deadline passes.

        Raises:
            SourceTimeout: one has passed.
        """
        now = monotonic()
        if now >= self._at:
            raise SourceTimeout(self._phase, self._limit)
        self._timer.begin(self._at, now)
        try:
            value = await begin()
        except BaseException as error:
            if self._timer.end():
                raise SourceTimeout(self._phase, self._limit) from error
            raise
        if self._timer.end():
            raise SourceTimeout(self._phase, self._limit)
        return value

    def allows(self, seconds: float) -> bool:
        """Tell whether a pause of `seconds` ends before the deadline."""
        return monotonic() + seconds < self._at

    def close(self) -> None:
        """Drop the timer."""
        self._timer.close()

    def _begin(self, phase: str, limit: float | None) -> None:
        at = monotonic() + (limit or math.inf)
        if at <= self._ends:
            self._phase, self._limit, self._at = phase, limit or 0.0, at
        else:
            self._phase, self._limit = "total", self._patience.total or 0.0
            self._at = self._ends


def retry_after(value: str | None) -> float | None:
    """Read a `Retry-After` header: seconds or an HTTP date (RFC 9110, 10.2.3).

    What is neither counts as absent; a date that has passed as 0.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
