"""Recorded provider streams, and streams made up, folded into events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from operators.errors import SourceError, SourceIncomplete, SourceProtocol, SourceStatus
from pipeline.sources.chat_chunks import ChatAssembler
from pipeline.sources.chat_stream import ChatStream
from tests.sources.helpers import TRANSCRIPTS, text_of
from tests.sources.server import DONE, chunk, finish, record

ENDINGS = {"lf": b"\n", "cr": b"\r", "crlf": b"\r\n"}
CHATS = ["basic_usage", "emoji", "json", "llama_cpp_python", "n2_stop", "tools"]


def folded(*chunks: bytes) -> list[Any]:
    stream = ChatStream(ChatAssembler())
    events = [event for chunk in chunks for event in stream.feed(chunk)]
    return events + stream.finish()


def failed(*chunks: bytes, status: int = 200) -> tuple[list[Any], SourceError]:
    stream = ChatStream(ChatAssembler(), status=status)
    events = [event for chunk in chunks for event in stream.feed(chunk)]
    with pytest.raises(SourceError) as failure:
        stream.finish()
    return events, failure.value


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def transcript(name: str) -> bytes:
    return (TRANSCRIPTS / f"{name}.sse").read_bytes()


def chunks_of(data: bytes) -> list[dict[str, Any]]:
    """Decode a transcript the plain way."""
    lines = data.decode().split("\n")
    texts = [line[6:] for line in lines if line.startswith("data: ")]
    return [json.loads(text) for text in texts if text != "[DONE]"]


def expected_of(data: bytes) -> tuple[str, str, dict[str, Any]]:
    """Tell text, tool arguments and usage of choice 0, in the plainest way."""
    text = arguments = ""
    usage: dict[str, Any] = {}
    for one in chunks_of(data):
        usage = one.get("usage") or usage
        for choice in one["choices"]:
            if choice["index"] == 0:
                text += choice["delta"].get("content") or ""
                for call in choice["delta"].get("tool_calls", []):
                    arguments += call["function"].get("arguments", "")
    return text, arguments, usage


@pytest.mark.parametrize("name", CHATS)
def test_a_transcript_gives_its_text_its_tools_and_its_usage(name: str) -> None:
    data = transcript(name)
    text, arguments, usage = expected_of(data)
    events = folded(data)
    *parts, call = events
    assert text_of(parts) == text
    assert call["type"] == "llm_call"
    assert call["data"].get("inputTokens") == usage.get("prompt_tokens")
    assert call["data"].get("outputTokens") == usage.get("completion_tokens")
    assert call["data"]["model"] == "smollm2-135m-instruct"
    tools = [e for e in parts if e["data"]["part"]["type"] == "tool"]
    assert "".join(e["data"].get("delta", "") for e in tools) == arguments
    if tools:
        state = tools[-1]["data"]["part"]["state"]
        assert state["input"] == json.loads(arguments)
        assert call["data"]["finishReason"] == "tool_calls"
    json.dumps(events)


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("name", CHATS)
def test_a_transcript_byte_by_byte_gives_the_same_events(
    name: str, ending: bytes
) -> None:
    data = transcript(name)
    assert folded(*one_by_one(data.replace(b"\n", ending))) == folded(data)


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("name", CHATS)
def test_a_transcript_cut_at_every_position_gives_the_same_events(
    name: str, ending: bytes
) -> None:
    blocks = transcript(name).split(b"\n\n")
    short = b"\n\n".join(blocks[:6] + blocks[-5:]).replace(b"\n", ending)
    whole = folded(short)
    for at in range(len(short) + 1):
        assert folded(short[:at], short[at:]) == whole, at


def test_emoji_survive() -> None:
    assert text_of(folded(transcript("emoji"))).endswith("😁🙃 héllo 你好")


def test_a_stream_cut_by_a_killed_server_is_incomplete() -> None:
    data = transcript("truncated_server_killed")
    events, failure = failed(data)
    assert isinstance(failure, SourceIncomplete)
    assert text_of(events) == expected_of(data)[0]
    assert "210 records" in str(failure)
    _, failure = failed(data[:-30])
    assert "in the middle of a record" in str(failure)


def test_a_finish_reason_or_done_is_enough_and_neither_is_not() -> None:
    text = chunk(content="hi")
    assert text_of(folded(text, finish())) == "hi"
    assert text_of(folded(text, DONE)) == "hi"
    assert isinstance(failed(text)[1], SourceIncomplete)
    # the standard discards a record that its empty line does not end
    assert isinstance(failed(text, DONE[:-1])[1], SourceIncomplete)


def test_another_choice_is_passed_over_and_does_not_end_the_answer() -> None:
    other = {"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}
    assert isinstance(
        failed(chunk(content="a"), record({"choices": [other]}))[1], SourceIncomplete
    )
    events = folded(chunk(content="a"), record({"choices": [other]}), finish("length"))
    assert text_of(events) == "a"
    assert events[-1]["data"]["finishReason"] == "length"


def test_nothing_is_read_after_done() -> None:
    stream = ChatStream(ChatAssembler())
    stream.feed(chunk(content="a") + DONE + b"data: not json\n\n")
    assert stream.done
    assert stream.feed(b"data: not json\n\n") == []
    assert stream.finish()[-1]["type"] == "llm_call"


def test_pings_are_no_records() -> None:
    stream = ChatStream(ChatAssembler())
    stream.feed(b": ping\n\n:\n\nretry: 5\n\n")
    assert stream.records == 0


def test_text_and_reasoning_are_parts_that_share_their_dict() -> None:
    *parts, call = folded(
        chunk(role="assistant", content=None),
        chunk(reasoning_content="think", content=""),
        chunk(reasoning="ing", reasoning_content=None),
        chunk(reasoning="!", reasoning_content="!"),
        chunk(content="Sure"),
        chunk(content="."),
        chunk(reasoning="more"),
        chunk(refusal="No."),
        finish(),
    )
    shown = [(e["data"]["part"]["id"], e["data"]["delta"]) for e in parts]
    assert shown == [
        ("reasoning-1", "think"),
        ("reasoning-1", "ing"),
        ("reasoning-1", "!"),
        ("text-2", "Sure"),
        ("text-2", "."),
        ("reasoning-3", "more"),
        ("text-4", "No."),
    ]
    assert parts[0]["data"]["part"] is parts[1]["data"]["part"]
    assert call["data"] == {"model": "", "provider": "openai", "finishReason": "stop"}


def tool(index: int | None, *, id: str = "", name: str = "", args: Any = "") -> dict:  # noqa: A002
    function = {"arguments": args} | ({"name": name} if name else {})
    call: dict[str, Any] = {"function": function} | ({"id": id} if id else {})
    return call if index is None else {"index": index, **call}


def calls_of(events: list[Any]) -> list[tuple[Any, ...]]:
    last: dict[str, Any] = {}
    for event in events:
        part = event["data"].get("part")
        if part and "delta" not in event["data"]:
            last[part["id"]] = part
    return [
        (p["tool"], p["callID"], p["state"]["status"], p["state"]["input"])
        for p in last.values()
    ]


def test_a_tool_call_begins_grows_by_deltas_and_ends_decoded() -> None:
    events = folded(
        chunk(tool_calls=[tool(0, id="c1", name="look", args='{"q"')]),
        chunk(tool_calls=[tool(0, args=': "sea"}')]),
        finish("tool_calls"),
    )
    begun, first, second, ended, _ = [e["data"] for e in events]
    assert begun["part"]["state"] == {"status": "pending", "input": {}, "inputText": ""}
    assert (first["delta"], second["delta"]) == ('{"q"', ': "sea"}')
    assert first["part"] is second["part"]
    assert "inputText" not in first["part"]["state"]
    assert ended["part"] == {
        "type": "tool",
        "id": "tool-1",
        "tool": "look",
        "callID": "c1",
        "state": {
            "status": "running",
            "input": {"q": "sea"},
            "inputText": '{"q": "sea"}',
        },
    }


def test_interleaved_calls_are_told_apart_by_index() -> None:
    events = folded(
        chunk(content="First"),
        chunk(tool_calls=[tool(0, id="a", name="f"), tool(1, id="b", name="g")]),
        chunk(tool_calls=[tool(1, args='{"y":')]),
        chunk(tool_calls=[tool(0, args='{"x":1}'), tool(1, args="2}")]),
        chunk(content="then"),
        finish("tool_calls"),
    )
    assert calls_of(events) == [
        ("f", "a", "running", {"x": 1}),
        ("g", "b", "running", {"y": 2}),
    ]
    ids = {e["data"]["part"]["id"] for e in events[:-1]}
    assert ids == {"text-1", "tool-2", "tool-3", "text-4"}


@pytest.mark.parametrize(
    "fragments",
    [
        [tool(0, id="a", name="f", args="{}"), tool(0, id="b", name="g", args="{}")],
        [tool(None, id="a", name="f", args="{}"), tool(None, id="b", name="g")],
        [tool(None, id="a", name="f"), tool(None, args="{}"), tool(1, id="b", name="g")],
        [tool(0, id="a", name="f"), tool(0, id="x", args="{}"), tool(1, id="b", name="g")],
        [tool(0, id="a", name="f", args={}), tool(1, id="b", name="g", args=None)],
    ],
    ids=["one index for all", "no index", "no index later", "new ids", "decoded"],
)  # fmt: skip
def test_servers_that_number_calls_badly_are_understood(fragments: list[Any]) -> None:
    events = folded(*[chunk(tool_calls=[one]) for one in fragments], finish())
    assert calls_of(events) == [("f", "a", "running", {}), ("g", "b", "running", {})]


def test_a_call_without_id_gets_its_part_s() -> None:
    events = folded(chunk(tool_calls=[tool(0, name="f", args={"x": 1})]), DONE)
    assert calls_of(events) == [("f", "tool-1", "running", {"x": 1})]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"x":', "the arguments are not JSON: "),
        ('{"x": NaN}', "NaN is not JSON"),
        ("[1]", "the arguments are JSON, but not an object"),
        ('{"x":' * 30_000, "nested too deeply"),
    ],
)
def test_malformed_arguments_are_kept_as_text_and_named(text: str, why: str) -> None:
    call = chunk(tool_calls=[tool(0, id="a", name="f", args=text)])
    state = folded(call, finish("length"))[-2]["data"]["part"]["state"]
    assert state["status"] == "error"
    assert state["input"] == {}
    assert state["inputText"] == text
    assert why in state["error"]


def test_large_integers_in_arguments_stay_exact() -> None:
    args = f'{{"x": {2**70}}}'
    call = chunk(tool_calls=[tool(0, id="a", name="f", args=args)])
    assert calls_of(folded(call, finish()))[0][3] == {"x": 2**70}


def test_usage_is_the_last_reported_and_says_what_it_knows() -> None:
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    early = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    events = folded(
        record(early),
        chunk(content="a"),
        record({"choices": [], "usage": None}),
        finish(),
        record({"model": "m-2", "choices": [], "usage": usage}),
        DONE,
    )
    assert events[-1] == {
        "type": "llm_call",
        "data": {
            "model": "m-2",
            "provider": "openai",
            "inputTokens": 3,
            "outputTokens": 4,
            "cachedInputTokens": 2,
            "reasoningTokens": 1,
            "finishReason": "stop",
        },
    }


def test_odd_usage_is_left_out() -> None:
    usage = {
        "prompt_tokens": "3",
        "completion_tokens": None,
        "prompt_tokens_details": 7,
    }
    events = folded(finish(), record({"choices": [], "usage": usage}))
    assert set(events[-1]["data"]) == {"model", "provider", "finishReason"}


def test_half_an_emoji_and_infinity_are_taken() -> None:
    logprobs = (
        b'data: {"choices": [{"index": 0, "logprobs": -Infinity, "delta": {}}]}\n\n'
    )
    half = b'data: {"choices": [{"index": 0, "delta": {"content": "\\ud83d"}}]}\n\n'
    assert text_of(folded(logprobs, half, finish())) == "\ud83d"


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (b"data: {\"a\": \xff}\n\n", "record 2 of the stream is not UTF-8 at byte 6"),
        (b"data: {oops}\n\n", "record 2 of the stream is not JSON"),
        (b"data: [1]\n\n", "is an array, not a JSON object"),
        (b"data: 7\n\n", "is a number or boolean, not"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "nested too deeply"),
        (record({"choices": {"a": 1}}), "a dict as its `choices`"),
        (record({"choices": [1]}), "a int as its `choices[]`"),
        (record({"choices": [{"delta": [1]}]}), "a list as its `delta`"),
        (chunk(content=["a"]), "a list as its `delta.content`"),
        (chunk(tool_calls={"a": 1}), "a dict as its `delta.tool_calls`"),
        (chunk(tool_calls=[1]), "fragment is no object"),
        (chunk(tool_calls=[{"function": 1}]), "has a `function` that is no object"),
        (chunk(tool_calls=[tool(0, args="{}")]), "it has no name"),
        (chunk(tool_calls=[tool(0, name="f", args=[1])]), "`arguments` that are no text"),
        (chunk(tool_calls=[{"id": 1}]), "an `id` or a `name` that is no text"),
    ],
)  # fmt: skip
def test_what_is_no_chunk_fails_after_what_came_before(bad: bytes, what: str) -> None:
    for cuts in ([chunk(content="a") + bad], [chunk(content="a"), bad]):
        events, failure = failed(*cuts, finish())
        assert text_of(events) == "a"
        assert isinstance(failure, SourceProtocol)
        assert what in str(failure)
        assert len(str(failure)) < 2_300


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (record({"error": {"message": "full", "type": "overloaded"}}), "full (overloaded)"),
        (record({"error": {"message": "full", "code": 503}}), "full (503)"),
        (record({"error": "full"}), "full"),
        (record({"error": {"x": 1}}), '{"error": {"x": 1}}'),
        (b"event: error\n" + record({"message": "full"}), "full"),
        (b"event: error\n" + record({"detail": "full"}), "full"),
        (b'{"error": {"message": "full", "type": "overloaded"}}', "full (overloaded)"),
    ],
)  # fmt: skip
def test_an_error_object_is_the_provider_s_refusal(sent: bytes, said: str) -> None:
    _, failure = failed(sent, status=200)
    assert isinstance(failure, SourceStatus)
    assert failure.status == 200
    assert str(failure).endswith(f": {said}")
    assert failure.code == "source.status"


def test_an_empty_error_field_is_none() -> None:
    data = record({"error": None, "choices": [{"delta": {"content": "a"}}]})
    assert text_of(folded(data, finish())) == "a"


@pytest.mark.parametrize("name", ["anthropic_messages", "responses_api"])
def test_the_stream_of_another_protocol_is_told_from_a_cut_one(name: str) -> None:
    _, failure = failed(transcript(name))
    assert isinstance(failure, SourceProtocol)
    assert "none of them is a chat completion chunk" in str(failure)


@pytest.mark.parametrize("name", ["bad", "overflow"])
def test_a_recorded_error_body_is_a_refusal(name: str) -> None:
    body = transcript(name)
    _, failure = failed(body, status=400)
    assert isinstance(failure, SourceStatus)
    assert json.loads(body)["error"]["message"] in str(failure)
    assert failure.body == body.decode()
