"""`openai_responses`: its fold over transcripts, and its life on a real socket."""

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
    SourceStatus,
    SourceTimeout,
)
from pipeline.sources import openai_responses
from pipeline.sources.local_model import MODEL, find_model
from pipeline.sources.local_process import server_of
from pipeline.sources.responses_events import ResponseAssembler
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

KEY = "sk-very-secret-0123456789"
WHOLE = (TRANSCRIPTS / "responses_api.sse").read_bytes()
TEXT = "Hello there! I'm here to help with any kind of math or science project"


def said(kind: str, **fields: Any) -> bytes:
    return record({"type": f"response.{kind}", **fields})


def ended(kind: str = "completed", **fields: Any) -> bytes:
    usage = {"input_tokens": 3, "output_tokens": 2}
    return said(kind, response={"id": "r1", "model": "g", "usage": usage, **fields})


CREATED = said("created", response={"id": "r1"})
HI = said("output_text.delta", item_id="i", content_index=0, delta="hi")
GOOD = chunked(CREATED, HI, ended(), b"")


def a_stream() -> TypedStream:
    return TypedStream(ResponseAssembler(model="m"), kind="a response", ends="its end")


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
    assert len({id(event["data"]["part"]) for event in events[:-1]}) == 1
    assert events[-1]["data"] == {
        "model": "smollm2-135m-instruct",
        "provider": "openai",
        "callId": "resp_4vhhgQnHd6RfEzrZGYprfjKX9738vrNY",
        "merge": "last",
        "inputTokens": 33,
        "outputTokens": 16,
        "cachedInputTokens": 24,
        "finishReason": "completed",
    }


def test_cut_at_any_byte_it_is_incomplete() -> None:
    for at in range(len(WHOLE.rstrip())):
        stream = a_stream()
        stream.feed(WHOLE[:at])
        with pytest.raises(SourceIncomplete):
            stream.finish()


def test_each_kind_of_item_becomes_its_part() -> None:
    arguments = '{"q": 1}'
    search = {"type": "web_search_call", "id": "ws"}
    call = {"type": "function_call", "call_id": "fc", "name": "f"}
    custom = {"type": "custom_tool_call", "id": "ct", "call_id": "cc", "name": "c"}
    data = b"".join(
        [
            CREATED,
            said("reasoning_summary_text.delta", item_id="r", delta="hm"),
            said(
                "output_item.done",
                item={"type": "reasoning", "id": "r", "encrypted_content": "xyz"},
            ),
            said("output_item.added", item={**search, "status": "in_progress"}),
            said("web_search_call.searching", item_id="ws"),
            said("web_search_call.completed", item_id="ws"),
            said(
                "output_item.done",
                item={**search, "status": "completed", "action": {"query": "x"}},
            ),
            said("output_item.added", item=call),
            said("function_call_arguments.delta", item_id="fc", delta=arguments),
            said("function_call_arguments.done", item_id="fc", arguments=arguments),
            said("output_item.done", item={**call, "arguments": arguments}),
            said("output_item.added", item=custom),
            said("output_item.done", item={**custom, "input": "free"}),
            said("output_text.delta", item_id="t", delta="a"),
            said("output_text.annotation.added", item_id="t", annotation={"url": "u"}),
            said("output_text.done", item_id="t", text="a"),
            said("refusal.done", item_id="u", refusal="no"),
            said("new_thing.delta", delta="?"),
            ended(),
        ]
    )
    events = folded(data)
    last: dict[str, Any] = {}
    for event in events[:-1]:
        part = event["data"]["part"]
        last[part["id"]] = part
    assert text_of(events) == "ano"
    assert last["reasoning-1"]["encrypted"] == "xyz"
    assert last["tool-2"]["tool"] == "web_search"
    assert last["tool-2"]["state"] == {
        "status": "completed",
        "input": {"action": {"query": "x"}},
    }
    assert last["tool-3"]["callID"] == "fc"
    assert last["tool-3"]["state"] == {
        "status": "running",
        "input": {"q": 1},
        "inputText": arguments,
    }
    assert last["tool-4"]["state"] == {"status": "running", "input": {"input": "free"}}
    assert last["text-5"]["annotations"] == [{"url": "u"}]
    assert len(last) == 6


def test_an_incomplete_response_is_an_answer_that_says_why() -> None:
    why = {"reason": "max_output_tokens"}
    events = folded(HI + ended("incomplete", incomplete_details=why))
    assert events[-1]["data"]["finishReason"] == "max_output_tokens"


