"""The vocabulary of a turn: what an event is, its known types, their constructors.

An event is a plain dict, `{"type": str, "data": {...}}`, forwarded verbatim, other keys
included. Wire keys are camelCase because clients speak it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NotRequired, TypeAlias, TypedDict, cast

RUN_STARTED: Final = "session.run.started"
RUN_COMPLETED: Final = "session.run.completed"
RUN_FAILED: Final = "session.run.failed"
RUN_CANCELLED: Final = "session.run.cancelled"
ERROR: Final = "error"
PART_UPDATED: Final = "message.part.updated"
RESULT: Final = "result"
LLM_CALL: Final = "llm_call"

TERMINALS: Final = frozenset({RUN_COMPLETED, RUN_FAILED, RUN_CANCELLED})
"""The types that end a turn: exactly one of them is sent, and it is last."""


ENVELOPE: Final = TERMINALS | {RUN_STARTED, ERROR}
"""The types that say how a turn goes: no operator drops them."""


class EventDict(TypedDict):
    """The documented shape of an event. Products may add keys of their own."""

    type: str
    data: NotRequired[Any]


Event: TypeAlias = dict[str, Any]
"""An event as the code passes it: a plain dict, `EventDict` in its known keys."""

ToolStatus: TypeAlias = Literal[
    "pending", "running", "completed", "error", "interrupted"
]


def event(kind: str, data: Mapping[str, Any] | None = None) -> Event:
    """Make an event of any type; without `data` the key is left out."""
    return {"type": kind} if data is None else {"type": kind, "data": dict(data)}


def started(session_id: str, tenant_id: str | None, turn_index: int) -> Event:
    """Make `session.run.started`; a missing tenant is left out of it."""
    data: dict[str, Any] = {"sessionId": session_id}
    if tenant_id is not None:
        data["tenantId"] = tenant_id
    data["turnIndex"] = turn_index
    return {"type": RUN_STARTED, "data": data}


def completed(session_id: str) -> Event:
    """Make `session.run.completed`."""
    return {"type": RUN_COMPLETED, "data": {"sessionId": session_id}}


def cancelled(session_id: str, reason: str) -> Event:
    """Make `session.run.cancelled`: an explicit stop, which is not a failure."""
    return {
        "type": RUN_CANCELLED,
        "data": {"sessionId": session_id, "reason": reason},
    }


def text_part(part_id: str) -> dict[str, Any]:
    """Make the `part` of a text; share one between all of its deltas."""
    return {"type": "text", "id": part_id}


def reasoning_part(part_id: str) -> dict[str, Any]:
    """Make the `part` of a reasoning text; share one between all of its deltas."""
    return {"type": "reasoning", "id": part_id}


def delta(part: dict[str, Any], text: str) -> Event:
    """Make the `message.part.updated` that adds `text` to `part`."""
    return {"type": PART_UPDATED, "data": {"part": part, "delta": text}}


def tool_part(
    part_id: str,
    *,
    tool: str,
    call_id: str,
    status: ToolStatus,
    **state: Any,
) -> Event:
    """Make the `message.part.updated` of a tool call.

    `state` takes `input` (decoded arguments), `inputText` (the raw JSON so far),
    `output` and `error`.
    """
    return {
        "type": PART_UPDATED,
        "data": {
            "part": {
                "type": "tool",
                "id": part_id,
                "tool": tool,
                "callID": call_id,
                "state": {"status": status, **state},
            }
        },
    }


def result(final_text: str) -> Event:
    """Make `result`: the whole answer, replacing the text gathered so far."""
    return {"type": RESULT, "data": {"finalText": final_text}}


def llm_call(**data: Any) -> Event:
    """Make `llm_call`: one model call's usage.

    Keys: `model, provider, inputTokens, outputTokens, cachedInputTokens,
    cacheWriteInputTokens, reasoningTokens, finishReason, latencyMs` (ms); leave out what
    is not known. `inputTokens` is all input, cached included; `outputTokens` all output,
    reasoning included. Several reports of one call share a `callId`, and say by `merge`
    how they join: `"last"`, `"max"` or `"sum"`. `meter` adds `provenance`, `cost`,
    `currency` and `calls`.
    """
    return {"type": LLM_CALL, "data": data}


_STRUCTURE = frozenset(
    {
        "type",
        "id",
        "tool",
        "callID",
        "status",
        "sessionId",
        "tenantId",
        "code",
        "errorId",
    }
)


def without_text(event: Event) -> Event:
    """Copy an event with all free text taken out: what fails to be checked is not sent.

    Ids, types, codes and statuses stay.
    """
    return {
        key: value if key == "type" else _without_text(value)
        for key, value in event.items()
    }


def _without_text(value: Any) -> Any:
    if isinstance(value, str):
        return ""
    if isinstance(value, dict):
        return {
            key: inner
            if key in _STRUCTURE and not isinstance(inner, (dict, list))
            else _without_text(inner)
            for key, inner in cast("dict[str, Any]", value).items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_text(inner) for inner in cast("list[Any]", value)]
    return value
