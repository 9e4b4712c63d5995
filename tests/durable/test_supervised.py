"""Supervised turns: each event once, on every store, whoever dies on the way."""

import asyncio
import contextlib
import gc

import pytest

from operators.errors import CursorGone, InputMismatch, LeaseHeld, LeaseLost, StoreBusy
from pipeline.durable.supervised import run_supervised_turn
from pipeline.sources.supervised import SupervisedEvent
from pipeline.stores import NewRun
from pipeline.stores.coding import from_json

from .durable_support import (
    MANIFEST,
    OTHER,
    Line,
    Sudden,
    bury,
    logged,
    run,
    take_away,
)

PART = {"type": "text", "id": "p1"}


def payload(at, text=None):
    text = chr(97 + at) if text is None else text
    return {"type": "message.part.updated", "data": {"part": PART, "delta": text}}


SIX = [payload(at) for at in range(6)]


class Remote:
    """A run that lives elsewhere: it goes on whoever reads, and can be attached to.

    `stops` says before which event a reader's line hangs, once for each number.
    """

    def __init__(self, count=6, *, stops=(), handles=True, inclusive=False, fails=()):
        self.count = count
        self.stops = list(stops)
        self.handles = handles
        self.inclusive = inclusive
        self.fails = list(fails)
        self.started = 0
        self.attached = []
        self.closed = 0
        self.hanging = asyncio.Event()

    def start(self):
        self.started += 1
        return self.events(0)

    def attach(self, handle, after_event_id):
        self.attached.append((dict(handle), after_event_id))
        after = -1 if after_event_id is None else int(after_event_id.removeprefix("e"))
        return self.events(after if self.inclusive else after + 1)

    async def events(self, begin):
        try:
            for at in range(max(begin, 0), self.count):
                if self.fails and at == self.fails[0]:
                    self.fails.pop(0)
                    raise Sudden("the line broke")
                if self.stops and at == self.stops[0]:
                    self.stops.pop(0)
                    self.hanging.set()
                    await asyncio.Event().wait()
                handle = None
                if self.handles and at == begin:
                    handle = {"run": f"remote-{self.started}", "status": "running"}
                yield SupervisedEvent(f"e{at}", payload(at), handle)
        finally:
            self.closed += 1


def turn(store, remote, **options):
    options = {"manifest": MANIFEST, **options}
    return run_supervised_turn(store=store, run_id="r", adapter=remote, **options)


async def read(stream, into=None):
    events = [] if into is None else into
    async for event in stream:
        events.append(event)
    return events


async def log(store):
    """The lines of the log: their event ids and payloads."""
    after, lines = 0, []
    while True:
        page = await store.read("r", after=after)
        for chunk in page.chunks:
            assert chunk.first == after + 1
            after = chunk.first + chunk.count - 1
            lines.append((chunk.event_id, from_json(chunk.data)))
        if after >= page.lines:
            return lines


# -- what the original asserts


def test_a_fresh_turn_is_read_to_its_end_and_logged_without_gaps(backend):
    async def test():
        store, remote = backend.open(), Remote()
        first = turn(store, remote)
        assert (first.mode, first.record) == (None, None)
        assert await read(first.stream) == SIX
        assert (first.mode, first.replayed, first.final_text) == (
            "fresh",
            False,
            "abcdef",
        )
        assert await log(store) == [(f"e{at}", SIX[at]) for at in range(6)]
        assert first.record.status == "completed"
        assert first.record.handle == {"run": "remote-1", "status": "completed"}
        assert first.record.outcome == {
            "notes": "turn",
            "metadata": {"events": 6, "mode": "fresh"},
        }
        (step,) = await store.steps("r")
        assert (step.status, step.result) == ("completed", {"eventCount": 6})
        assert (remote.started, remote.attached, remote.closed) == (1, [], 1)

    run(backend, test)


def test_an_ended_turn_is_replayed_without_the_adapter(backend):
    async def test():
        remote = Remote()
        await read(turn(backend.open(), remote).stream)
        before = await backend.open().status("r")
        again = turn(backend.open(), None)
        assert await read(again.stream) == SIX
        assert (again.mode, again.replayed, again.final_text) == (
            "replayed",
            True,
            "abcdef",
        )
        assert again.record.outcome == before.outcome
        assert again.record.owner is None
        assert remote.started == 1

    run(backend, test)


