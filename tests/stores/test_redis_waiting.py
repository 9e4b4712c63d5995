"""Waiting for a run in Valkey: woken at once, on one connection for all who wait."""

import asyncio
import contextlib
import time

from pipeline.stores import redis_waiting

from .redis_support import RUN, append, lines, opened, run, text, text_of
from .valkey_server import Line, command, fresh_prefix

LONG = 60.0
"""A wait that fails its test where nothing wakes it."""


def connections(server):
    """Count who is connected, without the one who asks."""
    return command(server, "CLIENT", "LIST").count(b"id=") - 1


def subscriptions(server):
    return command(server, "INFO", "clients").partition(b"pubsub_clients:")[2][:1]


def start(work):
    return asyncio.create_task(work)


async def heard(log):
    """Return once all that is waited for is told by the server."""
    while not all(one.sure for one in log._waiting._runs.values()):
        await asyncio.sleep(0.001)


def test_a_wait_ends_with_an_append_of_another_process(valkey):
    async def test():
        prefix = fresh_prefix()
        async with (
            opened(valkey, prefix=prefix) as owner,
            opened(valkey, prefix=prefix) as reader,
        ):
            await owner.begin(RUN, 1, lease=10, lines=0)
            for k in range(1, 20):
                waiting = start(reader.wait(RUN, after=k - 1, timeout=LONG))
                if k % 2:
                    await asyncio.sleep(0)  # before it is subscribed, and after
                else:
                    await heard(reader)
                await append(owner, lines(k))
                await waiting
            assert await text_of(reader) == text(1, 19)

    run(test)


