"""The texts of a response, grown by their events or taken from whole items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from operators import event as ev
from operators.event import Event

from .response_fields import text_of

TEXT: Final = {
    # event's name -> the part's type, and the event's own number for it
    "output_text": ("text", "content_index"),
    "refusal": ("text", "content_index"),
    "reasoning_text": ("reasoning", "content_index"),
    "reasoning_summary_text": ("reasoning", "summary_index"),
}
_PIECES: Final = {
    # type of a whole item's piece -> the event's name that it is streamed by, its field
    "output_text": ("output_text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning_text", "text"),
    "summary_text": ("reasoning_summary_text", "text"),
}


class _Text:
    """One text that is growing."""

    __slots__ = ("annotated", "annotations", "part", "said")

    def __init__(self, part: dict[str, Any]) -> None:
        self.part = part
        self.said = False
        self.annotated = False
        self.annotations: list[Any] = []

    def grow(self, said: str, events: list[Event]) -> None:
        self.said = True
        data = {"part": self.part, "delta": said}
        events.append({"type": ev.PART_UPDATED, "data": data})

    def annotate(self, events: list[Event]) -> None:
        if self.annotations:
            self.annotated = True
            part = {**self.part, "annotations": self.annotations}
            self.annotations = []
            events.append({"type": ev.PART_UPDATED, "data": {"part": part}})


class Texts:
    """The texts of one response, known by their item's key, their event and number."""

    __slots__ = ("_all", "_next_id")

    def __init__(self, next_id: Callable[[str], str]) -> None:
        """Take part ids from `next_id(type)`."""
        self._next_id = next_id
        self._all: dict[tuple[str, str, int], _Text] = {}

    def grow(
        self, name: str, key: str, record: dict[str, Any], events: list[Event]
    ) -> None:
        """Take a delta of the item with that key."""
        delta = text_of(record, "delta")
        if delta:
            self._named(name, key, record).grow(delta, events)

    def end(
        self, name: str, key: str, record: dict[str, Any], events: list[Event]
    ) -> None:
        """Give a text that was not streamed, and what belongs to its end."""
        text = self._named(name, key, record)
        said = "" if text.said else text_of(record, name.rpartition("_")[2])
        if said:
            text.grow(said, events)
        text.annotate(events)

    def annotate(self, key: str, record: dict[str, Any]) -> None:
        """Keep an annotation for the end of its text."""
        text = self._named("output_text", key, record)
        text.annotations.append(record.get("annotation"))

    def finish(self, events: list[Event]) -> None:
        """Give the annotations of texts that were not ended."""
        for text in self._all.values():
            text.annotate(events)

    def fill(self, item: dict[str, Any], key: str | None, events: list[Event]) -> None:
        """Give what was not streamed of a whole item: texts, annotations.

        `key` None: nothing announced the item.
        """
        owner = text_of(item, "id") if key is None else key
        said = {
            name
            for (told, name, _), text in self._all.items()
            # an item that nothing announced may have been streamed by another name
            if text.said and (key is None or told == owner)
        }
        for group in ("summary", "content"):
            pieces: Any = item.get(group)
            if not isinstance(pieces, list):
                continue
            for number, piece in enumerate(cast("list[Any]", pieces)):
                if isinstance(piece, dict):
                    known = cast("dict[str, Any]", piece)
                    self._complete(known, (owner, number), said, events)
        encrypted = text_of(item, "encrypted_content")
        if encrypted and item.get("type") == "reasoning":
            self._seal(owner, encrypted, events)

    def _complete(
        self,
        piece: dict[str, Any],
        place: tuple[str, int],
        said: set[str],
        events: list[Event],
    ) -> None:
        kind: Any = piece.get("type")
        if not isinstance(kind, str) or kind not in _PIECES:
            return
        name, field = _PIECES[kind]
        key = (place[0], name, place[1])
        if name not in said:
            whole = text_of(piece, field)
            if whole:
                self._at(key).grow(whole, events)
        text = self._all.get(key)
        annotations: Any = piece.get("annotations")
        if text is not None and not text.annotated and isinstance(annotations, list):
            text.annotations = cast("list[Any]", annotations)
            text.annotate(events)

    def _seal(self, key: str, encrypted: str, events: list[Event]) -> None:
        """Add to a reasoning what its item keeps encrypted."""
        parts = [
            text.part
            for (owner, _, _), text in self._all.items()
            if owner == key and text.part["type"] == "reasoning"
        ]
        part = parts[-1] if parts else {"type": "reasoning", "id": ""}
        part = {**part, "id": part["id"] or self._next_id("reasoning")}
        sealed = {**part, "encrypted": encrypted}
        events.append({"type": ev.PART_UPDATED, "data": {"part": sealed}})

    def _named(self, name: str, key: str, record: dict[str, Any]) -> _Text:
        number: Any = record.get(TEXT[name][1])
        return self._at((key, name, number if type(number) is int else 0))

    def _at(self, key: tuple[str, str, int]) -> _Text:
        text = self._all.get(key)
        if text is None:
            kind = TEXT[key[1]][0]
            part = {"type": kind, "id": self._next_id(kind)}
            text = self._all[key] = _Text(part)
        return text
