"""`accumulate`: the whole assistant message out of its deltas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from . import event as ev
from .errors import CompositionError
from .operator import Operator, Stage
from .turn import Part, Usage

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext

Source: TypeAlias = Literal["auto", "delta", "snapshot", "result"]

_SOURCES = ("auto", "delta", "snapshot", "result")
_TYPES = frozenset({ev.PART_UPDATED, ev.RESULT, ev.LLM_CALL})


def accumulate(*, source: Source = "auto") -> Operator:
    """Gather the turn's text, message parts and reported usage.

    A `message.part.updated` with a non-empty `delta` appends to its part; a text part
    without delta replaces that part's text; `result.finalText` replaces all text; a
    producer's non-empty `final_text()` wins over everything. `source` limits it to one
    of the three. Parts are kept by id, in the order of their first appearance. A `part`
    dict that several deltas share must not change between them.

    Holds: O(text) memory, joined once.
    Order: after what changes text (redaction), before `transform` and `persist`.
    """
    if source not in _SOURCES:
        raise CompositionError(
            f"source must be one of {', '.join(_SOURCES)}, not {source!r}"
        )

    def open_(turn: TurnContext) -> Stage:
        message = Message(source)
        turn.text = message.text
        turn.parts = message.parts

        def settle() -> None:
            if turn.produced:
                message.replace(turn.produced)
            turn.final_text = message.text()
            turn.usage = turn.usage or message.usage

        return Stage(
            message.on_event,
            awaits=False,
            types=_TYPES,
            fold=message,
            settle=settle,
            when="needed",
        )

    return Operator(
        "accumulate", open_, detail={"source": source}, once=True, fixed=True
    )


class _Entry:
    """One part: its last snapshot, and the text that came as deltas."""

    __slots__ = ("chunks", "part")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.chunks: list[str] = []


class Message:
    """A message being put together: fold events in, read `text()` and `parts()`."""

    __slots__ = ("_entries", "append", "last", "source", "usage")

    def __init__(self, source: Source = "auto") -> None:
        """Start empty."""
        self.source = source
        self.usage: Usage | None = None
        self._entries: dict[Any, _Entry] = {}
        self.last: object = self
        nowhere: list[str] = []
        self.append = nowhere.append

    def on_event(self, event: Event) -> None:
        """Fold one event in; what does not have the known shape is passed over."""
        if event["type"] == "message.part.updated":
            self._updated(event)
            return
        data = event.get("data")
        if not isinstance(data, dict):
            return
        known = cast("dict[str, Any]", data)
        if event["type"] == ev.LLM_CALL:
            self._count(known)
        elif self.source in ("auto", "result"):
            text = known.get("finalText")
            if isinstance(text, str):
                self.replace(text)

    def _updated(self, event: Event) -> None:
        data = event.get("data")
        if not isinstance(data, dict):
            return
        shown = cast("dict[str, Any]", data)
        part: Any = shown.get("part")
        known: Part = cast("Part", part) if isinstance(part, dict) else {"type": "text"}
        text = shown.get("delta")
        kind = known.get("type", "text")
        textual = kind in ("text", "reasoning")
        if textual and self.source == "result":
            return
        if isinstance(text, str) and text:
            if textual and self.source == "snapshot":
                return
            entry = self._entry(kind, known)
            entry.chunks.append(text)
            self.append = entry.chunks.append
            self.last = part
            return
        if not textual:
            entry = self._entry(kind, known)
            entry.part = known
            entry.chunks.clear()
        elif self.source != "delta" and isinstance(known.get("text"), str):
            entry = self._entry(kind, known)
            entry.part = known
            entry.chunks[:] = [known["text"]]

    def _entry(self, kind: object, part: Part) -> _Entry:
        key = part.get("id")
        if key is None:
            key = (kind if isinstance(kind, str) else repr(kind),)
        elif not isinstance(key, (str, int)):
            key = repr(key)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(part)
        return entry

    def _count(self, data: dict[str, Any]) -> None:
        def tokens(key: str) -> int:
            value = data.get(key)
            return value if isinstance(value, int) and value > 0 else 0

        before = self.usage or Usage()
        self.usage = Usage(
            input_tokens=before.input_tokens + tokens("inputTokens"),
            output_tokens=before.output_tokens + tokens("outputTokens"),
            cached_input_tokens=before.cached_input_tokens
            + tokens("cachedInputTokens"),
            reasoning_tokens=before.reasoning_tokens + tokens("reasoningTokens"),
        )

    def _texts(self) -> list[_Entry]:
        return [
            entry
            for entry in self._entries.values()
            if entry.part.get("type", "text") == "text"
        ]

    def text(self) -> str:
        """Tell the text so far: all text parts, in order."""
        entries = self._entries
        if len(entries) == 1:  # the usual message: one text
            (entry,) = entries.values()
            return _joined(entry) if entry.part.get("type", "text") == "text" else ""
        return "".join([_joined(entry) for entry in self._texts()])

    def replace(self, text: str) -> None:
        """Make `text` the whole text, in place of the first text part."""
        texts = self._texts()
        if texts and self.text() == text:
            return
        first = texts[0] if texts else self._entry("text", {"type": "text"})
        first.chunks[:] = [text]
        gone = texts[1:]
        self._entries = {
            key: entry for key, entry in self._entries.items() if entry not in gone
        }
        self.last = self

    def parts(self) -> tuple[Part, ...]:
        """Make the message's parts as they stand."""
        made: list[Part] = []
        for entry in self._entries.values():
            part = dict(entry.part)
            if part.get("type", "text") in ("text", "reasoning"):
                part["text"] = _joined(entry)
            elif entry.chunks:
                state = part.get("state")
                known = cast("Part", state) if isinstance(state, dict) else {}
                part["state"] = {**known, "inputText": _joined(entry)}
            made.append(part)
        return tuple(made)


def _joined(entry: _Entry) -> str:
    if len(entry.chunks) > 1:
        entry.chunks[:] = ["".join(entry.chunks)]
    return entry.chunks[0] if entry.chunks else ""
