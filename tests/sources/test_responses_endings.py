"""`openai_responses` on a real socket: how each answer ends, over both transports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
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
from pipeline.sources import openai_responses
from tests.sources.helpers import (
    a_turn,
    cancelled_after,
    cancelled_at,
    events_until_failure,
    flat,
    other_tasks,
    reads_of,
    text_of,
)
from tests.sources.server import Drip, Server, Step, chunked, head, record, serving
from tests.sources.test_responses_openai import CREATED, HI, WHOLE, ended, said

pytestmark = pytest.mark.usefixtures("transport")

KEY = "sk-very-secret-0123456789"
GOOD = [head(), CREATED, HI, ended()]
BUSY = [head("503 Busy", "text/plain", "Content-Length: 4"), b"busy"]
QUICK: dict[str, Any] = {
    "model": "m",
    "first_event": 0.3,
    "idle": 0.3,
    "backoff": 0.01,
    "attempts": 2,
}


def answered(
    *scripts: Sequence[Step], within: float = 2.0, request: Any = "hi", **more: Any
) -> tuple[list[Any], Exception | None, Server]:
    """Run one turn against these answers; all of it is closed afterwards."""

    async def main() -> tuple[list[Any], Exception | None, Server]:
        async with serving(*scripts) as server:
            before = asyncio.all_tasks()
            began = monotonic()
            source = openai_responses(base_url=server.url, **{**QUICK, **more})
            events, failure = await events_until_failure(source, a_turn(request))
            assert monotonic() - began < within
            assert await server.all_closed()
            assert not await other_tasks(before)
        return events, failure, server

    return asyncio.run(main())


def test_a_recorded_stream_arrives_whole_however_it_is_cut() -> None:
    blocks = [block + b"\n\n" for block in WHOLE.split(b"\n\n") if block]
    whole, failure, _ = answered([head(), *blocks])
    assert failure is None
    cuts = [WHOLE[at : at + 97] for at in range(0, len(WHOLE), 97)]
    for script in ([head(), *cuts], [head() + WHOLE], chunked(*cuts, b"")):
        events, failure, _ = answered(script, within=4.0)
        assert failure is None
        assert events[:-1] == whole[:-1]
        told = {**events[-1]["data"], "latencyMs": 0}
        assert told == {**whole[-1]["data"], "latencyMs": 0}
    assert 0 <= whole[-1]["data"]["latencyMs"] < 2000


@pytest.mark.parametrize(
    "end",
    [[], ["reset"], [said("output_text.delta", item_id="i", delta="x")[:-9]]],
    ids=["closed", "reset", "in a record"],
)
def test_an_answer_that_breaks_off_is_incomplete_and_not_asked_again(
    end: list[Step],
) -> None:
    events, failure, server = answered([head(), CREATED, HI, *end])
    assert isinstance(failure, SourceIncomplete)
    assert text_of(events) == "hi"
    assert len(server.requests) == 1


@pytest.mark.parametrize("then", ["reset", "hang", b""], ids=str)
def test_nothing_after_the_end_matters(then: Step) -> None:
    events, failure, _ = answered([*GOOD, then])
    assert failure is None
    assert text_of(events) == "hi"
    assert events[-1]["data"]["finishReason"] == "completed"


@pytest.mark.parametrize("broken", [BUSY, ["reset"], [head(), "reset"], [head()]])
def test_what_fails_before_the_first_record_is_asked_again(broken: list[Step]) -> None:
    events, failure, server = answered(broken, GOOD)
    assert failure is None
    assert text_of(events) == "hi"
    assert len(server.requests) == 2
    _, failure, server = answered(broken)
    assert isinstance(failure, SourceStatus | SourceUnreachable)
    assert len(server.requests) == 2


def test_a_pause_that_is_asked_for_is_made_or_given_up() -> None:
    def slow(seconds: str) -> list[Step]:
        head_ = head("429 Slow", "application/json", f"Retry-After: {seconds}")
        return [head_, b'{"error": {"message": "slow", "code": "rate_limit_exceeded"}}']

    began = monotonic()
    events, failure, _ = answered(slow("0.2"), GOOD)
    assert failure is None
    assert text_of(events) == "hi"
    assert monotonic() - began >= 0.2
    _, failure, server = answered(slow("60"), GOOD)
    assert isinstance(failure, SourceStatus)
    assert (failure.status, failure.retry_after) == (429, 60.0)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [("400 Bad", "application/json"), ("200 OK", "application/json"),
                         ("401 No", "text/plain")],
)  # fmt: skip
def test_a_refusal_is_told_once_and_without_the_key(status: str, kind: str) -> None:
    body = json.dumps({"error": {"message": f"not with {KEY}", "type": "t"}}).encode()
    _, failure, server = answered([head(status, kind), body], api_key=KEY)
    assert isinstance(failure, SourceStatus)
    assert failure.status == int(status[:3])
    assert "not with" in str(failure)
    assert KEY not in f"{failure} {failure.body} {failure.__cause__}"
    assert len(server.requests) == 1


def test_what_is_no_event_stream_is_refused() -> None:
    _, failure, _ = answered([head("200 OK", "text/html"), b"<p>hello"])
    assert isinstance(failure, SourceProtocol)
    assert "text/html" in str(failure)


PING = Drip(b": ping\n\n")
NAMED = Drip(b"event: ping\ndata: {}\n\n")
TYPED = Drip(b'data: {"type": "ping"}\n\n')


@pytest.mark.parametrize(
    ("script", "more", "phase"),
    [
        (["hang"], {}, "first_event"),
        ([head(), "hang"], {}, "first_event"),
        ([head(), PING], {}, "first_event"),
        ([head(), NAMED], {}, "first_event"),
        ([head(), TYPED], {}, "first_event"),
        ([head(), CREATED, "hang"], {}, "idle"),
        ([head(), CREATED, HI, PING], {}, "idle"),
        ([head(), CREATED, HI, NAMED], {}, "idle"),
        ([head(), CREATED, HI, Drip(b"x")], {}, "idle"),
        ([head(), CREATED, Drip(HI)], {"total": 0.4}, "total"),
        ([head(), CREATED, "hang"], {"idle": None, "total": 0.3}, "total"),
    ],
)
def test_each_wait_ends_in_its_own_deadline(
    script: list[Step], more: dict[str, Any], phase: str
) -> None:
    _, failure, server = answered(script, within=1.0, **more)
    assert isinstance(failure, SourceTimeout)
    assert failure.phase == phase
    assert len(server.requests) == 1


def test_usage_that_was_told_ahead_of_a_failure_stays_told() -> None:
    error = {"code": "server_error", "message": "broken"}
    events, failure, _ = answered([head(), CREATED, HI, ended("failed", error=error)])
    assert isinstance(failure, SourceStatus)
    assert text_of(events) == "hi"
    assert events[-1]["type"] == "llm_call"
    assert events[-1]["data"]["outputTokens"] == 2


def test_the_events_of_one_read_are_one_list() -> None:
    async def main() -> list[list[Any]]:
        async with serving([head(), CREATED + HI + HI, HI + ended()]) as server:
            return await reads_of(openai_responses(base_url=server.url, **QUICK))

    reads = asyncio.run(main())
    assert [text_of(read) for read in reads] == ["hihi", "hi"]
    parts = [event["data"].get("part") for event in flat(reads)[:-1]]
    assert all(part is parts[0] for part in parts)


async def _async_input(turn: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": turn.request["text"]}]


@pytest.mark.parametrize(
    ("request_", "given"),
    [
        ({"text": "hi"}, _async_input),
        ({"text": "hi"}, lambda turn: turn.request["text"]),
        ({"text": "hi"}, lambda turn: {"input": turn.request["text"]}),
        ({"input": [{"role": "user", "content": "hi"}]}, None),
        ({"messages": [{"role": "user", "content": "hi"}]}, None),
        (None, "hi"),
    ],
)
def test_the_input_comes_from_the_request_or_a_function(
    request_: Any, given: Any
) -> None:
    _, failure, server = answered(GOOD, request=request_, input=given)
    assert failure is None
    assert server.requests[0]["body"]["input"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("request_", "more"),
    [
        (None, {}),
        ({"input": []}, {}),
        ("hi", {"input": lambda _turn: None}),
        ("hi", {"metadata": {1, 2}}),
    ],
    ids=["no request", "no messages", "no input", "metadata that is not JSON"],
)
def test_a_request_that_asks_nothing_fails_before_anything_is_sent(
    request_: Any, more: Any
) -> None:
    _, failure, server = answered(GOOD, request=request_, **more)
    assert isinstance(failure, SourceError)
    assert failure.code == "source.request"
    assert not server.requests


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "127.0.0.1:8080"},
        {"base_url": f"http://me:{KEY}@127.0.0.1/v1"},
        {"base_url": "http://127.0.0.1/v1?x=1"},
        {"idle": 0},
        {"attempts": 0},
        {"api_key": KEY + "\n"},
        {"stream": False},
    ],
    ids=repr,
)
def test_what_cannot_be_is_refused_at_once_and_no_key_is_told(wrong: Any) -> None:
    with pytest.raises(ValueError) as refused:
        openai_responses(**{"base_url": "http://127.0.0.1/v1", "model": "m", **wrong})
    assert KEY not in str(refused.value)


def test_a_passed_in_client_is_used_and_left_open() -> None:
    async def main() -> None:
        async with (
            serving(chunked(CREATED, HI, ended(), b"")) as server,
            httpx.AsyncClient(headers={"x-client": "1"}) as client,
        ):
            source = openai_responses(base_url=server.url, client=client, **QUICK)
            assert text_of(flat(await reads_of(source))) == "hi"
            assert not client.is_closed
            assert server.requests[0]["headers"]["x-client"] == "1"

    asyncio.run(main())


def test_closed_in_the_middle_it_closes_the_connection() -> None:
    async def main() -> None:
        async with serving([head(), CREATED, HI, "hang"]) as server:
            before = asyncio.all_tasks()
            source = openai_responses(base_url=server.url, **QUICK)
            async with aclosing(source(a_turn())) as stream:
                assert text_of(await anext(stream)) == "hi"
                assert server.open == 1
            assert await server.all_closed()
            assert not await other_tasks(before)

    asyncio.run(main())


@pytest.mark.parametrize("again", [None, 1], ids=["once", "twice"])
@pytest.mark.parametrize(
    ("cancel", "own"),
    [(cancelled_at, True), (cancelled_at, False), (cancelled_after, True)],
    ids=["own client", "a client of mine", "own client, any turn of the loop"],
)
def test_cancelled_at_any_step_between_attempts_it_leaves_nothing_open(
    cancel: Callable[..., Any], again: int | None, own: bool
) -> None:
    quick = [head() + CREATED + HI + ended()]
    first_error = [head() + record({"type": "error", "code": "server_error"})]

    async def main() -> int:
        step = 0
        while True:
            step += 1
            async with serving(first_error, quick) as server:
                before = asyncio.all_tasks()
                client = None if own else httpx.AsyncClient(trust_env=False)
                source = openai_responses(
                    base_url=server.url,
                    model="m",
                    attempts=2,
                    backoff=0.001,
                    client=client,
                )
                steps = (step,) if again is None else (step, step + again)
                cancelled, count = await cancel(reads_of(source), *steps)
                assert await server.all_closed(), step
                if client is not None:
                    await client.aclose()
                assert not await other_tasks(before, collect=count < step), step
            if count < step:
                assert not cancelled
                return step

    assert asyncio.run(main()) > 5
