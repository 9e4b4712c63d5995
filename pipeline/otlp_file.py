"""Spans as OTLP JSON lines, by the OTLP specification's file exporter and encoding."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import (
    SpanContext,
    Tracer,
    format_span_id,
    format_trace_id,
)


class _Into(SpanProcessor):
    """Keep what has ended, for the one who sends it."""

    def __init__(self, ended: list[ReadableSpan]) -> None:
        self._ended = ended

    def on_end(self, span: ReadableSpan) -> None:
        self._ended.append(span)


def tracer_into(ended: list[ReadableSpan]) -> Tracer:
    """Make a tracer that puts its ended spans into `ended`, with no thread."""
    resource = Resource.create({"service.name": "turnpipe"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(_Into(ended))
    return provider.get_tracer("turnpipe")


class OtlpFileExporter(SpanExporter):
    """Append to a file: one ExportTraceServiceRequest a line."""

    def __init__(self, path: Path) -> None:
        """Make sure that `path` can be written.

        Raises:
            OSError: it cannot.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the spans; a file that can no longer be written loses them."""
        lines = "".join(f"{json.dumps(request(span))}\n" for span in spans)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


def request(span: ReadableSpan) -> dict[str, Any]:
    """Make the ExportTraceServiceRequest that holds `span`."""
    scope = span.instrumentation_scope
    named = {} if scope is None else {"name": scope.name, "version": scope.version}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(span.resource.attributes)},
                "scopeSpans": [
                    {
                        "scope": {k: v for k, v in named.items() if v},
                        "spans": [_span(span)],
                    }
                ],
            }
        ]
    }


def _span(span: ReadableSpan) -> dict[str, Any]:
    made: dict[str, Any] = {
        **_ids(span.get_span_context()),
        "name": span.name,
        # OTLP counts kinds from SPAN_KIND_UNSPECIFIED, the API from INTERNAL
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time or 0),
        "endTimeUnixNano": str(span.end_time or 0),
        "attributes": _attributes(span.attributes),
        "status": {"code": span.status.status_code.value},
    }
    if span.parent is not None:
        made["parentSpanId"] = format_span_id(span.parent.span_id)
    if span.status.description:
        made["status"]["message"] = span.status.description
    if span.events:
        made["events"] = [
            {
                "timeUnixNano": str(event.timestamp),
                "name": event.name,
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ]
    if span.links:
        made["links"] = [
            {**_ids(link.context), "attributes": _attributes(link.attributes)}
            for link in span.links
        ]
    return made


def _ids(context: SpanContext | None) -> dict[str, str]:
    # JSON-encoded OTLP writes ids in hex, unlike protobuf's own JSON mapping
    if context is None:
        return {}
    return {
        "traceId": format_trace_id(context.trace_id),
        "spanId": format_span_id(context.span_id),
    }


def _attributes(attributes: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [{"key": k, "value": _value(v)} for k, v in (attributes or {}).items()]


def _value(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        items = cast("Sequence[object]", value)
        return {"arrayValue": {"values": [_value(item) for item in items]}}
    return {"stringValue": str(value)}
