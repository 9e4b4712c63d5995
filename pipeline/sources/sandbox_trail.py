"""What a run leaves behind for another process to go on with: its handle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from zlib import crc32

from .sandbox_place import Place, another_run

if TYPE_CHECKING:
    from .sandbox_events import EventMapper


class Trail:
    """The handle of a run while it grows.

    It has a checksum of the events up to one of them, so that a server that repeats the
    run from its beginning is known to repeat this run. A handle is `due` at 1, 2, 4,
    8, ... events: the checksum is of at least half of them, for few writes.
    """

    __slots__ = (
        "_before",
        "_count",
        "_due",
        "_kept",
        "_known",
        "_mark",
        "_sum",
        "run",
        "run_id",
    )

    def __init__(
        self, handle: Mapping[str, Any] | None = None, *, anew: bool = True
    ) -> None:
        """Begin a run, or go on with one; `anew`: all of its events come again."""
        told: Mapping[str, Any] = handle or {}
        self.run_id = ""  # X-Execution-ID
        self.run: str | None = told.get("execution")  # what the agent calls it
        self._before = cursor_of(told).get("sum")  # an event, and the sum up to it
        self._mark = None if anew else self._before
        self._known = anew  # the sum is that of all events
        self._sum = 0
        self._count = 0
        self._due = 1
        self._kept: object = None

    def know(self, record: Mapping[str, Any]) -> None:
        """Learn from `execution.started` what the agent calls the run; it stays so.

        Raises:
            SourceIncomplete: it is another one.
        """
        data: Any = record.get("data", record)
        run: Any = data.get("executionId") if data.__class__ is dict else None
        if run.__class__ is not str:
            return
        if self.run is not None and run != self.run:
            raise another_run(f"{run!r} and not {self.run!r}")
        self.run = run

    def add(self, own: str | None, said: int) -> None:
        """Take the fingerprint of a further record.

        Raises:
            SourceIncomplete: all events came again, and this one is not what it was.
        """
        self._count += 1
        if not self._known:
            return
        if own or self._sum:  # what comes before the first id may come anew each time
            self._grow(own, said)
        if own:
            self._mark = [own, self._sum]

    def rewind(self) -> None:
        """Begin again: all of the run is repeated."""
        self._sum = self._count = 0
        self._known = False

    def compare(self, own: str | None, said: int) -> None:
        """Take the fingerprint of a record that is repeated from the beginning.

        Raises:
            SourceIncomplete: this is not what was there.
        """
        self._count += 1
        self._grow(own, said)

    def _grow(self, own: str | None, said: int) -> None:
        self._sum = crc32(f"{own}\0{said}".encode("utf-8", "replace"), self._sum)
        known, told = self._before or (None, 0)
        if own and own == known and told != self._sum:
            raise another_run(f"whose events up to {own!r} are not what they were")

    def rewound(self) -> None:
        """All that was had has been repeated: the sum is that of all events."""
        self._known = True

    def handle(
        self, place: Place, mapper: EventMapper, event_id: str, *, how: str
    ) -> dict[str, Any] | None:
        """Make the handle that goes with this event; None where it says nothing new.

        `how`: "" while the run goes on, "whole" or "ended".
        """
        known = (place.first, self.run, self.run_id)
        due = self._count >= self._due
        if not (how or due or mapper.changed or known != self._kept):
            return None
        while self._due <= self._count:
            self._due *= 2
        self._kept = known
        mapper.changed = False
        cursor: dict[str, Any] = {"parts": mapper.state, "sum": self._mark}
        if how:
            cursor["whole"] = event_id
        if how == "ended":
            cursor["ended"] = event_id
        handle: dict[str, Any] = {
            "kind": "sandbox",
            "runId": self.run_id,
            "status": "running",
            "first": place.first,
            "hello": place.hello,
            "execution": self.run,
            "cursor": cursor,
        }
        return {key: value for key, value in handle.items() if value not in (None, [])}


def cursor_of(handle: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tell what changes of a handle while its run goes on."""
    cursor: Any = handle.get("cursor")
    return cursor if isinstance(cursor, Mapping) else {}  # pyright: ignore[reportUnknownVariableType] - JSON
