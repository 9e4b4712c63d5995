"""Group commit: many turns, one transaction; nothing is delivered before it is kept."""

import asyncio

import pytest

from operators.errors import LeaseLost, StoreBusy, StoreError
from pipeline.durable.journal import AHEAD_BYTES, Account, Journal
from pipeline.durable.tail import TAIL_BYTES, Room, Tail
from pipeline.stores import MemoryStore, NewRun

LINE = b'{"x":1}\n'


class Store(MemoryStore):
    """Counts groups, and fails as it is told."""

    def __init__(self):
        super().__init__()
        self.groups = []
        self.errors = []
        self.gate = None

    async def append(self, batch):
        if self.gate is not None:
            await self.gate.wait()
        self.groups.append(list(batch))
        if self.errors:
            error, happened = self.errors.pop(0)
            if happened:
                await super().append(batch)
            raise error
        return await super().append(batch)


def run(test):
    async def bounded():
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


async def account(store, run_id, room=None):
    new = NewRun(id=run_id, manifest_hash="h")
    claim = await store.claim(new, worker="w", lease=30)
    told = []
    made = Account(run_id, claim.fence, Tail(room or Room(1 << 20)), told.append)
    return made, told


def test_what_comes_while_a_group_is_written_goes_with_the_next():
    async def test():
        store = Store()
        journal = Journal(store, patience=5, room=Room(1 << 20))
        ours = [(await account(store, f"r{k}"))[0] for k in range(10)]
        store.gate = asyncio.Event()
        journal.put(ours[0], LINE, 1)
        await asyncio.sleep(0.02)
        for one in ours:
            for _ in range(5):
                journal.put(one, LINE, 1)
        assert all(one.tail.lines == 0 for one in ours)
        store.gate.set()
        for one in ours:
            await one.flushed()
        assert [len(group) for group in store.groups] == [1, 10]
        assert [one.tail.lines for one in ours] == [6, *[5] * 9]
        await journal.close()

    run(test)


def test_a_lone_line_is_there_within_50_ms():
    async def test():
        store = Store()
        journal = Journal(store, patience=5, room=Room(1 << 20))
        ours, _ = await account(store, "r")
        loop = asyncio.get_running_loop()
        for _ in range(3):
            began = loop.time()
            journal.put(ours, LINE, 1)
            await ours.tail.wait(ours.tail.lines)
            assert loop.time() - began < 0.05
        await journal.close()

    run(test)


@pytest.mark.parametrize("happened", [False, True])
def test_a_group_whose_answer_was_lost_is_written_once(happened):
    async def test():
        store = Store()
        journal = Journal(store, patience=5, room=Room(1 << 20))
        ours, told = await account(store, "r")
        store.errors = [(StoreBusy("locked"), happened)] * 3
        journal.put(ours, LINE * 3, 3)
        journal.put(ours, LINE, 1)
        await ours.flushed()
        assert (await store.status("r")).lines == 4
        assert ours.tail.lines == 4
        assert told == []
        await journal.close()

    run(test)


def test_a_store_that_stays_away_fails_the_turns_that_wait_for_it():
    async def test():
        store = Store()
        journal = Journal(store, patience=0.1, room=Room(1 << 20))
        ours, told = await account(store, "r")
        error = StoreError("gone")
        store.errors = [(error, False)] * 100
        journal.put(ours, LINE, 1)
        with pytest.raises(StoreError, match="gone"):
            await ours.flushed()
        assert told == [error]
        journal.put(ours, LINE, 1)
        await ours.room()
        await journal.close()

    run(test)


def test_a_lost_lease_fails_its_turn_and_no_other():
    async def test():
        store = Store()
        journal = Journal(store, patience=5, room=Room(1 << 20))
        lost, told = await account(store, "lost")
        kept, _ = await account(store, "kept")
        await store.release("lost", lost.fence)
        journal.put(lost, LINE, 1)
        journal.put(kept, LINE, 1)
        await kept.flushed()
        with pytest.raises(LeaseLost):
            await lost.flushed()
        assert isinstance(told[0], LeaseLost)
        assert (kept.tail.lines, lost.tail.lines) == (1, 0)
        await journal.close()

    run(test)


def test_a_source_that_is_faster_than_its_store_waits():
    async def test():
        store = Store()
        journal = Journal(store, patience=5, room=Room(1 << 20))
        ours, _ = await account(store, "r")
        store.gate = asyncio.Event()
        journal.put(ours, b"x" * AHEAD_BYTES + b"\n", 1)
        waiting = asyncio.ensure_future(ours.room())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        store.gate.set()
        await waiting
        await journal.close()

    run(test)


def test_a_tail_keeps_so_much_and_gives_the_rest_back():
    room = Room(10_000_000)
    tail = Tail(room)
    line = b"x" * 1_000 + b"\n"
    for _ in range(1_000):
        tail.put(line, 1)
    assert tail.lines == 1_000
    assert 10_000_000 - room.left <= TAIL_BYTES
    assert tail.after(0) is None
    assert tail.after(1_000) == []
    assert b"".join(chunk.data for chunk in tail.after(990)) == line * 10
    tail.clear()
    assert room.left == 10_000_000


def test_the_room_of_all_tails_is_bounded_too():
    room = Room(10_000)
    tails = [Tail(room) for _ in range(50)]
    for _ in range(10):
        for tail in tails:
            tail.put(b"x" * 99 + b"\n", 1)
    assert room.left >= 0
    assert all(tail.lines == 10 for tail in tails)


def test_a_waiter_of_a_tail_that_leaves_is_forgotten():
    async def test():
        tail = Tail(Room(100))
        waiting = asyncio.ensure_future(tail.wait(0))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert not tail._waiters
        tail.put(b"{}\n", 1)
        await tail.wait(0)

    run(test)
