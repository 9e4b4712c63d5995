"""Turns of a hub: they live on, are read from any line, and never run twice."""

import asyncio

import pytest

import operators as ops
from operators.errors import (
    CursorGone,
    InputMismatch,
    TurnActive,
    TurnMisuse,
    UnknownTurn,
)
from pipeline import Pipeline, TurnIdentity
from pipeline.durable import TurnHub

from .worker import (
    EXECUTION_ID,
    IDENTITY,
    TERMINALS,
    Gate,
    Saved,
    Worker,
    chat,
    delta,
    kinds,
    logged,
    read_all,
    read_bytes,
    text_of,
    until,
)

A, B, C = delta("a"), delta("b"), delta("c")


def run(test, place):
    async def bounded():
        async with asyncio.timeout(20):
            try:
                await test(place)
            finally:
                await place.close()

    asyncio.run(bounded())


def test_a_turn_runs_to_its_end_and_is_read_again_from_every_line(place):
    async def test(place):
        source, saved = Gate(A, B, C), Saved()
        source.all()
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(chat(source, saved), IDENTITY, {"q": 1})
            whole = await read_all(turn)
            assert turn.execution_id == EXECUTION_ID
            assert kinds(whole) == [
                "session.run.started",
                *["message.part.updated"] * 3,
                "session.run.completed",
            ]
            for after in range(len(whole) + 3):
                assert await read_all(turn, after) == whole[after:]
                assert (
                    await read_all(hub.attach(EXECUTION_ID, after), after)
                    == (whole[after:])
                )
            outcome = await turn.outcome()
            assert (outcome.status, outcome.final_text) == ("completed", "abc")
            assert saved.texts == ["abc"]
            status = await turn.status()
            assert (status.status, status.cursor) == ("completed", 5)

    run(test, place)


def test_the_body_has_the_same_lines_in_whatever_chunks_it_comes(place):
    async def test(place):
        source = Gate(A, B, C)
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(chat(source), IDENTITY)
            reader = asyncio.create_task(read_bytes(turn))
            for _ in range(4):
                source.let()
                await asyncio.sleep(0.01)
            whole = await reader
            assert whole == await read_bytes(turn)
            for after in range(6):
                assert await read_bytes(turn, after) == b"".join(
                    whole.splitlines(keepends=True)[after:]
                )

    run(test, place)


def test_a_turn_goes_on_when_its_only_reader_leaves(place):
    async def test(place):
        source, saved = Gate(A, B, C), Saved()
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(chat(source, saved), IDENTITY)
            reader = turn.events()
            assert (await anext(reader))["type"] == "session.run.started"
            await reader.aclose()
            source.all()
            assert (await turn.outcome()).status == "completed"
            assert saved.texts == ["abc"]

    run(test, place)


def test_a_retry_with_the_same_id_attaches_and_never_runs_the_source_again(place):
    async def test(place):
        source = Gate(A, B)
        async with TurnHub(place.store()) as hub:
            turns = await asyncio.gather(
                *[hub.start(chat(source), IDENTITY, {"q": 1}) for _ in range(10)]
            )
            source.all()
            read = await asyncio.gather(*map(read_all, turns))
            assert all(events == read[0] for events in read)
            again = await hub.start(chat(source), IDENTITY, {"q": 1})
            assert await read_all(again) == read[0]
            assert source.runs == 1

    run(test, place)


def test_the_same_id_with_another_request_is_refused_running_and_ended(place):
    async def test(place):
        source = Gate(A)
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(chat(source), IDENTITY, {"q": 1})
            with pytest.raises(InputMismatch):
                await hub.start(chat(source), IDENTITY, {"q": 2})
            source.all()
            await turn.outcome()
            with pytest.raises(InputMismatch):
                await hub.start(chat(source), IDENTITY, {"q": 2})

    run(test, place)


