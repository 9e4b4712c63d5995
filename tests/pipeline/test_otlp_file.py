"""The trace file holds what an OTLP reader expects of every kind of span."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context

from pipeline.otlp_file import OtlpFileExporter, request, tracer_into


@pytest.fixture
def spans() -> list[ReadableSpan]:
    ended: list[ReadableSpan] = []
    tracer = tracer_into(ended)
    parent = tracer.start_span("parent")
    child = tracer.start_span(
        "child",
        context=set_span_in_context(parent),
        kind=SpanKind.CLIENT,
        links=[Link(parent.get_span_context(), {"why": "test"})],
        attributes={"b": True, "i": 2**53, "f": 0.5, "s": "é", "a": ["x", "y"]},
    )
    child.add_event("seen", {"n": 1})
    child.set_status(Status(StatusCode.ERROR, "broke"))
    child.end()
    parent.end()
    return ended


def hex_ids_as_base64(value: Any) -> Any:
    """Undo where OTLP JSON differs from protobuf's JSON mapping: ids are hex."""
    if isinstance(value, list):
        return [hex_ids_as_base64(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(item)).decode()
        if key.endswith(("traceId", "spanId", "SpanId"))
        else hex_ids_as_base64(item)
        for key, item in value.items()
    }


def test_a_line_reads_back_as_the_span(
    spans: list[ReadableSpan], tmp_path: Path
) -> None:
    path = tmp_path / "new" / "traces.jsonl"
    exporter = OtlpFileExporter(path)
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    read = [
        ParseDict(hex_ids_as_base64(line), ExportTraceServiceRequest())
        .resource_spans[0]
        .scope_spans[0]
        .spans[0]
        for line in lines
    ]
    child, parent = read
    assert (child.name, child.kind, child.status.message) == ("child", 3, "broke")
    assert child.parent_span_id == parent.span_id
    assert child.trace_id == parent.trace_id
    assert child.links[0].span_id == parent.span_id
    assert child.events[0].name == "seen"
    values = {a.key: a.value for a in child.attributes}
    assert values["b"].bool_value is True
    assert values["i"].int_value == 2**53
    assert values["f"].double_value == 0.5
    assert values["s"].string_value == "é"
    assert [v.string_value for v in values["a"].array_value.values] == ["x", "y"]
    assert parent.kind == 1


def test_a_file_that_can_no_longer_be_written_is_a_failed_export(
    spans: list[ReadableSpan], tmp_path: Path
) -> None:
    path = tmp_path / "gone" / "traces.jsonl"
    exporter = OtlpFileExporter(path)
    path.unlink()
    path.parent.rmdir()
    assert exporter.export(spans) is SpanExportResult.FAILURE


def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        OtlpFileExporter(tmp_path)


def test_what_has_no_otlp_type_is_written_as_text() -> None:
    span = ReadableSpan("bare", attributes={"b": b"x"})
    made = request(span)["resourceSpans"][0]["scopeSpans"][0]
    assert made["scope"] == {}
    assert made["spans"][0]["attributes"][0]["value"] == {"stringValue": "b'x'"}
