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
