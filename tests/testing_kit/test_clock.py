"""Virtual time passes when nothing else happens, and stands still otherwise."""

import asyncio
import socket
import time

import pytest

import operators as ops
from pipeline import Pipeline, TurnIdentity
from pipeline.testing import Deadlock, VirtualLoop, loop_clock, run_virtual, scripted

IDENTITY = TurnIdentity(session_id="s", turn_index=0)


def test_an_hour_takes_no_time_and_timers_fire_in_order():
    fired = []

    async def sleeper(seconds):
        await asyncio.sleep(seconds)
        fired.append((seconds, loop_clock()))

    async def main():
        await asyncio.gather(*map(sleeper, [1800, 0.25, 3000, 7]))

    began = time.monotonic()
    run_virtual(main())
    assert [seconds for seconds, _ in fired] == [0.25, 7, 1800, 3000]
    assert all(at == pytest.approx(seconds) for seconds, at in fired)
    assert time.monotonic() - began < 60


def test_a_turn_times_out_at_the_virtual_second():
    async def main():
        source = scripted([{"type": "a"}], hang=1)
        run = (Pipeline(source) | ops.timeout(idle=30) | ops.lifecycle()).start(
            IDENTITY, clock=loop_clock
        )
        got = [event["type"] async for event in run.events()]
        return got, loop_clock(), (await run.outcome()).code, source

    got, at, code, source = run_virtual(main())
    assert got[-1] == "session.run.failed"
    assert code == "timeout.idle"
    assert at == pytest.approx(30, abs=0.1)
    assert (source.opened, source.closed, source.cancelled) == (1, 1, 1)


def test_a_deadlock_is_told_with_the_tasks_and_their_lines():
    async def stuck():
        await asyncio.get_running_loop().create_future()

    async def main():
        task = asyncio.create_task(stuck(), name="the stuck one")
        await task

    with pytest.raises(Deadlock) as caught:
        run_virtual(main())
    told = str(caught.value)
    assert "'the stuck one'" in told
    assert "test_clock.py" in told
    assert "stuck" in told


def test_a_generator_that_waits_is_told_by_its_own_line():
    async def numbers():
        yield 1
        await asyncio.Event().wait()

    async def main():
        async for _ in numbers():
            pass

    with pytest.raises(Deadlock, match=r"in (Event\.wait|.*numbers)"):
        run_virtual(main())


def test_a_timer_that_is_set_for_ever_is_given_up():
    async def main():
        while True:
            await asyncio.sleep(1)

    with pytest.raises(Deadlock, match="60 virtual seconds passed"):
        run_virtual(main(), limit=60)


def test_time_stands_still_while_a_thread_works():
    async def main():
        alarm = asyncio.create_task(asyncio.sleep(5))
        gate = []
        await asyncio.to_thread(gate.append, 1)
        assert loop_clock() == 0
        await alarm
        return loop_clock()

    assert run_virtual(main()) == pytest.approx(5)


def test_sockets_are_refused_with_the_reason():
    async def main():
        left, right = socket.socketpair()
        try:
            left.setblocking(False)
            await asyncio.get_running_loop().sock_recv(left, 1)
        finally:
            left.close()
            right.close()

    with pytest.raises(RuntimeError, match="virtual time has no sockets"):
        run_virtual(main())


def test_a_callback_comes_at_its_turn_and_keeps_nothing_awake():
    async def main():
        loop = asyncio.get_running_loop()
        turns = []
        loop.call_at_turn(loop.turns + 3, lambda: turns.append(loop.turns))
        began = loop.turns
        await asyncio.sleep(100)
        for _ in range(5):
            await asyncio.sleep(0)
        return [turn - began for turn in turns]

    assert run_virtual(main()) == [3]


def test_pending_timers_are_those_that_neither_fired_nor_were_cancelled():
    async def main():
        loop = asyncio.get_running_loop()
        kept = loop.call_later(50, print)
        gone = loop.call_later(60, print)
        gone.cancel()
        await asyncio.sleep(10)
        assert loop.pending_timers() == [kept]
        kept.cancel()
        assert loop.pending_timers() == []

    run_virtual(main())


def test_the_loop_is_a_loop_factory():
    async def main():
        await asyncio.sleep(1000)
        return "done"

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(main()) == "done"
