"""What an operator may know of its turn, and what a turn leaves behind."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, Literal, TypeAlias

from .errors import TurnMisuse

Status: TypeAlias = Literal["completed", "failed", "cancelled"]
Provenance: TypeAlias = Literal["reported", "cumulative", "estimated"]
Log: TypeAlias = Callable[[str, Mapping[str, Any]], object]
Part: TypeAlias = dict[str, Any]

MAX_TURN_INDEX = 2**53 - 1
"""The largest integer that every JSON reader keeps (RFC 8259, section 6)."""

logger = logging.getLogger("turnpipe")


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnIdentity:
    """Who speaks, where, and the how-manieth turn it is.

    Raises:
        TypeError: an id is not a string or blank, or the index is not an integer.
        ValueError: the index is negative or beyond 2**53 - 1.
    """

    session_id: str
    turn_index: int
    tenant_id: str | None = None
    user_id: str | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("session_id", "tenant_id", "user_id"):
            value = getattr(self, name)
            if value is None and name != "session_id":
                continue
            if not isinstance(value, str) or not value.strip():
                raise TypeError(f"{name} must be a non-empty string, not {value!r}")
        if self.turn_index.__class__ is not int:
            raise TypeError(f"turn_index must be an int, not {self.turn_index!r}")
        if not 0 <= self.turn_index <= MAX_TURN_INDEX:
            raise ValueError(
                f"turn_index must be a non-negative safe integer, not {self.turn_index}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one turn. `provenance` says whether they were reported or estimated."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    provenance: Provenance = "reported"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """What `persist(save)` hands to `save`: one turn, ready to be stored.

    `text` has passed the transforms. `started_at` and `ended_at` are UNIX seconds.
    """

    identity: TurnIdentity
    execution_id: str
    status: Status
    text: str
    parts: tuple[Part, ...]
    usage: Usage | None
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOutcome:
    """How a turn ended.

    `text` is what was accumulated, `final_text` what the transforms made of it.
    `events` counts the events that left the operators, envelope excluded. Times are
    seconds from the first read; `first_event_s` is None when no event came.
    """

    status: Status
    code: str | None = None
    reason: str | None = None
    error: BaseException | None = None
    error_id: str | None = None
    text: str = ""
    final_text: str | None = None
    usage: Usage | None = None
    persisted: bool = False
    events: int = 0
    first_event_s: float | None = None
    duration_s: float = 0.0


@dataclass(slots=True)
class Ending:
    """Why a turn stops: what settlement works from.

    `drained` says that the source ran to its own end. `gone` that nobody reads any
    more.
    """

    status: Status
    drained: bool
    error: BaseException | None = None
    code: str | None = None
    reason: str | None = None
    error_id: str | None = None
    gone: bool = False


class TurnContext:
    """One turn as its operators see it.

    `request` is whatever `start` was given. `text()`, `parts()` read what has been
    accumulated so far; `produced` is the text that the source's own `final_text()`
    gave. `final_text` is set while settling. `stop(error)` ends the turn from outside
    of an `on_event`: a timer, a task; an `on_event` simply raises.
    """

    # Defaults live on the class: a turn sets only what differs.
    identity: TurnIdentity
    clock: Callable[[], float]
    text: Callable[[], str]
    parts: Callable[[], tuple[Part, ...]]
    started_at: float
    produced: str | None = None
    final_text: str | None = None
    usage: Usage | None = None
    persisted: bool = False
    ending: Ending | None = None
    stopper: Callable[[BaseException], object] | None = None
    logging: tuple[Awaitable[object], ...] = ()

    def __init__(
        self,
        identity: TurnIdentity,
        *,
        request: Any = None,
        execution_id: str = "",
        clock: Callable[[], float] | None = None,
        wait_until: Callable[[Awaitable[object]], object] | None = None,
        log_to: Log | None = None,
    ) -> None:
        """Begin a turn, now; `clock` gives monotonic seconds."""
        self.identity = identity
        self.request = request
        self.execution_id = execution_id
        self.clock = clock or monotonic
        self.wait_until = wait_until
        self.log_to = log_to
        self.text = str
        self.parts = tuple
        self.started_at = time()

    def log(
        self, message: str, error: BaseException | None = None, **meta: Any
    ) -> None:
        """Report `message` to the turn's log; never raises.

        What an async log still has to do is waited for when the turn closes.
        `error` becomes `meta["error"]`, its text. Without a log of the caller's own the
        record goes to the logger `turnpipe`, with the traceback.
        """
        if error is not None:
            meta["error"] = error_text(error)
        try:
            if self.log_to is not None:
                value = self.log_to(message, meta)
                if value is not None and inspect.isawaitable(value):
                    self.logging += (asyncio.ensure_future(_logged(value, message)),)
            else:
                logger.warning("%s %s", message, meta, exc_info=error)
        except Exception:
            _log_raised(message)

    def stop(self, error: BaseException) -> None:
        """End the turn as failed with `error`, at the next chance."""
        if self.stopper is None:
            raise TurnMisuse(
                "stop() works while a turn is read; raise from on_event instead"
            )
        self.stopper(error)

    def record(self) -> TurnRecord:
        """Make the record of this turn as it stands."""
        ending = self.ending
        text = self.final_text
        return TurnRecord(
            identity=self.identity,
            execution_id=self.execution_id,
            status="completed" if ending is None else ending.status,
            text=self.text() if text is None else text,
            parts=self.parts(),
            usage=self.usage,
            started_at=self.started_at,
            ended_at=time(),
        )


async def _logged(pending: Awaitable[object], message: str) -> None:
    try:
        await pending
    except Exception:
        _log_raised(message)


def _log_raised(message: str) -> None:
    logger.exception("the turn's log raised while logging %r", message)


def error_text(error: BaseException) -> str:
    """Tell an error's message without ever raising."""
    try:
        return str(error)
    except Exception:  # a broken __str__ must not fail the turn a second time
        return type(error).__name__
