"""The honest baseline: the seven stages of a turn written by hand as one generator.

It does what the pipeline does for the same turn: the execution's name, the envelope and
the source's terminals, a tap whose errors are logged, the message's text, parts and
usage, a transform of text and parts, persist with a record, one terminal, the flush;
failures end in `error` and `session.run.failed`; the source is closed; events are
counted and the first one stamped. What one delta more of the same part costs stands in
the loop itself, as whoever counts nanoseconds would write it.

It lacks what only a library can give: settlement in a task of its own, cancellation,
detaching, timeouts, hooks that may be sync or async, other events than plain dicts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from time import monotonic, time
from typing import Any, Literal, TypeAlias

import orjson

from operators.errors import PublicError, TurnError
from operators.turn import TurnIdentity, TurnRecord, Usage
from pipeline.execution import derive_execution_id

Event: TypeAlias = dict[str, Any]
Part: TypeAlias = dict[str, Any]

log = logging.getLogger("hand")
NEWLINE = orjson.OPT_APPEND_NEWLINE
REPORTS = frozenset({"error", "session.run.failed", "session.run.completed"})
FOLDED = frozenset({"message.part.updated", "result", "llm_call"})


class Envelope:
    """The events around those of the source."""

    __slots__ = ("error_sent", "identity", "reported")

    def __init__(self, identity: TurnIdentity) -> None:
        self.identity = identity
        self.reported: dict[str, Any] | None = None
        self.error_sent = False

    def started(self) -> Event:
        """Make the event that opens the turn."""
        identity = self.identity
        data: dict[str, Any] = {"sessionId": identity.session_id}
        if identity.tenant_id is not None:
            data["tenantId"] = identity.tenant_id
        data["turnIndex"] = identity.turn_index
        return {"type": "session.run.started", "data": data}

    def absorb(self, kind: str, event: Event) -> Event | None:
        """Keep back the source's terminals; its first error passes."""
        if kind == "session.run.completed":
            return None
        data = event.get("data")
        merged = self.reported or {}
        if isinstance(data, str):
            data = {"message": data}
        self.reported = {**merged, **data} if isinstance(data, dict) else merged
        if self.error_sent:
            return None
        self.error_sent = True
        if kind == "error":
            return event
        data = event.get("data")
        return {"type": "error"} if data is None else {"type": "error", "data": data}

    def terminal(self) -> Event:
        """Make the event that ends a drained turn."""
        session_id = self.identity.session_id
        if self.reported is None:
            return {"type": "session.run.completed", "data": {"sessionId": session_id}}
        data = {**self.reported, "sessionId": session_id}
        data.setdefault("message", "The turn failed.")
        return {"type": "session.run.failed", "data": data}

    def failure(self, error: Exception, code: str) -> tuple[Event, ...]:
        """Make the events that end a turn in which something raised."""
        shown: dict[str, Any]
        if isinstance(error, PublicError):
            shown = {"message": str(error), "code": error.code}
        else:
            code = error.code if isinstance(error, TurnError) else code
            error_id = os.urandom(16).hex()
            log.exception("turn failed: %s %s", code, error_id)
            shown = {"message": "The turn failed.", "code": code, "errorId": error_id}
        if self.error_sent:  # as the client was told already
            told = self.reported or {}
            known = ("message", "code", "errorId")
            shown |= {key: told[key] for key in known if isinstance(told.get(key), str)}
        data = {"sessionId": self.identity.session_id, **shown}
        failed = {"type": "session.run.failed", "data": data}
        return (
            (failed,) if self.error_sent else ({"type": "error", "data": shown}, failed)
        )


