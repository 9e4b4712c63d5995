"""What the model has written, as its events show it: nothing of it twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from .event import PART_UPDATED, RESULT

if TYPE_CHECKING:
    from .event import Event

TYPES: Final = frozenset({PART_UPDATED, RESULT})
"""The types of the events that show what the model writes."""


class Produced:
    """Give every text that the model writes to `append`, once.

    That is each delta, of text, reasoning and tool input; of a part that comes without
    deltas what its snapshots have grown by; and a `result` where nothing else came. A
    fold: the plan gives the deltas of the part `last` to `append` itself.
    """

    __slots__ = ("_append", "_shown", "last")

    def __init__(self, append: Callable[[str], object]) -> None:
        """Start with nothing seen."""
        self._append = append
        self.last: object = self
        self._shown: dict[Any, int] = {}

    @property
    def append(self) -> Callable[[str], object]:
        """Where the texts go."""
        return self._append

    def on_event(self, event: Event) -> None:
        """Look at one event; what does not have the known shape is passed over."""
        data: Any = event.get("data")
        if not isinstance(data, dict):
            return
        known = cast("dict[str, Any]", data)
        if event["type"] == RESULT:
            if not self._shown:
                self._grown(RESULT, known.get("finalText"))
            return
        part: Any = known.get("part")
        shape = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        delta: Any = known.get("delta")
        if isinstance(delta, str) and delta:
            self._shown[_key(shape)] = -1
            self.last = part
            self._append(delta)
        else:
            self.look(shape)

    def look(self, part: Mapping[str, Any]) -> None:
        """Look at a part as it stands: what it has grown by is new."""
        tool = part.get("type") == "tool"
        self._grown(_key(part), _tool_input(part) if tool else part.get("text"))

    def _grown(self, key: Any, text: object) -> None:
        before = self._shown.get(key, 0)
        if before < 0 or not isinstance(text, str) or len(text) <= before:
            return
        self._shown[key] = len(text)
        self._append(text[before:])


def _key(part: Mapping[str, Any]) -> Any:
    """Tell what a part is known by; some number texts and reasoning each by itself."""
    kind: Any = part.get("type")
    for name in ("id", "callID"):
        key: Any = part.get(name)
        if isinstance(key, (str, int)):
            return (str(kind), key)
    return str(kind)


def _tool_input(part: Mapping[str, Any]) -> str | None:
    """Tell a tool call's arguments, as JSON."""
    state: Any = part.get("state")
    if not isinstance(state, dict):
        return None
    known = cast("dict[str, Any]", state)
    text: Any = known.get("inputText")
    if isinstance(text, str) and text:
        return text
    arguments: Any = known.get("input")
    if not arguments:
        return None
    try:
        return json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return None  # no JSON: it will fail the turn where it is encoded
