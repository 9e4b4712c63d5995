"""Durable turns: produced once, then told again without the producer."""

import asyncio
import gc

import pytest

from operators.errors import (
    DurableError,
    InputMismatch,
    InvalidEvent,
    LeaseHeld,
    LeaseLost,
    StepDivergence,
)
from operators.source import ChatTurnProducer
from pipeline.durable.turn import run_durable_turn

from .durable_support import MANIFEST, OTHER, Line, Sudden, bury, run, take_away

PART = {"type": "text", "id": "p1"}


def delta(text):
    return {"type": "message.part.updated", "data": {"part": PART, "delta": text}}


def result(text):
    return {"type": "result", "data": {"finalText": text}}


class Model:
    """Gives deltas; counts how often it is asked, and closed."""

    def __init__(self, *texts, error=None, hang=None, final=None):
        self.texts = texts
        self.error = error
        self.hang = hang
        self.final = final
        self.asked = 0
        self.closed = 0
        self.inside = asyncio.Event()

    def __call__(self):
        self.asked += 1
        if self.final is None:
            return self.stream()
        return ChatTurnProducer(stream=self.stream(), final_text=lambda: self.final)

    async def stream(self):
        try:
            for at, text in enumerate(self.texts):
                if self.hang == at and self.asked == 1:
                    self.inside.set()
                    await asyncio.Event().wait()
                yield delta(text)
            if self.error is not None and self.asked == 1:
                raise self.error
        finally:
            self.closed += 1


def turn(store, model, **options):
    options = {"manifest": MANIFEST, "replay_event": result, **options}
    return run_durable_turn(store=store, run_id="r", produce=model, **options)


async def read(stream):
    return [event async for event in stream]


def test_a_turn_is_produced_then_replayed_as_one_event(backend):
    async def test():
        store, model = backend.open(), Model("a", "b")
        first = turn(store, model)
        assert (first.mode, first.replayed, first.final_text) == (None, False, None)
        assert await read(first.stream) == [delta("a"), delta("b")]
        assert (first.mode, first.replayed, first.final_text) == ("fresh", False, "ab")
        assert first.record.status == "completed"
        assert first.record.owner is None
        assert first.record.outcome == {"notes": "turn", "metadata": {"chars": 2}}
        (step,) = await store.steps("r")
        assert (step.kind, step.intent, step.status) == ("llm", "turn", "completed")
        assert step.result == {"finalText": "ab"}
        again = turn(backend.open(), model)
        assert await read(again.stream) == [result("ab")]
        assert (again.mode, again.replayed, again.final_text) == (
            "replayed",
            True,
            "ab",
        )
        assert again.record.outcome == first.record.outcome
        assert again.record.owner is None
        assert model.asked == model.closed == 1

    run(backend, test)


def test_nothing_happens_before_the_first_event_is_asked_for(backend):
    async def test():
        store, model = Line(backend.open()), Model("a")
        made = turn(store, model)
        await asyncio.sleep(0)
        assert store.calls == []
        assert model.asked == 0
        await made.stream.aclose()
        assert store.calls == []

    run(backend, test)


def test_the_producers_own_text_wins_unless_it_is_empty(backend):
    async def test():
        for own, kept in (("whole", "whole"), ("", "ab")):
            store = backend.open()
            made = run_durable_turn(
                store=store,
                run_id=f"r-{own}",
                manifest=MANIFEST,
                produce=Model("a", "b", final=own),
                replay_event=result,
            )
            await read(made.stream)
            assert made.final_text == kept

    run(backend, test)


def test_a_user_tells_what_an_event_adds(backend):
    async def test():
        def upper(event):
            return event["data"]["delta"].upper()

        made = turn(backend.open(), Model("a", "b"), accumulate=upper)
        await read(made.stream)
        assert made.final_text == "AB"

    run(backend, test)


def test_lists_of_one_read_and_sync_iterables_are_sources_too(backend):
    async def test():
        made = turn(backend.open(), lambda: [[delta("a"), delta("b")], delta("c")])
        assert len(await read(made.stream)) == 3
        assert made.final_text == "abc"

    run(backend, test)


def test_a_failed_turn_is_produced_again_from_its_start(backend):
    async def test():
        store, model = backend.open(), Model("a", "b", error=Sudden("cut"))
        first = turn(store, model)
        with pytest.raises(Sudden, match="cut"):
            await read(first.stream)
        failed = await store.status("r")
        assert (failed.status, failed.owner) == ("failed", None)
        assert failed.outcome == {"notes": "cut", "code": "Sudden"}
        (step,) = await store.steps("r")
        assert (step.status, step.error["message"]) == ("failed", "cut")
        assert await read(turn(store, model).stream) == [delta("a"), delta("b")]
        assert model.asked == 2
        (step,) = await store.steps("r")
        assert (step.status, step.attempts, step.error) == ("completed", 2, None)

    run(backend, test)


