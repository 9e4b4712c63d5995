"""A supervised run: from any event on, in any process, all the rest exactly once."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from operators.errors import SourceError, SourceIncomplete, SourceStatus
from pipeline.sources.sandbox_prompt import sandbox_prompt
from pipeline.sources.supervised import (
    SupervisedAdapter,
    SupervisedEvent,
    SupervisedSource,
)
from tests.sources.helpers import other_tasks
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
from tests.sources.sandbox_worker import stored
from tests.sources.test_sandbox_prompt import a_run
from tests.sources.test_sandbox_reconnect import QUICK, WHOLE, lasts

ROOT = Path(__file__).parents[2]
RESUMING = ["exclusive", "inclusive", "whole", "checkpoint"]


async def read(stream: Any, most: int | None = None) -> list[SupervisedEvent]:
    """Read so many events, or all of them; what is read is JSON."""
    events: list[SupervisedEvent] = []
    async with aclosing(stream):
        async for event in stream:
            json.dumps([event.handle, event.payload])
            events.append(event)
            if len(events) == most:
                break
    return events


def handle_of(events: list[SupervisedEvent]) -> Any:
    """Tell the handle that a store has after these events."""
    (*_, last) = [event.handle for event in events if event.handle is not None]
    return json.loads(json.dumps(last))


def adapter_of(server: RunServer, **more: Any) -> Any:
    return sandbox_prompt(server.url, **{**QUICK, **more}).adapter(a_run())


def payloads(events: list[SupervisedEvent]) -> list[Any]:
    return [event.payload for event in events]


def test_it_is_what_supervisors_ask_for() -> None:
    source: SupervisedSource = sandbox_prompt("http://127.0.0.1")
    adapter: SupervisedAdapter = source.adapter(a_run())
    assert isinstance(source, SupervisedSource)
    assert adapter is not source.adapter(a_run())


def test_a_started_run_gives_its_events_with_ids_and_a_handle_first() -> None:
    async def main() -> tuple[list[SupervisedEvent], RunServer]:
        async with running(RunServer(numbered(RUN))) as server:
            return await read(
                adapter_of(server, api_key="sk-secret-1234").start()
            ), server

    events, server = asyncio.run(main())
    assert payloads(events) == WHOLE
    assert [event.event_id for event in events] == [str(n) for n in range(1, 11)]
    first = events[0].handle
    assert first is not None
    assert first["kind"] == "sandbox"
    assert first["runId"] == "p:s:0"
    assert first["status"] == "running"
    assert "secret" not in json.dumps(handle_of(events))
    # at 1, 2, 4 and 8 events, at each new part, and from the result on
    assert [n for n, event in enumerate(events, 1) if event.handle is None] == [7]
    assert server.requests[0]["headers"]["x-execution-id"] == "p:s:0"


@pytest.mark.parametrize("resuming", RESUMING)
@pytest.mark.parametrize("every", [1, 3])
def test_attached_after_any_event_it_gives_the_rest(resuming: Any, every: int) -> None:
    """Also where the server gives an id only to every third event."""

    async def main() -> None:
        records = [
            (
                own if n % every == 0 else None,
                sse(own if n % every == 0 else None, event),
            )
            for n, ((own, _), event) in enumerate(zip(numbered(RUN), RUN, strict=True))
        ]
        server = RunServer(records, resuming=resuming)
        async with running(server):
            before = asyncio.all_tasks()
            for most in range(1, len(RUN) + 1):
                had = await read(adapter_of(server).start(), most)
                rest = await read(
                    adapter_of(server).attach(handle_of(had), had[-1].event_id)
                )
                seen = {event.event_id for event in had}
                new = [event for event in rest if event.event_id not in seen]
                assert payloads(had) + payloads(new) == WHOLE, most
                if resuming != "checkpoint":
                    assert new == rest  # nothing is left to whoever keeps the ids
                assert await server.all_closed()
            assert not await other_tasks(before)

    asyncio.run(main())


@pytest.mark.parametrize("resuming", RESUMING)
def test_attached_again_and_again_over_broken_connections_all_come_once(
    resuming: Any,
) -> None:
    rng = random.Random(3)

    async def main() -> None:
        for _ in range(30):
            server = RunServer(numbered(RUN), resuming=resuming)
            log: list[SupervisedEvent] = []
            async with running(server):
                for _ in range(30):
                    number = len(server.requests)
                    server.cuts[number:] = [rng.randint(0, 800) for _ in range(3)]
                    stream = adapter_of(server).start()
                    if log:
                        stream = adapter_of(server).attach(
                            handle_of(log), log[-1].event_id
                        )
                    most = rng.randint(1, 6)
                    part = await read(stream, most)
                    seen = {event.event_id for event in log}
                    log += [event for event in part if event.event_id not in seen]
                    if len(part) < most:
                        break
            assert payloads(log) == WHOLE

    asyncio.run(main())


def test_attached_after_its_last_event_it_ends_without_asking() -> None:
    async def main() -> None:
        async with running(RunServer(numbered(RUN))) as server:
            had = await read(adapter_of(server).start())
            server.requests.clear()
            adapter = adapter_of(server)
            assert await read(adapter.attach(handle_of(had), had[-1].event_id)) == []
            assert not server.requests

    asyncio.run(main())


def test_attached_after_nothing_it_gives_all_of_the_run() -> None:
    async def main() -> None:
        async with running(RunServer(numbered(RUN))) as server:
            had = await read(adapter_of(server).start(), 1)
            rest = await read(adapter_of(server).attach(handle_of(had), None))
            assert payloads(rest) == WHOLE
            assert lasts(server) == [None, None]
            ids = {asked["headers"]["x-execution-id"] for asked in server.requests}
            assert ids == {"p:s:0"}

    asyncio.run(main())


def test_attached_it_asks_as_a_reconnection_does() -> None:
    async def main() -> None:
        async with running(RunServer(numbered(RUN))) as server:
            had = await read(adapter_of(server).start(), 3)
            more: Any = {"reconnect": "get", "reconnect_path": "/runs/{execution_id}"}
            source = sandbox_prompt(server.url, **QUICK, **more)
            adapter = source.adapter(a_run(request=None))  # it asks nothing
            rest = await read(adapter.attach(handle_of(had), "3"))
            assert payloads(had + rest) == WHOLE
            assert server.requests[1]["line"].startswith("GET /runs/p")
            assert lasts(server) == [None, "3"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        ("404 Not Found", SourceStatus, "source.gone"),
        ("410 Gone", SourceStatus, "source.gone"),
        ("403 No", SourceStatus, "source.status"),
        ("503 Busy", SourceIncomplete, "source.incomplete"),
    ],
)
def test_a_run_that_is_not_to_be_had_is_told(answer: str, kind: Any, code: str) -> None:
    async def main(after: str | None) -> None:
        server = RunServer(numbered(RUN), answers=[refusal(answer)] * 9)
        async with running(server):
            handle = {"kind": "sandbox", "runId": "p:s:0", "first": "1"}
            with pytest.raises(SourceError) as failure:
                await read(adapter_of(server).attach(handle, after))
            if after is None and kind is SourceIncomplete:
                assert isinstance(failure.value, SourceStatus)
                return
            assert isinstance(failure.value, kind)
            assert failure.value.code == code

    asyncio.run(main("3"))
    asyncio.run(main(None))


def test_204_to_who_attaches_is_the_end() -> None:
    async def main() -> None:
        server = RunServer(numbered(RUN), answers=[refusal("204 No Content")])
        async with running(server):
            handle = {"kind": "sandbox", "runId": "p:s:0", "status": "running"}
            assert await read(adapter_of(server).attach(handle, "3")) == []

    asyncio.run(main())


def test_without_ids_of_the_server_there_is_no_second_run() -> None:
    async def main() -> None:
        records = [(None, sse(None, event)) for event in RUN]
        async with running(RunServer(records)) as server:
            had = await read(adapter_of(server).start())
            assert payloads(had) == WHOLE
            assert len({event.event_id for event in had}) == len(had)
            server.requests.clear()
            for most in range(1, len(RUN) + 1):
                stream = adapter_of(server).attach(
                    handle_of(had[:most]), had[most - 1].event_id
                )
                if most < 8:  # the result makes it whole
                    with pytest.raises(SourceIncomplete, match="sends no event ids"):
                        await read(stream)
                else:
                    assert await read(stream) == []
                with pytest.raises(SourceIncomplete, match="sends no event ids"):
                    await read(adapter_of(server).attach(handle_of(had[:most]), None))
            assert not server.requests

    asyncio.run(main())


@pytest.mark.parametrize(
    "handle", [{}, {"kind": "tcloud", "runId": "x"}, {"runId": "x"}]
)
def test_what_is_no_handle_is_refused(handle: Any) -> None:
    async def main() -> None:
        adapter = sandbox_prompt("http://127.0.0.1:1").adapter(a_run())
        with pytest.raises(SourceError) as failure:
            await read(adapter.attach(handle, "1"))
        assert failure.value.code == "source.handle"

    asyncio.run(main())


def test_a_record_of_several_events_may_be_had_in_part() -> None:
    def thrice(record: Any) -> Any:
        return [{"type": "n", "of": record["data"]["text"], "n": n} for n in range(3)]

    async def main(resuming: Any) -> None:
        texts = numbered([text(said) for said in "abcd"])
        server = RunServer([*texts, ("9", sse("9", "[DONE]"))], resuming=resuming)
        async with running(server):
            whole = await read(adapter_of(server, map_event=thrice).start())
            assert len({event.event_id for event in whole}) == len(whole) == 12
            for most in range(1, 13):
                had = whole[:most]
                adapter = adapter_of(server, map_event=thrice)
                stream = adapter.attach(handle_of(had), had[-1].event_id)
                if most < 3:  # no id of the server's is known yet
                    with pytest.raises(SourceIncomplete):
                        await read(stream)
                    continue
                assert payloads(had + await read(stream)) == payloads(whole)

    for resuming in ("exclusive", "inclusive", "whole"):
        asyncio.run(main(resuming))


def test_an_answer_with_another_run_is_refused() -> None:
    async def main() -> None:
        handle = {"kind": "sandbox", "runId": "p:s:0", "execution": "x-0", "first": "1"}
        server = RunServer(numbered(RUN), resuming="whole")
        async with running(server):
            with pytest.raises(SourceIncomplete, match="with another run"):
                await read(adapter_of(server).attach(handle, "3"))
        server = RunServer(numbered(RUN), more=("X-Execution-ID: other",))
        async with running(server):
            for after in ("3", None):
                with pytest.raises(SourceIncomplete, match="with another run"):
                    await read(adapter_of(server).attach(handle, after))
        short = [*numbered(RUN[:2]), (None, b"data: [DONE]\n\n")]
        server = RunServer(short, resuming="whole")
        async with running(server):
            del handle["execution"]
            with pytest.raises(SourceIncomplete, match="ended before event '3'"):
                await read(adapter_of(server).attach(handle, "3"))

    asyncio.run(main())


def test_a_second_run_is_never_spliced_to_what_another_process_read() -> None:
    """A server that numbers its events, and begins anew whatever it is asked for."""
    words = [text(f"{n} ") for n in range(20)]

    async def main(most: int, other: Any) -> None:
        server = RunServer(numbered([*words, COMPLETED]), resuming="whole")
        async with running(server):
            had = await read(adapter_of(server).start(), most)
            rest = await read(adapter_of(server).attach(handle_of(had), f"{most}"))
            assert len(had + rest) == 21
            server.records = numbered([*words[:1], text(other), *words[2:], COMPLETED])
            with pytest.raises(SourceIncomplete, match="with another run"):
                await read(adapter_of(server).attach(handle_of(had), f"{most}"))
            with pytest.raises(SourceIncomplete, match="with another run"):
                await read(adapter_of(server).attach(handle_of(had), None))
            # also where the third process knows it from the second alone
            if rest[0].handle is None:
                return
            with pytest.raises(SourceIncomplete, match="with another run"):
                await read(adapter_of(server).attach(handle_of(rest), "21~1.0"))

    for most in (2, 3, 7, 15, 20):
        asyncio.run(main(most, "other"))


def test_a_repetition_that_breaks_leaves_parts_as_they_were() -> None:
    async def main() -> None:
        class Mixed(RunServer):
            def rest(self, last: str | None) -> list[bytes]:
                self.resuming = "whole" if len(self.requests) == 2 else "exclusive"
                return super().rest(last)

        size = len(numbered(RUN)[0][1]) + len(numbered(RUN)[1][1])
        server = Mixed(numbered(RUN), cuts=[10**6, size])
        async with running(server):
            had = await read(adapter_of(server).start(), 6)
            rest = await read(adapter_of(server).attach(handle_of(had), "6"))
            assert payloads(had + rest) == WHOLE
            assert lasts(server) == [None, "6", "6"]

    asyncio.run(main())


async def killed_after(seconds: float, url: str, file: Path) -> int | None:
    """Run a worker, for so long at most; then it is killed."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.sources.sandbox_worker", url, str(file), cwd=ROOT
    )
    try:
        async with asyncio.timeout(seconds):
            return await worker.wait()
    except TimeoutError:
        return None
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


