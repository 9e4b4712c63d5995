"""The honest baseline: the seven stages of a turn written by hand as one generator.

It does what the pipeline does for the same turn: the envelope and the source's terminals,
a tap whose errors are logged, the message's text and parts by id, usage, a transform of
text and parts, persist with a record, a terminal, the flush; failures end in `error` and
`session.run.failed`; the source is closed. It differs in what only a library can give:
settlement in a task of its own, cancellation, detaching, timeouts.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from time import monotonic, time
from typing import Any
from uuid import uuid4

import orjson

from operators.turn import TurnIdentity, TurnRecord, Usage

log = logging.getLogger("hand")
NEWLINE = orjson.OPT_APPEND_NEWLINE


async def hand_turn(
    identity: TurnIdentity,
    produce: Callable[[], AsyncGenerator[dict[str, Any], None]],
    *,
    on_event: Callable[[dict[str, Any]], object],
    transform: Callable[[str], str],
    save: Callable[[TurnRecord], Awaitable[object]],
    flush: Callable[[], object],
) -> AsyncIterator[bytes]:
    """Run one turn; yields NDJSON lines."""
    dumps = orjson.dumps
    session_id = identity.session_id
    execution_id = f"{identity.tenant_id}:{session_id}:{identity.turn_index}"
    started_at = time()
    began = monotonic()
    first_event: float | None = None
    events = 0
    failed: dict[str, Any] | None = None
    error_sent = False
    usage: Usage | None = None
    parts: dict[Any, tuple[dict[str, Any], list[str]]] = {}
    last: object = parts
    chunks: list[str] = []

    event: dict[str, Any] = {
        "type": "session.run.started",
        "data": {
            "sessionId": session_id,
            "tenantId": identity.tenant_id,
            "turnIndex": identity.turn_index,
        },
    }
    try:
        on_event(event)
    except Exception:
        log.exception("tap raised")
    yield dumps(event, None, NEWLINE)
    try:
        async with aclosing(produce()) as source:
            async for event in source:
                kind = event.get("type")
                if kind == "session.run.completed":
                    continue
                if kind in ("error", "session.run.failed"):
                    failed = {**(failed or {}), **event.get("data", {})}
                    if error_sent:
                        continue
                    error_sent = True
                    event = {**event, "type": "error"}
                try:
                    on_event(event)
                except Exception:
                    log.exception("tap raised")
                if kind == "message.part.updated":
                    data = event.get("data")
                    if isinstance(data, dict):
                        part = data.get("part")
                        delta = data.get("delta")
                        if delta and part is last:
                            chunks.append(delta)
                        elif isinstance(part, dict):
                            entry = parts.setdefault(part.get("id"), (part, []))
                            chunks = entry[1]
                            if delta:
                                last = part
                                chunks.append(delta)
                            elif isinstance(part.get("text"), str):
                                chunks[:] = [part["text"]]
                elif kind == "result":
                    parts = {"text": ({"type": "text"}, [event["data"]["finalText"]])}
                    last = parts
                elif kind == "llm_call":
                    data = event["data"]
                    usage = Usage(
                        input_tokens=data.get("inputTokens", 0),
                        output_tokens=data.get("outputTokens", 0),
                    )
                if not events:
                    first_event = monotonic() - began
                events += 1
                yield dumps(event, None, NEWLINE)
        message = [
            {**part, "text": transform("".join(texts))}
            for part, texts in parts.values()
        ]
        text = transform(
            "".join(["".join(t) for p, t in parts.values() if p["type"] == "text"])
        )
        await save(
            TurnRecord(
                identity=identity,
                execution_id=execution_id,
                status="failed" if failed else "completed",
                text=text,
                parts=tuple(message),
                usage=usage,
                started_at=started_at,
                ended_at=time(),
            )
        )
        if failed is None:
            event = {"type": "session.run.completed", "data": {"sessionId": session_id}}
        else:
            event = {
                "type": "session.run.failed",
                "data": {**failed, "sessionId": session_id},
            }
        try:
            on_event(event)
        except Exception:
            log.exception("tap raised")
        yield dumps(event, None, NEWLINE)
    except Exception as exc:
        error_id = uuid4().hex
        log.exception("turn failed %s", error_id)
        shown = {
            "message": "The turn failed.",
            "code": type(exc).__name__,
            "errorId": error_id,
        }
        for event in (
            {"type": "error", "data": shown},
            {"type": "session.run.failed", "data": {"sessionId": session_id, **shown}},
        ):
            try:
                on_event(event)
            except Exception:
                log.exception("tap raised")
            yield dumps(event, None, NEWLINE)
    finally:
        try:
            flush()
        except Exception:
            log.exception("flush raised")
        del first_event
