"""A streamed response's events folded into turnpipe's: no bytes, clock or network."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn, cast
from uuid import uuid4

from operators import event as ev
from operators.errors import SourceIncomplete, SourceProtocol
from operators.event import Event

from .chat_tools import ToolCalls
from .decoding import excerpt
from .refusal import error_from_body
from .response_tools import ToolItem

STATUSES: Final = {
    # platform.openai.com/docs/guides/error-codes
    "invalid_prompt": 400,
    "invalid_request_error": 400,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "server_error": 500,
    "vector_store_timeout": 504,
}
_TEXT: Final = {
    # event's name -> the part's type, and the event's own number for it
    "output_text": ("text", "content_index"),
    "refusal": ("text", "content_index"),
    "reasoning_text": ("reasoning", "content_index"),
    "reasoning_summary_text": ("reasoning", "summary_index"),
}


class _Text:
    """One text that is growing."""

    __slots__ = ("annotations", "part", "said")

    def __init__(self, part: dict[str, Any]) -> None:
        self.part = part
        self.said = False
        self.annotations: list[Any] = []


class _Function:
    """One function call: its fragments go through `ToolCalls`."""

    __slots__ = ("said", "tools")

    def __init__(self, tools: ToolCalls) -> None:
        self.tools = tools
        self.said = False


class ResponseAssembler:
    """Fold the events of one streamed response into turnpipe events.

    Texts, refusals, reasoning (and its summaries) and tools become parts `text-1`,
    `reasoning-2`, `tool-3`, ... in order of appearance, known by their item's id and
    their number in it. A text's `annotations` come with its end; a reasoning's
    `encrypted` is what the provider wants back in the next request. What was not
    streamed, but stands in a `done` event, is given then.

    One `llm_call` at the end, `merge` "last"; one ahead of a failure that tells usage.
    """

    __slots__ = (
        "_call_id",
        "_functions",
        "_items",
        "_last",
        "_model",
        "_number",
        "_provider",
        "_reason",
        "_texts",
        "_usage",
        "done",
        "finished",
        "seen",
    )

    def __init__(self, *, model: str = "", provider: str = "openai") -> None:
        """Start a response; `model` and `provider` go into `llm_call`."""
        self.seen = False
        self.finished = False
        self.done = False
        self._model = model
        self._provider = provider
        self._call_id = ""
        self._number = 0
        self._reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._texts: dict[tuple[str, str, object], _Text] = {}
        self._functions: dict[str, _Function] = {}
        self._items: dict[str, ToolItem] = {}
        self._last: _Function | None = None

    def status(self, error: object) -> int | None:
        """Tell the HTTP status of an error's `code` or `type`."""
        if not isinstance(error, dict):
            return None
        told = cast("dict[str, Any]", error)
        for kind in (told.get("code"), told.get("type")):
            if isinstance(kind, str) and kind in STATUSES:
                return STATUSES[kind]
        return None

    def feed(self, record: dict[str, Any], events: list[Event]) -> None:
        """Fold one record in; types that are not known are passed over.

        Raises:
            SourceProtocol: a field has a type that the protocol does not give it.
            SourceStatus: the response failed.
            SourceIncomplete: the response was cancelled elsewhere.
        """
        kind: Any = record.get("type")
        if kind.__class__ is not str or not kind.startswith("response."):
            return
        self.seen = True
        name, _, step = kind[len("response.") :].rpartition(".")
        if name in _TEXT:
            self._say(name, step, record, events)
        elif name == "function_call_arguments":
            self._argue(step, record, events)
        elif name == "output_item":
            item = _object(record, "item")
            if step == "added":
                self._add(item, events)
            elif step == "done":
                self._close(item, events)
        elif name == "output_text.annotation":
            if step == "added":
                text = self._text("output_text", record)
                text.annotations.append(record.get("annotation"))
        elif name.endswith("_call"):
            tool = self._items.get(_text(record, "item_id"))
            if tool is not None and step != "completed":  # its output comes at the end
                tool.advance(step, events)
        elif not name:
            self._respond(step, record, events)

    def finish(self, *, latency_ms: float | None = None) -> list[Event]:
        """End the response: settle open calls, report it."""
        events: list[Event] = []
        for function in self._functions.values():
            events += function.tools.finish()
        for text in self._texts.values():
            _annotate(text, events)
        data = self._report()
        if latency_ms is not None:
            data["latencyMs"] = latency_ms
        events.append(ev.llm_call(**data))
        return events

    def _respond(self, step: str, record: dict[str, Any], events: list[Event]) -> None:
        """Take the state of the whole response."""
        response = _object(record, "response")
        model, call_id = response.get("model"), response.get("id")
        if isinstance(model, str) and model:
            self._model = model
        if isinstance(call_id, str):
            self._call_id = self._call_id or call_id
        usage: Any = response.get("usage")
        if isinstance(usage, dict):
            self._usage = cast("dict[str, Any]", usage)
        if step == "completed":
            self._reason = "completed"
        elif step == "incomplete":
            details: Any = response.get("incomplete_details")
            reason: Any = None
            if isinstance(details, dict):
                reason = cast("dict[str, Any]", details).get("reason")
            self._reason = reason if isinstance(reason, str) and reason else step
        elif step in ("failed", "cancelled"):
            self._reason = step
            if self._usage:
                events.append(ev.llm_call(**self._report()))
            error: Any = response.get("error")
            if step == "cancelled":
                raise SourceIncomplete("the response was cancelled: the answer is cut")
            raise error_from_body(
                {"error": error} if error else None,
                json.dumps(error),
                status=self.status(error) or 200,
                where="the response failed",
            )
        else:
            return
        self.finished = self.done = True

    def _say(
        self, name: str, step: str, record: dict[str, Any], events: list[Event]
    ) -> None:
        if step not in ("delta", "done"):
            return
        text = self._text(name, record)
        if step == "delta":
            said = _text(record, "delta")
        else:
            said = "" if text.said else _text(record, name.rpartition("_")[2])
        if said:
            text.said = True
            data = {"part": text.part, "delta": said}
            events.append({"type": ev.PART_UPDATED, "data": data})
        if step == "done":
            _annotate(text, events)

    def _text(self, name: str, record: dict[str, Any]) -> _Text:
        kind, number = _TEXT[name]
        index: Any = record.get(number)
        key = (_text(record, "item_id"), name, index if type(index) is int else 0)
        text = self._texts.get(key)
        if text is None:
            part = {"type": kind, "id": self._next_id(kind)}
            text = self._texts[key] = _Text(part)
        return text

    def _argue(self, step: str, record: dict[str, Any], events: list[Event]) -> None:
        function = self._functions.get(_text(record, "item_id")) or self._last
        if function is None:
            _refuse("item_id", record)
        if step == "delta":
            _argument(function, _text(record, "delta"), events)
        elif step == "done" and not function.said:
            _argument(function, _text(record, "arguments"), events)

    def _add(self, item: dict[str, Any], events: list[Event]) -> None:
        kind: Any = item.get("type")
        names = {_text(item, "id"), _text(item, "call_id")} - {""}
        if kind == "function_call":
            function = _Function(ToolCalls(self._next_id))
            known = {"name": _text(item, "name")}
            call_id = _text(item, "call_id") or _text(item, "id")
            events += function.tools.feed(
                [{"index": 0, "id": call_id, "function": known}]
            )
            self._last = function
            for name in names or {""}:
                self._functions[name] = function
        elif isinstance(kind, str) and kind.endswith("_call"):
            tool = ToolItem(self._next_id("tool"), item)
            tool.advance(item.get("status"), events)
            for name in names or {""}:
                self._items[name] = tool

    def _close(self, item: dict[str, Any], events: list[Event]) -> None:
        kind: Any = item.get("type")
        names = [_text(item, "id"), _text(item, "call_id")]
        if kind == "function_call":
            function = _first(self._functions, names)
            if function is None:
                self._add(item, events)
                function = self._last
            assert function is not None, "it was just added"
            if not function.said:
                _argument(function, _text(item, "arguments"), events)
            events += function.tools.finish()
        elif kind == "reasoning":
            self._seal(item, events)
        elif isinstance(kind, str) and kind.endswith("_call"):
            tool = _first(self._items, names)
            if tool is None:
                tool = ToolItem(self._next_id("tool"), item)
            tool.end(item, events)

    def _seal(self, item: dict[str, Any], events: list[Event]) -> None:
        """Add to a reasoning what its item keeps encrypted."""
        encrypted = _text(item, "encrypted_content")
        if not encrypted:
            return
        item_id = _text(item, "id")
        parts = [
            text.part
            for (owner, _, _), text in self._texts.items()
            if owner == item_id and text.part["type"] == "reasoning"
        ]
        part = parts[-1] if parts else {"type": "reasoning", "id": ""}
        part = {**part, "id": part["id"] or self._next_id("reasoning")}
        sealed = {**part, "encrypted": encrypted}
        events.append({"type": ev.PART_UPDATED, "data": {"part": sealed}})

    def _report(self) -> dict[str, Any]:
        self._call_id = self._call_id or f"call-{uuid4().hex}"
        data: dict[str, Any] = {
            "model": self._model,
            "provider": self._provider,
            "callId": self._call_id,
            "merge": "last",
        }
        usage = self._usage
        reported = {
            "inputTokens": usage.get("input_tokens"),
            "outputTokens": usage.get("output_tokens"),
            "cachedInputTokens": _detail(
                usage, "input_tokens_details", "cached_tokens"
            ),
            "reasoningTokens": _detail(
                usage, "output_tokens_details", "reasoning_tokens"
            ),
        }
        data |= {key: value for key, value in reported.items() if type(value) is int}
        if self._reason is not None:
            data["finishReason"] = self._reason
        return data

    def _next_id(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number}"


