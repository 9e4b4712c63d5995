"""A list from the source on its way through the plan: it leaves as it came.

Most events of a list pass unchanged, so none is copied. What becomes of the others is
noted as an edit: how many events were to follow then, and what stands in its place now,
None for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import length_hint
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from operators.event import Event

Edit: TypeAlias = "tuple[int, Event | None]"


def edited(events: Sequence[Event], edits: Sequence[Edit]) -> list[Event]:
    """Return what left the operators: `events` with their `edits`."""
    total = len(events)
    after: dict[int, Event | None] = dict(enumerate(events))
    for left, event in edits:
        after[total - left - 1] = event
    return [event for event in after.values() if event is not None]


def passed(
    events: Sequence[Event], rest: Iterator[Event] | None, edits: Sequence[Edit]
) -> Sequence[Event]:
    """Return what had left the operators when one of them raised.

    `rest` are the events after the one that it raised at; None where all had left.
    """
    if rest is None:
        return events
    left = length_hint(rest)
    gone = len(events) - left - 1
    before = [(at - left - 1, event) for at, event in edits if at > left]
    return edited(events[: max(gone, 0)], before)
