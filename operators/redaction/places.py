"""Where text stands in an event: a walk over all of it, by scope.

Nothing is changed in place; what holds no change is the very object that came in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, cast

from .. import event as ev

Scope: TypeAlias = Literal[
    "text", "reasoning", "tool_input", "tool_output", "error", "result", "other"
]
SCOPES: Final[tuple[Scope, ...]] = (
    "text",
    "reasoning",
    "tool_input",
    "tool_output",
    "error",
    "result",
    "other",
)

Whole: TypeAlias = Callable[[Scope, str, str], str]
"""Edits a whole text: its scope, the text, and what stands left of it as context."""

_ENVELOPE: Final = frozenset({"sessionId", "tenantId", "turnIndex", "code", "errorId"})
_KEPT: Final = {
    ev.RUN_STARTED: _ENVELOPE,
    ev.RUN_COMPLETED: _ENVELOPE,
    ev.RUN_FAILED: _ENVELOPE,
    ev.RUN_CANCELLED: _ENVELOPE,
    ev.ERROR: _ENVELOPE,
    ev.LLM_CALL: frozenset({"model", "provider", "finishReason"}),
}
"""What names a turn or a model, by the type of the event: kept as it is."""
_SCOPE_OF: Final[dict[str, Scope]] = {
    ev.RUN_FAILED: "error",
    ev.RUN_CANCELLED: "error",
    ev.ERROR: "error",
    ev.RESULT: "result",
}
PART_KEPT: Final = frozenset({"type", "id", "tool", "callID"})
STATE_KEPT: Final = frozenset({"status"})
_STATE_SCOPE: Final[dict[str, Scope]] = {
    "input": "tool_input",
    "inputText": "tool_input",
    "output": "tool_output",
    "error": "tool_output",
}
_NOTHING: Final = frozenset[str]()
_LEAST_NUMBER: Final = 10**8
_CONTEXT: Final = 64


def edit_event(event: ev.Event, whole: Whole) -> ev.Event:
    """Edit every text of an event but the type, and what `_KEPT` names."""
    kind = event.get("type")
    known = kind if isinstance(kind, str) else ""
    scope = _SCOPE_OF.get(known, "other")
    changed: ev.Event = {}
    for key, value in event.items():
        if key == "type" and isinstance(value, str):
            continue
        if key == "data" and isinstance(value, dict):
            data = cast("dict[str, Any]", value)
            kept = _KEPT.get(known, _NOTHING)
            edited: Any = edit_dict(data, whole, scope, kept)
            if known == ev.PART_UPDATED and isinstance(data.get("part"), dict):
                part = edit_part(data["part"], whole)
                rest = {k: v for k, v in data.items() if k != "part"}
                others = edit_dict(rest, whole, scope, _NOTHING)
                same = part is data["part"] and others is rest
                edited = data if same else {**others, "part": part}
        else:
            edited = edit(value, whole, scope)
        if edited is not value:
            changed[key] = edited
    return {**event, **changed} if changed else event


def edit_part(part: dict[str, Any], whole: Whole) -> dict[str, Any]:
    """Edit a message part: its text, a tool's state, and what else it shows."""
    kind = part.get("type", "text")
    scope: Scope = (
        "text" if kind == "text" else "reasoning" if kind == "reasoning" else "other"
    )
    state = part.get("state")
    rest = {key: value for key, value in part.items() if key != "state"}
    edited = edit_dict(rest, whole, scope, PART_KEPT)
    if not isinstance(state, dict):
        changed = edit(state, whole, "other")
    else:
        changed = edit_state(cast("dict[str, Any]", state), whole)
    if edited is rest and changed is state:
        return part
    return {**edited, "state": changed} if "state" in part else edited


def edit_state(state: dict[str, Any], whole: Whole) -> dict[str, Any]:
    """Edit the state of a tool call."""
    changed: dict[str, Any] = {}
    for key, value in state.items():
        if key in STATE_KEPT and isinstance(value, str):
            continue
        edited = edit(value, whole, _STATE_SCOPE.get(key, "other"))
        if edited is not value:
            changed[key] = edited
    return {**state, **changed} if changed else state


def edit(value: Any, whole: Whole, scope: Scope, before: str = "") -> Any:
    """Edit whatever JSON holds; a number of many digits is read as text, too."""
    if isinstance(value, str):
        return whole(scope, value, before)
    if isinstance(value, dict):
        return edit_dict(cast("dict[str, Any]", value), whole, scope, _NOTHING)
    if isinstance(value, (list, tuple)):
        items = cast("list[Any]", value)
        edited = [edit(item, whole, scope, before) for item in items]
        same = all(a is b for a, b in zip(edited, items, strict=True))
        return items if same else edited
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and abs(value) >= _LEAST_NUMBER
        and value.bit_length() < 256  # longer ones are slow to spell, and nothing's
    ):
        spelled = str(value)
        shown = whole(scope, spelled, before)
        return value if shown == spelled else shown
    return value


def edit_dict(
    known: dict[str, Any], whole: Whole, scope: Scope, kept: frozenset[str]
) -> dict[str, Any]:
    """Edit keys and values; keys that become alike are numbered, so that none is lost."""
    made: dict[str, Any] = {}
    same = True
    for key, value in known.items():
        if key in kept and not isinstance(value, (dict, list)):
            made[key] = value
            continue
        name: Any = key
        before = ""
        if isinstance(key, str):
            shown = name = whole(scope, key, "")
            if name != key:
                same = False
                number = 2
                while name in made or name in known:
                    name = f"{shown} {number}"
                    number += 1
            before = f'{key[-_CONTEXT:]}": "'
        edited = edit(value, whole, scope, before)
        same = same and edited is value
        made[name] = edited
    return known if same else made