@pytest.mark.parametrize(
    ("resuming", "deaths"), [("exclusive", 4), ("inclusive", 2), ("whole", 2)]
)
def test_killed_in_the_middle_another_process_goes_on(
    resuming: Any, deaths: int, tmp_path: Path
) -> None:
    events: list[Any] = [text(f"{n} ") for n in range(40)]
    events[10:10] = RUN[2:5]
    records = numbered([*events, COMPLETED])
    file = tmp_path / "log"
    rng = random.Random(1)

    async def main() -> tuple[int, int]:
        async def slowly(_index: int) -> None:
            await asyncio.sleep(0.02)

        async with running(
            RunServer(records, resuming=resuming, each=slowly)
        ) as server:
            kills = 0
            while True:
                had = len(stored(file)[1])
                killing = kills < deaths and had < 35
                working = asyncio.create_task(killed_after(20, server.url, file))
                if killing:
                    more = had + rng.randint(1, 8)
                    while len(stored(file)[1]) < more and not working.done():
                        await asyncio.sleep(0.002)
                    working.cancel()
                    await asyncio.wait({working})
                    kills += 1
                    continue
                assert await working == 0
                return kills, len(server.requests)

    kills, requests = asyncio.run(main())
    assert kills == deaths
    assert requests == kills + 1
    _, log = stored(file)
    expected = asyncio.run(_whole(records))
    assert [payload for _, payload in log] == expected
    assert len(file.read_bytes().splitlines()) >= len(expected)


async def _whole(records: Any) -> list[Any]:
    async with running(RunServer(records)) as server:
        return payloads(await read(adapter_of(server).start()))