class Message:
    """The message being put together: all but one delta more of the same part."""

    __slots__ = ("chunks", "entries", "last", "usage")

    def __init__(self) -> None:
        self.entries: dict[Any, tuple[Part, list[str]]] = {}
        self.chunks: list[str] = []
        self.last: object = self
        self.usage: Usage | None = None

    def fold(self, kind: str, data: dict[str, Any]) -> None:
        """Take one event's data in."""
        if kind == "llm_call":
            self.count(data)
            return
        if kind == "result":
            text = data.get("finalText")
            if isinstance(text, str):
                self.replace(text)
            return
        part: Any = data.get("part")
        known: Part = part if part.__class__ is dict else {"type": "text"}
        delta = data.get("delta")
        sort = known.get("type", "text")
        key = known.get("id")
        key = (sort,) if key is None else key
        if isinstance(delta, str) and delta:
            if key not in self.entries:
                self.entries[key] = (known, [])
            self.chunks = self.entries[key][1]
            self.chunks.append(delta)
            self.last = part
        elif sort not in ("text", "reasoning"):
            self.entries[key] = (known, [])
            self.last = self
        elif isinstance(known.get("text"), str):
            self.entries[key] = (known, [known["text"]])
            self.last = self

    def count(self, data: dict[str, Any]) -> None:
        """Add one call's tokens."""
        before = self.usage or Usage()
        self.usage = Usage(
            input_tokens=before.input_tokens + data.get("inputTokens", 0),
            output_tokens=before.output_tokens + data.get("outputTokens", 0),
            cached_input_tokens=before.cached_input_tokens
            + data.get("cachedInputTokens", 0),
            reasoning_tokens=before.reasoning_tokens + data.get("reasoningTokens", 0),
        )

    def replace(self, text: str) -> None:
        """Put `text` in the place of the first text, and drop the others."""
        texts = [
            key
            for key, (part, _) in self.entries.items()
            if part.get("type", "text") == "text"
        ]
        first = texts[0] if texts else ("text",)
        part = self.entries[first][0] if texts else {"type": "text"}
        self.entries[first] = (part, [text])
        for key in texts[1:]:
            del self.entries[key]
        self.last = self

    def settled(self, transform: Callable[[str], str]) -> tuple[str, tuple[Part, ...]]:
        """Make text and parts, both transformed; a message of one text only once."""
        entries = self.entries
        if len(entries) == 1:
            ((part, chunks),) = entries.values()
            if part.get("type", "text") == "text":
                text = transform("".join(chunks))
                return text, ({**part, "text": text},)
        whole = "".join(
            [
                "".join(chunks)
                for part, chunks in entries.values()
                if part.get("type", "text") == "text"
            ]
        )
        text = transform(whole)
        parts: list[Part] = []
        for part, chunks in entries.values():
            if part.get("type", "text") in ("text", "reasoning"):
                parts.append({**part, "text": transform("".join(chunks))})
            elif part.get("type") == "tool":
                state = {**part.get("state", {})}
                if chunks:
                    state["inputText"] = "".join(chunks)
                if state.get("status", "pending") in ("pending", "running"):
                    state["status"] = "interrupted"
                parts.append({**part, "state": state})
            else:
                parts.append({**part})
        return text, tuple(parts)


async def hand_turn(
    identity: TurnIdentity,
    produce: Callable[[], AsyncGenerator[Event, None]],
    *,
    on_event: Callable[[Event], object],
    transform: Callable[[str], str],
    save: Callable[[TurnRecord], Awaitable[object]],
    flush: Callable[[], object],
    stats: dict[str, float | None] | None = None,
) -> AsyncGenerator[bytes, None]:
    """Run one turn whose source yields events; yields NDJSON lines."""
    dumps = orjson.dumps
    execution_id = derive_execution_id(
        identity.tenant_id or "-", identity.session_id, identity.turn_index
    )
    started_at = time()
    began = monotonic()
    first: float | None = None
    events = 0
    envelope = Envelope(identity)
    message = Message()
    last: object = message
    append = message.chunks.append
    code = "source_failed"
    try:
        try:
            event = envelope.started()
            try:
                on_event(event)
            except Exception:
                log.exception("tap raised")
            yield dumps(event, None, NEWLINE)
            async with aclosing(produce()) as source:
                async for event in source:
                    kind = event.get("type")
                    if kind in REPORTS:
                        passed = envelope.absorb(kind, event)
                        if passed is None:
                            continue
                        event = passed
                    try:
                        on_event(event)
                    except Exception:
                        log.exception("tap raised")
                    if kind in FOLDED:
                        data: Any = event.get("data")
                        if data.__class__ is dict:
                            text = data.get("delta")
                            if isinstance(text, str) and data.get("part") is last:
                                append(text)
                            else:
                                message.fold(kind, data)
                                last = message.last
                                append = message.chunks.append
                    chunk = dumps(event, None, NEWLINE)
                    if not events:
                        first = monotonic() - began
                    events += 1
                    yield chunk
            code = "transform_failed"
            record = record_of(
                identity, execution_id, started_at, envelope, message, transform
            )
            code = "persist_failed"
            await save(record)
            terminals: tuple[Event, ...] = (envelope.terminal(),)
        except Exception as exc:
            terminals = envelope.failure(exc, code)
        for event in terminals:
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
        if stats is not None:
            stats.update(events=events, first=first, duration=monotonic() - began)


