"""The texts of a turn, each by itself: what `guard` finds in its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from .event import PART_UPDATED, RESULT, delta, result
from .windowed import Text

if TYPE_CHECKING:
    from .event import Event

_TEXTUAL: Final = ("text", "reasoning")


class Texts:
    """All texts of a turn, each by what it belongs to."""

    __slots__ = ("_last", "_part", "_texts", "_window")

    def __init__(self, window: int) -> None:
        """Begin a turn."""
        self._window = window
        self._texts: dict[object, Text] = {}
        self._part: object = self
        self._last = Text(window)

    def take(self, event: Event) -> Text | None:
        """Add what an event says to its text; None where it says nothing to check."""
        data: Any = event.get("data")
        if not isinstance(data, dict):
            return None
        known = cast("dict[str, Any]", data)
        kind = event.get("type")
        if kind == RESULT:
            final: Any = known.get("finalText")
            return self._shown(RESULT, final) if isinstance(final, str) else None
        if kind != PART_UPDATED:
            return None
        part: Any = known.get("part")
        text: Any = known.get("delta")
        if part is self._part and text.__class__ is str:
            if text:
                self._last.add(text)
            return self._last
        shown = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        if shown.get("type", "text") not in _TEXTUAL:
            return None
        key = _key(shown)
        whole: Any = shown.get("text")
        if isinstance(whole, str):
            found = self._shown(key, whole)
            if isinstance(text, str) and not whole.endswith(text):
                found.add(text)
            return found
        if not isinstance(text, str):
            return None
        found = self._of(key)
        if text:
            found.add(text)
        if shown:
            self._part, self._last = part, found
        return found

    def due(self, *, all_: bool = False) -> list[Text]:
        """List the texts of which something is to be checked now, or at all."""
        texts = self._texts.values()
        return [text for text in texts if text.unchecked and (all_ or text.due)]

    def waiting(self) -> list[Text]:
        """List the texts that events wait for."""
        return [text for text in self._texts.values() if text.events]

    def _of(self, key: object) -> Text:
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = Text(self._window)
        return text

    def _shown(self, key: object, whole: str) -> Text:
        text = self._of(key)
        text.show(whole)
        return text


def replaced(event: Event, text: str) -> Event:
    """Make the event that shows `text` where that of `event` was blocked."""
    if event.get("type") == RESULT:
        return result(text)
    part: Any = event["data"].get("part")
    shown = cast("dict[str, Any]", part) if isinstance(part, dict) else {"type": "text"}
    return delta({key: value for key, value in shown.items() if key != "text"}, text)


def _key(part: dict[str, Any]) -> object:
    """Tell what a part is known by."""
    key: Any = part.get("id")
    kind: Any = part.get("type", "text")
    return (kind, key if isinstance(key, (str, int)) else repr(key))
