"""The command's trace: one span a turn, into a file of OTLP JSON lines or to a server.

Names are those of the OpenTelemetry GenAI conventions as of November 2026; the
constants in opentelemetry-semantic-conventions are deprecated.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from operators.event import ERROR, LLM_CALL, PART_UPDATED, RUN_STARTED, Event
from operators.turn import TurnContext, error_text

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
TIMEOUTS: Final = (
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
)
PATIENCE: Final = 3.0
"""Seconds that a server gets to take the trace, where the environment names none."""


class Watch:
    """What a turn shows of itself while it runs: times, model, usage, its error.

    Times are seconds from `session.run.started`; `last_s` is that of the last content.
    """

    def __init__(self) -> None:
        """Have seen nothing yet."""
        self._started = monotonic()
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.deltas = 0
        self.call: dict[str, Any] = {}
        self.error = ""

    def __call__(self, event: Event) -> None:
        """See one event."""
        kind = event.get("type")
        held = event.get("data")
        data = cast("dict[str, Any]", held) if isinstance(held, dict) else {}
        if kind == PART_UPDATED:
            self.last_s = monotonic() - self._started
            self.deltas += 1
            if self.first_s is None:
                self.first_s = self.last_s
        elif kind == LLM_CALL:
            self.call.update(data)
        elif kind == ERROR:
            self.error = str(data.get("message") or "")
        elif kind == RUN_STARTED:
            self._started = monotonic()


class TurnTrace:
    """The span of one turn: made here, ended and sent once, when the turn is closed.

    `where` tells where it went: a file, an address, or why nowhere.
    """

    def __init__(self, path: Path, *, model: str | None, watch: Watch) -> None:
        """Start the span; `path` is used when the environment names no endpoint.

        Raises:
            OSError: `path` cannot be written.
        """
        self._watch = watch
        endpoint = next(filter(None, map(os.environ.get, ENDPOINTS)), None)
        try:
            from .otlp_file import OtlpFileExporter, tracer_into

            self._exporter: SpanExporter | None = (
                OtlpFileExporter(path) if endpoint is None else _to_server()
            )
            self.where = endpoint or str(path)
            self._ended: list[ReadableSpan] = []
            tracer = tracer_into(self._ended)
        except ImportError:
            self._exporter = None
            self.where = "not written: pip install 'turnpipe[otel]'"
            tracer = trace.NoOpTracer()
        self.span = tracer.start_span(
            f"chat {model}" if model else "chat",
            kind=SpanKind.CLIENT,
            attributes={"gen_ai.operation.name": "chat", "gen_ai.request.stream": True},
        )
        if model:
            self.span.set_attribute("gen_ai.request.model", model)

    def describe(self, *, conversation: str, execution_id: str, source: str) -> None:
        """Say what the turn is and which server it asks."""
        self.span.set_attributes(
            {
                "gen_ai.conversation.id": conversation,
                "turnpipe.execution_id": execution_id,
            }
        )
        address = urlsplit(source)
        if address.hostname:
            self.span.set_attribute("server.address", address.hostname)
            port = address.port or (443 if address.scheme == "https" else 80)
            self.span.set_attribute("server.port", port)

    async def flush(self, turn: TurnContext) -> None:
        """End the span with what became of the turn, and send it off."""
        call = self._watch.call
        for name, value in _measured(call, self._watch).items():
            self.span.set_attribute(name, value)
        if call.get("model"):
            self.span.update_name(f"chat {call['model']}")
        ending = turn.ending
        if ending is not None:
            self.span.set_attribute("turnpipe.status", ending.status)
            if ending.status == "failed":
                error = ending.error
                kind = ending.code or type(error).__name__
                self.span.set_attribute("error.type", kind)
                told = "" if error is None else error_text(error)
                self.span.set_status(Status(StatusCode.ERROR, told or None))
        self.span.end()
        if self._exporter is not None:
            sent = await asyncio.to_thread(self._exporter.export, self._ended)
            if sent.name != "SUCCESS":
                self.where = f"not delivered to {self.where}"


_FROM_CALL: Final = {
    "provider": "gen_ai.provider.name",
    "model": "gen_ai.response.model",
    "responseId": "gen_ai.response.id",
    "inputTokens": "gen_ai.usage.input_tokens",
    "outputTokens": "gen_ai.usage.output_tokens",
    "cachedInputTokens": "gen_ai.usage.cache_read.input_tokens",
    "reasoningTokens": "gen_ai.usage.reasoning.output_tokens",
}


def _measured(call: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    named = {
        name: call[key] for key, name in _FROM_CALL.items() if call.get(key) is not None
    }
    if call.get("finishReason") is not None:
        named["gen_ai.response.finish_reasons"] = [call["finishReason"]]
    if watch.first_s is not None:
        named["gen_ai.response.time_to_first_chunk"] = watch.first_s
    return named


def _to_server() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # what went wrong is told once, in `where`
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    given = any(name in os.environ for name in TIMEOUTS)
    return OTLPSpanExporter(timeout=None if given else PATIENCE)