def test_a_failed_turn_is_replayed_as_it_failed(place):
    async def test(place):
        source, saved = Gate(A, error=RuntimeError("secret")), Saved()
        source.all()
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(
                chat(source, saved, partial=True), IDENTITY, log=lambda *_: None
            )
            events = await read_all(turn)
            assert kinds(events)[-2:] == ["error", "session.run.failed"]
            assert "secret" not in str(events)
            again = await hub.start(chat(source, saved, partial=True), IDENTITY)
            assert await read_all(again) == events
            assert source.runs == 1
            assert [record.status for record in saved] == ["failed"]
            assert (await hub.status(EXECUTION_ID)).error_code == "source_failed"

    run(test, place)


def other(turn_index, session="s-1"):
    return TurnIdentity(tenant_id="ws-1", session_id=session, turn_index=turn_index)


def test_a_session_runs_one_turn_at_a_time_and_says_which(place):
    async def test(place):
        first, second = Gate(A), Gate(B)
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(chat(first), other(0))
            with pytest.raises(TurnActive) as caught:
                await hub.start(chat(second), other(1))
            assert caught.value.execution_id == turn.execution_id
            elsewhere = await hub.start(chat(second), other(1, "s-2"))
            first.all()
            second.all()
            await turn.outcome()
            await elsewhere.outcome()
            second.all()
            await (await hub.start(chat(second), other(1))).outcome()
            assert second.runs == 2

    run(test, place)


def test_queued_turns_run_one_after_another_in_order(place):
    async def test(place):
        running, most, order = 0, 0, []

        def source(index):
            async def produce():
                nonlocal running, most
                running += 1
                most = max(most, running)
                order.append(index)
                yield delta(str(index))
                await asyncio.sleep(0.01)
                running -= 1

            return produce

        async with TurnHub(place.store(), busy="queue") as hub:
            turns = await asyncio.gather(
                *[hub.start(chat(source(i)), other(i)) for i in range(6)]
            )
            for turn in turns:
                assert (await turn.outcome()).status == "completed"
            assert most == 1
            assert order == sorted(order)

    run(test, place)


def test_cancel_previous_ends_the_turn_that_runs_and_takes_its_place(place):
    async def test(place):
        first, second, saved = Gate(A, B), Gate(C), Saved()
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(chat(first, saved, partial=True), other(0))
            first.let()
            await logged(hub._store, 2, turn.execution_id)
            second.all()
            after = await hub.start(chat(second), other(1), busy="cancel_previous")
            outcome = await turn.outcome()
            assert (outcome.status, outcome.reason) == ("cancelled", "superseded")
            assert (await after.outcome()).status == "completed"
            assert [(r.status, r.text) for r in saved] == [("cancelled", "a")]
            assert first.closed == 1

    run(test, place)


def test_a_cancel_ends_the_turn_with_its_terminal_in_the_log(place):
    async def test(place):
        source, saved = Gate(A, B), Saved()
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(chat(source, saved, partial=True), IDENTITY)
            source.let()
            await logged(hub._store, 2)
            assert await turn.cancel("the user")
            events = await read_all(turn)
            assert kinds(events) == [
                "session.run.started",
                "message.part.updated",
                "session.run.cancelled",
            ]
            assert events[-1]["data"]["reason"] == "the user"
            assert not await turn.cancel("again")
            assert saved.texts == ["a"]

    run(test, place)


def test_a_cancel_from_another_worker_reaches_the_owner(place):
    async def test(place):
        source = Gate(A)
        async with Worker(place.store()) as one, Worker(place.store()) as two:
            turn = await one.hub.start(chat(source), IDENTITY)
            there = two.hub.attach(EXECUTION_ID)
            reader = asyncio.create_task(read_all(there))
            began = asyncio.get_running_loop().time()
            assert await there.cancel("from elsewhere")
            events = await reader
            assert asyncio.get_running_loop().time() - began < 2
            assert kinds(events)[-1] == "session.run.cancelled"
            assert (await turn.outcome()).reason == "from elsewhere"
            assert (await there.outcome()).reason == "from elsewhere"

    run(test, place)


