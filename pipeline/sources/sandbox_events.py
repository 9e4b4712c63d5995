"""What agents report, told in turnpipe's events: no bytes, no clock, no network."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, cast
from zlib import crc32

from operators import event as ev
from operators.event import Event

from .chat_tools import decode_arguments

ENDS: Final = ev.TERMINALS | {"final", "done"}
"""The types after which nothing comes."""

WHOLE: Final = frozenset(
    {ev.RESULT, ev.ERROR, "backend_error", "backend_end", "task_end"}
    | {f"execution.{how}" for how in ("completed", "failed", "cancelled")}
)
"""The types that say that the answer is whole, though more may come."""

_TEXTS: Final = frozenset({ev.PART_UPDATED, "text_delta", "delta"})
_KEPT_ALIVE: Final = frozenset({"keepalive", "keep-alive", "keep_alive"})
_CALL_IDS: Final = ("toolCallId", "callID", "callId", "tool_call_id", "id")
_INPUTS: Final = ("args", "input", "arguments")
_SAYING: Final = {
    key: crc32(key.encode())
    for key in ("text", "delta", "finalText", "message", "executionId", *_CALL_IDS)
}
_FAILED: Final = frozenset({"failed", "error", "aborted", "cancelled", "blocked"})
_USAGE: Final = {"tokensIn": "inputTokens", "tokensOut": "outputTokens"}


def is_ping(kind: str) -> bool:
    """Tell whether a record of this type only says that the connection is alive."""
    return kind.startswith(("heartbeat", "ping")) or kind in _KEPT_ALIVE


def fingerprint(record: Mapping[str, Any], kind: str) -> int:
    """Tell records apart by what they say, the same in every process.

    Times, counters and what else a server may write anew when it repeats an event are
    left out, and so is the order of its fields.
    """
    data: Any = record.get("data")
    if data.__class__ is not dict:
        data = record
    found = crc32(kind.encode("utf-8", "surrogatepass"))
    for key, value in data.items():
        if value.__class__ is str:
            if key in _SAYING:
                found ^= crc32(value.encode("utf-8", "surrogatepass"), _SAYING[key])
        elif key == "part" and value.__class__ is dict:
            for inner in ("id", "callID", "text"):
                told: Any = value.get(inner)
                if told.__class__ is str:
                    found ^= crc32(told.encode("utf-8", "surrogatepass"), len(inner))
    return found


class EventMapper:
    """Make turnpipe's events of an agent's records, one record at a time.

    * `message.part.updated` with a `part` passes as it is; without one, and as
      `text_delta`, `delta` or `reasoning_delta`, its text is a delta of a part `text-1`,
      `reasoning-2`, ...: a new one after each tool call, or the part that it names;
    * `tool_call` and `tool_result` become the `tool` part of their call;
    * `result`, and `final` of a run that went well, become `result`, which stands for
      the whole text and adds nothing to it; `error`, `backend_error` and a `final` of a
      run that did not, `error`;
    * `llm_call` gets the names of turnpipe;
    * everything else passes as it is.

    `state` is what it takes to go on in another process; `changed` tells that it is not
    what it was.
    """

    __slots__ = ("_number", "_open", "_part", "_tools", "changed")

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        """Start a message, or go on with one."""
        known: Mapping[str, Any] = state or {}
        self._number = int(known.get("number", 0))
        self._open = str(known.get("open", ""))  # the id of the part that grows
        self._tools: dict[str, list[str]] = {
            str(call): [str(one) for one in told]
            for call, told in dict(known.get("tools", {})).items()
        }
        self._part: dict[str, Any] = {}
        self.changed = False

    @property
    def state(self) -> dict[str, Any]:
        """What it takes to go on, as JSON."""
        return {
            "number": self._number,
            "open": self._open,
            "tools": {call: [*told] for call, told in self._tools.items()},
        }

    def map(self, record: Event) -> Event | None:
        """Make the event of a record; None where it says nothing."""
        kind: Any = record.get("type")
        if kind.__class__ is not str:
            return _error(record) if record.get("error") else record
        data = _data(record)
        if kind in _TEXTS:
            text: Any = data.get("text")
            if text.__class__ is str and len(data) == 1 and text and self._is_open():
                return {
                    "type": ev.PART_UPDATED,
                    "data": {"part": self._part, "delta": text},
                }
            part: Any = data.get("part")
            if kind == ev.PART_UPDATED and part.__class__ is dict and "type" in part:
                if part["type"] == "tool":
                    self._close()
                return record
            return self._text(data, kind, record)
        if kind == "reasoning_delta":
            return self._delta("reasoning", data, _first(data, "text", "delta"))
        if kind == "tool_call":
            return self._call(data)
        if kind == "tool_result":
            return self._result(data)
        if kind in (ev.RESULT, "final"):
            return _ended(record, data, kind)
        if kind in (ev.ERROR, "backend_error"):
            return _error(record)
        if kind == ev.LLM_CALL:
            return _usage(data)
        return record

    def _text(self, data: dict[str, Any], kind: str, record: Event) -> Event | None:
        part: Any = data.get("part")
        shown = cast("dict[str, Any]", part) if part.__class__ is dict else {}
        told: Any = shown.get("type", "text")
        text = _first(data, "text", "delta")
        if not text and told == "text":
            text = _first(shown, "text")
        if not text and kind == ev.PART_UPDATED:
            return record
        return self._delta("reasoning" if told == "reasoning" else "text", data, text)

    def _delta(self, kind: str, data: dict[str, Any], text: str) -> Event | None:
        if not text:
            return None
        part: Any = data.get("part")
        shown = cast("dict[str, Any]", part) if part.__class__ is dict else data
        named = _first(shown, "id" if shown is part else "partId", "partID")
        found = self._part
        if named:
            if found.get("id") != named or found["type"] != kind:
                self._part = found = {"type": kind, "id": named}
        elif not self._open.startswith(kind):
            self._number += 1
            self._open = f"{kind}-{self._number}"
            self.changed = True
            self._part = found = {"type": kind, "id": self._open}
        elif found.get("id") != self._open:
            self._part = found = {"type": kind, "id": self._open}
        return {"type": ev.PART_UPDATED, "data": {"part": found, "delta": text}}

    def _call(self, data: dict[str, Any]) -> Event:
        self._close()
        tool = _first(data, "toolName", "name", "tool") or "tool"
        made, call_id = self._begin(_first(data, *_CALL_IDS), tool)
        given = _present(data, *_INPUTS)
        state: dict[str, Any] = {"status": "running", "input": given or {}}
        if given.__class__ is str:
            state = {"status": "running", "input": {}, "inputText": given}
            with suppress(ValueError):  # it is shown as it was written
                state["input"] = decode_arguments(given)
        return _tool({"id": made, "tool": tool, "callID": call_id}, state)

    def _result(self, data: dict[str, Any]) -> Event:
        self._close()
        tool = _first(data, "toolName", "name", "tool")
        call_id = _first(data, *_CALL_IDS) or next(
            (call for call, told in self._tools.items() if tool in ("", told[1])), ""
        )
        told = self._tools.pop(call_id, None)
        if told is None:  # a call that was made out of sight
            made, call_id = self._begin(call_id, tool)
            del self._tools[call_id]
        else:
            self.changed = True
            made, tool = told[0], tool or told[1]
        output = _present(data, "result", "output")
        state: dict[str, Any] = {"status": "completed", "output": output}
        error: Any = data.get("error")
        if error or data.get("isError") is True or data.get("is_error") is True:
            said = _message(error) or _message(output) or "the tool failed"
            state = {"status": "error", "error": said}
            if output is not None:
                state["output"] = output
        part = {"id": made, "tool": tool, "callID": call_id}
        if not tool:  # what a part was called before stays
            del part["tool"]
        return _tool(part, state)

    def _is_open(self) -> bool:
        """Tell whether what grows is a text without a name of its own."""
        part = self._part
        return bool(part) and part["id"] == self._open and part["type"] == "text"

    def _begin(self, call_id: str, tool: str) -> tuple[str, str]:
        """Find, or begin, the part of a call; give its id and the call's."""
        told = self._tools.get(call_id) if call_id else None
        if told is None:
            self._number += 1
            made = call_id or f"tool-{self._number}"
            call_id = call_id or made
            self._tools[call_id] = told = [made, tool]
            self.changed = True
        return told[0], call_id

    def _close(self) -> None:
        if self._open:
            self._open = ""
            self.changed = True


