"""Adjacent deltas of one part, merged into one: what `coalesce` stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from .event import PART_UPDATED

if TYPE_CHECKING:
    from .event import Event


class Merger:
    """Deltas being merged: `push` events in, take what comes out, then `flush`."""

    __slots__ = ("_begun", "_chars", "_last", "_max_chars", "_max_events", "_texts")

    def __init__(self, max_events: int, max_chars: int) -> None:
        """Hold nothing."""
        self._max_events = max_events
        self._max_chars = max_chars
        self._texts: list[str] = []
        self._chars = 0
        self._last: Event = {}
        self._begun = False

    @property
    def held(self) -> int:
        """Count the deltas held back."""
        return len(self._texts)

    def push(self, event: Event) -> tuple[Event, ...]:
        """Take one event; return what it lets out."""
        text = _delta(event)
        if text is None:
            return (*self.flush(), event) if self._texts else (event,)
        if not self._begun:
            self._begun = True
            return (event,)
        out: tuple[Event, ...] = ()
        if self._texts and (
            self._chars + len(text) > self._max_chars or not _alike(self._last, event)
        ):
            out = self.flush()
        self._texts.append(text)
        self._chars += len(text)
        self._last = event
        if len(self._texts) >= self._max_events or self._chars >= self._max_chars:
            out = (*out, *self.flush())
        return out

    def flush(self) -> tuple[Event, ...]:
        """Let out what is held: one delta, or none."""
        texts, last = self._texts, self._last
        if not texts:
            return ()
        self._texts, self._chars, self._last = [], 0, {}
        if len(texts) == 1:
            return (last,)
        return ({**last, "data": {**last["data"], "delta": "".join(texts)}},)


def _delta(event: Event) -> str | None:
    """Tell the text that an event adds to its part, if it does."""
    try:
        if event["type"] != PART_UPDATED:
            return None
        text = event["data"]["delta"]
    except (KeyError, TypeError):
        return None
    return text if isinstance(text, str) and text else None


def _alike(one: Event, other: Event) -> bool:
    """Tell whether two deltas differ in nothing but the delta."""
    a, b = one["data"], other["data"]
    part, part_of_other = a.get("part"), b.get("part")
    if part is part_of_other is not None and (
        len(a) == len(b) == len(one) == len(other) == 2  # nothing else can differ
    ):
        return True
    return (
        _but(one, "data") == _but(other, "data")
        and _but(a, "delta", "part") == _but(b, "delta", "part")
        and _same_part(part, part_of_other)
    )


def _same_part(one: object, other: object) -> bool:
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one == other
    a, b = cast("Event", one), cast("Event", other)
    return a.keys() == b.keys() and _but(a, "text") == _but(b, "text")


def _but(known: Event, *names: str) -> Event:
    return {key: value for key, value in known.items() if key not in names}