def test_two_workers_start_one_turn_once_and_read_the_same(place):
    async def test(place):
        source = Gate(A, B, C)
        async with Worker(place.store()) as one, Worker(place.store()) as two:
            turns = await asyncio.gather(
                one.hub.start(chat(source), IDENTITY),
                two.hub.start(chat(source), IDENTITY),
            )
            readers = [asyncio.create_task(read_all(turn)) for turn in turns]
            source.all()
            first, second = await asyncio.gather(*readers)
            assert first == second
            assert source.runs == 1

    run(test, place)


def test_the_lease_of_a_silent_turn_is_kept(place):
    async def test(place):
        store, source = place.store(), Gate(A)
        async with TurnHub(store, lease=0.3) as hub:
            turn = await hub.start(chat(source), IDENTITY)
            await asyncio.sleep(1.0)
            assert (await hub.status(EXECUTION_ID)).status == "running"
            source.all()
            assert (await turn.outcome()).status == "completed"

    run(test, place)


def test_a_closing_hub_lets_turns_end_and_then_stops_them(place):
    async def test(place):
        store = place.store()
        quick, slow, saved = Gate(A), Gate(B, C), Saved()
        hub = TurnHub(place.store(), drain_timeout=0.1)
        ends = await hub.start(chat(quick), other(0, "s-1"))
        stuck = await hub.start(chat(slow, saved, partial=True), other(0, "s-2"))
        quick.all()
        slow.let()
        await logged(store, 2, stuck.execution_id)
        await hub.close()
        assert (await store.status(ends.execution_id)).status == "completed"
        stopped = await store.status(stuck.execution_id)
        assert stopped.status == "cancelled"
        assert stopped.outcome["code"] == "shutdown"
        assert saved.texts == ["b"]
        assert slow.closed == 1
        with pytest.raises(TurnMisuse):
            await hub.start(chat(quick), IDENTITY)
        assert not [t for t in asyncio.all_tasks() if "turnpipe" in t.get_name()]

    run(test, place)


def test_an_unknown_turn_is_said_to_be_unknown(place):
    async def test(place):
        async with TurnHub(place.store()) as hub:
            turn = hub.attach("nobody:knows:0")
            for ask in (turn.outcome, turn.status, turn.cancel):
                with pytest.raises(UnknownTurn):
                    await ask()
            with pytest.raises(UnknownTurn):
                await read_all(turn)

    run(test, place)


def test_cursors_below_zero_and_requests_that_are_no_json_are_refused(place):
    async def test(place):
        async with TurnHub(place.store()) as hub:
            with pytest.raises(ValueError, match="0 or more"):
                hub.attach("x", -1)
            with pytest.raises(ValueError, match="0 or more"):
                hub.attach("x").events(after=-1)
            with pytest.raises(TypeError, match="must be JSON"):
                await hub.start(chat(Gate()), IDENTITY, object())
            with pytest.raises(TypeError, match="Pipeline"):
                await hub.start(Gate(), IDENTITY)
            with pytest.raises(ValueError, match="busy"):
                await hub.start(chat(Gate()), IDENTITY, busy="wait")
        for options in ({"lease": 0}, {"lease": "1"}, {"drain_timeout": -1}):
            with pytest.raises((TypeError, ValueError)):
                TurnHub(place.store(), **options)

    run(test, place)


def test_a_cursor_past_the_end_waits_on_a_running_turn(place):
    async def test(place):
        source = Gate(A, B)
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(chat(source), IDENTITY)
            reader = asyncio.create_task(read_all(turn, 3))
            await asyncio.sleep(0.05)
            assert not reader.done()
            source.all()
            assert kinds(await reader) == ["session.run.completed"]

    run(test, place)


def test_heartbeats_are_no_lines_of_the_log(place):
    async def test(place):
        source = Gate(A)
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(chat(source, more=[ops.heartbeat(0.01)]), IDENTITY)
            await asyncio.sleep(0.1)
            source.all()
            await turn.outcome()
            run_ = await hub._store.status(EXECUTION_ID)
            assert run_.lines == 3
            assert b"\n\n" not in await read_bytes(turn)

    run(test, place)


