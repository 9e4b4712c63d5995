"""`smooth`: text at an even pace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .backlog import Backlog
from .deadline import is_seconds
from .errors import CompositionError
from .operator import Operator, Stage
from .pacing import Pacing
from .units import CUTS, Unit

if TYPE_CHECKING:
    from .turn import TurnContext


def smooth(
    unit: Unit = "word",
    *,
    delay: float = 0.02,
    max_lag: float = 1.0,
    max_hold: float = 0.5,
) -> Operator:
    """Let text out in whole words, graphemes or lines, one every `delay` seconds.

    The deltas of text and reasoning parts are paced; those that differ in anything but
    the delta are never joined. Any other event, an empty delta and one whose part shows
    a `text` included, first lets out at once what is held, then passes itself: nothing
    overtakes text. A word has the space before it; where a script is written without
    spaces, each grapheme is a word. A grapheme is never split in text that comes
    without such a break (`operators.grapheme` has the rule).

    It keeps up: at most `max_lag / delay` units wait at one a `delay`. When more do,
    each delta has several, so that what has come in is out `max_lag` seconds later, as
    long as the reader reads. There are never more than `1 / delay` deltas a second.

    Emits: deltas of whole units. On a cancel, a stop and a disconnect what is held
        leaves at once, as the output of `finish`. At the end of the source, and before
        its error, the pace is kept.
    Holds back: what waits for its time, and the last unit until more text shows that it
        is over, or until nothing has come for `max_hold` seconds. A unit is cut after
        4,096 characters. The source is pulled by a task of its own, in a copy of the
        reader's context, at most 16,384 characters (and one read) ahead of the reader:
        a boundary, not fused.

    Raises: CompositionError: no such unit; a time that is not a positive number of
        seconds; a `max_lag` below `delay`.
    Order: last, after what reads or stores text; a turn that is stored shall not wait
        for the screen. One that runs on detached is paced, too.
    """
    if unit not in CUTS:
        raise CompositionError(
            f"smooth({unit!r}): the unit is one of {', '.join(CUTS)}"
        )
    times = {"delay": delay, "max_lag": max_lag, "max_hold": max_hold}
    for name, seconds in times.items():
        if not is_seconds(seconds):
            raise CompositionError(
                f"smooth({name}={seconds!r}): it must be a positive number of seconds"
            )
    if max_lag < delay:
        raise CompositionError(
            f"smooth(max_lag={max_lag!r}) is below its delay of {delay!r}: not even one "
            f"unit could wait; raise it, or leave smooth out"
        )

    def open_(turn: TurnContext) -> Stage:
        backlog = Backlog(CUTS[unit], max(1, int(max_lag / delay)))
        paced = Pacing(backlog, delay, max_hold, turn)
        return Stage(through=paced.through, finish=paced.finish, lists=True)

    detail = {"kind": "smooth", "unit": unit, **times}
    return Operator("smooth", open_, detail=detail, fixed=True)
