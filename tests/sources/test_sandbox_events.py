"""What agents report, told in turnpipe's events."""

from __future__ import annotations

import json
from random import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators import event as ev
from operators.errors import SourceError
from operators.message import Message
from pipeline.sources.sandbox_events import EventMapper, fingerprint, is_ping
from pipeline.sources.sandbox_stream import SandboxStream

TEXT = {"type": "text", "id": "text-1"}


def mapped(*records: Any) -> list[Any]:
    mapper = EventMapper()
    events = [mapper.map(record) for record in records]
    return [event for event in events if event is not None]


def message_of(events: list[Any]) -> Message:
    message = Message()
    for event in events:
        if event["type"] in (ev.PART_UPDATED, ev.RESULT, ev.LLM_CALL):
            message.on_event(event)
    return message


@pytest.mark.parametrize("kind", ["message.part.updated", "text_delta", "delta"])
@pytest.mark.parametrize(
    "said",
    [
        {"data": {"text": "a"}},
        {"data": {"delta": "a"}},
        {"data": {"text": "", "delta": "a"}},
        {"data": {"part": {"text": "a"}}},
        {"text": "a"},
        {"delta": "a", "data": None},
        {"part": {"text": "a"}},
    ],
)
def test_a_text_is_the_first_that_is_not_empty(kind: str, said: Any) -> None:
    assert mapped({"type": kind, **said}) == [ev.delta(TEXT, "a")]


@pytest.mark.parametrize(
    "nothing",
    [
        {"type": "text_delta", "data": {"text": ""}},
        {"type": "delta"},
        {"type": "reasoning_delta", "data": {}},
        {"type": "delta", "data": {"part": {"type": "file", "text": "a"}}},
    ],
)
def test_an_empty_text_is_nothing(nothing: Any) -> None:
    assert mapped(nothing) == []


@pytest.mark.parametrize(
    "record",
    [
        {"type": "message.part.updated", "data": {"part": TEXT, "delta": "a"}},
        {"type": "message.part.updated", "data": {"part": {**TEXT, "text": "all"}}},
        {"type": "message.part.updated", "data": {"part": {"type": "file", "id": "f"}}},
        {"type": "message.part.updated", "data": {}},
        {"type": "session.run.started", "data": {"sessionId": "s"}},
        {"type": "session.run.failed", "data": {"message": "no"}},
        {"type": "error", "data": {"message": "no", "code": "x", "more": [1]}, "k": 1},
        {"type": "result", "data": {"finalText": "all", "more": 1}},
        {"type": "result", "data": {"answer": 42}},
        {"type": "artifact", "data": {"artifactId": "a"}},
        {"type": "made.up", "what": 2**70, "data": "x"},
        {"data": {"without": "a type"}},
        {"type": 7},
    ],
)
def test_what_is_known_as_it_is_or_not_known_passes_untouched(record: Any) -> None:
    before = json.loads(json.dumps(record))
    (event,) = mapped(record)
    assert event is record
    assert event == before


def test_texts_and_reasoning_grow_parts_that_a_tool_call_parts() -> None:
    events = mapped(
        {"type": "reasoning_delta", "data": {"text": "hm"}},
        {"type": "text_delta", "data": {"text": "a"}},
        {"type": "text_delta", "data": {"text": "b"}},
        {"type": "tool_call", "data": {"name": "ls"}},
        {"type": "text_delta", "data": {"text": "c"}},
        {"type": "delta", "data": {"partId": "mine", "text": "d"}},
        {
            "type": "delta",
            "data": {"part": {"id": "mine", "type": "reasoning"}, "text": "e"},
        },
        {"type": "text_delta", "data": {"text": "f"}},
    )
    parts = [event["data"]["part"] for event in events]
    assert [(part["type"], part["id"]) for part in parts] == [
        ("reasoning", "reasoning-1"),
        ("text", "text-2"),
        ("text", "text-2"),
        ("tool", "tool-3"),
        ("text", "text-4"),
        ("text", "mine"),
        ("reasoning", "mine"),
        ("text", "text-4"),
    ]
    assert parts[1] is parts[2]  # what lets the deltas of one part be told at once