@pytest.mark.parametrize("bad", [None, "text", 3])
def test_what_is_no_event_fails_the_turn(backend, bad):
    async def test():
        store = backend.open()
        with pytest.raises(InvalidEvent):
            await read(turn(store, lambda: [delta("a"), bad]).stream)
        assert (await store.status("r")).status == "failed"
        with pytest.raises(InvalidEvent):
            await read(turn(store, lambda: bad).stream)

    run(backend, test)


def test_a_turn_whose_worker_died_is_produced_again_once_the_lease_is_over(backend):
    async def test():
        line, model = Line(backend.open()), Model("a", "b", hang=1)
        first = turn(line, model, lease=backend.lease)
        reading = asyncio.create_task(read(first.stream))
        await model.inside.wait()
        line.cut = True
        with pytest.raises(LeaseHeld):
            await read(turn(backend.open(), model, lease=backend.lease).stream)
        await backend.lapse("r")
        second = turn(backend.open(), model, lease=backend.lease)
        assert await read(second.stream) == [delta("a"), delta("b")]
        assert second.mode == "fresh"
        assert model.asked == 2
        await bury(reading)

    run(backend, test)


def test_a_turn_that_had_ended_but_was_not_settled_is_replayed_and_settled(backend):
    async def test():
        store, model = backend.open(), Model("a")
        line = Line(store)

        async def settle(*args, **options):
            line.cut = True
            await asyncio.Event().wait()

        line.settle = settle
        reading = asyncio.create_task(
            read(turn(line, model, lease=backend.lease).stream)
        )
        while not line.cut:
            await asyncio.sleep(0.005)
        await backend.lapse("r")
        again = turn(backend.open(), model, lease=backend.lease)
        assert await read(again.stream) == [result("a")]
        assert again.record.status == "completed"
        assert again.record.outcome == {"notes": "turn", "metadata": {"chars": 1}}
        assert model.asked == 1
        await bury(reading)

    run(backend, test)


def test_another_input_or_intent_is_refused(backend):
    async def test():
        store, model = backend.open(), Model("a")
        await read(turn(store, model).stream)
        with pytest.raises(InputMismatch):
            await read(turn(store, model, manifest=OTHER).stream)
        with pytest.raises(StepDivergence):
            await read(turn(store, model, intent="other").stream)
        assert model.asked == 1
        assert (await store.status("r")).status == "completed"

    run(backend, test)


@pytest.mark.parametrize("how", ["closed", "dropped", "cancelled"])
def test_an_abandoned_stream_gives_its_lease_back(backend, how):
    async def test():
        store, model = backend.open(), Model("a", "b", hang=1)
        first = turn(store, model)
        assert await anext(first.stream) == delta("a")
        if how == "closed":
            await first.stream.aclose()
        elif how == "cancelled":
            pulling = asyncio.ensure_future(anext(first.stream))
            await model.inside.wait()
            pulling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pulling
        del first
        async with asyncio.timeout(5):
            while (await store.status("r")).owner is not None:
                await asyncio.sleep(0.005)
        left = await store.status("r")
        assert left.status == "running"
        assert model.closed == 1
        assert await read(turn(store, model).stream) == [delta("a"), delta("b")]
        gc.collect()

    run(backend, test)


def test_a_lost_lease_stops_a_silent_turn_and_nothing_more_is_written(backend):
    async def test():
        line, model = Line(backend.open()), Model("a", "b", hang=1)
        reading = asyncio.create_task(
            read(turn(line, model, lease=backend.lease).stream)
        )
        await model.inside.wait()
        await take_away(backend, "r")
        with pytest.raises(LeaseLost):
            await reading
        assert model.closed == 1
        assert (await backend.open().status("r")).owner == "thief"
        assert not {"settle", "end_step", "release"} & set(line.calls)

    run(backend, test)


def test_a_turn_that_is_asked_to_stop_settles_as_cancelled(backend):
    async def test():
        store, model = backend.open(), Model("a", "b", hang=1)
        reading = asyncio.create_task(read(turn(store, model, lease=0.9).stream))
        await model.inside.wait()
        await store.request_cancel("r", "enough")
        with pytest.raises(DurableError, match="enough") as stopped:
            await reading
        assert stopped.value.code == "cancelled"
        assert (await store.status("r")).status == "cancelled"

    run(backend, test)


def test_a_forgotten_turn_is_not_produced_again(backend):
    async def test():
        store, model = backend.open(), Model("a")
        await read(turn(store, model).stream)
        await asyncio.sleep(0.01)
        assert await store.forget(older_than=0.0) == 1
        with pytest.raises(DurableError) as gone:
            await read(turn(store, model).stream)
        assert gone.value.code == "forgotten"
        assert model.asked == 1

    run(backend, test)