def _argument(function: _Function, text: str, events: list[Event]) -> None:
    if text:
        function.said = True
        events += function.tools.feed([{"index": 0, "function": {"arguments": text}}])


def _annotate(text: _Text, events: list[Event]) -> None:
    if text.annotations:
        part = {**text.part, "annotations": text.annotations}
        text.annotations = []
        events.append({"type": ev.PART_UPDATED, "data": {"part": part}})


def _first(known: dict[str, Any], names: list[str]) -> Any:
    return next((known[name] for name in names if name in known), None)


def _detail(usage: dict[str, Any], group: str, key: str) -> Any:
    details: Any = usage.get(group)
    if not isinstance(details, dict):
        return None
    return cast("dict[str, Any]", details).get(key)


def _object(record: dict[str, Any], field: str) -> dict[str, Any]:
    value: Any = record.get(field)
    if value.__class__ is not dict:
        _refuse(field, record)
    return value


def _text(record: dict[str, Any], field: str) -> str:
    value: Any = record.get(field)
    if value is None:
        return ""
    if value.__class__ is not str:
        _refuse(field, record)
    return value


def _refuse(field: str, record: dict[str, Any]) -> NoReturn:
    raise SourceProtocol(
        f"a response event has a {type(record.get(field)).__name__} as its `{field}`: "
        f"{excerpt(json.dumps(record))}"
    )