def _data(record: Mapping[str, Any]) -> dict[str, Any]:
    """Tell a record's data; one without `data` is its own."""
    data: Any = record.get("data")
    if data.__class__ is dict:
        return cast("dict[str, Any]", data)
    return {key: record[key] for key in record if key != "type"}


def _first(data: Mapping[str, Any], *keys: str) -> str:
    """Find the first text that is not empty."""
    for key in keys:
        value: Any = data.get(key)
        if value.__class__ is str and value:
            return cast("str", value)
    return ""


def _present(data: Mapping[str, Any], *keys: str) -> Any:
    """Find the first value that is there."""
    return next((data[key] for key in keys if key in data), None)


def _tool(part: dict[str, Any], state: dict[str, Any]) -> Event:
    whole = {"type": "tool", **part, "state": state}
    return {"type": ev.PART_UPDATED, "data": {"part": whole}}


def _ended(record: Event, data: dict[str, Any], kind: str) -> Event:
    if kind == "final" and _first(data, "status") in _FAILED:
        return _error({"type": ev.ERROR, "data": data})
    text = _first(data, "finalText", "text")
    if not text or (kind == ev.RESULT and "finalText" in data and "data" in record):
        return record
    return ev.result(text)


def _error(record: Event) -> Event:
    data = _data(record)
    plain = record.get("type") == ev.ERROR and data is record.get("data")
    if plain and isinstance(data.get("message"), str):
        return record
    detail: Any = data.get("error")
    inner = cast("dict[str, Any]", detail) if detail.__class__ is dict else data
    message = _message(detail) or _message(data) or _first(data, "reason", "detail")
    told: dict[str, Any] = {"message": message or "the agent failed"}
    code: Any = inner.get("code") or inner.get("kind") or data.get("status")
    if isinstance(code, str):
        told["code"] = code
    return {"type": ev.ERROR, "data": told}


def _message(value: Any) -> str:
    if value.__class__ is str:
        return cast("str", value)
    if value.__class__ is dict:
        return _first(cast("dict[str, Any]", value), "message")
    return ""


def _usage(data: dict[str, Any]) -> Event:
    told = {_USAGE.get(key, key): value for key, value in data.items()}
    cost: Any = told.pop("costUsd", None)
    if cost is not None and "cost" not in told:
        told |= {"cost": str(cost), "currency": "USD"}
    return ev.llm_call(**told)
