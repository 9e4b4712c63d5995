"""The known events' shape: what is wrong with one, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast, get_args

from . import event as ev

_STATUSES: Final = get_args(ev.ToolStatus)
_TOKENS: Final = (
    "inputTokens",
    "outputTokens",
    "cachedInputTokens",
    "cacheWriteInputTokens",
    "reasoningTokens",
)


def problem_of(event: ev.Event) -> str | None:
    """Tell what is wrong with an event as `path: what`, None where nothing is.

    Events of unknown types, and keys beside the known ones, are a product's own.
    """
    kind = event.get("type")
    if kind is None:
        return None
    if not isinstance(kind, str):
        return _wrong("type", "a string", kind)
    data = event.get("data")
    if kind not in _DATA:
        return None
    if not isinstance(data, dict):
        return _wrong("data", "an object", data)
    return _DATA[kind](cast("dict[str, Any]", data))


def _wrong(path: str, wanted: str, value: object) -> str:
    if value is None:
        return f"{path}: is missing, it must be {wanted}"
    return f"{path}: must be {wanted}, not {type(value).__name__}"


def _text(data: Mapping[str, Any], path: str, *, needed: bool = True) -> str | None:
    value = data.get(path.rpartition(".")[2])
    if isinstance(value, str) or (value is None and not needed):
        return None
    return _wrong(path, "a string", value)


def _run(data: Mapping[str, Any]) -> str | None:
    return _text(data, "data.sessionId")


def _started(data: Mapping[str, Any]) -> str | None:
    index = data.get("turnIndex")
    if index is not None and index.__class__ is not int:
        return _wrong("data.turnIndex", "an integer", index)
    return _run(data) or _text(data, "data.tenantId", needed=False)


def _failed(data: Mapping[str, Any]) -> str | None:
    return _text(data, "data.message") or _text(data, "data.code", needed=False)


def _result(data: Mapping[str, Any]) -> str | None:
    return _text(data, "data.finalText")


def _call(data: Mapping[str, Any]) -> str | None:
    for key in _TOKENS:
        value = data.get(key)
        if value is not None and (value.__class__ is not int or value < 0):
            return f"data.{key}: must be an integer, 0 or more, not {value!r}"
    return None


def _part(data: Mapping[str, Any]) -> str | None:
    found = data.get("part")
    if not isinstance(found, dict):
        return _wrong("data.part", "an object", found)
    part = cast("dict[str, Any]", found)
    kind = part.get("type")
    return (
        _text(part, "data.part.type")
        or _text(part, "data.part.id", needed=kind in ("text", "reasoning", "tool"))
        or _text(part, "data.part.text", needed=False)
        or _text(data, "data.delta", needed=False)
        or (_tool(part) if kind == "tool" else None)
    )


def _tool(part: Mapping[str, Any]) -> str | None:
    found = part.get("state")
    if not isinstance(found, dict):
        return _wrong("data.part.state", "an object", found)
    state = cast("dict[str, Any]", found)
    status = state.get("status")
    if status not in _STATUSES:
        return (
            f"data.part.state.status: must be one of {', '.join(_STATUSES)}, "
            f"not {status!r}"
        )
    return (
        _text(part, "data.part.tool")
        or _text(part, "data.part.callID")
        or _text(state, "data.part.state.inputText", needed=False)
    )


_DATA: Final = {
    ev.RUN_STARTED: _started,
    ev.RUN_COMPLETED: _run,
    ev.RUN_CANCELLED: _run,
    ev.RUN_FAILED: _run,
    ev.ERROR: _failed,
    ev.PART_UPDATED: _part,
    ev.RESULT: _result,
    ev.LLM_CALL: _call,
}
