"""Every error that turnpipe raises: one tree, each with a stable `code`.

A message says what happened, where, and the mend. Foreign exceptions are mapped at one
edge only, in sources and stores, with `raise ... from`.
"""

from __future__ import annotations


class TurnError(Exception):
    """The root. `code` is stable and goes to the client, the message to the log."""

    code: str = "turn_failed"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        """Keep `message`; `code` overrides the class's own."""
        super().__init__(message)
        if code is not None:
            self.code = code


class PublicError(TurnError):
    """A failure whose message may be shown to the client, masked mode or not."""

    code = "failed"


class CompositionError(TurnError, TypeError):
    """A pipeline was put together wrongly; raised where it is composed."""

    code = "composition"


class TurnMisuse(TurnError, RuntimeError):
    """A turn was used in a way it cannot be, such as read a second time."""

    code = "misuse"


class InvalidEvent(TurnError):
    """Something that is not a JSON-serialisable dict was sent as an event.

    `path` names the place inside the event, such as `data.parts[3].x`.
    """

    code = "invalid_event"

    def __init__(self, message: str, *, path: str = "") -> None:
        """Keep where in the event it happened."""
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


class TurnTimeout(TurnError):
    """A deadline passed; `code` is `timeout.` and the phase."""

    code = "timeout"

    def __init__(self, phase: str, limit: float) -> None:
        """Name the phase and its limit in seconds."""
        super().__init__(
            f"no {_AWAITED.get(phase, phase)} within {limit:g} s",
            code=f"timeout.{phase}",
        )
        self.phase = phase
        self.limit = limit


_AWAITED = {
    "first_event": "first event",
    "first_content": "first content",
    "idle": "further event",
    "total": "end",
}


class SettleTimeout(TurnError):
    """Closing the source, finishing and settling took longer than `settle_timeout`."""

    code = "settle_timeout"


class SourceError(TurnError):
    """A source could not give its events."""

    code = "source"


class SourceUnreachable(SourceError):
    """No connection, or it broke before the first event, after all attempts."""

    code = "source.unreachable"


class SourceStatus(SourceError):
    """The provider refused: an HTTP status, or an error as its JSON body.

    `status` is the HTTP status; `retry_after` seconds when the provider named them;
    `body` the answer's text, cut to 2,048 characters.
    """

    code = "source.status"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        body: str = "",
        retry_after: float | None = None,
    ) -> None:
        """Keep the answer's particulars."""
        super().__init__(message)
        self.status = status
        self.body = body
        self.retry_after = retry_after


class SourceProtocol(SourceError):
    """The answer is not the stream that was asked for: type, encoding or JSON."""

    code = "source.protocol"


class SourceIncomplete(SourceError):
    """The stream ended without its end mark: the answer is cut, not complete."""

    code = "source.incomplete"


class SourceTimeout(SourceError):
    """A source's own deadline passed; `code` is `source.timeout.` and the phase."""

    code = "source.timeout"

    def __init__(self, phase: str, limit: float) -> None:
        """Name the phase (`first_event`, `idle`, `total`) and its limit in seconds."""
        super().__init__(
            f"the source gave no {_AWAITED.get(phase, phase)} within {limit:g} s",
            code=f"source.timeout.{phase}",
        )
        self.phase = phase
        self.limit = limit


class BudgetExceeded(TurnError):
    """A turn used more than it may; `code` is `budget.` and what ran out."""

    code = "budget"

    def __init__(self, kind: str, limit: object) -> None:
        """Name what ran out (`tokens`, `cost`, `events`, `bytes`) and its limit."""
        super().__init__(
            f"the turn used up its budget of {limit} {kind}", code=f"budget.{kind}"
        )
        self.kind = kind
        self.limit = limit


class SlowReader(TurnError):
    """A reader of a shared turn was slower than its buffer, and is disconnected."""

    code = "slow_reader"

    def __init__(self, buffer: int) -> None:
        """Name the buffer's size in events."""
        super().__init__(
            f"more than {buffer} events waited for this reader: read faster, or share "
            f"with a larger buffer"
        )


class TurnBlocked(TurnError):
    """A guard blocked the answer; `reason` is what its check said, for the log."""

    code = "blocked"

    def __init__(self, reason: str = "") -> None:
        """Keep the reason."""
        why = f": {reason}" if reason else ""
        super().__init__(f"the guard blocked the answer{why}")
        self.reason = reason


class DurableError(TurnError):
    """What keeps a turn beyond its process could not do what was asked."""

    code = "durable"