def test_a_turn_without_lifecycle_ends_its_readers_too(place):
    async def test(place):
        async def broken():
            yield A
            raise RuntimeError("no envelope")

        async with TurnHub(place.store()) as hub:
            turn = await hub.start(Pipeline(broken) | ops.accumulate(), IDENTITY)
            assert kinds(await read_all(turn)) == ["message.part.updated"]
            assert (await turn.outcome()).status == "failed"
            assert (await hub.status(EXECUTION_ID)).status == "failed"

    run(test, place)


def test_what_was_held_back_is_logged_before_the_message_is_stored(place):
    async def test(place):
        store = place.store()
        at_save = []

        async def save(record):
            at_save.append((await store.status(EXECUTION_ID)).lines)

        source = Gate(delta("mail me at joe@exam"), delta("ple.org"))
        source.all()
        redact = ops.redact(ops.detectors.EMAIL)
        async with TurnHub(store) as hub:
            turn = await hub.start(chat(source, save, more=[redact]), IDENTITY)
            events = await read_all(turn)
        assert text_of(events) == "mail me at [EMAIL]"
        assert at_save == [len(events) - 1]
        assert kinds(events)[-1] in TERMINALS

    run(test, place)


def test_many_readers_who_are_late_or_slow_read_the_same(place):
    async def test(place):
        source = Gate(*[delta(f"{k} ") for k in range(300)])
        async with TurnHub(place.store(), memory_bytes=4_000) as hub:
            turn = await hub.start(chat(source), IDENTITY)

            async def slow(k):
                found = []
                async for event in turn.events():
                    found.append(event)
                    if len(found) % (k + 7) == 0:
                        await asyncio.sleep(0.001)
                return found

            readers = [asyncio.create_task(slow(k)) for k in range(20)]
            for _ in range(31):
                source.let(10)
                await asyncio.sleep(0.002)
            read = await asyncio.gather(*readers)
            assert len(read[0]) == 302
            assert all(events == read[0] for events in read)
            await until(lambda: hub._journal.room.left == 4_000)

    run(test, place)


def test_another_identity_does_not_get_at_a_turn_by_its_execution_id(place):
    async def test(place):
        source = Gate(A)
        async with TurnHub(place.store()) as hub:
            await hub.start(chat(source), IDENTITY, execution_id="mine")
            with pytest.raises(InputMismatch):
                await hub.start(chat(source), other(0, "s-2"), execution_id="mine")
            source.all()

    run(test, place)


def test_a_start_that_waits_is_told_that_the_hub_closes(place):
    async def test(place):
        source, second = Gate(A), Gate(B)
        hub = TurnHub(place.store(), busy="queue", drain_timeout=0.1)
        await hub.start(chat(source), other(0))
        waiting = asyncio.create_task(hub.start(chat(second), other(1)))
        await asyncio.sleep(0.05)
        await hub.close()
        with pytest.raises(TurnMisuse, match="closed"):
            await waiting
        assert second.runs == 0

    run(test, place)


def test_a_caller_that_is_cancelled_while_starting_leaves_a_turn_that_runs(place):
    async def test(place):
        async with TurnHub(place.store()) as hub:
            for ticks in range(12):
                source = Gate(A)
                source.all()
                identity = other(0, f"s-{ticks}")
                starting = asyncio.create_task(hub.start(chat(source), identity))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                starting.cancel()
                await asyncio.wait((starting,))
                turn = await hub.start(chat(source), identity)
                assert (await turn.outcome()).status == "completed"
                assert source.runs == 1

    run(test, place)


def test_what_was_forgotten_is_gone_and_says_so(place):
    async def test(place):
        source = Gate(A)
        source.all()
        async with TurnHub(place.store()) as hub:
            turn = await hub.start(chat(source), IDENTITY)
            await turn.outcome()
            assert await hub.forget(older_than=3600) == 0
            assert await hub.forget(older_than=0) == 1
            with pytest.raises(CursorGone):
                await read_all(turn)
            assert await read_all(turn, 3) == []
            assert (await turn.status()).status == "completed"

    run(test, place)
