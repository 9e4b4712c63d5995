"""Streamed responses as servers really write them: names, places, what is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.errors import SourceError, SourceIncomplete, SourceProtocol, SourceStatus
from operators.message import Message
from tests.sources.helpers import TRANSCRIPTS, text_of
from tests.sources.server import DONE, record
from tests.sources.test_responses_openai import (
    CREATED,
    HI,
    WHOLE,
    a_stream,
    ended,
    folded,
    said,
)


def failed(data: bytes) -> tuple[list[Any], SourceError]:
    stream = a_stream()
    events = stream.feed(data)
    with pytest.raises(SourceError) as failure:
        stream.finish()
    return events, failure.value


def parts_of(data: bytes) -> list[dict[str, Any]]:
    """Tell each part as it was last shown, its deltas joined as `said`."""
    parts: dict[str, dict[str, Any]] = {}
    for event in folded(data)[:-1]:
        part = event["data"]["part"]
        before = parts.get(part["id"], {}).get("said", "")
        grown = before + event["data"].get("delta", "")
        parts[part["id"]] = {**part, "said": grown}
    return list(parts.values())


def said_by(data: bytes) -> list[tuple[str, str]]:
    return [(part["type"], part["said"]) for part in parts_of(data)]


def states_of(data: bytes) -> list[dict[str, Any]]:
    return [part["state"] for part in parts_of(data) if part["type"] == "tool"]


def added(index: int | None, **item: Any) -> bytes:
    place = {} if index is None else {"output_index": index}
    return said("output_item.added", item=item, **place)


def done(index: int | None, **item: Any) -> bytes:
    place = {} if index is None else {"output_index": index}
    return said("output_item.done", item=item, **place)


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "name": name, **more}


def message(*pieces: Any, **more: Any) -> dict[str, Any]:
    return {"type": "message", "content": list(pieces), **more}


def output(text: Any, **more: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": text, **more}


def test_an_item_whose_every_event_has_another_id_is_known_by_its_index() -> None:
    data = b"".join(
        [
            CREATED,
            added(0, type="reasoning", id="a1"),
            said("reasoning_summary_text.delta", item_id="a2", output_index=0, delta="h"),
            said("reasoning_summary_text.delta", item_id="a3", output_index=0, delta="m"),
            said("reasoning_summary_text.done", item_id="a4", output_index=0, text="hm"),
            done(0, type="reasoning", id="a5", encrypted_content="xyz",
                 summary=[{"type": "summary_text", "text": "hm"}]),
            added(1, type="message", id="b1"),
            said("output_text.delta", item_id="b2", output_index=1, delta="o"),
            said("output_text.delta", item_id="b3", output_index=1, delta="k"),
            done(1, **message(output("ok"), id="b4")),
            added(2, **function("f", id="c1", call_id="f1")),
            added(3, **function("g", id="d1", call_id="g1")),
            said("function_call_arguments.delta", item_id="c2", output_index=2, delta="{}"),
            said("function_call_arguments.delta", item_id="d2", output_index=3,
                 delta='{"x":1}'),
            done(2, **function("f", id="c3", call_id="f1", arguments="{}")),
            done(3, **function("g", id="d3", arguments='{"x":1}')),
            ended(),
        ]
    )  # fmt: skip
    parts = parts_of(data)
    assert said_by(data)[:2] == [("reasoning", "hm"), ("text", "ok")]
    assert parts[0]["encrypted"] == "xyz"
    assert [(p["tool"], p["callID"], p["state"]["input"]) for p in parts[2:]] == [
        ("f", "f1", {}),
        ("g", "g1", {"x": 1}),
    ]


def test_items_that_all_have_the_same_index_are_known_by_their_ids() -> None:
    data = b"".join(
        [
            added(0, type="message", id="a"),
            added(0, **function("f", id="b")),
            said("output_text.delta", item_id="a", output_index=0, delta="x"),
            said("output_text.delta", item_id="c", output_index=5, delta="y"),
            said("function_call_arguments.delta", item_id="b", output_index=0, delta="{}"),
            done(0, **function("f", id="b", arguments="{}")),
            said("output_text.delta", item_id="a", output_index=0, delta="z"),
            done(0, **message(output("xz"), id="a")),
            ended(),
        ]
    )  # fmt: skip
    assert said_by(data) == [("tool", "{}"), ("text", "xz"), ("text", "y")]


def test_an_index_that_is_used_again_is_another_item() -> None:
    data = b"".join(
        [
            added(0, type="message"),
            said("output_text.delta", output_index=0, item_id="", delta="x"),
            done(0, **message(output("x"))),
            added(0, type="message", id="b"),
            said("output_text.delta", output_index=0, item_id="?", delta="y"),
            ended(),
        ]
    )
    assert said_by(data) == [("text", "x"), ("text", "y")]


def test_an_item_that_is_done_has_left_its_index() -> None:
    data = b"".join(
        [
            added(0, type="message", id="a"),
            said("output_text.delta", item_id="a", output_index=0, delta="x"),
            done(0, **message(output("x"), id="a")),
            said("output_text.delta", item_id="b", output_index=0, delta="y"),
            ended(),
        ]
    )
    assert said_by(data) == [("text", "x"), ("text", "y")]


def test_an_item_is_known_by_its_id_and_its_call_id() -> None:
    for name in ("a", "1"):
        grown = said("function_call_arguments.delta", item_id=name, delta='{"x": 1}')
        data = b"".join(
            [
                added(None, **function("f", id="a", call_id="1")),
                added(None, **function("g", id="b", call_id="2")),
                grown,
                ended(),
            ]
        )
        assert [state["input"] for state in states_of(data)] == [{"x": 1}, {}]


def test_a_tool_of_the_provider_is_shown_where_its_status_changes() -> None:
    item = {"type": "web_search_call", "id": "w"}
    whole = {**item, "status": "completed"}
    data = b"".join(
        [
            added(0, **item, status="in_progress"),
            said("web_search_call.in_progress", item_id="w"),
            said("web_search_call.searching", item_id="w"),
            said("web_search_call.completed", item_id="w"),
            done(0, **whole),
            ended(output=[whole]),
        ]
    )
    shown = [event["data"]["part"]["state"]["status"] for event in folded(data)[:-1]]
    assert shown == ["running", "completed"]


@pytest.mark.parametrize("named", [{"item_id": "call"}, {"item_id": "?"}, {}], ids=str)
def test_arguments_find_their_call_by_call_id_or_as_the_last_one(named: Any) -> None:
    data = b"".join(
        [
            added(None, **function("f", call_id="call")),
            said("function_call_arguments.delta", delta='{"x"', **named),
            said("function_call_arguments.delta", delta=":1}", **named),
            said("function_call_arguments.done", arguments='{"x":1}', **named),
            ended(),
        ]
    )
    (state,) = states_of(data)
    assert state == {"status": "running", "input": {"x": 1}, "inputText": '{"x":1}'}


def test_calls_at_the_same_time_keep_their_arguments_apart() -> None:
    arguments = "function_call_arguments.delta"
    data = b"".join(
        [
            added(0, **function("f", id="a", call_id="1")),
            added(1, **function("g", id="b", call_id="2")),
            said(arguments, item_id="b", output_index=1, delta='{"y"'),
            said(arguments, item_id="a", output_index=0, delta='{"x":1}'),
            said(arguments, item_id="b", output_index=1, delta=":2}"),
            done(1, **function("g", id="b", arguments='{"y":2}')),
            done(0, **function("f", id="a", arguments='{"x":1}')),
            ended(),
        ]
    )
    assert [state["input"] for state in states_of(data)] == [{"x": 1}, {"y": 2}]


def test_arguments_that_only_the_whole_item_has_are_taken() -> None:
    for begun in (b"", added(0, **function("f", id="a"))):
        whole = done(0, **function("f", id="a", call_id="1", arguments='{"x": 1}'))
        (state,) = states_of(begun + whole + ended())
        assert state["status"] == "running"
        assert state["input"] == {"x": 1}
    once = said("function_call_arguments.done", item_id="a", arguments="{}")
    (state,) = states_of(added(0, **function("f", id="a")) + once + ended())
    assert state["inputText"] == "{}"


@pytest.mark.parametrize("text", ['{"x":', "[1]", '{"x": NaN}'])
def test_arguments_that_are_no_object_are_kept_and_named(text: str) -> None:
    item = function("f", id="a", arguments=text)
    (state,) = states_of(done(0, **item) + ended("incomplete"))
    assert (state["status"], state["input"]) == ("error", {})
    assert state["inputText"] == text
    assert "the arguments are" in state["error"]


def test_texts_of_one_item_are_parts_by_their_number() -> None:
    summary = "reasoning_summary_text.delta"
    data = b"".join(
        [
            said(summary, item_id="r", summary_index=0, delta="one"),
            said("reasoning_text.delta", item_id="r", content_index=0, delta="raw"),
            said(summary, item_id="r", summary_index=1, delta="two"),
            said("output_text.delta", item_id="m", content_index=0, delta="a"),
            said("refusal.delta", item_id="m", content_index=1, delta="n"),
            said("refusal.delta", item_id="m", content_index=1, delta="o"),
            said("refusal.done", item_id="m", content_index=1, refusal="no"),
            said("output_text.delta", item_id="m", content_index=0, delta="b"),
            ended(),
        ]
    )
    assert said_by(data) == [
        ("reasoning", "one"),
        ("reasoning", "raw"),
        ("reasoning", "two"),
        ("text", "ab"),
        ("text", "no"),
    ]


WHOLE_ITEMS = [
    {
        "type": "reasoning",
        "id": "r",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "content": [{"type": "reasoning_text", "text": "raw"}],
        "encrypted_content": "xyz",
    },
    message(
        output("see", annotations=[{"url": "u"}]),
        {"type": "refusal", "refusal": "no"},
        {"type": "new_thing", "x": 1},
        id="m",
    ),
    function("f", id="c", call_id="c1", arguments='{"x": 1}'),
    {"type": "file_search_call", "id": "s", "status": "completed", "results": [1]},
    {"type": "new_item", "id": "n"},
]


@pytest.mark.parametrize("items", [True, False], ids=["whole items", "the response"])
def test_what_was_not_streamed_is_taken_from_the_whole(items: bool) -> None:
    if items:
        data = b"".join(done(i, **item) for i, item in enumerate(WHOLE_ITEMS)) + ended()
    else:
        data = CREATED + ended(output=[*WHOLE_ITEMS, "?"])
    *texts, call, search = parts_of(data)
    assert [(part["type"], part["said"]) for part in texts] == [
        ("reasoning", "hm"),
        ("reasoning", "raw"),
        ("text", "see"),
        ("text", "no"),
    ]
    assert texts[1]["encrypted"] == "xyz"
    assert texts[2]["annotations"] == [{"url": "u"}]
    assert call["state"]["input"] == {"x": 1}
    assert search["state"] == {"status": "completed", "input": {}, "output": [1]}


def test_what_was_streamed_is_not_said_again_by_the_whole() -> None:
    cite = [{"url": "u"}]
    data = b"".join(
        [
            added(0, type="message", id="m"),
            said("output_text.delta", item_id="m", content_index=-1, delta="hi"),
            said("output_text.annotation.added", item_id="m", annotation=cite[0]),
            said("output_text.done", item_id="m", content_index=-1, text="hi"),
            said("output_text.done", item_id="m", text="hi"),
            done(0, **message(output("hi", annotations=cite), id="m")),
            ended(output=[message(output("hi"), id="m")]),
        ]
    )
    events = folded(data)
    assert text_of(events).startswith("hi")
    shown = [e["data"]["part"].get("annotations") for e in events[:-1]]
    assert [cited for cited in shown if cited] == [cite]


def test_a_whole_item_under_a_name_never_heard_says_nothing_twice() -> None:
    data = b"".join(
        [
            said("output_text.delta", item_id="a", delta="h"),
            said("output_text.delta", item_id="a", delta="i"),
            done(None, **message(output("hi"), id="b")),
            ended(),
        ]
    )
    assert text_of(folded(data)) == "hi"


def test_annotations_that_only_the_whole_item_has_are_shown() -> None:
    cited = done(0, **message(output("hi", annotations=[{"url": "u"}]), id="i"))
    (part,) = parts_of(HI + cited + ended())
    assert (part["said"], part["annotations"]) == ("hi", [{"url": "u"}])


@pytest.mark.parametrize(
    ("kind", "event", "field"),
    [
        ("custom_tool_call", "custom_tool_call_input", "input"),
        ("mcp_call", "mcp_call_arguments", "arguments"),
        ("code_interpreter_call", "code_interpreter_call_code", "code"),
    ],
)
def test_a_streamed_input_grows_by_deltas(kind: str, event: str, field: str) -> None:
    item = {"type": kind, "id": "t", "name": "n", "status": "in_progress"}
    data = b"".join(
        [
            added(0, **item),
            said(f"{event}.delta", item_id="t", delta="x = "),
            said(f"{event}.delta", item_id="t", delta=""),
            said(f"{event}.delta", item_id="t", delta="1"),
            said(f"{event}.done", item_id="t", **{field: "x = 1"}),
            said(f"{event}.delta", item_id="?", delta="of nobody"),
            done(0, **{**item, "status": "completed", field: "x = 1"}),
            ended(),
        ]
    )
    events = folded(data)
    deltas = [event for event in events if "delta" in event["data"]]
    assert [event["data"]["delta"] for event in deltas] == ["x = ", "1"]
    assert deltas[0]["data"]["part"] is deltas[1]["data"]["part"]
    (state,) = states_of(data)
    assert state["inputText"] == state["input"][field] == "x = 1"


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        (
            {"status": "completed", "output": "7"},
            {"status": "completed", "output": "7"},
        ),
        ({"status": "failed", "error": "no"}, {"status": "error", "error": "no"}),
        ({"error": "no"}, {"status": "error", "error": "no"}),
        (
            {"error": {"message": "no"}},
            {"status": "error", "error": '{"message": "no"}'},
        ),
        ({"status": "incomplete"}, {"status": "error", "error": "incomplete"}),
    ],
    ids=str,
)
def test_a_tool_of_the_provider_ends_as_its_item_says(ending: Any, state: Any) -> None:
    item = {"type": "mcp_call", "id": "t", "name": "n", "arguments": "{}"}
    data = b"".join(
        [
            added(0, **item),
            said("mcp_call.in_progress", item_id="t"),
            said("mcp_call.completed", item_id="t"),
            done(0, **item, **ending),
            ended(),
        ]
    )
    shown = [event["data"]["part"]["state"]["status"] for event in folded(data)[:-1]]
    assert shown == ["pending", "running", state["status"]]
    assert states_of(data) == [{"input": {"arguments": "{}"}, **state}]


def test_a_tool_that_fails_in_the_middle_says_so_at_once() -> None:
    item = {"type": "image_generation_call", "id": "t"}
    data = added(0, **item) + said("image_generation_call.failed", item_id="t")
    assert [state["status"] for state in states_of(data + ended())] == ["error"]


def test_the_message_that_is_accumulated_has_it_all() -> None:
    search = {"type": "web_search_call", "id": "w"}
    data = b"".join(
        [
            added(0, **search, status="in_progress"),
            done(0, **search, status="completed", action={"query": "q"}),
            HI,
            said("output_text.annotation.added", item_id="i", annotation={"url": "u"}),
            said("output_text.done", item_id="i", text="hi"),
            added(2, **function("f", id="c", call_id="c1")),
            said("function_call_arguments.delta", item_id="c", delta='{"x": 1}'),
            done(2, **function("f", id="c", arguments='{"x": 1}')),
            ended(),
        ]
    )
    message = Message()
    for event in folded(data):
        message.on_event(event)
    search_, text, call = message.parts()
    assert search_["state"] == {
        "status": "completed",
        "input": {"action": {"query": "q"}},
    }
    assert (text["text"], text["annotations"]) == ("hi", [{"url": "u"}])
    assert call["state"]["input"] == {"x": 1}
    assert call["state"]["inputText"] == '{"x": 1}'


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"input_tokens": 9, "output_tokens": 4,
          "input_tokens_details": {"cached_tokens": 2},
          "output_tokens_details": {"reasoning_tokens": 1}},
         {"inputTokens": 9, "outputTokens": 4, "cachedInputTokens": 2,
          "reasoningTokens": 1}),
        ({"input_tokens": "9", "output_tokens": None, "input_tokens_details": 7}, {}),
        ({"input_tokens": True, "output_tokens": 1.5}, {}),
        (None, {}),
        ("?", {}),
    ],
)  # fmt: skip
def test_usage_is_told_as_far_as_it_is_reported(usage: Any, told: Any) -> None:
    report = folded(CREATED + ended(usage=usage))[-1]["data"]
    assert report == {
        "model": "g",
        "provider": "openai",
        "callId": "r1",
        "merge": "last",
        "finishReason": "completed",
        **told,
    }


def test_a_response_without_id_has_a_call_id_of_its_own() -> None:
    data = said("completed", response={})
    first, second = (folded(data)[-1]["data"]["callId"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("details", "reason"),
    [({"reason": "content_filter"}, "content_filter"), (None, "incomplete"),
     ({"reason": 7}, "incomplete"), ([], "incomplete")],
)  # fmt: skip
def test_an_incomplete_response_is_whole_and_says_why(
    details: Any, reason: str
) -> None:
    data = HI + ended("incomplete", incomplete_details=details)
    assert folded(data)[-1]["data"]["finishReason"] == reason


@pytest.mark.parametrize(
    ("sent", "status", "said_"),
    [
        (ended("failed", error={"code": "rate_limit_exceeded", "message": "slow"}),
         429, "slow (rate_limit_exceeded)"),
        (ended("failed", error=None), 200, "the response failed"),
        (ended("failed", error="full"), 200, "full"),
        (ended("failed", error={"code": ["?"]}), 200, "the response failed"),
        (record({"type": "error", "code": "server_error", "message": "broken"}),
         500, "broken (server_error)"),
        (record({"type": "error", "error": {"type": "invalid_request_error",
                                            "message": "no"}}),
         400, "no (invalid_request_error)"),
        (b"event: error\n" + record({"message": "full", "code": 503}), 200, "full (503)"),
        (record({"error": {"message": "full", "type": "overloaded"}}),
         200, "full (overloaded)"),
    ],
)  # fmt: skip
def test_an_error_is_the_provider_s_refusal(
    sent: bytes, status: int, said_: str
) -> None:
    events, failure = failed(CREATED + HI + sent)
    assert isinstance(failure, SourceStatus)
    assert failure.status == status
    assert said_ in str(failure)
    assert text_of(events) == "hi"


def test_a_response_that_was_cancelled_elsewhere_is_incomplete() -> None:
    events, failure = failed(HI + ended("cancelled"))
    assert isinstance(failure, SourceIncomplete)
    assert "cancelled" in str(failure)
    assert events[-1]["data"]["outputTokens"] == 2


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (said("output_text.delta", item_id=7, delta="x"), "a int as its `item_id`"),
        (said("output_text.delta", item_id="i", delta=["x"]), "a list as its `delta`"),
        (said("output_item.added", item=None), "a NoneType as its `item`"),
        (said("completed", response=[]), "a list as its `response`"),
        (said("function_call_arguments.delta", delta="{"), "as its `item_id`"),
        (added(0, **function(7)), "a int as its `name`"),  # type: ignore[arg-type]  # what is refused
        (added(1, type="message") + done(1, **message(output(7))), "a int as its `text`"),
        (b"data: {oops}\n\n", "record 3 of the stream is not JSON"),
        (b"data: [1]\n\n", "is an array, not a JSON object"),
        (b'data: {"type": "\xff"}\n\n', "is not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_response_event_fails_after_what_came_before(
    bad: bytes, what: str
) -> None:
    for data in (CREATED + HI + bad, CREATED + HI + bad + ended()):
        events, failure = failed(data)
        assert text_of(events) == "hi"
        assert isinstance(failure, SourceProtocol), failure
        assert what in str(failure)
        assert len(str(failure)) < 2_300


@pytest.mark.parametrize("name", ["anthropic_messages", "basic_usage"])
def test_the_stream_of_another_protocol_is_told_from_a_cut_one(name: str) -> None:
    _, failure = failed((TRANSCRIPTS / f"{name}.sse").read_bytes())
    assert isinstance(failure, SourceProtocol)
    assert "none of them is of a response" in str(failure)


def test_nothing_is_read_after_the_end() -> None:
    stream = a_stream()
    stream.feed(HI + ended() + DONE + b"data: not json\n\n")
    assert stream.done
    assert stream.feed(b"data: not json\n\n") == []
    assert stream.finish()[-1]["type"] == "llm_call"


def test_what_is_not_known_is_passed_over() -> None:
    data = b"".join(
        [
            said("audio.delta", delta="?"),
            said("mcp_list_tools.in_progress", item_id="x"),
            said("web_search_call.searching", item_id="never added"),
            said("output_text.new", item_id="i"),
            said("content_part.added", item_id="i", part={"type": "output_text"}),
            added(0, type="mcp_list_tools", id="x"),
            done(0, type=7, id="x"),
            record({"type": "keepalive", "sequence_number": 3}),
            record({"no": "type"}),
            HI,
            ended(),
        ]
    )
    assert said_by(data) == [("text", "hi")]


@st.composite
def _responses(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, str]]]:
    """Make a well-formed response: its bytes, and what its parts say in order."""
    style = draw(st.sampled_from(["ids", "rotated", "no index", "one index"]))
    fresh = iter(range(10_000))
    records: list[bytes] = [CREATED]
    told: list[tuple[str, str]] = []
    kinds = ["output_text", "refusal", "reasoning_text", "reasoning_summary_text", "f"]
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(kinds))
        pieces = draw(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=4))
        place: dict[str, Any] = {"output_index": 0 if style == "one index" else number}
        if style == "no index":
            place = {}

        def name(number: int = number) -> str:
            return f"{number}-{next(fresh) if style == 'rotated' else ''}"

        if kind == "f":
            text = json.dumps({"x": "".join(pieces)})
            item: Any = function("f", call_id=f"call {number}")
            event, key, told_as = "function_call_arguments", "arguments", "tool"
            pieces = [text[:3], text[3:]]
        else:
            text = "".join(pieces)
            item = {"type": "reasoning" if kind.startswith("rea") else "message"}
            event, key = kind, kind.rpartition("_")[2]
            told_as = "reasoning" if kind.startswith("rea") else "text"
        records.append(said("output_item.added", item={**item, "id": name()}, **place))
        records += [
            said(f"{event}.delta", item_id=name(), delta=piece, **place)
            for piece in pieces
        ]
        records.append(said(f"{event}.done", item_id=name(), **{key: text}, **place))
        whole = {**item, "id": name()}
        if kind == "f":
            whole["arguments"] = text
        elif draw(st.booleans()):
            group = "summary" if "summary" in kind else "content"
            piece_kind = "summary_text" if "summary" in kind else kind
            whole[group] = [{"type": piece_kind, key: text}]
        records.append(said("output_item.done", item=whole, **place))
        told.append((told_as, text))
    return b"".join([*records, ended()]), told


@settings(max_examples=200, deadline=None)
@given(_responses(), st.integers(1, 60))
def test_a_response_says_the_same_however_items_are_named_and_bytes_cut(
    response: tuple[bytes, list[tuple[str, str]]], size: int
) -> None:
    data, told = response
    assert said_by(data) == told
    assert folded(data, size) == folded(data)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_a_recorded_tool_call_is_the_same_whole_and_byte_by_byte(end: bytes) -> None:
    data = (TRANSCRIPTS / "responses_tools.sse").read_bytes().replace(b"\n", end)
    (part,) = parts_of(data)
    assert part["tool"] == "get_weather"
    assert part["callID"].startswith("call_")
    assert part["state"] == {
        "status": "running",
        "input": {"city": "Paris", "unit": "c"},
        "inputText": part["said"],
    }
    assert folded(data, 1) == folded(data)
    report = folded(data)[-1]["data"]
    assert (report["inputTokens"], report["finishReason"]) == (469, "completed")


def test_the_transcript_cut_in_two_anywhere_gives_the_same_events() -> None:
    blocks = WHOLE.split(b"\n\n")
    short = b"\n\n".join(blocks[:7] + blocks[-5:])
    whole = folded(short)
    for at in range(len(short)):
        stream = a_stream()
        events = stream.feed(short[:at]) + stream.feed(short[at:])
        assert events + stream.finish() == whole, at