def test_a_wait_ends_at_once_where_there_are_lines_or_the_run_has_ended(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await append(log, lines(1, 3))
            await log.wait(RUN, after=2, timeout=LONG)
            await log.wait(RUN, after=0, timeout=LONG)
            await log.finish(RUN, 1)
            await log.wait(RUN, after=3, timeout=LONG)
        async with opened(valkey, prefix=log._prefix) as other:
            await other.wait(RUN, after=3, timeout=LONG)

    run(test)


def test_a_wait_ends_with_its_time_and_leaves_nothing(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            await log.wait(RUN, after=0, timeout=0.05)
            await log.wait(RUN, after=0, timeout=0)
            await log.wait("nobody's", after=0, timeout=0.05)
            assert not any(one.tickets for one in log._waiting._runs.values())

    run(test)


def test_waits_end_where_a_run_ends_begins_or_the_log_closes(valkey):
    async def test():
        prefix = fresh_prefix()
        async with (
            opened(valkey, prefix=prefix) as owner,
            opened(valkey, prefix=prefix) as reader,
        ):
            await owner.begin(RUN, 1, lease=10, lines=0)
            ending = start(reader.wait(RUN, after=0, timeout=LONG))
            beginning = start(reader.wait("later", after=2, timeout=LONG))
            closing = start(reader.wait("never", after=0, timeout=LONG))
            await heard_of(reader, 3)
            await owner.finish(RUN, 1)
            await ending
            await owner.begin("later", 1, lease=10, lines=3)
            await beginning
            assert not closing.done()
            await reader.close()
            await closing

    run(test)


async def heard_of(log, count):
    while len(log._waiting._runs) < count:
        await asyncio.sleep(0.001)
    await heard(log)


def test_a_run_that_was_finished_and_begins_again_is_waited_for_again(valkey):
    async def test():
        prefix = fresh_prefix()
        async with (
            opened(valkey, prefix=prefix) as owner,
            opened(valkey, prefix=prefix) as reader,
        ):
            await owner.begin(RUN, 1, lease=10, lines=0)
            await append(owner, lines(1))
            await owner.finish(RUN, 1)
            await reader.wait(RUN, after=1, timeout=LONG)
            await owner.begin(RUN, 2, lease=10, lines=1)
            await asyncio.sleep(0)
            while reader._waiting._runs[RUN].closed:
                await asyncio.sleep(0.001)
            waiting = start(reader.wait(RUN, after=1, timeout=LONG))
            await heard(reader)
            assert not waiting.done()
            await append(owner, lines(2, fence=2))
            await waiting

    run(test)


def test_five_hundred_readers_of_one_run_and_of_many_cost_one_connection(own_valkey):
    async def test():
        prefix = fresh_prefix()
        async with (
            opened(own_valkey, prefix=prefix) as owner,
            opened(own_valkey, prefix=prefix, connections=4) as reader,
        ):
            names = [f"run {k % 200}" for k in range(400)] + ["one"] * 500
            for name in set(names):
                await owner.begin(name, 1, lease=60, lines=0)
            base = connections(own_valkey)
            waits = [start(reader.wait(name, after=0, timeout=LONG)) for name in names]
            await asyncio.sleep(0)
            await heard_of(reader, 201)
            assert connections(own_valkey) - base <= 1 + 4
            assert subscriptions(own_valkey) == b"1"
            await append(owner, *(lines(1, run_id=name) for name in set(names)))
            await asyncio.gather(*waits)
            # Now that they are back, it costs no call to find that nothing is new.
            calls = own_calls(own_valkey)
            waits = [start(reader.wait(name, after=1, timeout=LONG)) for name in names]
            await asyncio.sleep(0.05)
            assert own_calls(own_valkey) == calls
            await append(owner, *(lines(2, run_id=name) for name in set(names)))
            await asyncio.gather(*waits)

    run(test)


def own_calls(server):
    info = command(server, "INFO", "commandstats")
    return [
        line.partition(b",")[0]
        for line in info.splitlines()
        if line.startswith((b"cmdstat_evalsha", b"cmdstat_eval", b"cmdstat_subscribe"))
    ]


def test_two_hundred_readers_of_a_turn_see_all_of_it_in_order(own_valkey):
    async def test():
        prefix = fresh_prefix()
        async with (
            opened(own_valkey, prefix=prefix) as owner,
            opened(own_valkey, prefix=prefix) as reader,
        ):
            await owner.begin(RUN, 1, lease=60, lines=0)

            async def follow(after):
                found = b""
                while after < 100:
                    chunks, end = await reader.read(RUN, after=after)
                    for chunk in chunks:
                        assert chunk.first == after + 1
                        after += chunk.count
                        found += chunk.data
                    if end <= after < 100:
                        await reader.wait(RUN, after=after, timeout=LONG)
                return found

            followers = [start(follow(k % 3)) for k in range(200)]
            most = 0
            for k in range(1, 101):
                await append(owner, lines(k))
                if k % 10 == 0:
                    most = max(most, connections(own_valkey))
            for k, follower in enumerate(followers):
                assert await follower == text(k % 3 + 1, 100)
            assert most <= 2 * 8 + 1

    run(test)


def test_nothing_is_missed_while_the_connection_was_away(own_valkey):
    async def test():
        async with Line(own_valkey.port) as line:
            prefix = fresh_prefix()
            async with (
                opened(own_valkey, prefix=prefix) as owner,
                opened(line, prefix=prefix) as reader,
            ):
                await owner.begin(RUN, 1, lease=60, lines=0)
                for k in range(1, 6):
                    await reader.wait(RUN, after=k - 1, timeout=0)
                    await heard(reader)
                    line.refuse = True
                    ended = start(reader.wait(RUN, after=k - 1, timeout=LONG))
                    await asyncio.sleep(0)
                    line.drop()
                    await ended  # it may have grown: nobody would have said so
                    missed = start(reader.wait(RUN, after=k - 1, timeout=LONG))
                    await append(owner, lines(k))
                    await asyncio.sleep(0.03)
                    assert not missed.done()
                    line.refuse = False
                    await missed

    run(test)


def test_a_server_that_hangs_is_noticed_by_pings(own_valkey, monkeypatch):
    """A line without an end: nothing comes, and nothing says so."""
    monkeypatch.setattr(redis_waiting, "_PING_S", 0.05)

    async def test():
        async with Line(own_valkey.port) as line, opened(line) as reader:
            waiting = start(reader.wait(RUN, after=0, timeout=LONG))
            await heard_of(reader, 1)
            await asyncio.sleep(0.3)  # pings are answered: it stays
            assert not waiting.done()
            connected = line.connected
            line.swallow = True
            await waiting
            line.swallow = False
            again = start(reader.wait(RUN, after=0, timeout=LONG))
            await heard_of(reader, 1)
            assert line.connected > connected
            again.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await again

    run(test)


def test_runs_that_nobody_waits_for_are_forgotten(valkey, monkeypatch):
    monkeypatch.setattr(redis_waiting, "_PING_S", 0.2)
    monkeypatch.setattr(redis_waiting, "_LINGER_S", 0.1)

    async def test():
        async with opened(valkey) as log:
            stays = start(log.wait("stays", after=0, timeout=LONG))
            await heard_of(log, 1)
            connection = log._waiting._connection
            for k in range(20):
                await log.wait(f"{k}", after=0, timeout=0)
            await heard_of(log, 21)
            while len(log._waiting._runs) > 1:
                await asyncio.sleep(0.01)
            # One comes back.
            await log.begin("3", 1, lease=10, lines=0)
            waiting = start(log.wait("3", after=0, timeout=LONG))
            await heard_of(log, 2)
            async with opened(valkey, prefix=log._prefix) as other:
                await append(other, lines(1, run_id="3"))
            await waiting
            assert log._waiting._connection is connection
            await log.begin("stays", 1, lease=10, lines=1)
            await stays
            while log._waiting._runs or not log._waiting._tasks["listen"].done():
                await asyncio.sleep(0.01)
            assert not connection.is_connected
            waiting = start(log.wait("3", after=1, timeout=LONG))
            await heard_of(log, 1)
            await append(log, lines(2, run_id="3"))
            await waiting

    run(test)


def test_what_is_told_while_it_is_looked_counts_more_than_the_look(valkey):
    async def test():
        prefix = fresh_prefix()
        async with (
            opened(valkey, prefix=prefix) as owner,
            opened(valkey, prefix=prefix) as reader,
        ):
            await owner.begin(RUN, 1, lease=10, lines=0)
            look = reader._waiting._look

            async def late(names):
                found = await look(names)
                await append(owner, lines(1))
                while not reader._waiting._runs[RUN].told:
                    await asyncio.sleep(0.001)
                return found

            reader._waiting._look = late
            await reader.wait(RUN, after=0, timeout=LONG)
            await heard(reader)
            await reader.wait(RUN, after=0, timeout=LONG)

    run(test)


def test_a_cancelled_wait_hinders_no_other(valkey):
    async def test():
        async with opened(valkey) as log:
            await log.begin(RUN, 1, lease=10, lines=0)
            waits = [start(log.wait(RUN, after=0, timeout=LONG)) for _ in range(20)]
            for k, wait in enumerate(waits[::2]):
                for _ in range(k):
                    await asyncio.sleep(0)
                wait.cancel()
            await heard(log)
            await append(log, lines(1))
            began = time.monotonic()
            found = await asyncio.gather(*waits, return_exceptions=True)
            assert found[1::2] == [None] * 10
            assert time.monotonic() - began < LONG / 2

    run(test)
