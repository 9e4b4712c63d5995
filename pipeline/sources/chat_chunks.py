"""Chat completion chunks folded into events: no bytes, no clock, no network."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn, cast

from operators import event as ev
from operators.errors import SourceProtocol
from operators.event import Event

from .chat_tools import ToolCalls
from .decoding import excerpt

_TEXT: Final = {
    # field of a delta -> type of the part it belongs to
    "reasoning_content": "reasoning",
    "reasoning": "reasoning",
    "content": "text",
    "refusal": "text",  # what the model says instead
}


class ChatAssembler:
    """Fold the chunks of one chat completion into turnpipe events.

    Text, reasoning and tool calls become message parts `text-1`, `reasoning-2`,
    `tool-3`, ... numbered in order of appearance; a text that goes on after reasoning
    or a tool call is a part of its own. Deltas of one part share one `part` dict.
    `prefix` goes before the numbers, for turns of several completions.

    Only choice 0 is the message; what `n` > 1 makes more is passed over.

    `finished` says that choice 0 has its finish reason.
    """

    __slots__ = (
        "_call_id",
        "_chat",
        "_finish_reason",
        "_model",
        "_number",
        "_part",
        "_prefix",
        "_provider",
        "_tools",
        "_usage",
        "finished",
    )

    def __init__(
        self, *, model: str = "", provider: str = "openai", prefix: str = ""
    ) -> None:
        """Start a message; `model` and `provider` go into `llm_call`."""
        self.finished = False
        self._model = model
        self._provider = provider
        self._prefix = prefix
        self._number = 0
        self._part: dict[str, Any] = {}
        self._tools = ToolCalls(self._next_id)
        self._usage: dict[str, Any] = {}
        self._finish_reason: str | None = None
        self._chat = False
        self._call_id: str | None = None

    @property
    def seen(self) -> bool:
        """Whether any chunk of a chat completion was among what was fed."""
        return self._chat

    def feed(self, chunk: dict[str, Any]) -> list[Event]:
        """Fold one chunk in; give the events it makes, often one, sometimes none.

        Raises:
            SourceProtocol: a field has a type that chat completions do not give it.
        """
        events: list[Event] = []
        choices: Any = chunk.get("choices")
        if choices:
            if choices.__class__ is not list:
                _refuse("choices", choices)
            for choice in choices:
                if choice.__class__ is not dict:
                    _refuse("choices[]", choice)
                if not choice.get("index"):
                    self._choose(choice, events)
        if choices is not None:
            self._chat = True
            model = chunk.get("model")
            if model.__class__ is str and model:
                self._model = model
            call_id = chunk.get("id")
            if call_id.__class__ is str and call_id:
                self._call_id = call_id
        usage: Any = chunk.get("usage")
        if usage.__class__ is dict:  # the last one counts: some report it as it grows
            self._usage = usage
        return events

    def finish(self, *, latency_ms: float | None = None) -> list[Event]:
        """End the message: settle open tool calls, report the call."""
        events = self._tools.finish()
        data: dict[str, Any] = {"model": self._model, "provider": self._provider}
        data.update(_tokens(self._usage))
        if self._finish_reason is not None:
            data["finishReason"] = self._finish_reason
            if self._call_id is not None:
                data["callId"] = self._call_id
                data["merge"] = "last"
        if latency_ms is not None:
            data["latencyMs"] = latency_ms
        events.append(ev.llm_call(**data))
        return events

    def _choose(self, choice: dict[str, Any], events: list[Event]) -> None:
        delta: Any = choice.get("delta")
        if delta:
            if delta.__class__ is not dict:
                _refuse("delta", delta)
            for field, value in delta.items():
                if not value:
                    continue
                kind = _TEXT.get(field)
                if kind is not None:
                    if value.__class__ is not str:
                        _refuse(f"delta.{field}", value)
                    if field == "reasoning" and delta.get("reasoning_content"):
                        continue  # the same text: some servers use both names
                    part = self._part
                    if part.get("type") != kind:
                        part = self._part = {"type": kind, "id": self._next_id(kind)}
                    events.append(
                        {
                            "type": ev.PART_UPDATED,
                            "data": {"part": part, "delta": value},
                        }
                    )
                elif field == "tool_calls":
                    if value.__class__ is not list:
                        _refuse("delta.tool_calls", value)
                    self._part = {}
                    events += self._tools.feed(value)
        reason: Any = choice.get("finish_reason")
        if reason:
            self.finished = True
            self._finish_reason = str(reason)
            events += self._tools.finish()

    def _next_id(self, kind: str) -> str:
        self._number += 1
        return f"{self._prefix}{kind}-{self._number}"


def _tokens(usage: dict[str, Any]) -> dict[str, int]:
    """Name what was reported as `llm_call` does; leave out what was not."""

    def nested(group: str, key: str) -> Any:
        details: Any = usage.get(group)
        if not isinstance(details, dict):
            return None
        return cast("dict[str, Any]", details).get(key)

    reported = {
        "inputTokens": usage.get("prompt_tokens"),
        "outputTokens": usage.get("completion_tokens"),
        "cachedInputTokens": nested("prompt_tokens_details", "cached_tokens"),
        "reasoningTokens": nested("completion_tokens_details", "reasoning_tokens"),
    }
    return {key: value for key, value in reported.items() if type(value) is int}


def _refuse(field: str, value: object) -> NoReturn:
    raise SourceProtocol(
        f"a chat completion chunk has a {type(value).__name__} as its `{field}`: "
        f"{excerpt(json.dumps(value))}"
    )
