"""Where a reader stands in the events of a run, and what of a repetition is new."""

from __future__ import annotations

import re
from typing import Final

from operators.errors import SourceIncomplete

ID_CHARACTERS: Final = 1024
_FINER: Final = re.compile(r"~(\d{1,15})\.(\d{1,15})\Z")


class Place:
    """A place in a stream that may be read over several connections.

    A server that is asked for what comes after an id may also give the event of that
    id once more, or all from the beginning: `admit` tells what is new. Records without
    an id of their own have their place after the last that had one.

    What comes again is compared by its fingerprint: a server that numbers events, but
    begins the run anew where it is asked to go on, would otherwise have its second run
    spliced to the first.
    """

    __slots__ = (
        "_again",
        "_at",
        "_attached",
        "_hello_at",
        "_opening",
        "_seen",
        "_tail_at",
        "_unique",
        "first",
        "hello",
        "id",
        "rewinding",
        "rewound",
        "tail",
    )

    def __init__(self) -> None:
        """Start before the first event."""
        self.id = ""
        self.tail: list[int | None] = []  # the records after it that have no id
        self.first: str | None = None  # the first id
        self.hello: list[int] = []  # what came before it
        self.rewinding = False
        self.rewound = False
        self._seen: dict[str, int | None] = {}
        self._unique = True
        self._again = False  # this is a further connection
        self._attached = False  # another reader read the beginning
        self._at: str | None = None  # the id that is being repeated
        self._tail_at = 0
        self._hello_at = 0
        self._opening = False  # no id came on this connection yet

    @classmethod
    def after(
        cls, event_id: str, *, first: str | None, hello: list[int]
    ) -> tuple[Place, int]:
        """Stand where another reader got to; `first` was the run's first id.

        `hello` is what came before it. Gives also how many events of the next record
        that reader had.
        """
        place = cls()
        place.id, had, part = split_id(event_id)
        place.first = first
        place.hello = hello
        place._attached = True
        if place.id:
            place._seen[place.id] = None
        place.tail = [None] * had
        return place, part

    @property
    def hindrance(self) -> str | None:
        """Why the stream cannot be gone on with from here; None: it can."""
        if not self._unique:
            return "the server gives several events the same id"
        if not self.id:
            return (
                "the server sends no event ids"
                if not self._seen
                else ("the server has taken its event ids back")
            )
        if not is_sendable(self.id):
            return f"the event id {self.id[:80]!r} cannot be sent in a header"
        return None

    def connect(self) -> None:
        """Begin a further connection."""
        self._again = True
        self._opening = True
        self._at = self.id
        self._tail_at = self._hello_at = 0
        self.rewinding = self.rewound = False

    def move(self, own: str) -> None:
        """Take an id that came without an event."""
        if own and own in self._seen:
            if self._again:
                self._repeat(own)
        else:
            self._arrive(own, None)

    def admit(self, own: str | None, said: int) -> bool:
        """Take a record with its fingerprint; tell whether it is new.

        Raises:
            SourceIncomplete: it is not what it was before.
        """
        if not own:
            if own is not None:
                self._arrive("", None)
            return self._admit_nameless(said)
        seen = own in self._seen
        known = self._seen.get(own)
        if seen and not self._again:
            self._unique = False
            self.tail.append(said)
            return True
        if known is not None and known != said:
            raise another_run(f"event {own!r} is not what it was before")
        if self._opening and self._attached and own == self.first != self.id:
            self.rewinding = self.rewound = True  # all of it is repeated
        if seen or self.rewinding:
            self._seen[own] = said
            self._repeat(own)
            return False
        self._arrive(own, said)
        return True

    def mark(self, part: int = 0) -> str:
        """Name this place: after the last record, or `part` events of the next one."""
        return join_id(self.id, len(self.tail), part)

    def _arrive(self, own: str, said: int | None) -> None:
        if not self._again and not self._seen:
            self.hello = [one for one in self.tail if one is not None]
        self.id = own
        self.tail = []
        self._at = None
        self._opening = False
        if own:
            self.first = self.first or own
            self._seen[own] = said

    def _repeat(self, own: str) -> None:
        self._opening = False
        self._at = own
        self._tail_at = 0
        if own == self.id:
            self.rewinding = False

    def _admit_nameless(self, said: int) -> bool:
        if self._at is None:
            self.tail.append(said)
            return True
        if self.rewinding or self._at != self.id:
            return False
        if self._tail_at < len(self.tail):
            before = self.tail[self._tail_at]
            if before != said and self._is_hello(said):
                return False
            if before is not None and before != said:
                raise another_run(f"what follows event {self.id!r} is not what it was")
            self._tail_at += 1
            return False
        if self._is_hello(said):
            return False
        self._at = None
        self.tail.append(said)
        return True

    def _is_hello(self, said: int) -> bool:
        """Tell whether it is what the server opens every connection with."""
        at = self._hello_at
        if not self._opening or at >= len(self.hello) or self.hello[at] != said:
            return False
        self._hello_at += 1
        return True


def is_sendable(value: str) -> bool:
    """Tell whether a header can have this as its value, unchanged."""
    plain = value.isascii() and value.isprintable() and value == value.strip()
    return plain and 0 < len(value) <= ID_CHARACTERS


def another_run(why: str) -> SourceIncomplete:
    """Make the error of a server that did not go on with the run it was asked for."""
    return SourceIncomplete(
        f"the server answered the reconnection with another run, {why}: it must know "
        f"runs by X-Execution-ID, and events by their id"
    )


def join_id(own: str, had: int, part: int) -> str:
    """Name a place: `had` records after an event id, and `part` events of the next.

    Just after the event it is the event's own id.
    """
    if had or part or not own or _FINER.search(own):
        return f"{own}~{had}.{part}"
    return own


def split_id(event_id: str) -> tuple[str, int, int]:
    """Read what `join_id` made."""
    finer = _FINER.search(event_id)
    if finer is None:
        return event_id, 0, 0
    return event_id[: finer.start()], int(finer[1]), int(finer[2])
