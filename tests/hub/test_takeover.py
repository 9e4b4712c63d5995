"""A worker dies in the middle of a turn: nothing is lost, said twice or stored twice."""

import asyncio

import pytest

import operators as ops
from pipeline.durable.runs import new_run

from .worker import (
    EXECUTION_ID,
    IDENTITY,
    LEASE_S,
    TERMINALS,
    Gate,
    Saved,
    Worker,
    chat,
    delta,
    kinds,
    logged,
    read_all,
    text_of,
    until,
)

WORDS = [delta(word) for word in ("one ", "two ", "three ", "four")]


def run(test, place):
    async def bounded():
        async with asyncio.timeout(30):
            try:
                await test(place)
            finally:
                await place.close()

    asyncio.run(bounded())


async def dies_after(worker, store, pipeline, source, count):
    """Start a turn, and let its worker die once `count` of its events are logged."""
    await worker.hub.start(pipeline, IDENTITY, {"q": 1})
    source.let(count)
    await logged(store, count + 1)
    worker.kill()


def one_terminal(events):
    found = [kind for kind in kinds(events) if kind in TERMINALS]
    assert len(found) == 1
    assert kinds(events)[-1] in TERMINALS
    return found[0]


@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("partial", [False, True])
def test_recover_settles_a_dead_turn_as_lost_with_its_text_as_logged(
    place, count, partial
):
    async def test(place):
        store = place.store()
        source, saved = Gate(*WORDS), Saved()
        pipeline = chat(source, saved, partial=partial)
        async with Worker(place.store()) as dead, Worker(place.store()) as alive:
            await dies_after(dead, store, pipeline, source, count)
            assert await alive.hub.recover() == {}
            await place.lapse()
            alive.hub._pipelines["Gate"] = pipeline
            assert (await alive.hub.status(EXECUTION_ID)).status == "lost"
            assert await alive.hub.recover() == {EXECUTION_ID: "settled"}
            turn = alive.hub.attach(EXECUTION_ID)
            events = await read_all(turn)
            assert one_terminal(events) == "session.run.failed"
            assert len(events) == 1 + count + 2
            assert events[-1]["data"]["code"] == "lost"
            text = "".join(d["data"]["delta"] for d in WORDS[:count])
            assert text_of(events) == text
            outcome = await turn.outcome()
            assert (outcome.status, outcome.code, outcome.text) == (
                "failed",
                "lost",
                text,
            )
            assert saved.texts == ([text] if partial else [])
            assert source.runs == 1
            assert await alive.hub.recover() == {}

    run(test, place)


@pytest.mark.parametrize("count", range(5))
def test_a_turn_whose_pipeline_is_given_goes_on_where_its_log_ends(place, count):
    async def test(place):
        store = place.store()
        source, saved = Gate(*WORDS), Saved()
        async with Worker(place.store()) as dead, Worker(place.store()) as alive:
            await dies_after(dead, store, chat(source, saved), source, count)
            await place.lapse()
            again = Gate(*WORDS)
            again.all()
            how = await alive.hub.recover({"Gate": chat(again, saved)})
            assert how == {EXECUTION_ID: "resumed"}
            events = await read_all(alive.hub.attach(EXECUTION_ID))
            assert kinds(events) == [
                "session.run.started",
                *["message.part.updated"] * 4,
                "session.run.completed",
            ]
            assert text_of(events) == "one two three four"
            assert saved.texts == ["one two three four"]

    run(test, place)


def test_a_retried_start_takes_a_dead_turn_over(place):
    async def test(place):
        store = place.store()
        source, again = Gate(*WORDS), Gate(*WORDS)
        async with Worker(place.store()) as dead, Worker(place.store()) as alive:
            await dies_after(dead, store, chat(source), source, 2)
            await place.lapse()
            again.all()
            turn = await alive.hub.start(chat(again), IDENTITY, {"q": 1})
            assert text_of(await read_all(turn)) == "one two three four"

    run(test, place)


