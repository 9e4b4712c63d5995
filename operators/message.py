"""A message put together from its events: the pure part of `accumulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from .event import LLM_CALL, PART_UPDATED
from .part import DICT, TEXTUAL, GrowingPart, key_of
from .usage import Calls

if TYPE_CHECKING:
    from .event import Event
    from .turn import Part, Usage

Source: TypeAlias = Literal["auto", "delta", "snapshot", "result"]

SOURCES: Final = ("auto", "delta", "snapshot", "result")
_NAMES_IT = frozenset({"type", "id", "text"})


class Message:
    """A message being put together: fold events in, read `text()` and `parts()`.

    `last` and `append` are where the next delta of the same part goes.
    """

    __slots__ = ("_calls", "_entries", "append", "last", "source")

    def __init__(self, source: Source = "auto") -> None:
        """Start empty; `source` is that of `accumulate`."""
        self.source = source
        self._calls: Calls | None = None
        self._entries: dict[Any, GrowingPart] = {}
        self.last: object = self
        nowhere: list[str] = []
        self.append = nowhere.append

    @property
    def usage(self) -> Usage | None:
        """The usage of all model calls that were reported."""
        return self.reported()

    def reported(self) -> Usage | None:
        """Tell `usage`."""
        return None if self._calls is None else self._calls.usage

    def on_event(self, event: Event) -> None:
        """Fold one event in; what does not have the known shape is passed over."""
        data: Any = event.get("data")
        if not isinstance(data, DICT):
            return
        kind = event["type"]
        if kind == PART_UPDATED:
            self._updated(data)
        elif kind == LLM_CALL:
            if self._calls is None:
                self._calls = Calls()
            self._calls.add(data)
        elif self.source in ("auto", "result"):
            text: Any = data.get("finalText")
            if isinstance(text, str):
                self.replace(text)

    def _updated(self, data: dict[str, Any]) -> None:
        part: Any = data.get("part")
        known: Part = part if isinstance(part, DICT) else {}
        key: Any = known.get("id")
        kind: Any = known.get("type")
        entry = self._entries.get(key) if key.__class__ is str else None
        if entry is None or entry.kind != kind:
            entry = None
            kind = self._kind(known)
        textual = kind in TEXTUAL
        source = self.source
        if textual and source == "result":
            return
        delta: Any = data.get("delta")
        if isinstance(delta, str) and delta and not (textual and source == "snapshot"):
            if entry is None:
                entry = self._entry(kind, known)
            if entry.seen is not part:
                entry.seen = part
                if len(known) > 2 or kind == "tool":  # more than which part it is
                    entry.update(known, grows=True)
            entry.chunks.append(delta)
            self.append = entry.chunks.append
            self.last = part
        elif not textual:
            self._entry(kind, known, whole=True).update(known)
        elif source != "delta" and isinstance(known.get("text"), str):
            self._entry(kind, known).update(known)
        elif not known.keys() <= _NAMES_IT:
            self._entry(kind, known).update(known, grows=True)

    def _kind(self, part: Part) -> str:
        """Tell a part's type; one that does not say is of the type it was before."""
        kind: Any = part.get("type")
        if kind.__class__ is str:
            named: str = kind
            return named
        if kind is not None:
            return repr(kind)
        before = self._entries.get(key_of(part))
        return "text" if before is None else before.kind

    def _entry(self, kind: str, part: Part, *, whole: bool = False) -> GrowingPart:
        """Find a part, or begin it; without any id, a `whole` file is another one."""
        key = key_of(part)
        if key is None:
            key = object() if whole and kind != "tool" else (kind,)
        entry = self._entries.get(key)
        if entry is not None and entry.kind != kind:
            key = (kind, key)  # some number texts and reasoning apart from each other
            entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = GrowingPart(kind, part)
        return entry

    def text(self) -> str:
        """Tell the text so far: all text parts, in order."""
        entries = self._entries
        if len(entries) == 1:  # the usual message: one text
            (entry,) = entries.values()
            return entry.text() if entry.kind == "text" else ""
        return "".join([entry.text() for entry in self._texts()])

    def _texts(self) -> list[GrowingPart]:
        return [entry for entry in self._entries.values() if entry.kind == "text"]

    def replace(self, text: str) -> None:
        """Make `text` the whole text, in place of the first text part."""
        texts = self._texts()
        if texts and self.text() == text:
            return
        first = texts[0] if texts else self._entry("text", {})
        first.chunks[:] = [text]
        gone = texts[1:]
        self._entries = {
            key: entry for key, entry in self._entries.items() if entry not in gone
        }
        self.last = self

    def parts(self) -> tuple[Part, ...]:
        """Make the message's parts as they stand, in the order they first appeared."""
        return tuple([entry.shown() for entry in self._entries.values()])
