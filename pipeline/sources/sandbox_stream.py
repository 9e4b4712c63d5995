"""A run's bytes folded into events, over as many connections as it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, cast

from operators.errors import SourceProtocol
from operators.event import Event

from .decoding import decode_object
from .sandbox_events import WHOLE, EventMapper, fingerprint, is_ping
from .sandbox_lines import Line, LineSplitter
from .sandbox_place import Place, another_run, join_id
from .sandbox_trail import Trail, cursor_of
from .sse import LIMIT_BYTES
from .supervised import SupervisedEvent

_DONE: Final = b"[DONE]"
_LONG: Final = re.compile(rb"\d{19}")

MapEvent = Callable[[Event], "Event | list[Event] | None"]
"""What makes events of a record: none of them, or None to leave it to the source."""

IdOf = Callable[[Event], "str | None"]
"""What tells a record's id, where it is not that of server-sent events."""


class SandboxStream:
    """Fold what connections bring into the events of one run: each once, in order.

    `records` counts what was new; pings and what came again do not count. What fails
    after events of the same read is kept in `failure`: deliver what `feed` gave, then
    raise it. With `handles`, `taken` has the events of the last `feed` with their ids.
    """

    __slots__ = (
        "_attached_at",
        "_attached_with",
        "_ends",
        "_id_of",
        "_keeps",
        "_limit",
        "_map_event",
        "_mapper",
        "_mapper_before",
        "_rewinds",
        "_skip",
        "_splitter",
        "complete",
        "done",
        "failure",
        "place",
        "records",
        "retry",
        "taken",
        "trail",
    )

    def __init__(
        self,
        *,
        ends: Collection[str],
        map_event: MapEvent | None = None,
        id_of: IdOf | None = None,
        limit_bytes: int = LIMIT_BYTES,
        handles: bool = False,
    ) -> None:
        """Start before the first byte of the run."""
        self.failure: Exception | None = None
        self.complete = False  # the answer is whole, though more may come
        self.done = False
        self.records = 0
        self.retry: int | None = None
        self.trail = Trail()
        self.taken: list[SupervisedEvent] = []
        self.place = Place()
        self._ends = ends
        self._map_event = map_event
        self._id_of = id_of
        self._limit = limit_bytes
        self._mapper = self._mapper_before = EventMapper()
        self._splitter = LineSplitter(limit_bytes=limit_bytes)
        self._keeps = handles
        self._rewinds = False
        self._attached_at = ""  # where another reader got to, and what was open then
        self._attached_with: Any = None
        self._skip = 0  # the events of the next record that were had

    def resume(self, handle: Mapping[str, Any], event_id: str | None) -> None:
        """Go on after an event that another reader had, with the handle it left.

        None: from the run's first event on.
        """
        self.trail = Trail(handle, anew=event_id is None)
        if event_id is None:
            return
        cursor = cursor_of(handle)
        self.place, self._skip = Place.after(
            event_id, first=handle.get("first"), hello=[*handle.get("hello", ())]
        )
        self.complete = cursor.get("whole") == event_id
        self.done = cursor.get("ended") == event_id
        self._attached_at, self._attached_with = self.place.id, cursor.get("parts")
        self._mapper = EventMapper(self._attached_with)

    def connect(self, *, again: bool, lines: bool = False) -> None:
        """Begin to read a connection, `again` after another; `lines` is its type."""
        self._splitter = LineSplitter(lines=lines, limit_bytes=self._limit)
        if self.place.rewinding:  # it broke before it was where we are
            self._mapper = self._mapper_before
        self._rewinds = False
        if again:
            self.place.connect()

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the bytes of one read; give the new events that they complete."""
        events: list[Event] = []
        self.taken = []
        try:
            self._take(self._splitter.feed(chunk), events)
        except Exception as error:  # what came before it is delivered first
            self.failure = error
        if self._splitter.retry is not None:
            self.retry = self._splitter.retry
        return events

    def eof(self) -> tuple[list[Event], int]:
        """End a connection; give its last events, and how many bytes were cut."""
        events: list[Event] = []
        self.taken = []
        left = b""
        try:
            lines, left = self._splitter.eof()
            self._take(lines, events)
        except Exception as error:
            self.failure = error
        return events, len(left)

    def _take(self, lines: list[Line], events: list[Event]) -> None:
        place = self.place
        for data, name, own in lines:
            if data is None:
                place.move(own or "")
                continue
            if data == _DONE:
                if place.rewinding:
                    raise another_run(f"which ended before event {place.id!r}")
                self.done = True
                break
            where = f"record {self.records + 1} of the run"
            # what passes as it is keeps integers beyond 64 bits
            record = decode_object(data, where, exact=_LONG.search(data) is not None)
            if name not in ("", "message") and "type" not in record:
                record = _typed(record, name)
            told: Any = record.get("type")
            kind = told if told.__class__ is str else ""
            if name == "ping" or is_ping(kind):
                if own:
                    place.move(own)
                continue
            if self._id_of is not None:
                own = self._named(record) or own
            if kind == "execution.started":
                self.trail.know(record)
            before = (place.id, len(place.tail)) if self._keeps else ("", 0)
            said = fingerprint(record, kind)
            if place.admit(own, said):
                if self._keeps:
                    self.trail.add(own, said)
                self._add(record, kind, events, before)
                if self.done:
                    break
            elif place.rewound:
                self._rewind(record, own, said)
            elif own and own == self._attached_at:
                # what came before it had come before, too
                self._mapper = EventMapper(self._attached_with)

    def _add(
        self, record: Event, kind: str, events: list[Event], before: tuple[str, int]
    ) -> None:
        self.records += 1
        made = self._mapped(record)
        had = self._skip
        if had:
            self._skip = 0
            made = made[had:]
        if kind in self._ends:
            self.complete = self.done = True
        elif kind in WHOLE or (not kind and record.get("error")):
            self.complete = True
        events += made
        if self._keeps and made:
            self._keep(made, [join_id(*before, had + n) for n in range(1, len(made))])

    def _mapped(self, record: Event) -> list[Event]:
        made: Any = None
        if self._map_event is not None:
            made = self._map_event(record)
            if isinstance(made, list):
                return cast("list[Event]", made)
        if made is None:
            made = self._mapper.map(record)
        return [] if made is None else [made]

    def _rewind(self, record: Event, own: str | None, said: int) -> None:
        """Fold what another reader had: parts go on as they were begun."""
        if not self._rewinds:
            self._rewinds = True
            self._mapper_before, self._mapper = self._mapper, EventMapper()
            self.trail.rewind()
        self.trail.compare(own, said)
        self._mapped(record)
        if not self.place.rewinding:
            self.trail.rewound()

    def _keep(self, made: list[Event], ids: list[str]) -> None:
        """Give each event its id, and the handle to keep before it."""
        event_id = self.place.mark()
        how = "ended" if self.done else "whole" if self.complete else ""
        handle = self.trail.handle(self.place, self._mapper, event_id, how=how)
        for event, one in zip(made, [*ids, event_id], strict=True):
            self.taken.append(SupervisedEvent(one, event, handle))
            if not how:
                handle = None

    def _named(self, record: Event) -> str | None:
        assert self._id_of is not None, "only called with it"
        told: Any = self._id_of(record)
        if told is None or (isinstance(told, str) and told):
            return told
        raise SourceProtocol(
            f"event_id gave {told!r} for a record of the run: it gives a text that is not "
            f"empty, or None"
        )


def _typed(record: Event, name: str) -> Event:
    """Give a record the type that its event was named."""
    if "data" in record:
        return {"type": name, **record}
    return {"type": name, "data": record}