class UnknownTurn(DurableError, LookupError):
    """No turn, or run, has that execution id."""

    code = "unknown_turn"

    def __init__(self, execution_id: str) -> None:
        """Name the id that was asked for."""
        super().__init__(f"no turn has the execution id {execution_id!r}")
        self.execution_id = execution_id


class TurnActive(DurableError):
    """The session has a turn that runs; `execution_id` names it.

    `lapsed` says that its worker's lease is over: whoever recovers it may go on.
    """

    code = "turn_active"

    def __init__(self, execution_id: str, *, lapsed: bool = False) -> None:
        """Name the turn that runs."""
        super().__init__(
            f"the session's turn {execution_id!r} still runs: attach to it, cancel it, "
            f"or start with busy='queue' or busy='cancel_previous'"
        )
        self.execution_id = execution_id
        self.lapsed = lapsed


class TurnLost(DurableError):
    """The process that ran a turn died; what it had logged is kept."""

    code = "lost"

    def __init__(self, execution_id: str) -> None:
        """Name the turn."""
        super().__init__(
            f"the worker that ran {execution_id!r} is gone; its text is kept as logged"
        )
        self.execution_id = execution_id


class LeaseHeld(DurableError):
    """Another worker runs this; `expires_in` is seconds until its lease ends."""

    code = "lease_held"

    def __init__(self, execution_id: str, owner: str, expires_in: float) -> None:
        """Name the run, its owner, and how long its lease still lasts."""
        super().__init__(
            f"{execution_id!r} is run by {owner!r}, whose lease ends in "
            f"{expires_in:.1f} s: attach to it, or try again then"
        )
        self.execution_id = execution_id
        self.owner = owner
        self.expires_in = expires_in


class LeaseLost(DurableError):
    """The lease of this worker is over, or another took the run: it writes no more."""

    code = "lease_lost"

    def __init__(self, execution_id: str) -> None:
        """Name the run."""
        super().__init__(
            f"this worker's lease on {execution_id!r} is over: another may have taken "
            f"the run, so nothing more is written by this one"
        )
        self.execution_id = execution_id


class InputMismatch(DurableError):
    """An execution id was used again with another input."""

    code = "manifest_mismatch"

    def __init__(self, execution_id: str) -> None:
        """Name the run."""
        super().__init__(
            f"{execution_id!r} was begun with another input: give the same one, or "
            f"another execution id"
        )
        self.execution_id = execution_id


class StepDivergence(DurableError):
    """A run that is replayed asked for another step than the one it had recorded."""

    code = "step_divergence"

    def __init__(
        self, execution_id: str, index: int, recorded: str, asked: str
    ) -> None:
        """Name the step's place, what was recorded there, and what was asked for."""
        super().__init__(
            f"step {index} of {execution_id!r} was recorded as {recorded}, and is now "
            f"{asked}: a run asks for the same steps in the same order each time; give a "
            f"changed task a new run id"
        )
        self.execution_id = execution_id
        self.index = index


class AwaitEventTimeout(DurableError, TimeoutError):
    """Nobody emitted the event that a run awaited, in time."""

    code = "await_event_timeout"

    def __init__(self, execution_id: str, key: str, limit: float) -> None:
        """Name the run, the event's key and the limit in seconds."""
        super().__init__(f"{execution_id!r} got no event {key!r} within {limit:g} s")
        self.execution_id = execution_id
        self.key = key
        self.limit = limit


class CursorGone(DurableError, LookupError):
    """The lines after a cursor are not kept any more; those from `first` to `last` are.

    Where nothing is kept, `first` is `last + 1`.
    """

    code = "cursor_gone"

    def __init__(self, execution_id: str, first: int, last: int) -> None:
        """Name the run, and the lines that are kept."""
        kept = f"lines {first} to {last} are" if first <= last else "nothing of it is"
        super().__init__(
            f"the lines of {execution_id!r} after this cursor are not kept any more: "
            f"{kept}; read the stored message instead"
        )
        self.execution_id = execution_id
        self.first = first
        self.last = last


class StoreError(DurableError):
    """A store could not be reached, or could not do its work."""

    code = "store"


class StoreBusy(StoreError):
    """A store is locked, or refuses connections just now: trying again may help."""

    code = "store.busy"


class StoreFull(StoreError):
    """A store has no room left, on its disk or in its memory."""

    code = "store.full"


class StoreSchema(StoreError):
    """A store's schema is newer than this turnpipe, or not turnpipe's at all."""

    code = "store.schema"