def test_a_result_does_not_repeat_the_text_that_came() -> None:
    for last in ("result", "final"):
        events = mapped(
            {"type": "text_delta", "data": {"text": "a"}},
            {"type": "text_delta", "data": {"text": "b"}},
            {"type": last, "data": {"text": "ab"}},
        )
        assert events[-1] == ev.result("ab")
        assert message_of(events).text() == "ab"
        assert message_of(events[-1:]).text() == "ab"


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (
            {"toolName": "ls", "toolCallId": "c1", "args": {"p": 1}},
            {"toolName": "ls", "toolCallId": "c1", "result": ["x"]},
        ),
        ({"name": "ls", "id": "c1", "input": {"p": 1}}, {"id": "c1", "output": ["x"]}),
        (
            {"name": "ls", "callID": "c1", "arguments": '{"p": 1}'},
            {"name": "ls", "callID": "c1", "output": ["x"]},
        ),
    ],
)
def test_a_tool_call_and_its_result_are_one_part(call: Any, result: Any) -> None:
    begun, done = mapped(
        {"type": "tool_call", "data": call}, {"type": "tool_result", "data": result}
    )
    assert (
        begun["data"]["part"]["state"].items()
        >= {
            "status": "running",
            "input": {"p": 1},
        }.items()
    )
    assert done == ev.tool_part(
        "c1", tool="ls", call_id="c1", status="completed", output=["x"]
    )
    (part,) = message_of([begun, done]).parts()
    assert part["state"]["input"] == {"p": 1}
    assert part["state"]["output"] == ["x"]


def test_calls_without_ids_get_their_results_by_name_in_order() -> None:
    events = mapped(
        {"type": "tool_call", "data": {"name": "a", "args": {"n": 1}}},
        {"type": "tool_call", "data": {"name": "b", "args": {"n": 2}}},
        {"type": "tool_call", "data": {"name": "a", "args": {"n": 3}}},
        {"type": "tool_result", "data": {"name": "a", "result": 1}},
        {"type": "tool_result", "data": {"name": "b", "result": 2}},
        {"type": "tool_result", "data": {"result": 3}},
        {"type": "tool_result", "data": {"name": "z", "result": 4}},
    )
    states = [part["state"] for part in message_of(events).parts()]
    assert [(s.get("input", {}).get("n"), s["output"]) for s in states] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (None, 4),
    ]


def test_arguments_that_are_no_json_are_shown_as_they_are() -> None:
    (event,) = mapped({"type": "tool_call", "data": {"name": "a", "args": "{oops"}})
    state = event["data"]["part"]["state"]
    assert state == {"status": "running", "input": {}, "inputText": "{oops"}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"error": "no"}, "no"),
        ({"error": {"message": "no"}}, "no"),
        ({"isError": True, "result": "no"}, "no"),
        ({"is_error": True}, "the tool failed"),
    ],
)
def test_a_tool_that_failed_says_so(said: Any, error: str) -> None:
    (event,) = mapped({"type": "tool_result", "data": {"name": "a", "id": "c", **said}})
    state = event["data"]["part"]["state"]
    assert (state["status"], state["error"]) == ("error", error)


@pytest.mark.parametrize(
    ("record", "data"),
    [
        ({"type": "error", "message": "no"}, {"message": "no"}),
        ({"type": "error", "error": {"message": "no", "code": "x"}},
         {"message": "no", "code": "x"}),
        ({"type": "error", "data": {"error": "no"}}, {"message": "no"}),
        ({"type": "error"}, {"message": "the agent failed"}),
        ({"error": {"message": "no", "code": 5}}, {"message": "no"}),
        ({"error": "no"}, {"message": "no"}),
        ({"type": "backend_error", "message": "no", "error": {"kind": "transport"}},
         {"message": "no", "code": "transport"}),
        ({"type": "final", "status": "failed", "reason": "why", "text": "part"},
         {"message": "why", "code": "failed"}),
        ({"type": "final", "data": {"status": "aborted", "error": {"message": "no"}}},
         {"message": "no", "code": "aborted"}),
    ],
)  # fmt: skip
def test_failures_are_errors_in_band(record: Any, data: Any) -> None:
    assert mapped(record) == [{"type": "error", "data": data}]


def test_usage_gets_the_names_of_turnpipe() -> None:
    (event,) = mapped(
        {
            "type": "llm_call",
            "model": "m",
            "tokensIn": 3,
            "tokensOut": 2,
            "costUsd": 0.25,
            "latencyMs": 5,
        }
    )
    usage = message_of([event]).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, str(usage.cost)) == (3, 2, "0.25")
    assert usage.currency == "USD"
    assert event["data"]["latencyMs"] == 5


@pytest.mark.parametrize("kind", ["ping", "heartbeat", "heartbeat.x", "keepalive"])
def test_pings_are_told_apart(kind: str) -> None:
    assert is_ping(kind)
    assert not is_ping("text_delta")
    assert not is_ping("")


