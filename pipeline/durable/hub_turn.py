"""A turn as its readers see it: any number of them, from any line, in any process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..wire import wire_named
from .records import events_of

if TYPE_CHECKING:
    from operators.event import Event
    from operators.turn import TurnOutcome

    from .hub import TurnHub
    from .status import TurnStatus


class HubTurn:
    """One turn of a hub. Reading it does not move it, leaving it does not end it.

    Lines are numbered from 1; `after=N` says that N of them are here already. A read
    ends when the turn has ended and all of its lines were read. Each call of `events`
    and `body` is a reader of its own.
    """

    def __init__(self, hub: TurnHub, execution_id: str, after: int = 0) -> None:
        """Read from line `after` on; `TurnHub` is what makes one."""
        if after.__class__ is not int:
            raise TypeError(f"after must be a line number, not {after!r}")
        if after < 0:
            raise ValueError(f"after must be 0 or more, not {after}")
        self._hub = hub
        self._after = after
        self.execution_id = execution_id

    def __repr__(self) -> str:
        """Show the id and the cursor."""
        return f"HubTurn({self.execution_id!r}, after={self._after})"

    def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """Read the events after line `after`, by default where this turn was attached.

        Raises:
            UnknownTurn: there is no such turn, at the first read.
            CursorGone: lines after the cursor are not kept any more.
            ValueError: `after` is negative.
        """
        return self._events(self._cursor(after))

    def body(
        self, wire: str = "ndjson", after: int | None = None
    ) -> AsyncIterator[bytes]:
        """Read the same as bytes; a reader that is slow gets larger chunks.

        Raises:
            UnknownTurn: as `events`.
            CursorGone: as `events`.
            ValueError: `after` is negative, or there is no such wire.
        """
        wire_named(wire)
        return self._body(wire, self._cursor(after))

    async def outcome(self) -> TurnOutcome:
        """Wait until the turn is over, wherever it runs.

        Raises:
            UnknownTurn: there is no such turn.
        """
        return await self._hub._outcome(self.execution_id)

    async def status(self) -> TurnStatus:
        """Tell how it stands.

        Raises:
            UnknownTurn: there is no such turn.
        """
        return await self._hub.status(self.execution_id)

    async def cancel(self, reason: str = "cancelled") -> bool:
        """Ask the turn to stop, wherever it runs; False where it has ended."""
        return await self._hub.cancel(self.execution_id, reason)

    def _cursor(self, after: int | None) -> int:
        return self._after if after is None else HubTurn(self._hub, "", after)._after

    async def _events(self, after: int) -> AsyncIterator[Event]:
        async for chunks in self._hub._follow(self.execution_id, after):
            for event in events_of(chunks):
                yield event

    async def _body(self, wire: str, after: int) -> AsyncIterator[bytes]:
        encoder = wire_named(wire)
        async for chunks in self._hub._follow(self.execution_id, after):
            if wire == "ndjson":
                yield (
                    chunks[0].data
                    if len(chunks) == 1
                    else b"".join([chunk.data for chunk in chunks])
                )
            else:
                yield encoder.encode_many(events_of(chunks))
