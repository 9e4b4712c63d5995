"""What of a stream is something to show, and what only keeps it alive."""

from __future__ import annotations

from typing import Any, cast

from .event import LLM_CALL, PART_UPDATED

_HEARTBEATS = ("heartbeat", "ping")
_ENVELOPE = "session.run."


def is_heartbeat(event: object) -> bool:
    """Tell whether an event only says that the connection is alive."""
    kind = cast("dict[str, Any]", event).get("type") if isinstance(event, dict) else ""
    return isinstance(kind, str) and kind.startswith(_HEARTBEATS)


def is_content(event: object) -> bool:
    """Tell whether an event carries something to show.

    Empty deltas, text parts without text, usage (`llm_call`), the envelope
    (`session.run.*`) and heartbeats do not; everything else does, tool calls and a
    product's own events included.
    """
    if not isinstance(event, dict):
        return False
    known = cast("dict[str, Any]", event)
    if is_heartbeat(known):
        return False
    kind = known.get("type")
    if kind != PART_UPDATED:
        return not (
            kind == LLM_CALL or (isinstance(kind, str) and kind.startswith(_ENVELOPE))
        )
    data = known.get("data")
    if not isinstance(data, dict):
        return False
    shown = cast("dict[str, Any]", data)
    part: Any = shown.get("part")
    whole = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
    if shown.get("delta") or whole.get("text"):
        return True
    return "delta" not in shown and whole.get("type", "text") not in (
        "text",
        "reasoning",
    )