@pytest.mark.parametrize(
    ("said", "then"),
    [
        (["one ", "two ", "and more"], "one two and more"),
        (["something else"], "something else"),
        (["one"], "one"),
        ([], ""),
        (["one t", "wo three four fi", "ve"], "one two three four five"),
    ],
)
def test_a_model_that_says_something_else_has_its_text_replaced(place, said, then):
    async def test(place):
        store = place.store()
        source, again, saved = Gate(*WORDS), Gate(*map(delta, said)), Saved()
        async with Worker(place.store()) as dead, Worker(place.store()) as alive:
            await dies_after(dead, store, chat(source), source, 3)
            before = await read_lines(store)
            await place.lapse()
            again.all()
            await alive.hub.recover({"Gate": chat(again, saved)})
            events = await read_all(alive.hub.attach(EXECUTION_ID))
            assert events[: len(before)] == before
            assert text_of(events) == then
            assert saved.texts == [then]
            assert one_terminal(events) == "session.run.completed"

    run(test, place)


async def read_lines(store):
    from pipeline.durable.records import events_of

    return events_of((await store.read(EXECUTION_ID)).chunks)


def test_two_deaths_in_a_row_leave_one_whole_turn(place):
    async def test(place):
        store = place.store()
        saved = Saved()
        first, second, third = Gate(*WORDS), Gate(*WORDS), Gate(*WORDS)
        async with (
            Worker(place.store()) as one,
            Worker(place.store()) as two,
            Worker(place.store()) as three,
        ):
            await dies_after(one, store, chat(first, saved), first, 1)
            await place.lapse()
            await two.hub.recover({"Gate": chat(second, saved)})
            second.let(3)
            await logged(store, 4)
            two.kill()
            await place.lapse()
            third.all()
            await three.hub.recover({"Gate": chat(third, saved)})
            events = await read_all(three.hub.attach(EXECUTION_ID))
            assert kinds(events).count("session.run.started") == 1
            assert one_terminal(events) == "session.run.completed"
            assert text_of(events) == "one two three four"
            assert len(events) == 6
            assert saved.texts == ["one two three four"]

    run(test, place)


def test_a_worker_that_wakes_after_its_lease_writes_and_stores_nothing(place):
    async def test(place):
        store = place.store()
        source, saved, again = Gate(*WORDS), Saved(), Gate(*WORDS)
        async with Worker(place.store()) as slept, Worker(place.store()) as alive:
            turn = await slept.hub.start(
                chat(source, saved, partial=True),
                IDENTITY,
                {"q": 1},
                log=lambda *_: None,
            )
            source.let(2)
            await logged(store, 3)
            await place.lapse()  # and nobody took it over yet
            source.let(1)
            await until(lambda: not slept.hub._carriers)
            assert (await store.status(EXECUTION_ID)).lines == 3
            assert saved == []
            again.all()
            await alive.hub.recover({"Gate": chat(again, saved, partial=True)})
            assert text_of(await read_all(turn)) == "one two three four"
            assert saved.texts == ["one two three four"]

    run(test, place)


def test_a_death_inside_save_stores_the_same_text_again_and_runs_nothing(place):
    async def test(place):
        source, saved = Gate(*WORDS), Saved()
        source.all()

        async def save(record):
            saved.append(record)
            if len(saved) == 1:
                dead.kill()
                await asyncio.get_running_loop().create_future()

        transform = ops.transform(lambda text: text.upper() + f" ({len(saved)})")
        pipeline = chat(source, save, more=[transform])
        async with Worker(place.store()) as dead, Worker(place.store()) as alive:
            await dead.hub.start(pipeline, IDENTITY, {"q": 1}, settle_timeout=60)
            await until(lambda: saved)
            await place.lapse()
            how = await alive.hub.recover({"Gate": pipeline})
            assert how == {EXECUTION_ID: "settled"}
            assert saved.texts == ["ONE TWO THREE FOUR (0)"] * 2
            assert saved[0] == saved[1]
            events = await read_all(alive.hub.attach(EXECUTION_ID))
            assert one_terminal(events) == "session.run.completed"
            assert len(events) == 6
            assert source.runs == 1

    run(test, place)


def test_a_reader_of_a_dead_turn_ends_by_itself(place):
    async def test(place):
        store = place.store()
        source = Gate(*WORDS)
        async with Worker(place.store()) as dead, Worker(place.store()) as alive:
            await dies_after(dead, store, chat(source), source, 2)
            reader = asyncio.create_task(read_all(alive.hub.attach(EXECUTION_ID)))
            await asyncio.sleep(0.05)
            assert not reader.done()
            await place.lapse(ago=5)
            events = await reader
            assert one_terminal(events) == "session.run.failed"
            assert text_of(events) == "one two "

    run(test, place)


