"""Tool calls put together from their fragments."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn, cast

from operators import event as ev
from operators.errors import SourceProtocol
from operators.event import Event


class _Call:
    """One call: its part while it grows, and the argument fragments so far."""

    __slots__ = ("done", "fragments", "id", "name", "part")

    def __init__(self, part_id: str, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.fragments: list[str] = []
        self.done = False
        self.part: dict[str, Any] = {
            "type": "tool",
            "id": part_id,
            "tool": name,
            "callID": call_id,
            "state": {"status": "pending", "input": {}},
        }


class ToolCalls:
    """The tool calls of one message, each known by its `index`.

    A call's first event is its part with status `pending`, `input` {} and `inputText`
    "". Each argument fragment is a `delta` to that part, which is then not repeated:
    `inputText` is the deltas joined, and the cost of a long argument stays linear. The
    last event is the part with the whole `inputText`: status `running` and the decoded
    `input`, ready for whoever runs the tool; or, where the arguments are not a JSON
    object, status `error`, `input` {} and `error` saying why.
    """

    __slots__ = ("_all", "_by_index", "_last", "_next_id")

    def __init__(self, next_id: Callable[[str], str]) -> None:
        """Take part ids from `next_id("tool")`."""
        self._next_id = next_id
        self._all: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._last: _Call | None = None

    def feed(self, fragments: list[Any]) -> list[Event]:
        """Fold the `tool_calls` of one delta in.

        Raises:
            SourceProtocol: a fragment belongs to no call, or a field has a wrong type.
        """
        events: list[Event] = []
        for fragment in fragments:
            if not isinstance(fragment, dict):
                _refuse("is no object", fragment)
            known = cast("dict[str, Any]", fragment)
            function: Any = known.get("function") or {}
            if not isinstance(function, dict):
                _refuse("has a `function` that is no object", known)
            detail = cast("dict[str, Any]", function)
            call = self._call(known, detail, events)
            text: Any = detail.get("arguments")
            if not text:
                continue
            if isinstance(text, dict):  # some servers decode them
                text = json.dumps(text, ensure_ascii=False)
            if not isinstance(text, str):
                _refuse("has `arguments` that are no text", known)
            call.fragments.append(text)
            events.append(
                {"type": ev.PART_UPDATED, "data": {"part": call.part, "delta": text}}
            )
        return events

    def finish(self) -> list[Event]:
        """End every call that is still growing, in order of appearance."""
        events: list[Event] = []
        for call in self._all:
            if call.done:
                continue
            call.done = True
            text = "".join(call.fragments)
            state: dict[str, Any] = {
                "status": "running",
                "input": {},
                "inputText": text,
            }
            try:
                state["input"] = decode_arguments(text)
            except ValueError as error:
                state["status"] = "error"
                state["error"] = str(error)
            part = {**call.part, "state": state}
            events.append({"type": ev.PART_UPDATED, "data": {"part": part}})
        return events

    def _call(
        self, fragment: dict[str, Any], detail: dict[str, Any], events: list[Event]
    ) -> _Call:
        index: Any = fragment.get("index")
        call_id: Any = fragment.get("id") or ""
        name: Any = detail.get("name") or ""
        if not isinstance(call_id, str) or not isinstance(name, str):
            _refuse("has an `id` or a `name` that is no text", fragment)
        if type(index) is int:
            call = self._by_index.get(index)
        else:
            call = None if name else self._last
        # One server gives parallel calls the same index, another each fragment a new
        # id: only an id that comes with a name is another call's.
        if call is not None and call.id and name and call_id not in ("", call.id):
            call = None
        if call is None or call.done:
            if not name:
                _refuse(
                    "goes on with a call that was not begun: it has no name", fragment
                )
            part_id = self._next_id("tool")
            call = _Call(part_id, call_id or part_id, name)
            self._all.append(call)
            begun: dict[str, Any] = {"status": "pending", "input": {}, "inputText": ""}
            events.append(
                {
                    "type": ev.PART_UPDATED,
                    "data": {"part": {**call.part, "state": begun}},
                }
            )
            if type(index) is int:
                self._by_index[index] = call
        self._last = call
        return call


def decode_arguments(text: str) -> dict[str, Any]:
    """Decode a tool call's arguments; nothing at all stands for no arguments.

    Raises:
        ValueError: they are not a JSON object; `NaN` and `Infinity` are not JSON.
    """
    if not text.strip():
        return {}
    try:
        value: Any = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("the arguments are nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the arguments are not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - one kind of error for whatever is wrong
            "the arguments are JSON, but not an object"
        )
    return cast("dict[str, Any]", value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(what: str, fragment: object) -> NoReturn:
    raise SourceProtocol(f"a tool call fragment {what}: {json.dumps(fragment)[:2048]}")
