"""What is produced elsewhere and lives on when its reader dies: begun, or attached to.

Whoever keeps the events (a log) and the handle (a store) attaches again from any
process, after the last event it has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from operators.turn import TurnContext


@dataclass(frozen=True, slots=True)
class SupervisedEvent:
    """One event with its identity: `event_id` is unique in its run, and stays.

    `handle`, where given, is JSON that is kept *before* the event is: what `attach`
    needs to come back. Without one, the handle that came before holds.
    """

    event_id: str
    payload: Mapping[str, Any]
    handle: Mapping[str, Any] | None = None


class SupervisedAdapter(Protocol):
    """How to reach what produces a run's events: each iterator is read once, and closed.

    An iterator that ends says that the run has ended: whatever else keeps events from
    coming raises. The first event of `start` has a handle.
    """

    def start(self) -> AsyncIterator[SupervisedEvent]:
        """Begin the run, and give all of its events."""
        ...

    def attach(
        self, handle: Mapping[str, Any], after_event_id: str | None
    ) -> AsyncIterator[SupervisedEvent]:
        """Give the events of a run that was begun, those after this one; None: all.

        Some that were had may come again, under their ids.
        """
        ...


@runtime_checkable
class SupervisedSource(Protocol):
    """A source whose turns can also be supervised: they outlive the process."""

    def adapter(self, turn: TurnContext) -> SupervisedAdapter:
        """Make the adapter of one turn."""
        ...
