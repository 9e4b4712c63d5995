"""What a hub keeps of a turn as JSON: its identity, its records, its outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from operators.turn import (
    Parts,
    Provenance,
    RecordStatus,
    Status,
    TurnIdentity,
    TurnOutcome,
    TurnRecord,
    Usage,
)

from ..wire.ndjson import decode

if TYPE_CHECKING:
    from operators.event import Event

    from ..stores.contract import Chunk


def events_of(chunks: Iterable[Chunk]) -> list[Event]:
    """Read the events of a log: LF ends a line, and stands nowhere else in NDJSON."""
    return [decode(line) for chunk in chunks for line in chunk.data.split(b"\n")[:-1]]


def identity_to_json(identity: TurnIdentity) -> dict[str, Any]:
    """Write an identity."""
    return {
        "sessionId": identity.session_id,
        "turnIndex": identity.turn_index,
        "tenantId": identity.tenant_id,
        "userId": identity.user_id,
    }


def identity_from_json(kept: Mapping[str, Any]) -> TurnIdentity:
    """Read an identity."""
    return TurnIdentity(
        session_id=kept["sessionId"],
        turn_index=kept["turnIndex"],
        tenant_id=kept.get("tenantId"),
        user_id=kept.get("userId"),
    )


def usage_to_json(usage: Usage | None) -> dict[str, Any] | None:
    """Write usage; the cost as a decimal string."""
    if usage is None:
        return None
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "cachedInputTokens": usage.cached_input_tokens,
        "cacheWriteInputTokens": usage.cache_write_input_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "provenance": usage.provenance,
        "cost": None if usage.cost is None else str(usage.cost),
        "currency": usage.currency,
    }


def usage_from_json(kept: Mapping[str, Any] | None) -> Usage | None:
    """Read usage."""
    if kept is None:
        return None
    cost = kept.get("cost")
    return Usage(
        input_tokens=kept["inputTokens"],
        output_tokens=kept["outputTokens"],
        cached_input_tokens=kept["cachedInputTokens"],
        cache_write_input_tokens=kept["cacheWriteInputTokens"],
        reasoning_tokens=kept["reasoningTokens"],
        provenance=cast("Provenance", kept["provenance"]),
        cost=None if cost is None else Decimal(cost),
        currency=kept.get("currency"),
    )


def record_to_json(record: TurnRecord) -> dict[str, Any]:
    """Write a record, without what the run itself keeps of it: who and which."""
    return {
        "status": record.status,
        "text": record.text,
        "parts": list(record.parts),
        "usage": usage_to_json(record.usage),
        "startedAt": record.started_at,
        "endedAt": record.ended_at,
    }


def record_from_json(
    kept: Mapping[str, Any], identity: TurnIdentity, execution_id: str
) -> TurnRecord:
    """Read a record."""
    return TurnRecord(
        identity=identity,
        execution_id=execution_id,
        status=cast("RecordStatus", kept["status"]),
        text=kept["text"],
        parts=cast("Parts", tuple(kept["parts"])),
        usage=usage_from_json(kept["usage"]),
        started_at=kept["startedAt"],
        ended_at=kept["endedAt"],
    )


def outcome_to_json(outcome: TurnOutcome, parts: Parts) -> dict[str, Any]:
    """Write an outcome, with the parts of the message; an error as its id and code."""
    return {
        "status": outcome.status,
        "code": outcome.code,
        "reason": outcome.reason,
        "errorId": outcome.error_id,
        "text": outcome.text,
        "finalText": outcome.final_text,
        "parts": list(parts),
        "usage": usage_to_json(outcome.usage),
        "persisted": outcome.persisted,
        "events": outcome.events,
        "firstEventS": outcome.first_event_s,
        "durationS": outcome.duration_s,
    }


def outcome_from_json(kept: Mapping[str, Any]) -> TurnOutcome:
    """Read an outcome; the error itself stayed in the process that had it."""
    return TurnOutcome(
        status=cast("Status", kept["status"]),
        code=kept.get("code"),
        reason=kept.get("reason"),
        error_id=kept.get("errorId"),
        text=kept.get("text", ""),
        final_text=kept.get("finalText"),
        usage=usage_from_json(kept.get("usage")),
        persisted=kept.get("persisted", False),
        events=kept.get("events", 0),
        first_event_s=kept.get("firstEventS"),
        duration_s=kept.get("durationS", 0.0),
    )
