"""One text as a guard checks it: window by window, each with what went before."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .event import Event

_END: Final = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]]*\s|[\n\u3002\uff01\uff1f]")
_CLOSING: Final = ".!?\u2026\"'\u201d\u2019)]"
_TOUCHING: Final = 4


class Text:
    """One text: what was checked of it, what was not, and the events that wait for it.

    `due` says that what is `unchecked` shall be checked now: it fills the window, or
    a sentence has ended. `checking()` gives the text for that: with the `window`
    characters before it, so that no stretch of `window` characters is seen in pieces
    only.
    """

    __slots__ = ("_before", "_fresh", "_whole", "_window", "due", "events", "unchecked")

    def __init__(self, window: int) -> None:
        """Begin with nothing."""
        self._window = window
        self._before = ""
        self._fresh: list[str] = []
        self._whole = ""
        self.unchecked = 0
        self.due = False
        self.events: list[Event] = []

    def add(self, text: str) -> None:
        """Add what one delta says."""
        fresh = self._fresh
        last = fresh[-1] if fresh else self._before
        fresh.append(text)
        self.unchecked += len(text)
        if not self.due:
            self.due = self.unchecked >= self._window or _ends(last, text)

    def show(self, whole: str) -> None:
        """Take the whole text as it is now: what it has grown by is new."""
        grows = self._whole and whole.startswith(self._whole)
        text = whole[len(self._whole) :] if grows else whole
        self._whole = whole
        if text:
            if not grows and (self._fresh or self._before):
                self.add("\n")
            self.add(text)

    def checking(self) -> str:
        """Tell what to check; it goes on being unchecked until `passed`."""
        self._fresh = ["".join(self._fresh)]
        return self._before + self._fresh[0]

    def passed(self, seen: str) -> None:
        """Take note that `seen`, what `checking` gave, passed; more may have come."""
        self.unchecked -= len(self._fresh.pop(0))
        self._before = seen[-self._window :]
        self.due = self.unchecked >= self._window


def _ends(last: str, text: str) -> bool:
    """Tell whether a sentence ends in `text`, which follows `last`."""
    word = text[1:] if text[:1] == " " and last[-1:] not in _CLOSING else text
    if word.isalnum():  # most tokens of most models
        return False
    touching = last[-_TOUCHING:]
    both = touching + text
    found = _END.search(both)
    while found is not None:
        if found.end() > len(touching):
            return True
        found = _END.search(both, found.end())
    return False