def test_what_is_said_again_has_the_same_fingerprint_whenever_it_is_said() -> None:
    def told(kind: str, **data: Any) -> int:
        return fingerprint({"type": kind, "data": data, "timestamp": random()}, kind)

    assert told("x", text="a", id="b", at=1) == told("x", id="b", text="a", at=2)
    assert told("x", text="a") == 1632662644  # in every process
    assert told("x", text="a") == fingerprint({"type": "x", "text": "a"}, "x")
    others = [
        told("x"),
        told("y"),
        told("x", text="a"),
        told("x", text="b"),
        told("x", delta="a"),
        told("x", id="a"),
        told("x", part={"id": "a"}),
        told("x", part={"text": "a"}),
        told("x", part={"callID": "a"}),
        told("x", text="\ud83d"),
    ]
    assert len(set(others)) == len(others)


def test_a_mapper_goes_on_from_its_state() -> None:
    records = [
        {"type": "text_delta", "data": {"text": "a"}},
        {"type": "tool_call", "data": {"name": "x", "args": {}}},
        {"type": "tool_call", "data": {"name": "y", "id": "c", "args": {}}},
        {"type": "tool_result", "data": {"id": "c", "result": 1}},
        {"type": "text_delta", "data": {"text": "b"}},
        {"type": "text_delta", "data": {"text": "c"}},
        {"type": "tool_result", "data": {"name": "x", "result": 2}},
    ]
    for cut in range(len(records)):
        first = EventMapper()
        events = [first.map(record) for record in records[:cut]]
        state = json.loads(json.dumps(first.state))
        second = EventMapper(state)
        events += [second.map(record) for record in records[cut:]]
        assert events == mapped(*records)


def folded(data: bytes, **more: Any) -> list[Any]:
    stream = SandboxStream(ends={"done"}, **more)
    events = stream.feed(data)
    events += stream.eof()[0]
    if stream.failure is not None:
        raise stream.failure
    return events


def test_an_event_may_be_named_outside_of_its_data() -> None:
    sent = b'event: text_delta\ndata: {"text": "a"}\n\nevent: x\ndata: {"n": 1}\n\n'
    assert folded(sent) == [ev.delta(TEXT, "a"), {"type": "x", "data": {"n": 1}}]
    assert folded(b'event: message\ndata: {"n": 1}\n\n') == [{"n": 1}]
    assert folded(b'event: ping\ndata: {"n": 1}\n\n') == []


def test_what_passes_is_exact() -> None:
    number, half = folded(
        b'{"type":"x","n":123456789012345678901234567890}\n{"type":"x","s":"\\ud83d"}\n'
    )
    assert number["n"] == 123456789012345678901234567890
    assert half["s"] == "\ud83d"


_KEYS = [
    "type",
    "data",
    "part",
    "text",
    "delta",
    "id",
    "name",
    "args",
    "input",
    "result",
]
_KEYS += ["error", "message", "code", "status", "executionId", "isError", "finalText"]
_KINDS = [
    "text_delta",
    "reasoning_delta",
    "tool_call",
    "tool_result",
    "result",
    "final",
]
_KINDS += ["error", "backend_error", "llm_call", "execution.started", "x"]
_KINDS += ["message.part.updated"]
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "a", *_KINDS]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=5)
    ),
    max_leaves=8,
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(_KEYS), _ANYTHING, max_size=5).flatmap(
            lambda made: st.sampled_from(_KINDS).map(
                lambda kind: {"type": kind, **made}
            )
        ),
        max_size=5,
    )
)
def test_whatever_is_sent_is_events_or_an_error_of_the_source(records: Any) -> None:
    sent = "".join(f"{json.dumps(record)}\n" for record in records).encode()
    try:
        events = folded(sent)
    except SourceError:
        return
    message_of([event for event in events if isinstance(event.get("type"), str)])


def test_a_hook_maps_before_the_rules_do() -> None:
    def mine(record: Any) -> Any:
        if record["type"] == "artifact":
            return ev.tool_part("a", tool="t", call_id="a", status="completed")
        if record["type"] == "secret":
            return []
        if record["type"] == "two":
            return [{"type": "one"}, {"type": "more"}]
        return None

    kinds = ["artifact", "secret", "two", "text_delta", "else"]
    lines = [json.dumps({"type": kind, "text": "a"}) + "\n" for kind in kinds]
    events = folded("".join(lines).encode(), map_event=mine)
    assert [event["type"] for event in events] == [
        "message.part.updated",
        "one",
        "more",
        "message.part.updated",
        "else",
    ]
