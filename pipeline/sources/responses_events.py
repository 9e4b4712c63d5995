"""A streamed response's events folded into turnpipe's: no bytes, clock or network."""

from __future__ import annotations

import json
from typing import Any, Final, cast
from uuid import uuid4

from operators import event as ev
from operators.errors import SourceIncomplete
from operators.event import Event

from .chat_tools import ToolCalls
from .refusal import error_from_body
from .response_fields import object_of, refuse, text_of
from .response_items import ItemKeys
from .response_texts import TEXT, Texts
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
_DELTAS: Final = {f"response.{name}.delta": name for name in TEXT}
_INPUTS: Final = frozenset(
    # the tools' inputs that are streamed, beside those of functions
    {"code_interpreter_call_code", "custom_tool_call_input", "mcp_call_arguments"}
)


class _Function:
    """One function call: its fragments go through `ToolCalls`."""

    __slots__ = ("said", "tools")

    def __init__(self, tools: ToolCalls) -> None:
        self.tools = tools
        self.said = False


class ResponseAssembler:
    """Fold the events of one streamed response into turnpipe events.

    Texts, refusals, reasoning (and its summaries) and tools become parts `text-1`,
    `reasoning-2`, `tool-3`, ... in order of appearance, known by their item (see
    `ItemKeys`) and their number in it. A text's `annotations` come with its end; a
    reasoning's `encrypted` is what the provider wants back in the next request. What
    was not streamed, but stands in a `done` event or, where nothing was streamed, in
    the whole response, is given then.

    One `llm_call` at the end, `merge` "last"; one ahead of a failure that tells usage.
    """

    __slots__ = (
        "_call_id",
        "_functions",
        "_items",
        "_keys",
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
        self._keys = ItemKeys()
        self._texts = Texts(self._next_id)
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
        grown = _DELTAS.get(kind)
        if grown is not None:  # most of a stream
            self._texts.grow(grown, self._key(record), record, events)
            return
        name, _, step = kind[len("response.") :].rpartition(".")
        if name in TEXT:
            if step == "done":
                self._texts.end(name, self._key(record), record, events)
        elif name == "function_call_arguments":
            self._argue(step, record, events)
        elif name == "output_item":
            item = object_of(record, "item")
            index = record.get("output_index")
            if step == "added":
                self._add(item, index, events)
            elif step == "done":
                self._close(item, index, events)
        elif name == "output_text.annotation":
            if step == "added":
                self._texts.annotate(self._key(record), record)
        elif name.endswith("_call"):
            tool = self._items.get(self._key(record))
            if tool is not None and step != "completed":  # its output comes at the end
                tool.advance(step, events)
        elif name in _INPUTS:
            tool = self._items.get(self._key(record))
            if tool is not None and step == "delta":
                tool.grow(text_of(record, "delta"), events)
        elif not name:
            self._respond(step, record, events)

    def finish(self, *, latency_ms: float | None = None) -> list[Event]:
        """End the response: settle open calls, report it."""
        events: list[Event] = []
        for function in self._functions.values():
            events += function.tools.finish()
        self._texts.finish(events)
        data = self._report()
        if latency_ms is not None:
            data["latencyMs"] = latency_ms
        events.append(ev.llm_call(**data))
        return events

    def _respond(self, step: str, record: dict[str, Any], events: list[Event]) -> None:
        """Take the state of the whole response."""
        response = object_of(record, "response")
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
        output: Any = response.get("output")
        if not self._number and isinstance(output, list):  # nothing was streamed
            for index, item in enumerate(cast("list[Any]", output)):
                if isinstance(item, dict):
                    self._close(cast("dict[str, Any]", item), index, events)
        self.finished = self.done = True

    def _key(self, record: dict[str, Any]) -> str:
        return self._keys.of(text_of(record, "item_id"), record.get("output_index"))

    def _argue(self, step: str, record: dict[str, Any], events: list[Event]) -> None:
        function = self._functions.get(self._key(record)) or self._last
        if function is None:
            refuse("item_id", record)
        if step == "delta":
            _argument(function, text_of(record, "delta"), events)
        elif step == "done" and not function.said:
            _argument(function, text_of(record, "arguments"), events)

    def _add(self, item: dict[str, Any], index: Any, events: list[Event]) -> str:
        kind: Any = item.get("type")
        key = self._keys.announce(_names(item), index)
        if kind == "function_call":
            function = _Function(ToolCalls(self._next_id))
            known = {"name": text_of(item, "name")}
            call_id = text_of(item, "call_id") or text_of(item, "id")
            events += function.tools.feed(
                [{"index": 0, "id": call_id, "function": known}]
            )
            self._last = self._functions[key] = function
        elif isinstance(kind, str) and kind.endswith("_call"):
            tool = self._items[key] = ToolItem(self._next_id("tool"), item)
            tool.advance(item.get("status"), events)
        return key

    def _close(self, item: dict[str, Any], index: Any, events: list[Event]) -> None:
        kind: Any = item.get("type")
        key = self._keys.find(_names(item), index)
        if kind == "function_call":
            if key is None or key not in self._functions:
                key = self._add(item, index, events)
            function = self._functions[key]
            if not function.said:
                _argument(function, text_of(item, "arguments"), events)
            events += function.tools.finish()
        elif kind in ("message", "reasoning"):
            self._texts.fill(item, key, events)
        elif isinstance(kind, str) and kind.endswith("_call"):
            tool = None if key is None else self._items.get(key)
            if tool is None:
                tool = ToolItem(self._next_id("tool"), item)
            tool.end(item, events)
        if key is not None:
            self._keys.done(key, index)

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


def _names(item: dict[str, Any]) -> list[str]:
    return [text_of(item, "id"), text_of(item, "call_id")]


def _detail(usage: dict[str, Any], group: str, key: str) -> Any:
    details: Any = usage.get(group)
    if not isinstance(details, dict):
        return None
    return cast("dict[str, Any]", details).get(key)