async def hand_turn_of_lists(
    identity: TurnIdentity,
    produce: Callable[[], AsyncGenerator[list[Event], None]],
    *,
    on_event: Callable[[Event], object],
    transform: Callable[[str], str],
    save: Callable[[TurnRecord], Awaitable[object]],
    flush: Callable[[], object],
    stats: dict[str, float | None] | None = None,
) -> AsyncGenerator[bytes, None]:
    """Run one turn whose source yields what each read delivered; a chunk a read."""
    dumps = orjson.dumps
    execution_id = derive_execution_id(
        identity.tenant_id or "-", identity.session_id, identity.turn_index
    )
    started_at = time()
    began = monotonic()
    first: float | None = None
    events = 0
    envelope = Envelope(identity)
    message = Message()
    last: object = message
    append = message.chunks.append
    code = "source_failed"
    try:
        try:
            event = envelope.started()
            try:
                on_event(event)
            except Exception:
                log.exception("tap raised")
            yield dumps(event, None, NEWLINE)
            async with aclosing(produce()) as source:
                async for read in source:
                    batch: list[Event] = []
                    for event in read:
                        kind = event.get("type")
                        if kind in REPORTS:
                            passed = envelope.absorb(kind, event)
                            if passed is None:
                                continue
                            event = passed
                        try:
                            on_event(event)
                        except Exception:
                            log.exception("tap raised")
                        if kind in FOLDED:
                            data: Any = event.get("data")
                            if data.__class__ is dict:
                                text = data.get("delta")
                                if isinstance(text, str) and data.get("part") is last:
                                    append(text)
                                else:
                                    message.fold(kind, data)
                                    last = message.last
                                    append = message.chunks.append
                        batch.append(event)
                    if batch:
                        chunk = b"\n".join(map(dumps, batch)) + b"\n"
                        if not events:
                            first = monotonic() - began
                        events += len(batch)
                        yield chunk
            code = "transform_failed"
            record = record_of(
                identity, execution_id, started_at, envelope, message, transform
            )
            code = "persist_failed"
            await save(record)
            terminals: tuple[Event, ...] = (envelope.terminal(),)
        except Exception as exc:
            terminals = envelope.failure(exc, code)
        for event in terminals:
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
        if stats is not None:
            stats.update(events=events, first=first, duration=monotonic() - began)


def record_of(  # noqa: PLR0917 - called once a turn, as everything here by position
    identity: TurnIdentity,
    execution_id: str,
    started_at: float,
    envelope: Envelope,
    message: Message,
    transform: Callable[[str], str],
) -> TurnRecord:
    """Make what is saved."""
    text, parts = message.settled(transform)
    status: Literal["completed", "failed"] = (
        "completed" if envelope.reported is None else "failed"
    )
    return TurnRecord(
        identity=identity,
        execution_id=execution_id,
        status=status,
        text=text,
        parts=parts,
        usage=message.usage,
        started_at=started_at,
        ended_at=time(),
    )
