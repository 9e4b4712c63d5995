"""`openai_chat` against a real socket: what it asks, and how each answer ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic
from typing import Any

import httpx
import pytest

from operators.errors import (
    SourceError,
    SourceIncomplete,
    SourceProtocol,
    SourceStatus,
    SourceTimeout,
    SourceUnreachable,
)
from pipeline.sources import openai_chat
from tests.sources.helpers import (
    TRANSCRIPTS,
    a_turn,
    events_until_failure,
    flat,
    other_tasks,
    reads_of,
    text_of,
)
from tests.sources.server import (
    DONE,
    Drip,
    Server,
    Step,
    chunk,
    chunked,
    finish,
    head,
    record,
    serving,
)

pytestmark = pytest.mark.usefixtures("transport")

KEY = "sk-very-secret-0123456789"
GOOD = [head(), chunk(content="hi"), finish(), DONE]
QUICK: dict[str, Any] = {
    "model": "m",
    "first_event": 0.3,
    "idle": 0.3,
    "backoff": 0.01,
    "attempts": 2,
}


def chat(server: Server, **more: Any) -> Any:
    return openai_chat(base_url=server.url, **{**QUICK, **more})


def answered(
    *scripts: Sequence[Step], within: float = 2.0, **more: Any
) -> tuple[list[Any], Exception | None, Server]:
    """Run one turn against these answers; all of it is closed afterwards."""

    async def main() -> tuple[list[Any], Exception | None, Server]:
        async with serving(*scripts) as server:
            before = asyncio.all_tasks()
            began = monotonic()
            events, failure = await events_until_failure(chat(server, **more))
            assert monotonic() - began < within
            assert await server.all_closed()
            assert not await other_tasks(before)
        return events, failure, server

    return asyncio.run(main())


def test_it_asks_for_a_stream_with_usage() -> None:
    events, failure, server = answered(
        GOOD,
        api_key=KEY,
        headers={"X-Mine": "1", "Accept": "*/*"},
        temperature=0.5,
        n=1,
        provider="acme",
    )
    assert failure is None
    assert text_of(events) == "hi"
    call = events[-1]["data"]
    assert call["provider"] == "acme"
    assert call["model"] == "m"
    assert 0 <= call["latencyMs"] < 2000
    (asked,) = server.requests
    assert asked["line"] == "POST /v1/chat/completions HTTP/1.1"
    assert asked["headers"]["authorization"] == f"Bearer {KEY}"
    assert asked["headers"]["accept-encoding"] == "identity"
    assert asked["headers"]["x-mine"] == "1"
    assert asked["headers"]["accept"] == "*/*"
    assert asked["body"] == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "n": 1,
        "messages": [{"role": "user", "content": "hi"}],
    }


async def _async_messages(turn: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": turn.request}]


@pytest.mark.parametrize(
    ("request_", "messages", "sent"),
    [
        ("text", None, "text"),
        ({"message": "text"}, None, "text"),
        ({"messages": [{"role": "user", "content": "text"}]}, None, "text"),
        (None, [{"role": "user", "content": "text"}], "text"),
        (None, "text", "text"),
        ("text", lambda turn: turn.request, "text"),
        ("text", _async_messages, "text"),
        ("\ud83d", None, "\ud83d"),
    ],
)
def test_messages_come_from_the_request_or_a_function(
    request_: Any, messages: Any, sent: str
) -> None:
    async def main() -> Any:
        async with serving(GOOD) as server:
            source = chat(server, messages=messages, stream_options=None)
            await reads_of(source, a_turn(request_))
            return server.requests[0]["body"]

    body = asyncio.run(main())
    assert body["messages"] == [{"role": "user", "content": sent}]
    assert "stream_options" not in body


@pytest.mark.parametrize(
    ("request_", "more"),
    [
        (None, {}),
        ("", {}),
        ({}, {}),
        ({"messages": []}, {}),
        (7, {}),
        ("hi", {"messages": lambda _turn: None}),
        ("hi", {"stop": {1, 2}}),
        ("hi", {"seed": float("nan"), "logit_bias": 2**70}),
    ],
)
def test_a_request_that_asks_nothing_fails_before_anything_is_sent(
    request_: Any, more: Any
) -> None:
    async def main() -> None:
        async with serving(GOOD) as server:
            with pytest.raises(SourceError) as failure:
                await reads_of(chat(server, **more), a_turn(request_))
            assert failure.value.code == "source.request"
            assert not server.requests

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "127.0.0.1:8080"},
        {"base_url": "ftp://127.0.0.1"},
        {"base_url": "http://127.0.0.1/v1?x=1"},
        {"base_url": f"http://me:{KEY}@127.0.0.1/v1"},
        {"idle": 0},
        {"total": -1},
        {"first_event": float("nan")},
        {"connect": "1"},
        {"attempts": 0},
        {"attempts": 1.5},
        {"backoff": 0},
        {"api_key": KEY + "\n"},
        {"headers": {"x": "é"}},
        {"stream": False},
    ],
    ids=repr,
)
def test_what_cannot_be_is_refused_at_once_and_no_key_is_told(wrong: Any) -> None:
    with pytest.raises(ValueError) as refused:
        openai_chat(**{"base_url": "http://127.0.0.1/v1", "model": "m", **wrong})
    assert KEY not in str(refused.value)


def test_the_trace_goes_on_in_the_request() -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    async def main() -> tuple[Any, str]:
        tracer = TracerProvider().get_tracer("test")
        async with serving(GOOD) as server:
            with tracer.start_as_current_span("turn") as span:
                await reads_of(chat(server))
            told = trace.format_trace_id(span.get_span_context().trace_id)
            return server.requests[0]["headers"], told

    headers, trace_id = asyncio.run(main())
    assert trace_id in headers["traceparent"]


def test_the_events_of_one_read_are_one_list() -> None:
    async def main() -> list[list[Any]]:
        first = b"".join(chunk(content=str(n)) for n in range(16))
        script = [head(), first, "wait", chunk(content="x") + finish() + DONE]
        async with (
            serving(script) as server,
            aclosing(chat(server)(a_turn())) as stream,
        ):
            reads = [await anext(stream)]
            server.go.set()
            return reads + [read async for read in stream]

    reads = asyncio.run(main())
    assert [len(read) for read in reads] == [16, 2]


@pytest.mark.parametrize("name", ["basic_usage", "tools", "n2_stop", "emoji"])
def test_a_transcript_over_a_socket_gives_what_it_gives_without(name: str) -> None:
    from tests.sources.test_chat_stream import folded

    data = (TRANSCRIPTS / f"{name}.sse").read_bytes()
    pieces = [data[at : at + 997] for at in range(0, len(data), 997)]
    for script in ([head(), *pieces], chunked(*pieces, b"")):
        events, failure, _ = answered(script)
        assert failure is None
        del events[-1]["data"]["latencyMs"]
        expected = folded(data)
        expected[-1]["data"]["model"] = events[-1]["data"]["model"]
        assert events == expected


STATUSES = [
    ("400 Bad Request", 400, False),
    ("401 Unauthorized", 401, False),
    ("404 Not Found", 404, False),
    ("307 Temporary Redirect", 307, False),
    ("408 Request Timeout", 408, True),
    ("425 Too Early", 425, True),
    ("429 Too Many Requests", 429, True),
    ("500 Internal Server Error", 500, True),
    ("502 Bad Gateway", 502, True),
    ("503 Service Unavailable", 503, True),
    ("504 Gateway Timeout", 504, True),
]


@pytest.mark.parametrize(("line", "status", "retried"), STATUSES)
def test_a_refusal_is_told_and_what_may_pass_is_tried_again(
    line: str, status: int, retried: bool
) -> None:
    body = json.dumps({"error": {"message": "no, not you", "type": "t"}}).encode()
    length = f"Content-Length: {len(body)}"
    script = [head(line, "application/json", length, "Location: /x"), body]
    _, failure, server = answered(script)
    assert isinstance(failure, SourceStatus)
    assert failure.status == status
    assert failure.code == "source.status"
    assert f"answered {line}: no, not you (t)" in str(failure)
    assert failure.body == body.decode()
    assert len(server.requests) == (2 if retried else 1)

    events, failure, _ = answered(script, GOOD)
    assert (failure is None) == retried
    assert text_of(events) == ("hi" if retried else "")


def test_a_recorded_refusal_is_told_as_the_provider_wrote_it() -> None:
    body = (TRANSCRIPTS / "bad.sse").read_bytes()
    _, failure, _ = answered([head("400 Bad Request", "application/json"), body])
    assert "Expected 'messages' to be an array" in str(failure)


def test_an_error_page_is_quoted_in_part() -> None:
    _, failure, _ = answered(
        [head("500 Oh", "text/html"), b"<html>" + b"x" * 300_000], attempts=1
    )
    assert isinstance(failure, SourceStatus)
    assert failure.status == 500
    assert failure.body.startswith("<html>x")
    assert len(failure.body) == 2_048


def test_an_error_body_that_does_not_come_does_not_keep_the_error() -> None:
    script: list[Step] = [head("400 Bad Request", "text/plain"), b"why", "hang"]
    _, failure, _ = answered(script)
    assert isinstance(failure, SourceStatus)
    assert failure.body == "why"


@pytest.mark.parametrize("echo", [f"bad key {KEY}", "x" * 2_040 + KEY, KEY * 100])
def test_no_message_tells_the_key(echo: str) -> None:
    pieces = [KEY[:n] for n in range(6, len(KEY) + 1)]
    body = json.dumps({"error": {"message": echo}}).encode()
    answers: list[Sequence[Step]] = [
        [head("401 No", "application/json"), body],
        [head("401 No", "text/plain"), echo.encode()],
        [head("200 OK", "text/plain"), echo.encode()],
        [head("200 OK", "application/json"), body],
        [head(), record({"error": {"message": echo}})],
        [head(), f"data: {echo}\n\n".encode()],
    ]
    for script in answers:
        _, failure, _ = answered(script, api_key=KEY, headers={"X-Api-Key": KEY})
        assert isinstance(failure, SourceError)
        told = f"{failure} {failure!r} {getattr(failure, 'body', '')}"
        assert not [piece for piece in pieces if piece in told], told


@pytest.mark.parametrize("dated", [False, True])
def test_retry_after_is_waited_for(dated: bool) -> None:
    at = datetime.now(UTC) + timedelta(seconds=2)
    value = format_datetime(at, usegmt=True) if dated else "0.2"
    busy = [head("429 Too Many", None, f"Retry-After: {value}", "Content-Length: 0")]
    began = monotonic()
    events, failure, _ = answered(busy, GOOD, first_event=5, within=5)
    assert failure is None
    assert text_of(events) == "hi"
    assert monotonic() - began > 0.2
    if dated:  # it has whole seconds
        assert datetime.now(UTC) >= at.replace(microsecond=0) - timedelta(seconds=0.1)


@pytest.mark.parametrize("value", ["3600", "1e400", "-5", "soon", "Wed, 99 Foo"])
def test_a_retry_after_beyond_the_deadline_or_wrong_delays_nothing(value: str) -> None:
    busy = [head("429 Too Many", None, f"Retry-After: {value}", "Content-Length: 0")]
    _, failure, server = answered(busy)
    assert isinstance(failure, SourceStatus)
    assert failure.status == 429
    if value == "3600":
        assert failure.retry_after == 3600
        assert len(server.requests) == 1
    else:
        assert not failure.retry_after
        assert len(server.requests) == 2


def test_a_provider_that_is_always_busy_is_asked_so_often_and_no_more() -> None:
    busy = [head("429 Too Many Requests", None, "Content-Length: 0")]
    _, failure, server = answered(busy, attempts=4, first_event=2)
    assert isinstance(failure, SourceStatus)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("text/html", b"<p>hello", "answered with content-type text/html, not"),
        (None, b"data: x\n\n", "answered with content-type (none), not"),
        ("application/json", b'{"choices": []}', "content-type application/json, not"),
        ("application/json", b'{"choi', "is not JSON"),
        ("application/json", b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_another_content_type_is_told(kind: str | None, body: bytes, said: str) -> None:
    _, failure, server = answered([head("200 OK", kind), body])
    assert isinstance(failure, SourceProtocol)
    assert said in str(failure)
    assert len(server.requests) == 1


def test_a_compressed_answer_is_told() -> None:
    script = [head("200 OK", "text/event-stream", "Content-Encoding: gzip"), b"\x1f"]
    _, failure, _ = answered(script)
    assert isinstance(failure, SourceProtocol)
    assert "content-encoding gzip" in str(failure)


def test_an_error_as_json_with_status_200_is_a_refusal() -> None:
    body = (TRANSCRIPTS / "overflow.sse").read_bytes()
    _, failure, server = answered([head("200 OK", "application/json"), body])
    assert isinstance(failure, SourceStatus)
    assert failure.status == 200
    assert "exceeds the available context size" in str(failure)
    assert len(server.requests) == 1


A = chunk(content="a")


@pytest.mark.parametrize(
    ("then", "kind", "said"),
    [
        (b'data: {"a": \xff}\n\n', SourceProtocol, "not UTF-8"),
        (b"data: {oops\n\n", SourceProtocol, "not JSON"),
        (b"data: " + b"x" * 9000, SourceProtocol, "longer than 8000 bytes"),
        (record({"error": {"message": "full"}}), SourceStatus, "full"),
        (b"data: {", SourceIncomplete, "in the middle of a record of 7 bytes"),
        (b": bye\n\n", SourceIncomplete, "ended after 1 records"),
        ("reset", SourceIncomplete, ""),  # the transports see it differently
    ],
)
def test_a_stream_that_goes_wrong_keeps_what_came_before(
    then: Step, kind: type[Exception], said: str
) -> None:
    events, failure, server = answered([head(), A, then], limit_bytes=8000)
    assert isinstance(failure, kind)
    assert said in str(failure)
    assert text_of(events) == "a"
    assert len(server.requests) == 1


def test_a_chunked_stream_without_its_last_chunk_is_incomplete() -> None:
    events, failure, _ = answered(chunked(A, A))
    assert isinstance(failure, SourceIncomplete)
    assert text_of(events) == "aa"


def test_a_server_killed_in_the_middle_is_incomplete() -> None:
    data = (TRANSCRIPTS / "truncated_server_killed.sse").read_bytes()
    events, failure, _ = answered(chunked(data[:9000], data[9000:]))
    assert isinstance(failure, SourceIncomplete)
    assert text_of(events).startswith("In a small, sleepy")


@pytest.mark.parametrize("then", ["reset", "hang", b""], ids=str)
def test_what_happens_after_the_finish_reason_costs_at_most_the_usage(
    then: Step,
) -> None:
    events, failure, _ = answered([head(), A, finish(), then])
    assert failure is None
    assert text_of(events) == "a"
    assert events[-1]["data"]["finishReason"] == "stop"


PING = Drip(b": ping\n\n")


@pytest.mark.parametrize(
    ("script", "more", "phase"),
    [
        (["hang"], {}, "first_event"),
        ([head(), "hang"], {}, "first_event"),
        ([head(), PING], {}, "first_event"),
        ([head(), b"data: {", "hang"], {}, "first_event"),
        ([head(), A, "hang"], {}, "idle"),
        ([head(), A, PING], {}, "idle"),
        ([head(), A, Drip(b"x")], {}, "idle"),
        ([head(), A, Drip(A)], {"total": 0.4}, "total"),
        (["hang"], {"total": 0.2}, "total"),
        ([head(), A, "hang"], {"idle": None, "total": 0.3}, "total"),
    ],
)
def test_each_wait_ends_in_its_own_deadline(
    script: list[Step], more: dict[str, Any], phase: str
) -> None:
    events, failure, server = answered(script, within=1.0, **more)
    assert isinstance(failure, SourceTimeout)
    assert failure.phase == phase
    assert failure.code == f"source.timeout.{phase}"
    assert text_of(events[:1]) == ("a" if A in script else "")
    assert len(server.requests) == 1


def test_a_slow_reader_is_not_idle_but_its_time_is_part_of_the_total() -> None:
    async def main(**more: Any) -> None:
        script = [head(), A, "wait", A, finish(), DONE]
        async with (
            serving(script) as server,
            aclosing(chat(server, idle=0.1, **more)(a_turn())) as stream,
        ):
            await anext(stream)
            await asyncio.sleep(0.3)
            server.go.set()
            async for _ in stream:
                pass

    asyncio.run(main())
    with pytest.raises(SourceTimeout) as late:
        asyncio.run(main(total=0.2))
    assert late.value.phase == "total"


@pytest.mark.parametrize(
    "broken",
    [["reset"], [head(), "reset"], [head(), b": ping\n\n", "reset"], [b"SSH-2.0\r\n\r\n"],
     [*chunked(b": ping\n\n")], [head()], [head(), b"data: {"], [b""]],
)  # fmt: skip
def test_a_connection_that_breaks_before_the_first_event_is_made_again(
    broken: list[Step],
) -> None:
    events, failure, _ = answered(broken, GOOD)
    assert failure is None
    assert text_of(events) == "hi"
    _, failure, server = answered(broken)
    assert isinstance(failure, SourceUnreachable)
    assert "(attempt 2 of 2)" in str(failure)
    assert len(server.requests) == 2


def test_an_error_sent_as_a_stream_is_a_refusal() -> None:
    body = (TRANSCRIPTS / "bad.sse").read_bytes()
    _, failure, server = answered([head(), body])
    assert isinstance(failure, SourceStatus)
    assert len(server.requests) == 1


def test_nobody_there_is_unreachable() -> None:
    async def main() -> Exception | None:
        async with serving([b""]) as server:
            url = server.url
        return (await events_until_failure(openai_chat(base_url=url, **QUICK)))[1]

    failure = asyncio.run(main())
    assert isinstance(failure, SourceUnreachable)
    assert "POST http://127.0.0.1:" in str(failure)
    assert failure.__cause__ is not None


def test_a_passed_in_client_is_used_left_open_and_its_connection_reused() -> None:
    async def main() -> None:
        body = A + finish() + DONE
        script = [*chunked(body)[:1], b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)]
        keep = [step.replace(b"Connection: close\r\n", b"") for step in script]
        async with serving([*keep, "hang"]) as server:
            async with httpx.AsyncClient(headers={"x-client": "1"}) as client:
                source = chat(server, client=client)
                assert text_of(flat(await reads_of(source))) == "a"
                assert not client.is_closed
                assert server.open == 1
                assert server.requests[0]["headers"]["x-client"] == "1"
            assert await server.all_closed()

    asyncio.run(main())


def test_a_passed_in_client_that_is_closed_is_a_source_error() -> None:
    async def main() -> Exception | None:
        client = httpx.AsyncClient()
        await client.aclose()
        async with serving(GOOD) as server:
            return (await events_until_failure(chat(server, client=client)))[1]

    failure = asyncio.run(main())
    assert type(failure) is SourceError
    assert "closed" in str(failure)


def test_turns_at_the_same_time_do_not_mix() -> None:
    async def main() -> list[str]:
        async with serving([head(), A, "wait", chunk(content="b"), finish()]) as server:
            source = chat(server, idle=2, first_event=2)
            turns = [asyncio.create_task(reads_of(source)) for _ in range(8)]
            while not all(turn.done() for turn in turns):
                server.go.set()
                await asyncio.sleep(0.01)
            return [text_of(flat(turn.result())) for turn in turns]

    assert asyncio.run(main()) == ["ab"] * 8
