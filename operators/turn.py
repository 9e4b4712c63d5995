"""What an operator may know of its turn, and what a turn leaves behind."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from .errors import TurnMisuse

if TYPE_CHECKING:
    from decimal import Decimal

Status: TypeAlias = Literal["completed", "failed", "cancelled"]
RecordStatus: TypeAlias = Literal["streaming", "completed", "failed", "cancelled"]
Provenance: TypeAlias = Literal["reported", "cumulative", "estimated"]
Log: TypeAlias = Callable[[str, Mapping[str, Any]], object]
Part: TypeAlias = dict[str, Any]
Parts: TypeAlias = tuple[Part, ...]
Rewrite: TypeAlias = Callable[
    ["TurnContext", str, Parts], "tuple[str, Parts] | Awaitable[tuple[str, Parts]]"
]

MAX_TURN_INDEX = 2**53 - 1
"""The largest integer that every JSON reader keeps (RFC 8259, section 6)."""

PROVENANCES: tuple[Provenance, ...] = ("reported", "cumulative", "estimated")
"""How usage came to be known, from best to worst."""

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
    """Tokens of one turn, or of a part of it; add them with `+`.

    `input_tokens` is all input, with what was read from a cache and what was written to
    one among it; `reasoning_tokens` are among `output_tokens`. `provenance` tells the
    worst of what went in: all `"reported"`; `"cumulative"`, an intermediate report of a
    call that was cut, thus a lower bound; `"estimated"`, at least in part.

    `cost` is exact, in `currency` (None: the only one there is); None where it is not
    known. A sum's cost is known where both are, in one currency; what has no tokens
    costs nothing.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_tokens: int = 0
    provenance: Provenance = "reported"
    cost: Decimal | None = None
    currency: str | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """Sum the tokens and the cost; the worse provenance wins."""
        if not isinstance(other, Usage):  # pyright: ignore[reportUnnecessaryIsInstance] - a caller without types
            return NotImplemented
        cost, currency = self.cost, self.currency
        if self._is_free():
            cost, currency = other.cost, other.currency
        elif not other._is_free():
            if cost is None or other.cost is None or currency != other.currency:
                cost = currency = None
            else:
                cost += other.cost
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            cache_write_input_tokens=self.cache_write_input_tokens
            + other.cache_write_input_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            provenance=worst(self.provenance, other.provenance),
            cost=cost,
            currency=currency,
        )

    def _is_free(self) -> bool:
        return self.cost is None and not (self.input_tokens or self.output_tokens)


def worst(one: Provenance, other: Provenance) -> Provenance:
    """Tell which of two says less."""
    return one if PROVENANCES.index(one) >= PROVENANCES.index(other) else other


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """What `persist(save)` hands to `save`: one turn, ready to be stored.

    `text` and the texts of `parts` have passed the transforms. The status is
    `"streaming"` in a draft of a turn that still runs. `started_at` and `ended_at` are
    UNIX seconds; `ended_at` of a draft is when it was made.

    One turn has one `execution_id`, whatever is saved of it: store it as an upsert by
    that id, where a draft replaces nothing but a draft.
    """

    identity: TurnIdentity
    execution_id: str
    status: RecordStatus
    text: str
    parts: Parts
    usage: Usage | None
    started_at: float
    ended_at: float

    @property
    def message(self) -> dict[str, Any]:
        """The whole assistant message: `{"role": "assistant", "parts": [...]}`."""
        return {"role": "assistant", "parts": list(self.parts)}


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


class Ending:
    """Why a turn stops: what settlement works from.

    `drained` says that the source ran to its own end. `gone` that nobody reads any
    more.
    """

    __slots__ = (
        "code",
        "drained",
        "error",
        "error_id",
        "gone",
        "reason",
        "status",
    )

    def __init__(
        self,
        status: Status,
        *,
        drained: bool,
        error: BaseException | None = None,
        code: str | None = None,
        reason: str | None = None,
        gone: bool = False,
    ) -> None:
        """Begin with what is known."""
        self.status: Status = status
        self.drained = drained
        self.error = error
        self.code = code
        self.reason = reason
        self.error_id: str | None = None
        self.gone = gone


class TurnContext:
    """One turn as its operators see it.

    `request` is whatever `start` was given. `text()`, `parts()` read what has been
    accumulated so far, `usage` what was reported, or what an operator that knows better
    set; `produced` is the text that the source's own `final_text()` gave. `final_text`
    is set while settling. `rewrites` are the transforms opened so far, in order: what
    is stored of the turn has passed them. `stop(error)` ends the turn from outside of
    an `on_event`: a timer, a task; an `on_event` simply raises. `recording(sink, record)`
    is awaited before a sink stores a record: who carries the turn makes it durable, and
    returns the record to store, an earlier one where there was one already.
    """

    # Defaults live on the class: a turn sets only what differs.
    identity: TurnIdentity
    clock: Callable[[], float]
    text: Callable[[], str]
    parts: Callable[[], Parts]
    reported: Callable[[], Usage | None] | None = None
    started_at: float
    produced: str | None = None
    final_text: str | None = None
    persisted: bool = False
    rewrites: tuple[Rewrite, ...] = ()
    settle_timeout: float = 10.0
    _usage: Usage | None = None
    ending: Ending | None = None
    recording: Callable[[str, TurnRecord], Awaitable[TurnRecord]] | None = None
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

    @property
    def usage(self) -> Usage | None:
        """Tokens so far: as set, else as the source reported them."""
        usage = self._usage
        if usage is None and self.reported is not None:
            return self.reported()
        return usage

    @usage.setter
    def usage(self, usage: Usage | None) -> None:
        self._usage = usage

    @property
    def message(self) -> dict[str, Any]:
        """The whole assistant message so far: `{"role": "assistant", "parts": [...]}`.

        Once the turn ends, tool calls that it cut off are `interrupted`.
        """
        parts = self.parts()
        if self.ending is not None:
            parts = interrupted(parts)
        return {"role": "assistant", "parts": list(parts)}

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
        """Make the record of this turn as it stands, a draft while it streams."""
        ending = self.ending
        text = self.final_text
        parts = self.parts()
        return TurnRecord(
            identity=self.identity,
            execution_id=self.execution_id,
            status="streaming" if ending is None else ending.status,
            text=self.text() if text is None else text,
            parts=parts if ending is None else interrupted(parts),
            usage=self.usage,
            started_at=self.started_at,
            ended_at=time(),
        )


def interrupted(parts: Parts) -> Parts:
    """Mark the tool calls that nobody will finish any more; the rest stays as it is."""
    for part in parts:
        if part.get("type") == "tool":
            return tuple([_interrupted(part) for part in parts])
    return parts


def _interrupted(part: Part) -> Part:
    state: Any = part.get("state", {})
    if part.get("type") != "tool" or not isinstance(state, dict):
        return part
    known = cast("dict[str, Any]", state)
    if known.get("status", "pending") not in ("pending", "running"):
        return part
    return {**part, "state": {**known, "status": "interrupted"}}


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