@pytest.mark.parametrize("inclusive", [False, True])
def test_after_a_death_the_next_worker_attaches_and_tells_all_events_once(
    backend, inclusive
):
    async def test():
        line, remote = Line(backend.open()), Remote(stops=[3], inclusive=inclusive)
        seen = []
        first = turn(line, remote, lease=backend.lease)
        reading = asyncio.create_task(read(first.stream, seen))
        await remote.hanging.wait()
        while len(seen) < 3:
            await asyncio.sleep(0.002)
        line.cut = True
        with pytest.raises(LeaseHeld):
            await read(turn(backend.open(), remote, lease=backend.lease).stream)
        await backend.lapse("r")
        second = turn(backend.open(), remote, lease=backend.lease)
        assert await read(second.stream) == SIX
        assert second.mode == "resumed"
        assert second.final_text == "abcdef"
        assert (remote.started, [after for _, after in remote.attached]) == (1, ["e2"])
        assert remote.attached[0][0] == {"run": "remote-1", "status": "running"}
        assert await log(backend.open()) == [(f"e{at}", SIX[at]) for at in range(6)]
        assert second.record.outcome["metadata"] == {"events": 6, "mode": "resumed"}
        await bury(reading)

    run(backend, test)


def test_two_deaths_in_a_row_change_nothing(backend):
    async def test():
        remote = Remote(stops=[2, 4])
        dead = []
        for _ in range(2):
            line = Line(backend.open())
            remote.hanging.clear()
            stream = turn(line, remote, lease=backend.lease).stream
            dead.append(asyncio.create_task(read(stream)))
            await remote.hanging.wait()
            expected = 2 if len(dead) == 1 else 4
            await logged(backend, "r", expected)
            line.cut = True
            await backend.lapse("r")
        third = turn(backend.open(), remote, lease=backend.lease)
        assert await read(third.stream) == SIX
        assert [after for _, after in remote.attached] == ["e1", "e3"]
        assert remote.started == 1
        assert len(await log(backend.open())) == 6
        await bury(*dead)

    run(backend, test)


def test_a_lost_lease_leaves_the_status_alone(backend):
    async def test():
        line, remote = Line(backend.open()), Remote(stops=[3])
        reading = asyncio.create_task(
            read(turn(line, remote, lease=backend.lease).stream)
        )
        await remote.hanging.wait()
        await logged(backend, "r", 3)
        await take_away(backend, "r")
        with pytest.raises(LeaseLost):
            await reading
        assert remote.closed == 1
        now = await backend.open().status("r")
        assert (now.status, now.owner) == ("running", "thief")
        assert now.handle["status"] == "running"
        assert (await backend.open().steps("r"))[0].status == "running"
        assert not {"settle", "end_step", "release"} & set(line.calls)

    run(backend, test)


def test_a_silent_run_keeps_its_lease(backend):
    async def test():
        if backend.lease > 1:
            pytest.skip("its lease is too long to wait for")
        remote = Remote(stops=[1])
        reading = asyncio.create_task(
            read(turn(backend.open(), remote, lease=0.4, heartbeat=0.1).stream)
        )
        await remote.hanging.wait()
        for _ in range(6):
            await asyncio.sleep(0.2)
            with pytest.raises(LeaseHeld):
                await read(turn(backend.open(), remote).stream)
        assert not reading.done()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    run(backend, test)


# -- beyond the original


def test_an_error_of_the_adapter_fails_the_run_and_the_next_try_resumes(backend):
    async def test():
        store, remote = backend.open(), Remote(fails=[4])
        seen = []
        with pytest.raises(Sudden, match="the line broke"):
            await read(turn(store, remote).stream, seen)
        assert seen == SIX[:4]
        failed = await store.status("r")
        assert (failed.status, failed.owner) == ("failed", None)
        assert failed.handle["status"] == "running"
        assert failed.outcome["notes"] == "the line broke"
        again = turn(store, remote)
        assert await read(again.stream) == SIX
        assert again.mode == "resumed"
        assert (remote.started, len(remote.attached)) == (1, 1)
        (step,) = await store.steps("r")
        assert (step.attempts, step.status) == (2, "completed")

    run(backend, test)


