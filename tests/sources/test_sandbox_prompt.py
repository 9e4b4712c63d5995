"""`sandbox_prompt` against a real socket: what it asks, and how its answers end."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from time import monotonic
from typing import Any

import pytest

from operators import accumulate, lifecycle
from operators.errors import (
    SourceError,
    SourceIncomplete,
    SourceProtocol,
    SourceStatus,
    SourceTimeout,
    SourceUnreachable,
)
from operators.turn import TurnContext, TurnIdentity
from pipeline import Pipeline
from pipeline.sources.sandbox_prompt import sandbox_prompt
from tests.sources.helpers import (
    a_turn,
    events_until_failure,
    flat,
    other_tasks,
    reads_of,
    text_of,
)
from tests.sources.sandbox_server import COMPLETED, RUN, sse, text
from tests.sources.server import Server, Step, chunked, head, serving

pytestmark = pytest.mark.usefixtures("transport")

KEY = "sk-very-secret-0123456789"
QUICK: dict[str, Any] = {
    "first_event": 5.0,
    "idle": 5.0,
    "backoff": 0.01,
    "attempts": 2,
    "reconnects": 2,
}
SHORT = {"first_event": 0.3, "idle": 0.3}
GOOD = [head(), sse(None, text("hi")), sse(None, COMPLETED)]


def a_run(request: object = "hi", execution_id: str = "p:s:0") -> TurnContext:
    turn = a_turn(request)
    turn.execution_id = execution_id
    return turn


def answered(
    *scripts: list[Step], within: float = 4.0, **more: Any
) -> tuple[list[Any], Exception | None, Server]:
    """Run one turn against these answers; all of it is closed afterwards."""

    async def main() -> tuple[list[Any], Exception | None, Server]:
        async with serving(*scripts) as server:
            before = asyncio.all_tasks()
            began = monotonic()
            source = sandbox_prompt(server.url, **{**QUICK, **more})
            events, failure = await events_until_failure(source, a_run())
            assert monotonic() - began < within
            assert await server.all_closed()
            assert not await other_tasks(before)
        return events, failure, server

    return asyncio.run(main())


def test_it_asks_the_agent_to_run_under_the_turns_id() -> None:
    events, failure, server = answered(
        GOOD,
        api_key=KEY,
        headers={"X-Mine": "1"},
        backend="codex",
        model="m",
        profile={"name": "p"},
        body=lambda turn: {"sessionId": turn.identity.session_id},
    )
    assert failure is None
    assert text_of(events) == "hi"
    (asked,) = server.requests
    assert asked["line"] == "POST /v1/runtime/agents/run/stream HTTP/1.1"
    assert asked["headers"]["x-execution-id"] == "p:s:0"
    assert asked["headers"]["accept"] == "text/event-stream"
    assert asked["headers"]["accept-encoding"] == "identity"
    assert asked["headers"]["authorization"] == f"Bearer {KEY}"
    assert asked["headers"]["x-mine"] == "1"
    assert "last-event-id" not in asked["headers"]
    assert asked["body"] == {
        "backend": {
            "type": "codex",
            "profile": {"name": "p"},
            "model": {"default": "m"},
        },
        "messages": [{"role": "user", "content": "hi"}],
        "sessionId": "s",
    }


def test_the_body_may_be_ones_own() -> None:
    body = {"messages": [], "backend": 7, "prompt": "x"}
    _, _, server = answered(GOOD, body=body, path="/runs?x=1", backend={"type": "b"})
    assert server.requests[0]["body"] == body
    assert server.requests[0]["line"] == "POST /v1/runs?x=1 HTTP/1.1"


@pytest.mark.parametrize(
    ("request_", "more", "execution_id"),
    [
        (None, {}, "x"),
        (7, {}, "x"),
        ("hi", {"messages": lambda _turn: None}, "x"),
        ("hi", {"body": lambda _turn: "x"}, "x"),
        ("hi", {"body": {"x": {1}}}, "x"),
        ("hi", {}, "ü"),
        ("hi", {}, "a\nb"),
        ("hi", {}, "x" * 2000),
    ],
)
def test_what_cannot_be_asked_fails_before_anything_is_sent(
    request_: Any, more: Any, execution_id: str
) -> None:
    async def main() -> None:
        async with serving(GOOD) as server:
            source = sandbox_prompt(server.url, **more)
            with pytest.raises(SourceError) as failure:
                await reads_of(source, a_run(request_, execution_id))
            assert failure.value.code == "source.request"
            assert not server.requests

    asyncio.run(main())


def test_a_turn_without_an_id_is_given_one_that_its_attempts_share() -> None:
    async def main() -> Any:
        async with serving([head("503 Busy", None)], GOOD) as server:
            await reads_of(sandbox_prompt(server.url, **QUICK), a_run(execution_id=""))
            return [asked["headers"]["x-execution-id"] for asked in server.requests]

    first, second = asyncio.run(main())
    assert first == second != ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "127.0.0.1:8080"},
        {"base_url": f"http://me:{KEY}@127.0.0.1/v1"},
        {"path": "run"},
        {"path": "/run#x"},
        {"path": "/rün"},
        {"reconnect": "put"},
        {"reconnect_path": "run"},
        {"reconnects": -1},
        {"reconnects": 1.0},
        {"stall": 0},
        {"ends": "final"},
        {"idle": 0},
        {"attempts": 0},
        {"api_key": KEY + "\n"},
        {"headers": {"x": "é"}},
    ],
    ids=repr,
)
def test_what_cannot_be_is_refused_at_once_and_no_key_is_told(wrong: Any) -> None:
    more = {"base_url": "http://127.0.0.1", **wrong}
    with pytest.raises(ValueError) as refused:
        sandbox_prompt(more.pop("base_url"), **more)
    assert KEY not in str(refused.value)


def test_the_trace_goes_on_in_the_request() -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    async def main() -> tuple[Any, str]:
        tracer = TracerProvider().get_tracer("test")
        async with serving(GOOD) as server:
            with tracer.start_as_current_span("turn") as span:
                await reads_of(sandbox_prompt(server.url, **QUICK), a_run())
            told = trace.format_trace_id(span.get_span_context().trace_id)
            return server.requests[0]["headers"], told

    headers, trace_id = asyncio.run(main())
    assert trace_id in headers["traceparent"]


def test_the_events_of_one_read_are_one_list() -> None:
    async def main() -> list[list[Any]]:
        first = b"".join(sse(str(n), text(str(n))) for n in range(16))
        script: list[Step] = [
            head(),
            first,
            "wait",
            sse("x", text("x")) + sse("y", COMPLETED),
        ]
        async with serving(script) as server:
            source = sandbox_prompt(server.url, **QUICK)
            async with aclosing(source(a_run())) as stream:
                reads = [await anext(stream)]
                server.go.set()
                return reads + [read async for read in stream]

    assert [len(read) for read in asyncio.run(main())] == [16, 2]


def test_in_a_pipeline_a_run_is_a_turn() -> None:
    async def main() -> tuple[list[Any], Any]:
        data = b"".join(sse(None, event) for event in RUN)
        async with serving([head(), data]) as server:
            chat = (
                Pipeline(sandbox_prompt(server.url, **QUICK))
                | lifecycle()
                | accumulate()
            )
            run = chat.start(TurnIdentity(session_id="s", turn_index=0), request="hi")
            events = [event async for event in run.events()]
            assert server.requests[0]["headers"]["x-execution-id"]
            return events, await run.outcome()

    events, outcome = asyncio.run(main())
    assert outcome.status == "completed"
    assert outcome.text == "Grüße, welt!"
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (3, 2)
    assert events[-1] == {"type": "session.run.completed", "data": {"sessionId": "s"}}


def test_an_agents_failure_is_told_in_band_and_fails_the_turn() -> None:
    async def main(last: Any) -> Any:
        data = sse(None, text("a")) + sse(None, last)
        async with serving([head(), data]) as server:
            chat = (
                Pipeline(sandbox_prompt(server.url, **QUICK))
                | lifecycle()
                | accumulate()
            )
            run = chat.start(TurnIdentity(session_id="s", turn_index=0), request="hi")
            events = [event async for event in run.events()]
            return events, await run.outcome()

    for last in (
        {"type": "error", "data": {"message": "no", "code": "c"}},
        {"type": "final", "status": "failed", "reason": "no", "error": {"code": "c"}},
        {"error": {"message": "no", "code": "c"}},
    ):
        events, outcome = asyncio.run(main(last))
        assert outcome.status == "failed"
        assert outcome.text == "a"
        assert events[-2] == {"type": "error", "data": {"message": "no", "code": "c"}}
        assert events[-1]["type"] == "session.run.failed"
        assert events[-1]["data"]["message"] == "no"


LINES = b'{"type":"text_delta","text":"a"}\n{"type":"done"}\n'


@pytest.mark.parametrize(
    "script",
    [
        [head("200 OK", "application/x-ndjson"), LINES],
        [head("200 OK", "application/jsonl; charset=utf-8"), LINES[:-1]],
        [head(), LINES],
        [head(), b"data: " + LINES.replace(b"\n", b"\ndata: ", 1)],
        [head(), sse(None, text("a")), b"data: [DONE]\n\n"],
        [head(), sse(None, text("a")), sse(None, {"type": "done"})],
        [head(), b": ping\n\n", sse(None, text("a")), sse(None, {"type": "final"})],
    ],
)
def test_an_answer_may_come_in_several_forms(script: list[Step]) -> None:
    events, failure, server = answered(script)
    assert failure is None
    assert text_of(events) == "a"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "last",
    [
        {"type": "result", "data": {"finalText": "a"}},
        {"type": "error", "data": {"message": "no"}},
        {"type": "task_end"},
    ],
)
def test_after_what_makes_it_whole_an_answer_may_just_end(last: Any) -> None:
    for script in (
        [head(), sse(None, text("a")), sse(None, last)],
        chunked(sse(None, text("a")), sse(None, last), b""),
        chunked(sse(None, text("a")), sse(None, last)),
    ):
        events, failure, server = answered(list(script))
        assert failure is None
        assert text_of(events) == "a"
        assert len(server.requests) == 1


@pytest.mark.parametrize("script", [
    [head(), sse(None, text("a"))],
    chunked(sse(None, text("a")), b""),
    chunked(sse(None, text("a"))),
    [head(), sse(None, text("a")), b'data: {"type'],
    [head(), sse(None, text("a")), "reset"],
    [head("200 OK", "application/x-ndjson"), b'{"type":"text_delta","text":"a"}\n{"ty'],
])  # fmt: skip
def test_without_ids_a_cut_answer_is_cut_and_no_second_run_is_begun(
    script: Any,
) -> None:
    events, failure, server = answered(script, GOOD)
    assert isinstance(failure, SourceIncomplete)
    assert "the server sends no event ids" in str(failure)
    assert text_of(events) == "a"
    assert len(server.requests) == 1


def test_another_end_may_be_named() -> None:
    script: list[Step] = [
        head(),
        sse(None, text("a")),
        sse(None, {"type": "bye"}),
        "hang",
    ]
    events, failure, _ = answered(script, ends={"bye"})
    assert failure is None
    assert events[-1] == {"type": "bye"}


def test_before_the_first_event_it_is_asked_again_with_the_same_id() -> None:
    for first in (
        [head(), b": ping\n\n"],
        [head(), b"data: {"],
        ["reset"],
        [head(), "reset"],
        [head("503 Busy", None, "Retry-After: 0.01")],
        [head("429 Busy", None)],
    ):
        events, failure, server = answered(first, GOOD)
        assert failure is None
        assert text_of(events) == "hi"
        ids = [asked["headers"]["x-execution-id"] for asked in server.requests]
        assert ids == ["p:s:0", "p:s:0"]
        assert "last-event-id" not in server.requests[1]["headers"]
        _, failure, server = answered(first)
        assert isinstance(failure, (SourceUnreachable, SourceStatus))
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        ([head("400 Bad", "application/json"), b'{"error":"no"}'], SourceStatus, "no"),
        ([head("404 Not Found", None)], SourceStatus, "404"),
        ([head("410 Gone", None)], SourceStatus, "410"),
        ([head("204 No Content", None)], SourceProtocol, "204"),
        ([head("200 OK", "text/html"), b"<p>"], SourceProtocol, "text/html"),
        ([head("200 OK", "application/json"), b'{"error":{"message":"no"}}'],
         SourceStatus, "no"),
        ([head("200 OK", "application/x-ndjson", "Content-Encoding: gzip"), b"x"],
         SourceProtocol, "gzip"),
        ([head("200 OK", "application/x-ndjson"), b"oops\n"], SourceProtocol, "JSON"),
        ([head(), b"data: oops\n\n"], SourceProtocol, "not JSON"),
        ([head(), b"data: [1]\n\n"], SourceProtocol, "an array"),
        ([head(), b'data: {"a": "\xff"}\n\n'], SourceProtocol, "not UTF-8"),
        ([head(), b"data: " + b"x" * 9000], SourceProtocol, "longer than 8000 bytes"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_is_told(script: Any, kind: Any, said: str) -> None:
    events, failure, server = answered(script, limit_bytes=8000)
    assert type(failure) is kind
    assert said in str(failure)
    assert not events
    assert len(server.requests) == 1
    assert getattr(failure, "code", "") != "source.gone"


def test_what_goes_wrong_after_events_keeps_them() -> None:
    script: list[Step] = [head(), sse("1", text("a")) + b"data: oops\n\n"]
    events, failure, server = answered(script, GOOD)
    assert isinstance(failure, SourceProtocol)
    assert text_of(events) == "a"
    assert len(server.requests) == 1


def test_an_error_of_ones_own_hook_is_raised_as_it_is() -> None:
    def mine(_record: Any) -> Any:
        raise ZeroDivisionError

    _, failure, _ = answered(GOOD, map_event=mine)
    assert isinstance(failure, ZeroDivisionError)


def test_no_message_tells_the_key() -> None:
    echo = f"bad key {KEY}"
    answers: list[list[Step]] = [
        [head("401 No", "application/json"), json.dumps({"error": echo}).encode()],
        [head("200 OK", "text/plain"), echo.encode()],
        [head(), f"data: {echo}\n\n".encode()],
        [head(), sse("1", text("a")), f"data: {echo}\n\n".encode()],
    ]
    for script in answers:
        _, failure, _ = answered(script, api_key=KEY)
        assert isinstance(failure, SourceError)
        assert KEY not in f"{failure} {failure!r} {getattr(failure, 'body', '')}"
        assert "secret" in str(failure)


PING = b": ping\n\n" + sse(None, {"type": "ping"})


@pytest.mark.parametrize(
    ("script", "more", "code"),
    [
        (["hang"], {}, "source.timeout.first_event"),
        ([head(), "hang"], {}, "source.timeout.first_event"),
        ([head(), PING, PING, "hang"], {}, "source.timeout.first_event"),
        ([head(), sse("1", text("a")), "hang"], {}, "source.timeout.idle"),
        ([head(), sse("1", text("a")), PING, "hang"], {}, "source.timeout.idle"),
        ([head(), sse("1", text("a")), "hang"], {"idle": 5.0, "total": 0.3},
         "source.timeout.total"),
    ],
)  # fmt: skip
def test_deadlines_pass_and_pings_do_not_count(
    script: Any, more: Any, code: str
) -> None:
    _, failure, _ = answered(script, **{**SHORT, **more})
    assert isinstance(failure, SourceTimeout)
    assert failure.code == code


def test_a_deadline_after_the_answer_was_whole_is_its_end() -> None:
    last = sse(None, {"type": "result", "data": {"finalText": "a"}})
    events, failure, _ = answered([head(), sse(None, text("a")), last, "hang"], **SHORT)
    assert failure is None
    assert text_of(events) == "a"


def test_it_can_be_asked_by_several_turns_at_once() -> None:
    async def main() -> list[Any]:
        async with serving(GOOD) as server:
            source = sandbox_prompt(server.url, **QUICK)
            turns = [reads_of(source, a_run(execution_id=str(n))) for n in range(20)]
            done = await asyncio.gather(*turns)
            ids = sorted(int(a["headers"]["x-execution-id"]) for a in server.requests)
            assert ids == list(range(20))
            return done

    assert {text_of(flat(reads)) for reads in asyncio.run(main())} == {"hi"}
