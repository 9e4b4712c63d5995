"""A run whose connections break: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
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
)
from pipeline.sources.sandbox_events import ENDS
from pipeline.sources.sandbox_prompt import sandbox_prompt
from pipeline.sources.sandbox_stream import SandboxStream
from tests.sources.helpers import events_until_failure, other_tasks, reads_of
from tests.sources.sandbox_server import (
    COMPLETED,
    RUN,
    RunServer,
    numbered,
    refusal,
    running,
    sse,
    text,
)
from tests.sources.test_sandbox_prompt import a_run

QUICK: dict[str, Any] = {
    "first_event": 2.0,
    "idle": 2.0,
    "backoff": 0.001,
    "backoff_max": 0.01,
    "reconnects": 3,
}
SIZE = sum(len(data) for _, data in numbered(RUN))


def read(server: RunServer, **more: Any) -> tuple[list[Any], Exception | None]:
    """Read the run once; all of it is closed afterwards."""

    async def main() -> tuple[list[Any], Exception | None]:
        async with running(server):
            before = asyncio.all_tasks()
            source = sandbox_prompt(server.url, **{**QUICK, **more})
            events, failure = await events_until_failure(source, a_run())
            assert await server.all_closed()
            assert not await other_tasks(before)
        return events, failure

    return asyncio.run(main())


WHOLE, _ = read(RunServer(numbered(RUN)))


def lasts(server: RunServer) -> list[str | None]:
    """Tell the `Last-Event-ID` of each request."""
    return [asked["headers"].get("last-event-id") for asked in server.requests]


async def cut_everywhere(server: RunServer, cuts: range, **more: Any) -> None:
    """Cut the first connection at each of these bytes; each time all is read."""
    async with running(server), httpx.AsyncClient(trust_env=False) as client:
        for cut in cuts:
            server.cuts = [cut]
            server.requests.clear()
            source = sandbox_prompt(server.url, client=client, **{**QUICK, **more})
            events, failure = await events_until_failure(source, a_run())
            assert failure is None, (cut, failure)
            assert events == WHOLE, cut


@pytest.mark.parametrize(
    ("resuming", "framing", "step"),
    [
        ("exclusive", "chunked", 1),
        ("inclusive", "close", 1),
        ("exclusive", "close", 5),
        ("inclusive", "chunked", 5),
        ("whole", "chunked", 5),
        ("checkpoint", "close", 5),
    ],
)
def test_cut_at_every_byte_it_reads_the_whole_run_and_nothing_twice(
    resuming: Any, framing: Any, step: int
) -> None:
    server = RunServer(numbered(RUN), resuming=resuming, framing=framing)
    asyncio.run(cut_everywhere(server, range(0, SIZE + 1, step)))


@pytest.mark.parametrize("resuming", ["exclusive", "inclusive", "whole", "checkpoint"])
@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n"], ids=["lf", "cr", "crlf"])
def test_cut_at_every_byte_twice_without_a_socket(resuming: Any, ending: bytes) -> None:
    records = [(own, data.replace(b"\n", ending)) for own, data in numbered(RUN)]
    server = RunServer(records, resuming=resuming)
    size = sum(len(data) for _, data in records)
    rng = random.Random(7)
    for first in range(size + 1):
        stream = SandboxStream(ends=ENDS)
        events: list[Any] = []
        for cut in (first, rng.randint(0, size), size):
            if stream.done:
                break
            stream.connect(again=bool(stream.records))
            sent = b"".join(server.rest(stream.place.id or None))[:cut]
            middle = rng.randint(0, len(sent))
            events += stream.feed(sent[:middle])
            events += stream.feed(sent[middle:])
            events += stream.eof()[0]
            assert stream.failure is None
        assert stream.done
        assert events == WHOLE


@pytest.mark.parametrize("breaking", ["end", "reset"])
def test_cut_at_many_bytes_over_both_transports(transport: str, breaking: Any) -> None:
    async def main() -> None:
        server = RunServer(numbered(RUN), breaking=breaking)
        async with running(server):
            for cut in range(0, SIZE, 7):
                server.cuts = [cut]
                server.requests.clear()
                source = sandbox_prompt(server.url, **QUICK)
                events, failure = await events_until_failure(source, a_run())
                assert failure is None, (cut, failure)
                assert events == WHOLE, cut

    asyncio.run(main())


def test_what_opens_every_connection_is_read_once() -> None:
    hello = sse(None, {"type": "hello", "data": {"n": 1}})

    async def main() -> None:
        server = RunServer(numbered(RUN), preface=hello, framing="close")
        async with running(server), httpx.AsyncClient(trust_env=False) as client:
            for cut in range(len(hello) + len(numbered(RUN)[0][1]), SIZE, 5):
                server.cuts = [cut]
                server.requests.clear()
                source = sandbox_prompt(server.url, client=client, **QUICK)
                events, failure = await events_until_failure(source, a_run())
                assert failure is None, (cut, failure)
                assert [event["type"] for event in events[:2]] == [
                    "hello",
                    "execution.started",
                ]
                assert events[1:] == WHOLE, cut

    asyncio.run(main())


def test_cut_again_and_again_it_goes_on_as_long_as_there_is_progress() -> None:
    rng = random.Random(5)

    async def main() -> None:
        for _ in range(20):
            server = RunServer(
                numbered(RUN),
                resuming=rng.choice(["exclusive", "inclusive", "checkpoint"]),  # type: ignore[arg-type]
                framing=rng.choice(["chunked", "close"]),  # type: ignore[arg-type]
            )
            # enough for an event more each time, and for not many
            least = 420 if server.resuming == "checkpoint" else 250
            server.cuts = [rng.randint(least, least + 50) for _ in range(40)]
            async with running(server):
                source = sandbox_prompt(server.url, **{**QUICK, "reconnects": 1})
                events, failure = await events_until_failure(source, a_run())
            assert failure is None
            assert events == WHOLE
            assert len(server.requests) > 1

    asyncio.run(main())


def test_it_asks_the_same_again_under_the_same_id_and_says_what_it_has() -> None:
    server = RunServer(numbered(RUN), cuts=[300])
    events, failure = read(server)
    assert failure is None
    assert events == WHOLE
    first, second = server.requests
    assert second["line"] == first["line"] == "POST /runtime/agents/run/stream HTTP/1.1"
    assert second["body"] == first["body"]
    assert second["headers"]["x-execution-id"] == "p:s:0"
    assert lasts(server) == [None, "3"]


def test_it_may_ask_with_get_for_the_rest() -> None:
    server = RunServer(numbered(RUN), cuts=[300])
    events, failure = read(
        server, reconnect="get", reconnect_path="/runs/{execution_id}/events"
    )
    assert failure is None
    assert events == WHOLE
    second = server.requests[1]
    assert second["line"].replace("%3A", ":") == "GET /runs/p:s:0/events HTTP/1.1"
    assert second["body"] is None
    assert "content-type" not in second["headers"]
    assert lasts(server) == [None, "3"]


def test_the_id_that_the_server_gave_the_run_is_used() -> None:
    server = RunServer(numbered(RUN), cuts=[300], more=("X-Execution-ID: theirs",))
    events, failure = read(server)
    assert failure is None
    assert events == WHOLE
    ids = [asked["headers"]["x-execution-id"] for asked in server.requests]
    assert ids == ["p:s:0", "theirs"]


def test_ids_may_be_in_the_records_of_json_lines() -> None:
    lines = [
        (str(n), f'{{"seq":{n},{sse(None, event).decode()[7:-2]}\n'.encode())
        for n, event in enumerate(RUN)
    ]
    size = sum(len(data) for _, data in lines)

    def without_seq(record: Any) -> None:
        del record["seq"]

    async def main() -> None:
        server = RunServer(lines, kind="application/x-ndjson", resuming="inclusive")
        async with running(server), httpx.AsyncClient(trust_env=False) as client:
            for cut in range(size):
                server.cuts = [cut]
                server.requests.clear()
                source = sandbox_prompt(
                    server.url,
                    client=client,
                    event_id=lambda record: str(record["seq"]),
                    map_event=without_seq,
                    **QUICK,
                )
                events, failure = await events_until_failure(source, a_run())
                assert failure is None, (cut, failure)
                assert events == WHOLE, cut

    asyncio.run(main())


def test_an_id_that_is_none_is_told() -> None:
    _, failure = read(RunServer(numbered(RUN)), event_id=lambda _record: 7)
    assert isinstance(failure, SourceProtocol)
    assert "event_id gave 7" in str(failure)


def test_ids_that_do_not_tell_events_apart_cannot_be_gone_on_with() -> None:
    same = [("m1", sse("m1", event)) for event in RUN]
    server = RunServer(same)
    events, failure = read(server)
    assert failure is None
    assert events == WHOLE
    server = RunServer(same, cuts=[400])
    _, failure = read(server)
    assert isinstance(failure, SourceIncomplete)
    assert "several events the same id" in str(failure)
    assert len(server.requests) == 1


def test_a_second_run_is_never_spliced_to_the_first() -> None:
    """A server that numbers its events, and knows neither runs nor cursors."""
    other = [RUN[0], text("Guten Tag, "), text("welt!"), *RUN[2:]]

    class Forgetful(RunServer):
        def rest(self, last: str | None) -> list[bytes]:
            return [data for _, data in numbered(RUN if last is None else other)]

    server = Forgetful(numbered(RUN), cuts=[400])
    events, failure = read(server)
    assert isinstance(failure, SourceIncomplete)
    assert "with another run" in str(failure)
    assert events == WHOLE[: len(events)]
    assert len(server.requests) == 2

    again = {"type": "execution.started", "data": {"executionId": "x-2"}}
    other[:] = [again, *RUN[1:]]
    server = Forgetful(numbered(RUN), cuts=[400])
    _, failure = read(server)
    assert isinstance(failure, SourceIncomplete)
    assert "'x-2' and not 'x-1'" in str(failure)


def test_an_answer_for_another_run_is_told() -> None:
    class Other(RunServer):
        def rest(self, last: str | None) -> list[bytes]:
            self.more = (f"X-Execution-ID: {last}",)
            return super().rest(last)

    server = Other(numbered(RUN), cuts=[200, 200], more=("X-Execution-ID: mine",))
    _, failure = read(server)
    assert isinstance(failure, SourceIncomplete)
    assert "with another run" in str(failure)


def test_204_says_that_the_run_has_ended() -> None:
    server = RunServer(
        numbered(RUN), cuts=[300], answers=[None, refusal("204 No Content")]
    )
    events, failure = read(server)
    assert failure is None
    assert events == WHOLE[:3]
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_a_run_that_is_gone_is_told(status: str) -> None:
    server = RunServer(numbered(RUN), cuts=[300], answers=[None, refusal(status)])
    events, failure = read(server)
    assert isinstance(failure, SourceStatus)
    assert failure.code == "source.gone"
    assert failure.status == int(status[:3])
    assert "does not have the run 'p:s:0' any more" in str(failure)
    assert events == WHOLE[:3]


@pytest.mark.parametrize("status", ["400 Bad", "401 No", "403 Forbidden", "405 No"])
def test_a_refusal_to_go_on_is_told(status: str) -> None:
    server = RunServer(numbered(RUN), cuts=[300], answers=[None, refusal(status)])
    _, failure = read(server)
    assert isinstance(failure, SourceStatus)
    assert failure.code == "source.status"
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [408, 409, 423, 425, 429, 500, 502, 503, 504])
def test_a_refusal_that_may_pass_is_asked_again(status: int) -> None:
    busy = refusal(f"{status} Busy")
    server = RunServer(numbered(RUN), cuts=[300], answers=[None, busy, busy])
    events, failure = read(server)
    assert failure is None
    assert events == WHOLE
    assert lasts(server) == [None, "3", "3", "3"]

    server = RunServer(numbered(RUN), cuts=[300], answers=[None, *[busy] * 9])
    _, failure = read(server)
    assert isinstance(failure, SourceIncomplete)
    assert f"3 attempts to go on did not help; POST {server.url}" in str(failure)
    assert str(status) in str(failure)
    assert len(server.requests) == 4


def test_retry_after_and_retry_are_waited_for() -> None:
    busy = refusal("503 Busy", "Retry-After: 0.3")
    server = RunServer(numbered(RUN), cuts=[300], answers=[None, busy])
    began = monotonic()
    events, failure = read(server)
    assert failure is None
    assert events == WHOLE
    assert monotonic() - began > 0.3

    records = [("0", b"retry: 300\n" + sse("0", text(""))), *numbered(RUN)]
    server = RunServer(records, cuts=[400])
    began = monotonic()
    events, failure = read(server)
    assert failure is None
    assert events == WHOLE
    assert monotonic() - began > 0.3 * 0.75


def test_a_pause_that_would_outlast_the_deadline_is_not_made() -> None:
    records = [("0", b"retry: 9000\n" + sse("0", text(""))), *numbered(RUN)]
    server = RunServer(records, cuts=[400])
    began = monotonic()
    _, failure = read(server)
    assert isinstance(failure, SourceIncomplete)
    assert "would outlast the deadline" in str(failure)
    assert monotonic() - began < 1
    assert len(server.requests) == 1


def test_with_no_attempts_a_break_is_the_end() -> None:
    server = RunServer(numbered(RUN), cuts=[300])
    events, failure = read(server, reconnects=0)
    assert isinstance(failure, SourceIncomplete)
    assert "after event '3'" in str(failure)
    assert events == WHOLE[:3]
    assert len(server.requests) == 1


def test_a_server_that_never_marks_the_end_is_asked_so_often_and_no_more() -> None:
    server = RunServer(numbered(RUN[:-3]))
    events, failure = read(server)
    assert isinstance(failure, SourceIncomplete)
    assert "ended without an end mark" in str(failure)
    assert events == WHOLE[:-3]
    assert lasts(server) == [None, "7", "7", "7"]


def test_what_follows_a_result_is_asked_for_once_where_the_end_is_not_proven() -> None:
    server = RunServer(numbered(RUN[:-1]), framing="close")
    events, failure = read(server)
    assert failure is None
    assert events == WHOLE[:-1]
    assert lasts(server) == [None, "9"]

    for instead in (refusal("404 Not Found"), refusal("400 Bad"), refusal("503 Busy")):
        server = RunServer(
            numbered(RUN[:-1]), framing="close", answers=[None, *[instead] * 9]
        )
        events, failure = read(server)
        assert failure is None
        assert events == WHOLE[:-1]

    server = RunServer(numbered(RUN[:-1]))  # its framing proves it
    events, failure = read(server)
    assert failure is None
    assert lasts(server) == [None]


def test_a_wrong_answer_to_a_reconnection_is_told() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n<p"
    server = RunServer(numbered(RUN), cuts=[300], answers=[None, page])
    events, failure = read(server)
    assert isinstance(failure, SourceProtocol)
    assert events == WHOLE[:3]


def test_a_server_restarted_on_its_port_goes_on() -> None:
    async def main() -> tuple[list[Any], Exception | None]:
        server = RunServer(numbered(RUN))
        stopped = asyncio.Event()

        async def stop_at(index: int) -> None:
            if index == 4 and not stopped.is_set():
                stopped.set()
                await asyncio.sleep(3600)

        server.each = stop_at
        source = sandbox_prompt("http://127.0.0.1:1", **QUICK)
        async with running(server):
            more = {**QUICK, "reconnects": 50, "backoff": 0.02, "backoff_max": 0.02}
            source = sandbox_prompt(server.url, **more)
            turn = asyncio.create_task(events_until_failure(source, a_run()))
            await stopped.wait()
            # it has what was sent, before the server goes
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)  # nobody listens
        assert not turn.done()
        async with running(server):
            return await turn

    events, failure = asyncio.run(main())
    assert failure is None
    assert events == WHOLE


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not() -> None:
    async def slowly(_index: int) -> None:
        await asyncio.sleep(0.05)

    events, failure = read(RunServer(numbered(RUN), each=slowly), idle=0.3)
    assert failure is None
    assert events == WHOLE

    async def never(index: int) -> None:
        if index > 3:
            await asyncio.sleep(3600)

    events, failure = read(RunServer(numbered(RUN), each=never), idle=0.3)
    assert isinstance(failure, SourceTimeout)
    assert failure.code == "source.timeout.idle"
    assert events == WHOLE[:3]


def test_idle_runs_on_through_reconnections() -> None:
    class Empty(RunServer):
        def rest(self, last: str | None) -> list[bytes]:
            return super().rest(last) if last is None else [b": ping\n\n"]

    server = Empty(numbered(RUN), cuts=[300])
    began = monotonic()
    more = {"idle": 0.4, "reconnects": 10**6, "backoff": 0.02, "backoff_max": 0.02}
    _, failure = read(server, **more)
    assert isinstance(failure, SourceError)
    assert 0.3 < monotonic() - began < 1.5
    assert len(server.requests) > 3


def test_a_connection_without_any_byte_is_made_again_where_asked() -> None:
    stalled = 0

    async def stall(index: int) -> None:
        nonlocal stalled
        if index == 4 and not stalled:
            stalled += 1
            await asyncio.sleep(3600)

    server = RunServer(numbered(RUN), each=stall)
    events, failure = read(server, stall=0.1)
    assert failure is None
    assert events == WHOLE
    assert lasts(server) == [None, "3"]

    async def ping(_index: int) -> None:
        await asyncio.sleep(0.03)

    pings = [(None, b": ping\n\n")] * 10
    server = RunServer([*numbered(RUN[:1]), *pings, *numbered(RUN[1:], 2)], each=ping)
    events, failure = read(server, stall=0.2)
    assert failure is None
    assert events == WHOLE
    assert lasts(server) == [None]


@pytest.mark.parametrize("own", [True, False], ids=["own client", "a client of mine"])
def test_no_connection_is_kept_by_those_that_broke(own: bool) -> None:
    async def main() -> None:
        server = RunServer(numbered(RUN), cuts=[300, 300, 300])
        limits = httpx.Limits(max_connections=1)
        async with (
            running(server),
            httpx.AsyncClient(trust_env=False, limits=limits) as client,
        ):
            for _ in range(5):
                server.requests.clear()
                source = sandbox_prompt(
                    server.url, client=None if own else client, **QUICK
                )
                reads = await reads_of(source, a_run())
                assert [event for one in reads for event in one] == WHOLE

    asyncio.run(main())


def test_pings_with_ids_and_ids_alone_move_the_place() -> None:
    ping = {"type": "ping"}
    records = [
        *numbered(RUN[:3]),
        ("50", sse("50", ping)),
        ("50", sse("50", ping)),
        ("51", b"id: 51\n\n"),
        *numbered(RUN[3:], 52),
    ]
    sizes = [len(data) for _, data in records]

    async def main(resuming: Any, expected: Callable[[int], str]) -> None:
        server = RunServer(records, resuming=resuming)
        async with running(server):
            for number in (4, 5, 6, 7):
                server.cuts = [sum(sizes[:number])]
                server.requests.clear()
                source = sandbox_prompt(server.url, **QUICK)
                events, failure = await events_until_failure(source, a_run())
                assert failure is None
                assert events == WHOLE
                assert lasts(server)[1] == expected(number)

    for resuming in ("exclusive", "inclusive", "whole"):
        asyncio.run(
            main(resuming, lambda number: {4: "50", 5: "50", 6: "51", 7: "52"}[number])
        )


def test_a_run_of_one_event_and_its_end() -> None:
    server = RunServer(numbered([COMPLETED]))
    events, failure = read(server)
    assert failure is None
    assert events == [COMPLETED]
