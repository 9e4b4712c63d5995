"""The tool items of a response: the client's own, and those that the provider runs."""

from __future__ import annotations

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
    what came of it. An item that the client runs stays `running` when it is whole.
    """

    __slots__ = ("_clients", "_item", "_sent", "_shown")

    def __init__(self, part_id: str, item: dict[str, Any]) -> None:
        """Begin with the item as it was added."""
        kind = str(item["type"])
        self._item = item
        self._clients = kind in _CLIENTS
        self._sent: object = None
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

    def end(self, item: dict[str, Any], events: list[Event]) -> None:
        """Send the whole item."""
        self._item = {**self._item, **item}
        status = _STATUS.get(str(item.get("status")), "completed")
        if self._clients and status != "error":
            status = "running"
        self._send(status, events)

    def _send(self, status: str, events: list[Event]) -> None:
        self._sent = status
        item = self._item
        asked = {name: item[name] for name in _INPUT if item.get(name)}
        state: dict[str, Any] = {"status": status, "input": asked}
        for name in _OUTPUT:
            if item.get(name) is not None:
                state["output"] = item[name]
        if status == "error":
            said: Any = item.get("error") or item.get("status")
            state["error"] = said if isinstance(said, str) else str(said)
        part = {**self._shown, "state": state}
        events.append({"type": ev.PART_UPDATED, "data": {"part": part}})
