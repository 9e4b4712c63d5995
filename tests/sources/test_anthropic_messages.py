"""`anthropic_messages`: its fold over transcripts, and its life on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.errors import (
    SourceError,
    SourceIncomplete,
    SourceProtocol,
    SourceStatus,
    SourceTimeout,
)
from pipeline.sources import anthropic_messages
from pipeline.sources.anthropic_events import AnthropicAssembler
from pipeline.sources.local_model import MODEL, find_model
from pipeline.sources.local_process import server_of
from pipeline.sources.typed_stream import TypedStream
from tests.sources.helpers import (
    TRANSCRIPTS,
    a_turn,
    cancelled_at,
    events_until_failure,
    flat,
    other_tasks,
    reads_of,
    text_of,
)
from tests.sources.server import Drip, Server, Step, chunked, head, record, serving
from tests.sources.test_local_model import needs_model

KEY = "sk-ant-very-secret-0123456789"
WHOLE = (TRANSCRIPTS / "anthropic_messages.sse").read_bytes()
TEXT = "Hello there! I'm here to help with any kind of math or science project"


def start(**usage: int) -> bytes:
    usage = usage or {"input_tokens": 3, "output_tokens": 1}
    return record(
        {"type": "message_start", "message": {"id": "m1", "model": "c", "usage": usage}}
    )


def begin(index: int = 0, **content: Any) -> bytes:
    return record(
        {"type": "content_block_start", "index": index, "content_block": content}
    )


def delta(index: int = 0, **delta: Any) -> bytes:
    return record({"type": "content_block_delta", "index": index, "delta": delta})


def stop(index: int = 0) -> bytes:
    return record({"type": "content_block_stop", "index": index})


def ending(reason: str = "end_turn", **usage: int) -> bytes:
    value = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}
    return record(value) + record({"type": "message_stop"})


PING = b'event: ping\ndata: {"type": "ping"}\n\n'
HI = begin(type="text", text="") + delta(type="text_delta", text="hi") + stop()
GOOD = chunked(start(), HI, ending(output_tokens=2), b"")


def a_stream() -> TypedStream:
    return TypedStream(AnthropicAssembler(model="m"), kind="a message", ends="its end")


def folded(data: bytes, size: int | None = None) -> list[Any]:
    stream = a_stream()
    events: list[Any] = []
    for at in range(0, len(data), size or len(data)):
        events += stream.feed(data[at : at + (size or len(data))])
    return events + stream.finish()


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_the_recorded_stream_is_the_same_whole_and_byte_by_byte(end: bytes) -> None:
    data = WHOLE.replace(b"\n", end)
    events = folded(data)
    assert text_of(events) == TEXT
    assert folded(data, 1) == events
    deltas = [event for event in events if "delta" in event["data"]]
    assert len({id(event["data"]["part"]) for event in deltas}) == 1
    assert events[-1]["data"] == {
        "model": "smollm2-135m-instruct",
        "provider": "anthropic",
        "callId": "chatcmpl-Fh0gLxaw0PwVifdqdx9dZZbS0eWhVAU2",
        "merge": "max",
        "inputTokens": 33,
        "outputTokens": 16,
        "cachedInputTokens": 32,
        "finishReason": "max_tokens",
    }


def test_cut_at_any_byte_it_is_incomplete_until_the_stop_reason() -> None:
    proof = WHOLE.index(b"event: message_stop")
    for at in range(len(WHOLE)):
        stream = a_stream()
        stream.feed(WHOLE[:at])
        if at >= proof:
            assert stream.finish()[-1]["data"]["finishReason"] == "max_tokens"
        else:
            with pytest.raises(SourceIncomplete):
                stream.finish()


def test_usage_is_reported_at_the_start_inclusive_of_the_cache() -> None:
    events = a_stream().feed(
        start(
            input_tokens=1,
            cache_read_input_tokens=20,
            cache_creation_input_tokens=300,
            output_tokens=1,
        )
    )
    (call,) = events
    assert call["data"]["inputTokens"] == 321
    assert call["data"]["cachedInputTokens"] == 20
    assert call["data"]["cacheWriteInputTokens"] == 300
    assert "finishReason" not in call["data"]


def test_each_kind_of_block_becomes_its_part() -> None:
    arguments = '{"q": "x"}'
    data = b"".join(
        [
            start(),
            begin(0, type="thinking", thinking=""),
            delta(0, type="thinking_delta", thinking="hm"),
            delta(0, type="signature_delta", signature="sig"),
            stop(0),
            begin(1, type="redacted_thinking", data="xyz"),
            stop(1),
            begin(2, type="tool_use", id="t1", name="look", input={}),
            *[
                delta(2, type="input_json_delta", partial_json=c)
                for c in ("", arguments)
            ],
            stop(2),
            begin(3, type="server_tool_use", id="t2", name="web_search", input={}),
            delta(3, type="input_json_delta", partial_json=arguments),
            stop(3),
            begin(
                4, type="web_search_tool_result", tool_use_id="t2", content=[{"u": 1}]
            ),
            stop(4),
            begin(5, type="text", text="a"),
            delta(5, type="citations_delta", citation={"url": "u"}),
            delta(5, type="new_delta", new=1),
            stop(5),
            begin(6, type="new_block"),
            delta(6, type="text_delta", text="?"),
            stop(6),
            record({"type": "new_event"}),
            ending("tool_use"),
        ]
    )
    last: dict[str, Any] = {}
    for event in folded(data):
        if event["type"] == "message.part.updated":
            part = event["data"]["part"]
            last[part["id"]] = part
    assert last["reasoning-1"]["signature"] == "sig"
    assert last["reasoning-2"]["redacted"] == "xyz"
    assert last["tool-3"]["state"] == {
        "status": "running",
        "input": {"q": "x"},
        "inputText": arguments,
    }
    assert last["tool-3"]["callID"] == "t1"
    assert last["tool-4"]["state"]["status"] == "completed"
    assert last["tool-4"]["state"]["output"] == [{"u": 1}]
    assert last["text-5"]["annotations"] == [{"url": "u"}]
    assert len(last) == 5


def test_arguments_that_are_cut_make_the_tool_an_error() -> None:
    data = start() + begin(type="tool_use", id="t", name="f", input={})
    data += delta(type="input_json_delta", partial_json='{"a') + ending("max_tokens")
    *_, tool, call = folded(data)
    assert tool["data"]["part"]["state"]["status"] == "error"
    assert call["data"]["finishReason"] == "max_tokens"


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
_block = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["text", "thinking", "tool_use", "x_tool_result", "server_tool_use"]
        )
        | _json,
        "text": st.text(max_size=3) | _json,
        "name": st.text(max_size=3) | _json,
        "id": st.text(max_size=3) | _json,
        "tool_use_id": _json,
        "content": _json,
        "input": st.dictionaries(st.text(max_size=2), _json, max_size=1) | _json,
    },
)
_delta = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["text_delta", "input_json_delta", "citations_delta", "signature_delta"]
        )
        | _json,
        "text": _json,
        "partial_json": st.text(max_size=3) | _json,
        "stop_reason": _json,
    },
)
_record = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "message_start",
                "content_block_start",
                "content_block_delta",
                "content_block_stop",
                "message_delta",
                "message_stop",
                "error",
                "ping",
            ]
        )
    },
    optional={
        "index": st.integers(0, 2) | _json,
        "content_block": _block | _json,
        "delta": _delta | _json,
        "message": st.dictionaries(st.sampled_from(["id", "usage"]), _json) | _json,
        "usage": st.dictionaries(st.sampled_from(["input_tokens"]), _json) | _json,
        "error": _json,
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_record, max_size=12))
def test_whatever_comes_the_fold_raises_nothing_but_source_errors(
    records: list[Any],
) -> None:
    stream = a_stream()
    for value in records:
        for event in stream.feed(record(value)):
            json.dumps(event)
    with suppress(SourceError):
        stream.finish()


def answered(
    *scripts: Sequence[Step], request: Any = "hi", **more: Any
) -> tuple[list[Any], Exception | None, Server]:
    async def main() -> tuple[list[Any], Exception | None, Server]:
        async with serving(*scripts) as server:
            before = asyncio.all_tasks()
            options = {"max_tokens": 9, "attempts": 2, "backoff": 0.01, **more}
            source = anthropic_messages(base_url=server.url, model="m", **options)
            events, failure = await events_until_failure(source, a_turn(request))
            assert await server.all_closed()
            assert not await other_tasks(before)
        return events, failure, server

    return asyncio.run(main())


def test_it_asks_as_the_api_wants_to_be_asked() -> None:
    messages = [{"role": "system", "content": "b"}, {"role": "user", "content": "u"}]
    _, failure, server = answered(
        GOOD, request={"messages": messages}, api_key=KEY, system="a", temperature=0
    )
    assert failure is None
    (asked,) = server.requests
    assert asked["line"] == "POST /v1/messages HTTP/1.1"
    assert asked["headers"]["x-api-key"] == KEY
    assert asked["headers"]["anthropic-version"] == "2023-06-01"
    assert "authorization" not in asked["headers"]
    assert asked["body"] == {
        "model": "m",
        "max_tokens": 9,
        "stream": True,
        "temperature": 0,
        "system": "a\n\nb",
        "messages": [{"role": "user", "content": "u"}],
    }


def test_an_overloaded_provider_is_asked_again_before_the_first_event() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    busy = [head("529 Overloaded", "application/json"), json.dumps(error).encode()]
    streamed = [head(), PING, b"event: error\n" + record(error)]
    for first in (busy, streamed):
        events, failure, server = answered(first, GOOD)
        assert failure is None
        assert text_of(events) == "hi"
        assert len(server.requests) == 2
    events, failure, server = answered([head(), start(), record(error)], GOOD)
    assert isinstance(failure, SourceStatus)
    assert failure.status == 529
    assert events[0]["data"]["inputTokens"] == 3
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized"])
def test_a_json_error_tells_what_the_provider_said_and_no_secret(status: str) -> None:
    body = {"type": "error", "error": {"type": "authentication_error", "message": KEY}}
    script = [head(status, "application/json"), json.dumps(body).encode()]
    _, failure, _ = answered(script, api_key=KEY)
    assert isinstance(failure, SourceStatus)
    assert "authentication_error" in str(failure)
    assert KEY not in str(failure) + failure.body


def test_pings_do_not_hold_off_a_deadline() -> None:
    for before in (b"", start()):
        script: list[Step] = [head() + before, Drip(PING)]
        _, failure, _ = answered(script, first_event=0.2, idle=0.2)
        assert isinstance(failure, SourceTimeout)


def test_a_stream_of_another_protocol_is_refused() -> None:
    _, failure, _ = answered([head(), record({"choices": []})])
    assert isinstance(failure, SourceProtocol)


def test_cancelled_at_any_await_it_leaves_nothing_open() -> None:
    async def main() -> int:
        step = 0
        while True:
            step += 1
            async with serving(GOOD) as server:
                before = asyncio.all_tasks()
                source = anthropic_messages(
                    base_url=server.url, model="m", max_tokens=1
                )
                _, count = await cancelled_at(reads_of(source), step)
                assert await server.all_closed(), step
                assert not await other_tasks(before, collect=count < step), step
            if count < step:
                return step

    assert asyncio.run(main()) > 5


def test_what_cannot_be_asked_is_refused_at_once() -> None:
    wrongs: list[dict[str, Any]] = [
        {"max_tokens": 0},
        {"stream": False},
        {"base_url": "nowhere"},
    ]
    for wrong in wrongs:
        options: dict[str, Any] = {"model": "m", "max_tokens": 1, **wrong}
        with pytest.raises(ValueError, match=next(iter(wrong))):
            anthropic_messages(**options)


@needs_model
def test_a_real_model_answers() -> None:
    async def main() -> list[Any]:
        running = await server_of(find_model(MODEL), MODEL).running(60)
        source = anthropic_messages(
            base_url=running.address, api_key=running.key, model=MODEL, max_tokens=8
        )
        return flat(await reads_of(source))

    events = asyncio.run(main())
    assert text_of(events).strip()
    assert events[-1]["data"]["inputTokens"] > 3
    assert events[-1]["data"]["finishReason"] in ("end_turn", "max_tokens")
