"""The tool items of a response: the client's own, and those that the provider runs."""

from __future__ import annotations

import json
from typing import Any, Final

from operators import event as ev
from operators.event import Event

_STATUS: Final = {
    "completed": "completed",
    "failed": "error",
    "incomplete": "error",
}
_CLIENTS: Final = frozenset(
    # asked for by the model, run by whoever reads the answer
    {
        "apply_patch_call",
        "computer_call",
        "custom_tool_call",
        "local_shell_call",
        "shell_call",
    }
)
_INPUT: Final = ("action", "queries", "code", "arguments", "input", "operation")
_OUTPUT: Final = ("results", "outputs", "output", "result")


class ToolItem:
    """One tool item that is no function call: its part, sent where its state changes.

    `input` holds what the item was asked with, under the item's own names; `output`
    what came of it. Where the input is streamed, deltas show it grow and `inputText`
    keeps it. An item that the client runs stays `running` when it is whole.
    """

    __slots__ = ("_clients", "_growing", "_item", "_sent", "_shown", "_text")

    def __init__(self, part_id: str, item: dict[str, Any]) -> None:
        """Begin with the item as it was added."""
        kind = str(item["type"])
        self._item = item
        self._clients = kind in _CLIENTS
        self._sent: object = None
        self._growing: dict[str, Any] = {}
        self._text: list[str] = []
        name: Any = item.get("name")
        call_id: Any = item.get("call_id") or item.get("id")
        self._shown = {
            "type": "tool",
            "id": part_id,
            "tool": name if isinstance(name, str) and name else kind[: -len("_call")],
            "callID": call_id if isinstance(call_id, str) and call_id else part_id,
        }

    def advance(self, status: object, events: list[Event]) -> None:
        """Send the part where its status is another one."""
        found = _STATUS.get(status, "running") if isinstance(status, str) else "pending"
        if self._clients and found != "error":
            found = "pending"
        if found != self._sent:
            self._send(found, events)

    def grow(self, text: str, events: list[Event]) -> None:
        """Send what the input grows by."""
        if not text:
            return
        if not self._growing:
            state: dict[str, Any] = {"status": self._sent or "pending", "input": {}}
            self._growing = {**self._shown, "state": state}
        self._text.append(text)
        data = {"part": self._growing, "delta": text}
        events.append({"type": ev.PART_UPDATED, "data": data})

    def end(self, item: dict[str, Any], events: list[Event]) -> None:
        """Send the whole item."""
        self._item = {**self._item, **item}
        status = _STATUS.get(str(item.get("status")), "completed")
        if item.get("error"):
            status = "error"
        if self._clients and status != "error":
            status = "running"
        self._send(status, events)

    def _send(self, status: str, events: list[Event]) -> None:
        self._sent = status
        item = self._item
        asked = {name: item[name] for name in _INPUT if item.get(name)}
        state: dict[str, Any] = {"status": status, "input": asked}
        if self._text:
            state["inputText"] = "".join(self._text)
        self._growing = {}
        for name in _OUTPUT:
            if item.get(name) is not None:
                state["output"] = item[name]
        if status == "error":
            said: Any = item.get("error") or item.get("status") or self._sent
            state["error"] = said if isinstance(said, str) else json.dumps(said)
        part = {**self._shown, "state": state}
        events.append({"type": ev.PART_UPDATED, "data": {"part": part}})
