"""Text that waits to be shown, unit by unit: what `smooth` stands on."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from .event import PART_UPDATED

if TYPE_CHECKING:
    from .event import Event
    from .units import Cut

_TEXTUAL: Final = ("text", "reasoning")


class Backlog:
    """Events pushed in, text let out in units: `push`, then `pop` while there are some.

    `hurried` counts the entries that nothing may hold back any longer: an event that is
    not paced, and all before it. `most` units may wait for one `pop` each; with more of
    them a `pop` gives several, so many that what has come in by now is out after `most`
    of them. That goes on until nothing waits.
    """

    __slots__ = ("_burst", "_cut", "_like", "_most", "_queue", "hurried", "unfinished")

    def __init__(self, cut: Cut, most: int) -> None:
        """Hold nothing."""
        self._cut = cut
        self._most = most
        self._queue: deque[tuple[Event, str | None]] = deque()
        self._like: Event = {}
        self._burst = 1
        self.unfinished = ""
        self.hurried = 0

    def __len__(self) -> int:
        """Count what waits: finished units, and other events."""
        return len(self._queue)

    def push(self, event: Event) -> int:
        """Take one event; tell its weight: its characters, or 1."""
        queue = self._queue
        text = paced_text(event)
        if text is None:
            self.finish_unit()
            queue.append((event, None))
            self.hurried = len(queue)
            return 1
        if self._like is not event and not _alike(self._like, event):
            self.finish_unit()
            self._like = event
        units, self.unfinished = self._cut(self.unfinished + text)
        queue += [(self._like, unit) for unit in units]
        self._hasten()
        return len(text)

    def finish_unit(self) -> None:
        """Take the text that has come for a whole unit, whatever follows."""
        if self.unfinished:
            self._queue.append((self._like, self.unfinished))
            self.unfinished = ""
            self._hasten()

    def pop(self) -> tuple[list[Event], int]:
        """Take out what is next, of each part one delta; tell the weight of it all."""
        queue = self._queue
        events: list[Event] = []
        like: Event = {}
        texts: list[str] = []
        weight = 0
        for _ in range(min(self.hurried or self._burst, len(queue))):
            event, text = queue.popleft()
            weight += 1 if text is None else len(text)
            if text is not None and event is like:
                texts.append(text)
                continue
            if texts:
                events.append(_delta(like, texts))
            like, texts = (event, [text]) if text is not None else ({}, [])
            if text is None:
                events.append(event)
        if texts:
            events.append(_delta(like, texts))
        self.hurried = 0
        if not queue:
            self._burst = 1
        return events, weight

    def rest(self) -> list[Event]:
        """Take out everything."""
        self.finish_unit()
        self.hurried = len(self._queue)
        return self.pop()[0]

    def _hasten(self) -> None:
        self._burst = max(self._burst, -(-len(self._queue) // self._most))


def paced_text(event: Event) -> str | None:
    """Tell the text that an event adds to its part, where it shows nothing else of it."""
    if event.get("type") != PART_UPDATED:
        return None
    data: Any = event.get("data")
    if not isinstance(data, dict):
        return None
    known = cast("dict[str, Any]", data)
    text: Any = known.get("delta")
    if not isinstance(text, str) or not text:
        return None
    part: Any = known.get("part")
    if part is None:
        return text
    if not isinstance(part, dict):
        return None
    shown = cast("dict[str, Any]", part)
    return (
        text if shown.get("type", "text") in _TEXTUAL and "text" not in shown else None
    )


def _alike(one: Event, other: Event) -> bool:
    """Tell whether two deltas differ in nothing but the delta."""
    if not one:
        return False
    a, b = one["data"], other["data"]
    if (
        a.get("part") is b.get("part")
        and len(a) == len(b) == len(one) == len(other) == 2
    ):
        return True
    return {**one, "data": {**a, "delta": ""}} == {**other, "data": {**b, "delta": ""}}


def _delta(like: Event, texts: list[str]) -> Event:
    """Make the delta of these texts; the very event where it says just that."""
    text = texts[0] if len(texts) == 1 else "".join(texts)
    if text == like["data"]["delta"]:
        return like
    return {**like, "data": {**like["data"], "delta": text}}