@pytest.mark.parametrize("why", ["no handle", "the remote run failed"])
def test_a_log_that_cannot_be_gone_on_with_is_void_and_the_run_starts_anew(
    backend, why
):
    """The ids of the second attempt are those of the first: none may be swallowed."""

    async def test():
        store = backend.open()
        remote = Remote(fails=[3], handles=why != "no handle")
        with pytest.raises(Sudden):
            await read(turn(store, remote).stream)
        if why != "no handle":
            await mark_failed(store)
        remote.count = 5
        again = turn(store, remote)
        assert await read(again.stream) == SIX[:5]
        assert again.mode == "fresh"
        assert again.final_text == "abcde"
        assert (remote.started, remote.attached) == (2, [])
        lines = await log(store)
        assert [p for _, p in lines[:3]] == SIX[:3]
        assert lines[3][1] == {"type": "log.restarted", "data": {"void": 3}}
        assert [p for _, p in lines[4:]] == SIX[:5]
        assert (await store.steps("r"))[0].result == {"eventCount": 5}
        replayed = turn(store, None)
        assert await read(replayed.stream) == SIX[:5]
        assert replayed.final_text == "abcde"

    run(backend, test)


async def mark_failed(store):
    current = await store.status("r")
    new = NewRun(id="r", manifest_hash=current.manifest_hash)
    claim = await store.claim(new, worker="w", lease=60, reenter=True)
    await store.set_handle("r", claim.fence, {**current.handle, "status": "failed"})
    await store.release("r", claim.fence)


def test_a_run_that_was_started_anew_is_resumed_within_its_last_attempt(backend):
    async def test():
        store = backend.open()
        remote = Remote(fails=[3], handles=False)
        with pytest.raises(Sudden):
            await read(turn(store, remote).stream)
        remote.handles, remote.fails = True, [2]
        with pytest.raises(Sudden):
            await read(turn(store, remote).stream)
        third = turn(store, remote)
        assert await read(third.stream) == SIX
        assert third.mode == "resumed"
        assert [after for _, after in remote.attached] == ["e1"]
        assert (await store.steps("r"))[0].result == {"eventCount": 6}

    run(backend, test)


def test_with_a_handle_and_an_empty_log_everything_is_asked_for(backend):
    async def test():
        line, remote = Line(backend.open()), Remote()
        line.append = hangs(line)
        reading = asyncio.create_task(
            read(turn(line, remote, lease=backend.lease).stream)
        )
        while not line.cut:
            await asyncio.sleep(0.005)
        await backend.lapse("r")
        second = turn(backend.open(), remote, lease=backend.lease)
        assert await read(second.stream) == SIX
        assert second.mode == "resumed"
        assert [after for _, after in remote.attached] == [None]
        await bury(reading)

    run(backend, test)


def hangs(line):
    async def call(*args, **options):
        line.cut = True
        await asyncio.Event().wait()

    return call


def test_what_an_append_whose_answer_was_lost_has_written_is_told_once(backend):
    async def test():
        store = backend.open()

        class Forgetful(Line):
            lost = 0

            async def append(self, batch):
                answers = await self.store.append(batch)
                self.lost += 1
                if self.lost % 2:
                    raise StoreBusy("the answer was lost")
                return answers

        line = Forgetful(store)
        assert await read(turn(line, Remote(40)).stream) == [
            payload(at) for at in range(40)
        ]
        assert line.lost >= 2
        assert len(await log(store)) == 40

    run(backend, test)


def test_nothing_is_told_before_the_log_holds_it(backend):
    async def test():
        store = backend.open()
        stream = turn(store, Remote(200)).stream
        at = 0
        async for event in stream:
            if at % 20 == 0:
                assert (await store.status("r")).lines > at
            assert event == payload(at)
            at += 1
        assert at == 200

    run(backend, test)


def test_events_that_come_at_once_are_appended_at_once(backend):
    async def test():
        line = Line(backend.open())
        await read(turn(line, Remote(500)).stream)
        assert line.calls.count("append") <= 500 / 64 + 10
        assert line.calls.count("set_handle") == 2

    run(backend, test)


