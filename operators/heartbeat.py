"""`heartbeat`: bytes on the wire while the turn has nothing to say."""

from __future__ import annotations

from typing import Literal, TypeAlias

from .deadline import is_seconds
from .errors import CompositionError
from .operator import Operator, Stage

Until: TypeAlias = Literal["first_event", "end"]


class Heartbeat(Operator):
    """What `heartbeat` gives: an operator whose work is done where bytes are read."""

    __slots__ = ("every", "pad", "until")

    every: float
    pad: int
    until: Until

    def __init__(self, every: float, pad: int, until: Until) -> None:
        """Describe the beats."""
        super().__init__(
            "heartbeat",
            stage=Stage(),
            detail={"kind": "heartbeat", "every": every, "pad": pad, "until": until},
            once=True,
        )
        object.__setattr__(self, "every", every)
        object.__setattr__(self, "pad", pad)
        object.__setattr__(self, "until", until)


def heartbeat(every: float, *, pad: int = 0, until: Until = "end") -> Heartbeat:
    """Write a heartbeat whenever a reader of bytes has waited `every` seconds.

    On the wire only, as something that its clients pass over (NDJSON: a blank line):
    no operator, tap, sink, log or cursor sees it, nor does a reader of `events()`. It is
    written while somebody waits for the next chunk, so a slow reader gets none. `pad`:
    at least so many bytes, for proxies that hold back short chunks. Until the source's
    first event, or to the end of the turn, settlement included.

    The turn pulls in a task of its own then, at most two reads of the source ahead of
    its reader; it still ends with its reader where `on_disconnect="cancel"`.

    Raises: CompositionError: `every` is not a positive, finite number, `pad` not an int
        of 0 or more.
    Order: anywhere; once.
    """
    if not is_seconds(every):
        raise CompositionError(
            f"heartbeat(every={every!r}): it must be a positive number of seconds"
        )
    if pad.__class__ is not int or pad < 0:
        raise CompositionError(f"heartbeat(pad={pad!r}): it must be bytes, 0 or more")
    if until not in ("first_event", "end"):
        raise CompositionError(
            f'heartbeat(until={until!r}): it must be "first_event" or "end"'
        )
    return Heartbeat(every, pad, until)
