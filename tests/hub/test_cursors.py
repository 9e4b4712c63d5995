"""From every line, at every time: what comes is exactly the rest."""

import asyncio
import itertools

import pytest

from .worker import (
    EXECUTION_ID,
    IDENTITY,
    Gate,
    Worker,
    chat,
    delta,
    logged,
    read_all,
    read_bytes,
)

WORDS = [delta(f"{k} ") for k in range(8)]
LINES = len(WORDS) + 2


def run(test, place):
    async def bounded():
        async with asyncio.timeout(60):
            try:
                await test(place)
            finally:
                await place.close()

    asyncio.run(bounded())


def test_while_it_runs_after_it_ended_here_and_elsewhere(place):
    async def test(place):
        source = Gate(*WORDS)
        async with Worker(place.store()) as here, Worker(place.store()) as there:
            await here.hub.start(chat(source), IDENTITY)
            readers = {}
            for step in range(len(WORDS) + 1):
                await logged(here.line, step + 1)
                for worker, after in itertools.product((here, there), range(LINES + 2)):
                    turn = worker.hub.attach(EXECUTION_ID, after)
                    readers[step, worker, after] = asyncio.create_task(
                        read_all(turn, after)
                    )
                await asyncio.sleep(0)
                source.let()
            whole = await read_all(here.hub.attach(EXECUTION_ID))
            assert len(whole) == LINES
            for (_, _, after), reader in readers.items():
                assert await reader == whole[after:]
            for worker, after in itertools.product((here, there), range(LINES + 2)):
                turn = worker.hub.attach(EXECUTION_ID, after)
                assert await read_all(turn, after) == whole[after:]

    run(test, place)


def test_after_a_takeover_readers_on_both_sides_see_one_order(place):
    async def test(place):
        source, again = Gate(*WORDS), Gate(*WORDS)
        async with Worker(place.store()) as dead, Worker(place.store()) as alive:
            await dead.hub.start(chat(source), IDENTITY)
            source.let(4)
            await logged(alive.line, 5)
            early = [
                asyncio.create_task(read_bytes(alive.hub.attach(EXECUTION_ID), after))
                for after in range(LINES)
            ]
            await asyncio.sleep(0.05)
            dead.kill()
            await place.lapse()
            again.all()
            await alive.hub.recover({"Gate": chat(again)})
            whole = (await read_bytes(alive.hub.attach(EXECUTION_ID))).splitlines(
                keepends=True
            )
            assert len(whole) == LINES
            for after, reader in enumerate(early):
                assert await reader == b"".join(whole[after:])

    run(test, place)


@pytest.mark.parametrize("limit_bytes", [1, 100, 250])
def test_pages_of_a_store_are_whole_lines_whatever_their_size(place, limit_bytes):
    async def test(place):
        source = Gate(*WORDS)
        source.all()
        store = place.store()
        async with Worker(place.store()) as worker:
            turn = await worker.hub.start(chat(source), IDENTITY)
            whole = await read_bytes(turn)
            await turn.outcome()
            for start in range(LINES + 1):
                found, after = [], start
                while True:
                    page = await store.read(
                        EXECUTION_ID, after=after, limit_bytes=limit_bytes
                    )
                    if not page.chunks:
                        break
                    for chunk in page.chunks:
                        assert chunk.first == after + 1
                        assert chunk.data.count(b"\n") == chunk.count
                        after += chunk.count
                        found.append(chunk.data)
                assert after == LINES
                assert b"".join(found) == b"".join(
                    whole.splitlines(keepends=True)[start:]
                )

    run(test, place)
