"""`handle_chat_turn`: one chat turn from hooks, over Pipeline.

The interface of the engine that turnpipe re-creates: a producer, a handful of hooks, a
body of NDJSON lines.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import operators as ops
from operators.errors import CompositionError
from operators.source import ChatTurnProducer
from operators.turn import Log, TurnIdentity, TurnRecord

from .pipeline import Pipeline
from .run import Body

CONTENT_TYPE: Final = "application/x-ndjson"

_REQUIRED: Final = ("produce", "persist_assistant_message")

_LOGGED: Final = {
    "on_event": "[chat-engine] onEvent hook threw",
    "on_turn_complete": "[chat-engine] onTurnComplete threw",
    "trace_flush": "[chat-engine] traceFlush threw",
}

Produce: TypeAlias = Callable[[], ChatTurnProducer | Awaitable[ChatTurnProducer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurnHooks:
    """The hooks of a turn: plain callables, sync or async; two are required.

    `produce()` gives the stream and its final text; `persist_assistant_message(identity=,
    final_text=)` stores it, `on_turn_complete(identity=, final_text=)` follows;
    `on_event(event)` sees every line's event; `transform_final_text(text)` changes what
    is stored; `trace_flush()` comes last.
    """

    produce: Produce
    persist_assistant_message: Callable[..., object]
    on_turn_complete: Callable[..., object] | None = None
    on_event: Callable[[Any], object] | None = None
    transform_final_text: Callable[[str], Any] | None = None
    trace_flush: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        """Check that every hook is callable, and the two required ones are there."""
        for field in fields(self):
            hook = getattr(self, field.name)
            if not callable(hook) and (hook is not None or field.name in _REQUIRED):
                raise CompositionError(
                    f"ChatTurnHooks({field.name}={hook!r}): it must be a function"
                )


@dataclass(frozen=True, slots=True)
class ChatTurnResult:
    """What a response needs: the body's chunks and their type."""

    body: Body[bytes]
    content_type: str = CONTENT_TYPE


def handle_chat_turn(
    *,
    identity: TurnIdentity,
    hooks: ChatTurnHooks,
    wait_until: Callable[[Awaitable[object]], object] | None = None,
    log: Log | None = None,
) -> ChatTurnResult:
    """Run one chat turn; returns at once, the work is done as the body is read.

    Every line is one event; a failure's own text reaches the client (`lifecycle` masks
    it). `wait_until(awaitable)` is handed the trace flush, `log(message, meta)` what goes
    wrong.
    """
    chat = Pipeline(lambda: hooks.produce()) | ops.lifecycle(errors="message")
    if hooks.on_event is not None:
        chat |= ops.tap(_one(hooks.on_event), name="on_event")
    chat |= ops.accumulate()
    if hooks.transform_final_text is not None:
        chat |= ops.transform(_one(hooks.transform_final_text))
    chat |= ops.persist(_with_text(hooks.persist_assistant_message))
    if hooks.on_turn_complete is not None:
        chat |= ops.complete(
            _with_text(hooks.on_turn_complete), name="on_turn_complete"
        )
    if hooks.trace_flush is not None:
        flush = hooks.trace_flush
        chat |= ops.trace_flush(lambda: flush(), name="trace_flush")
    run = chat.start(
        identity,
        wait_until=wait_until,
        log=None if log is None else _original_log(log),
    )
    return ChatTurnResult(run.body())


def _one(hook: Callable[[Any], object]) -> Callable[[Any], Any]:
    """Call a hook with its one argument, whatever else it could take."""
    return lambda value: hook(value)


def _with_text(hook: Callable[..., object]) -> Callable[[TurnRecord], object]:
    return lambda record: hook(identity=record.identity, final_text=record.text)


def _original_log(log: Log) -> Log:
    """Say what is logged in the original engine's words."""

    def say(message: str, meta: Mapping[str, Any]) -> None:
        name = str(meta.get("operator"))
        known = "[chat-engine] turn failed" if message == "turn failed" else message
        if message == f"{name} raised":
            known = _LOGGED.get(name, message)
        log(known, {"error": meta.get("error", "")})

    return say