def test_a_session_is_free_again_after_its_worker_died(place):
    async def test(place):
        store = place.store()
        source, after = Gate(*WORDS), Gate(delta("next"))
        async with Worker(place.store()) as dead, Worker(place.store()) as alive:
            await dies_after(dead, store, chat(source), source, 2)
            await place.lapse()
            after.all()
            turn = await alive.hub.start(
                chat(after), IDENTITY, {"q": 2}, execution_id="another"
            )
            assert text_of(await read_all(turn)) == "next"
            assert (await alive.hub.status(EXECUTION_ID)).error_code == "lost"

    run(test, place)


class Agent:
    """Something that runs elsewhere: begun once, attached to by its handle."""

    def __init__(self, *events):
        self.events = events
        self.gate = asyncio.Semaphore(0)
        self.started = 0
        self.attached = []

    def __call__(self, turn):
        return self._give(0)

    def adapter(self, turn):
        return self

    async def start(self):
        self.started += 1
        async for event in self._supervised(0):
            yield event

    async def attach(self, handle, after_event_id):
        self.attached.append((handle, after_event_id))
        async for event in self._supervised(0):
            yield event

    async def _supervised(self, start):
        from pipeline.sources.supervised import SupervisedEvent

        for k, event in enumerate(self.events):
            if k >= self.gate_passed:
                await self.gate.acquire()
                self.gate_passed += 1
            yield SupervisedEvent(f"e{k}", event, {"box": "b1"} if k == 0 else None)

    gate_passed = 0

    async def _give(self, start):
        async for event in self._supervised(start):
            yield event.payload


def test_a_supervised_source_is_attached_to_and_never_begun_again(place):
    async def test(place):
        store = place.store()
        agent, saved = Agent(*WORDS), Saved()
        pipeline = chat(agent, saved, more=[ops.redact(ops.detectors.EMAIL)])
        async with Worker(place.store()) as dead, Worker(place.store()) as alive:
            await dead.hub.start(pipeline, IDENTITY, {"q": 1})
            agent.gate.release()
            agent.gate.release()
            await until(lambda: agent.gate_passed == 2)
            await logged(store, 2)
            dead.kill()
            await place.lapse()
            alive.hub._pipelines["Agent"] = pipeline
            assert await alive.hub.recover() == {EXECUTION_ID: "resumed"}
            agent.gate.release()
            agent.gate.release()
            events = await read_all(alive.hub.attach(EXECUTION_ID))
            assert text_of(events) == "one two three four"
            assert one_terminal(events) == "session.run.completed"
            deltas = "".join(e["data"].get("delta", "") for e in events[1:-1])
            assert deltas == "one two three four"
            assert agent.started == 1
            assert agent.attached == [({"box": "b1"}, None)]
            assert saved.texts == ["one two three four"]

    run(test, place)


def test_durable_runs_beside_turns_are_left_to_who_runs_them(place):
    async def test(place):
        store = place.store()
        source = Gate(*WORDS)
        async with Worker(place.store()) as dead, Worker(place.store()) as alive:
            manifest = {
                "project_id": "p",
                "task": {"id": "t", "intent": "i", "domain": "d"},
            }
            for k in range(101):  # more than a store lists at once
                new = new_run(f"run {k}", manifest, "run")
                got = await store.claim(new, worker="w", lease=LEASE_S)
                await store.release(new.id, got.fence)
            await dies_after(dead, store, chat(source), source, 2)
            await place.lapse(ago=5)
            assert await alive.hub.recover() == {EXECUTION_ID: "settled"}
            left = [run.id for run in await store.orphans(limit=1_000)]
            assert sorted(left) == sorted([f"run {k}" for k in range(101)])
            reader = asyncio.create_task(read_all(alive.hub.attach("run 0")))
            await asyncio.sleep(0.1)
            assert not reader.done()
            assert (await store.status("run 0")).fence == 1
            reader.cancel()
            await asyncio.wait((reader,))

    run(test, place)
