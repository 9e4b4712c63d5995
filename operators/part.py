"""One part of a message while it grows: text, reasoning, a tool call, anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .turn import Part

DICT: Any = dict
"""So typed, `isinstance` leaves an Any as it is, without what a cast costs."""

TEXTUAL: Final = ("text", "reasoning")
"""The parts that are their text."""


class GrowingPart:
    """One part: what its snapshots said, and its text as it came, in `chunks`.

    The text of a tool call is the raw JSON of its input. `seen` is the `part` of the
    last delta.
    """

    __slots__ = ("chunks", "kind", "part", "seen")

    def __init__(self, kind: str, part: Part) -> None:
        """Begin with the first that is heard of it."""
        self.kind = kind
        named = part.get("type") is not None
        self.part: Part = part if named else {**part, "type": kind}
        self.seen: object = None
        self.chunks: list[str] = []
        if kind == "tool" and "state" in part:
            self.part = {key: part[key] for key in part if key != "state"}

    def update(self, part: Part, *, grows: bool = False) -> None:
        """Take over a snapshot; where the part `grows`, all of it but its text."""
        if self.kind == "tool":
            before = self.part.get("state")
            self.part = {**self.part, **part}
            if "state" in part:
                self._advance(before, part["state"], grows=grows)
            return
        known = self.kind in TEXTUAL
        self.part = {**self.part, **part} if known or grows else part
        if not grows:
            text: Any = part.get("text")
            self.chunks[:] = [text] if isinstance(text, str) else []

    def _advance(self, before: Any, now: Any, *, grows: bool) -> None:
        """Bring a tool's state up to date: what it was called with is kept."""
        if not isinstance(now, DICT):
            return
        state: Part = {**now}
        if isinstance(before, DICT) and "input" in before:
            state.setdefault("input", before["input"])
        if isinstance(state.get("inputText"), str):
            text: str = state.pop("inputText")
            if not grows:
                self.chunks[:] = [text]
        elif not grows and now.get("input"):  # decoded: the raw text has served
            self.chunks.clear()
        self.part["state"] = state

    def shown(self) -> Part:
        """Make the part as it stands."""
        part = {**self.part}
        if self.kind != "tool":
            if self.chunks or self.kind in TEXTUAL:
                part["text"] = self.text()
            return part
        state: Any = part.get("state", {})
        if isinstance(state, DICT) and (state or self.chunks):
            made: Part = {**state}
            if self.chunks:
                made["inputText"] = self.text()
            part["state"] = made
        return part

    def text(self) -> str:
        """Tell the text so far, joined once."""
        chunks = self.chunks
        if len(chunks) > 1:
            chunks[:] = ["".join(chunks)]
        return chunks[0] if chunks else ""


def key_of(part: Part) -> Any:
    """Tell what a part is known by: its id, else a tool's call id; None for neither."""
    key: Any = part.get("id")
    if key is None:
        key = part.get("callID")
    return key if key is None or isinstance(key, (str, int)) else (repr(key),)