def test_a_failed_response_reports_its_usage_and_raises() -> None:
    stream = a_stream()
    error = {"code": "server_error", "message": "broken"}
    events = stream.feed(HI + ended("failed", error=error))
    assert events[-1]["data"]["inputTokens"] == 3
    with pytest.raises(SourceStatus, match=r"broken \(server_error\)") as raised:
        stream.finish()
    assert raised.value.status == 500


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
_id = st.sampled_from(["a", "b"]) | _json
_item = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["function_call", "web_search_call", "message", "reasoning", "shell_call"]
        )
        | _json
    },
    optional={
        "id": _id,
        "call_id": _id,
        "name": st.just("f") | _json,
        "status": st.sampled_from(["completed", "failed"]) | _json,
        "arguments": st.just("{}") | _json,
        "encrypted_content": _json,
        "error": _json,
    },
)
_record = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "response.created",
                "response.output_item.added",
                "response.output_item.done",
                "response.output_text.delta",
                "response.output_text.done",
                "response.output_text.annotation.added",
                "response.refusal.delta",
                "response.reasoning_summary_text.delta",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "response.web_search_call.searching",
                "response.completed",
                "response.incomplete",
                "response.failed",
                "error",
            ]
        )
    },
    optional={
        "item": _item | _json,
        "item_id": _id,
        "content_index": _json,
        "delta": st.text(max_size=3) | _json,
        "text": _json,
        "arguments": _json,
        "response": st.dictionaries(
            st.sampled_from(["id", "usage", "error", "incomplete_details"]), _json
        )
        | _json,
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
            options = {"attempts": 2, "backoff": 0.01, **more}
            source = openai_responses(base_url=server.url, model="m", **options)
            events, failure = await events_until_failure(source, a_turn(request))
            assert await server.all_closed()
            assert not await other_tasks(before)
        return events, failure, server

    return asyncio.run(main())


@pytest.mark.parametrize("request_", ["hi", {"input": "hi"}, {"message": "hi"}])
def test_it_asks_as_the_api_wants_to_be_asked(request_: Any) -> None:
    events, failure, server = answered(
        GOOD, request=request_, api_key=KEY, instructions="a", store=False
    )
    assert failure is None
    assert text_of(events) == "hi"
    (asked,) = server.requests
    assert asked["line"] == "POST /v1/responses HTTP/1.1"
    assert asked["headers"]["authorization"] == f"Bearer {KEY}"
    assert asked["body"] == {
        "model": "m",
        "stream": True,
        "store": False,
        "instructions": "a",
        "input": [{"role": "user", "content": "hi"}],
    }


def test_an_error_is_tried_again_only_as_the_first_record() -> None:
    error = record({"type": "error", "code": "server_error", "message": KEY})
    events, failure, server = answered([head(), error], GOOD)
    assert failure is None
    assert text_of(events) == "hi"
    assert len(server.requests) == 2
    _, failure, server = answered([head(), CREATED, HI, error], GOOD, api_key=KEY)
    assert isinstance(failure, SourceStatus)
    assert KEY not in str(failure) + failure.body
    assert len(server.requests) == 1


def test_pings_do_not_hold_off_a_deadline() -> None:
    ping = b"event: ping\ndata: {}\n\n"
    for before in (b"", CREATED):
        _, failure, _ = answered(
            [head() + before, Drip(ping)], first_event=0.2, idle=0.2
        )
        assert isinstance(failure, SourceTimeout)


def test_cancelled_at_any_await_it_leaves_nothing_open() -> None:
    async def main() -> int:
        step = 0
        while True:
            step += 1
            async with serving(GOOD) as server:
                before = asyncio.all_tasks()
                source = openai_responses(base_url=server.url, model="m")
                _, count = await cancelled_at(reads_of(source), step)
                assert await server.all_closed(), step
                assert not await other_tasks(before, collect=count < step), step
            if count < step:
                return step

    assert asyncio.run(main()) > 5


@needs_model
def test_a_real_model_answers() -> None:
    async def main() -> list[Any]:
        running = await server_of(find_model(MODEL), MODEL).running(60)
        source = openai_responses(
            base_url=f"{running.address}/v1",
            api_key=running.key,
            model=MODEL,
            max_output_tokens=8,
        )
        return flat(await reads_of(source))

    events = asyncio.run(main())
    assert text_of(events).strip()
    assert events[-1]["data"]["inputTokens"] > 3
    assert events[-1]["data"]["finishReason"] == "completed"
