"""`lifecycle`: the envelope of a turn, and exactly one terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, cast

from . import event as ev
from .errors import CompositionError, PublicError, TurnError
from .operator import Envelope, Operator, Stage
from .turn import Ending, TurnContext, error_text

if TYPE_CHECKING:
    from .event import Event

MASK = "The turn failed."
_REPORTS = frozenset({ev.ERROR, ev.RUN_FAILED, ev.RUN_COMPLETED})


def lifecycle(*, errors: Literal["masked", "message"] = "masked") -> Operator:
    """Open the turn with `session.run.started` and end it with one terminal event.

    Emits: started; what comes in; then `error` (once, if the turn failed) and one of
        `session.run.completed`, `.failed`, `.cancelled`.
    Drops: terminals and further `error` events of the source, which are merged into the
        terminal's data, our sessionId on top.

    With `errors="masked"` the client sees a fixed message, the code and an errorId
    under which the log has the whole error; a `PublicError` passes. With `"message"` it
    sees the error's own text, and the code of turnpipe's own errors.

    Order: operators before it see the source's events alone, those after it the
    envelope too; so redaction that shall cover error messages stands after it.
    """
    if errors not in ("masked", "message"):
        raise CompositionError(f'errors must be "masked" or "message", not {errors!r}')
    masked = errors == "masked"

    def open_(turn: TurnContext) -> Stage:
        envelope = _Lifecycle(turn, masked=masked)
        return Stage(
            envelope.on_event,
            shape="filter_map",
            awaits=False,
            types=_REPORTS,
            envelope=envelope,
        )

    return Operator(
        "lifecycle", open_, detail={"errors": errors}, once=True, fixed=True
    )


class _Lifecycle(Envelope):
    __slots__ = ("error_sent", "masked", "turn")

    def __init__(self, turn: TurnContext, *, masked: bool) -> None:
        self.turn = turn
        self.masked = masked
        self.reported = None
        self.error_sent = False

    def started(self) -> Event:
        identity = self.turn.identity
        return ev.started(identity.session_id, identity.tenant_id, identity.turn_index)

    def on_event(self, event: Event) -> Event | None:
        """Absorb the source's terminals; let its first error pass."""
        kind = event["type"]
        if kind == ev.RUN_COMPLETED:
            return None
        data = event.get("data")
        merged = self.reported or {}
        if isinstance(data, dict):
            merged = {**merged, **cast("dict[str, object]", data)}
        elif isinstance(data, str):
            merged = {**merged, "message": data}
        self.reported = merged
        if self.error_sent:
            return None
        self.error_sent = True
        if kind == ev.ERROR:
            return event
        return {"type": ev.ERROR} if data is None else {"type": ev.ERROR, "data": data}

    def terminals(self, ending: Ending) -> Iterable[Event]:
        session_id = self.turn.identity.session_id
        if ending.status == "completed":
            return (ev.completed(session_id),)
        if ending.status == "cancelled":
            return (ev.cancelled(session_id, ending.reason or "cancelled"),)
        if ending.error is None:
            data = {**(self.reported or {}), "sessionId": session_id}
            if self.masked:
                data.setdefault("message", MASK)
            return ({"type": ev.RUN_FAILED, "data": data},)
        shown = self._shown(ending.error, ending)
        if self.error_sent:  # the client has one error already: the terminal tells it
            told = self.reported or {}
            known = ("message", "code", "errorId")
            shown |= {key: told[key] for key in known if isinstance(told.get(key), str)}
        failed = {"type": ev.RUN_FAILED, "data": {"sessionId": session_id, **shown}}
        if self.error_sent:
            return (failed,)
        return ({"type": ev.ERROR, "data": shown}, failed)

    def _shown(self, error: BaseException, ending: Ending) -> dict[str, object]:
        if isinstance(error, PublicError):
            return {"message": error_text(error), "code": error.code}
        if not self.masked:
            shown: dict[str, object] = {"message": error_text(error)}
            if isinstance(error, TurnError):
                shown["code"] = error.code
            return shown
        return {"message": MASK, "code": ending.code, "errorId": ending.error_id}