def test_cursors_in_handles_are_kept_without_a_write_for_each(backend):
    async def test():
        line = Line(backend.open())

        class Adapter(Remote):
            async def events(self, begin):
                for at in range(begin, self.count):
                    handle = {"run": "x" if at < 50 else "y", "cursor": f"e{at}"}
                    yield SupervisedEvent(f"e{at}", payload(at), handle)

        made = turn(line, Adapter(100))
        assert len(await read(made.stream)) == 100
        assert made.record.handle == {
            "run": "y",
            "cursor": "e99",
            "status": "completed",
        }
        assert line.calls.count("set_handle") < 12

    run(backend, test)


def test_the_adapter_is_not_read_far_ahead_of_a_slow_reader(backend):
    async def test():
        pulled = []

        class Adapter(Remote):
            async def events(self, begin):
                for at in range(self.count):
                    pulled.append(at)
                    yield SupervisedEvent(f"e{at}", payload(at), {"run": 1})

        stream = turn(backend.open(), Adapter(1000)).stream
        await anext(stream)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert len(pulled) <= 2 * 64 + 2
        await stream.aclose()

    run(backend, test)


@pytest.mark.parametrize("event_id", ["", "turnpipe:1:", "turnpipe:e1"])
def test_ids_of_our_own_are_refused(backend, event_id):
    async def test():
        class Adapter(Remote):
            async def events(self, begin):
                yield SupervisedEvent(event_id, payload(0))

        with pytest.raises(ValueError, match="event id"):
            await read(turn(backend.open(), Adapter()).stream)
        assert (await backend.open().status("r")).status == "failed"

    run(backend, test)


@pytest.mark.parametrize("how", ["closed", "dropped", "cancelled"])
def test_an_abandoned_stream_closes_the_adapter_and_gives_its_lease_back(backend, how):
    async def test():
        store, remote = backend.open(), Remote(stops=[1])
        first = turn(store, remote)
        assert await anext(first.stream) == SIX[0]
        if how == "closed":
            await first.stream.aclose()
        elif how == "cancelled":
            pulling = asyncio.ensure_future(anext(first.stream))
            await remote.hanging.wait()
            await asyncio.sleep(0.01)
            pulling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pulling
        del first
        async with asyncio.timeout(5):
            while (await store.status("r")).owner is not None:
                await asyncio.sleep(0.005)
        assert remote.closed == 1
        assert (await store.status("r")).status == "running"
        assert await read(turn(store, remote).stream) == SIX
        assert remote.started == 1
        gc.collect()

    run(backend, test)


def test_a_reader_may_be_cancelled_anywhere_and_the_next_tells_all_events_once(backend):
    async def test():
        for at in range(60):
            store, run_id, remote = backend.open(), f"r{at}", Remote()

            def again(store=store, run_id=run_id, remote=remote):
                return run_supervised_turn(
                    store=store, run_id=run_id, manifest=MANIFEST, adapter=remote
                )

            reading = asyncio.create_task(read(again().stream))
            for _ in range(at):
                await asyncio.sleep(0)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert await reading == SIX
            assert await read(again().stream) == SIX
            assert await read(again().stream) == SIX

    if backend.url == "memory":
        run(backend, test)
    else:
        pytest.skip("loop steps are those of the store in memory")


def test_another_input_is_refused_and_a_forgotten_log_says_so(backend):
    async def test():
        store = backend.open()
        await read(turn(store, Remote()).stream)
        with pytest.raises(InputMismatch):
            await read(turn(store, Remote(), manifest=OTHER).stream)
        await asyncio.sleep(0.01)
        assert await store.forget(older_than=0.0) == 1
        with pytest.raises(CursorGone):
            await read(turn(store, Remote()).stream)

    run(backend, test)


def test_a_heartbeat_must_be_shorter_than_the_lease():
    with pytest.raises(ValueError, match="heartbeat"):
        turn(None, None, lease=1.0, heartbeat=1.0)


def test_an_adapter_may_give_several_events_at_once(backend):
    async def test():
        class Adapter(Remote):
            async def events(self, begin):
                yield [SupervisedEvent(f"e{at}", payload(at)) for at in range(6)]

        line = Line(backend.open())
        assert await read(turn(line, Adapter()).stream) == SIX
        assert line.calls.count("append") == 1

    run(backend, test)
