"""Anthropic's message events folded into turnpipe's: no bytes, no clock, no network."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn, cast
from uuid import uuid4

from operators import event as ev
from operators.errors import SourceProtocol
from operators.event import Event

from .chat_tools import ToolCalls
from .decoding import excerpt

STATUSES: Final = {
    # docs.anthropic.com/en/api/errors
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_TEXTUAL: Final = {
    # delta type -> its field
    "text_delta": "text",
    "thinking_delta": "thinking",
}
_COUNTS: Final = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
)


class _Block:
    """One content block that is growing."""

    __slots__ = ("citations", "fragments", "input", "part", "signature", "tools")

    def __init__(self, part: dict[str, Any], tools: ToolCalls | None = None) -> None:
        self.part = part
        self.tools = tools
        self.input: Any = None  # what the block began with
        self.fragments = 0
        self.signature: list[str] = []
        self.citations: list[Any] = []


class AnthropicAssembler:
    """Fold the events of one streamed message into turnpipe events.

    Blocks become parts `text-1`, `reasoning-2`, `tool-3`, ... in order of appearance.
    A text's `annotations` are its citations; a reasoning's `signature` and `redacted`
    (encrypted thinking) are what the provider wants back in the next request. A tool
    that the provider runs itself ends `completed` with its `output`, or `error`.

    `llm_call` comes at the start, at each `message_delta` and at the end, all of one
    `callId`, `merge` "max": the counts are cumulative. `inputTokens` is all input,
    cache reads and writes included, which Anthropic counts apart.
    """

    __slots__ = (
        "_blocks",
        "_call_id",
        "_model",
        "_number",
        "_provider",
        "_reason",
        "_served",
        "_usage",
        "done",
        "finished",
        "seen",
    )

    def __init__(self, *, model: str = "", provider: str = "anthropic") -> None:
        """Start a message; `model` and `provider` go into `llm_call`."""
        self.seen = False
        self.finished = False
        self.done = False
        self._model = model
        self._provider = provider
        self._call_id = ""
        self._number = 0
        self._reason: str | None = None
        self._usage: dict[str, int] = {}
        self._blocks: dict[int, _Block] = {}
        self._served: dict[str, dict[str, Any]] = {}

    def status(self, error: object) -> int | None:
        """Tell the HTTP status of an error's `type`."""
        if not isinstance(error, dict):
            return None
        kind: Any = cast("dict[str, Any]", error).get("type")
        return STATUSES.get(kind) if isinstance(kind, str) else None

    def feed(self, record: dict[str, Any], events: list[Event]) -> None:
        """Fold one record in; types that are not known are passed over.

        Raises:
            SourceProtocol: a field has a type that the protocol does not give it.
        """
        kind = record.get("type")
        if kind == "content_block_delta":
            self._grow(record, events)
        elif kind == "content_block_start":
            self._begin(record, events)
        elif kind == "content_block_stop":
            block = self._blocks.pop(_index(record), None)
            if block is not None:
                self._end(block, events)
        elif kind == "message_start":
            self._start(_object(record, "message"), events)
        elif kind == "message_delta":
            self._advance(record, events)
        elif kind == "message_stop":
            self.seen = self.finished = self.done = True

    def finish(self, *, latency_ms: float | None = None) -> list[Event]:
        """End the message: settle open blocks, report the call."""
        events: list[Event] = []
        for block in self._blocks.values():
            self._end(block, events)
        self._blocks.clear()
        data = self._report()
        if self._reason is None:  # without a reason, no `merge` says that it is final
            del data["merge"]
        else:
            data["finishReason"] = self._reason
        if latency_ms is not None:
            data["latencyMs"] = latency_ms
        events.append(ev.llm_call(**data))
        return events

    def _start(self, message: dict[str, Any], events: list[Event]) -> None:
        self.seen = True
        model, call_id = message.get("model"), message.get("id")
        if isinstance(model, str) and model:
            self._model = model
        if isinstance(call_id, str):
            self._call_id = self._call_id or call_id
        if self._count(message.get("usage")):
            events.append(ev.llm_call(**self._report()))

    def _advance(self, record: dict[str, Any], events: list[Event]) -> None:
        self.seen = True
        reason = _object(record, "delta").get("stop_reason")
        counted = self._count(record.get("usage"))
        if counted:
            events.append(ev.llm_call(**self._report()))
        if reason:
            self._reason = str(reason)
            self.finished = True

    def _begin(self, record: dict[str, Any], events: list[Event]) -> None:
        self.seen = True
        index = _index(record)
        before = self._blocks.pop(index, None)
        if before is not None:
            self._end(before, events)
        content = _object(record, "content_block")
        kind = content.get("type")
        if kind == "text":
            block = _Block({"type": "text", "id": self._next_id("text")})
            _say(block, _text(content, "text"), events)
            citations: Any = content.get("citations")
            if isinstance(citations, list):
                block.citations += citations
        elif kind == "thinking":
            block = _Block({"type": "reasoning", "id": self._next_id("reasoning")})
            _say(block, _text(content, "thinking"), events)
            block.signature.append(_text(content, "signature"))
        elif kind == "redacted_thinking":
            part = {"type": "reasoning", "id": self._next_id("reasoning")}
            part["redacted"] = _text(content, "data")
            events.append({"type": ev.PART_UPDATED, "data": {"part": part}})
            return
        elif isinstance(kind, str) and kind.endswith("tool_use"):
            block = _Block({}, ToolCalls(self._next_id))
            _call(block, content, events)
            block.input = content.get("input")
        elif isinstance(kind, str) and kind.endswith("_tool_result"):
            self._answer(content, events)
            return
        else:
            return
        self._blocks[index] = block

    def _grow(self, record: dict[str, Any], events: list[Event]) -> None:
        block = self._blocks.get(_index(record))
        delta = _object(record, "delta")
        kind: Any = delta.get("type")
        if block is None:
            return  # of a block whose type is not known
        field = _TEXTUAL.get(kind) if kind.__class__ is str else None
        if field is not None:
            if block.tools is None:
                _say(block, _text(delta, field), events)
        elif kind == "input_json_delta":
            text = _text(delta, "partial_json")
            if block.tools is not None and text:
                block.fragments += 1
                events += block.tools.feed(
                    [{"index": 0, "function": {"arguments": text}}]
                )
        elif kind == "signature_delta":
            block.signature.append(_text(delta, "signature"))
        elif kind == "citations_delta":
            block.citations.append(delta.get("citation"))

    def _end(self, block: _Block, events: list[Event]) -> None:
        if block.tools is not None:
            if block.input and not block.fragments:
                events += block.tools.feed(
                    [{"index": 0, "function": {"arguments": block.input}}]
                )
            ended = block.tools.finish()
            for event in ended:
                part = event["data"]["part"]
                self._served[part["callID"]] = part
            events += ended
            return
        more: dict[str, Any] = {}
        if any(block.signature):
            more["signature"] = "".join(block.signature)
        if block.citations:
            more["annotations"] = block.citations
        if more:
            part = {**block.part, **more}
            events.append({"type": ev.PART_UPDATED, "data": {"part": part}})

    def _answer(self, content: dict[str, Any], events: list[Event]) -> None:
        """Complete the call of a tool that the provider ran."""
        call_id = _text(content, "tool_use_id")
        output: Any = content.get("content")
        kind = str(content["type"]).removesuffix("_tool_result")
        part = self._served.get(call_id)
        if part is None:
            made = self._next_id("tool")
            part = {"type": "tool", "id": made, "tool": kind, "callID": call_id or made}
        begun: dict[str, Any] = {"input": {}}
        before: Any = cast("Any", part.get("state", begun))
        state: dict[str, Any] = {**before, "status": "completed", "output": output}
        failed = content.get("is_error") is True
        if output.__class__ is dict:
            failed = failed or str(output.get("type")).endswith("_error")
        if failed:
            code: Any = output
            if output.__class__ is dict:
                code = output.get("error_code")
            state |= {"status": "error", "error": f"{kind} failed: {code}"}
        self._served[call_id] = done = {**part, "state": state}
        events.append({"type": ev.PART_UPDATED, "data": {"part": done}})

    def _count(self, usage: Any) -> bool:
        if not isinstance(usage, dict):
            return False
        reported = cast("dict[str, Any]", usage)
        found = {key: reported[key] for key in _COUNTS if _whole(reported.get(key))}
        self._usage |= found
        return bool(found)

    def _report(self) -> dict[str, Any]:
        self._call_id = self._call_id or f"call-{uuid4().hex}"
        data: dict[str, Any] = {
            "model": self._model,
            "provider": self._provider,
            "callId": self._call_id,
            "merge": "max",
        }
        usage = self._usage
        read = usage.get("cache_read_input_tokens")
        written = usage.get("cache_creation_input_tokens")
        if "input_tokens" in usage:
            data["inputTokens"] = usage["input_tokens"] + (read or 0) + (written or 0)
        if "output_tokens" in usage:
            data["outputTokens"] = usage["output_tokens"]
        if read is not None:
            data["cachedInputTokens"] = read
        if written is not None:
            data["cacheWriteInputTokens"] = written
        return data

    def _next_id(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number}"


def _call(block: _Block, content: dict[str, Any], events: list[Event]) -> None:
    """Begin a tool call, as `ToolCalls` wants it told."""
    assert block.tools is not None, "only called for tools"
    function = {"name": _text(content, "name")}
    begun = {"index": 0, "id": _text(content, "id"), "function": function}
    events += block.tools.feed([begun])


def _say(block: _Block, text: str, events: list[Event]) -> None:
    if text:
        data = {"part": block.part, "delta": text}
        events.append({"type": ev.PART_UPDATED, "data": data})


def _whole(value: object) -> bool:
    return type(value) is int and value >= 0


def _index(record: dict[str, Any]) -> int:
    index: Any = record.get("index")
    if type(index) is not int:
        _refuse("index", record)
    return index


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
        f"a message event has a {type(record.get(field)).__name__} as its `{field}`: "
        f"{excerpt(json.dumps(record))}"
    )
