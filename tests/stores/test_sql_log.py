"""Lines in a delivery log, everything else in SQL: one store, whatever breaks between."""

import asyncio
import random
import sqlite3
from contextlib import asynccontextmanager

import pytest

from operators.errors import LeaseHeld, LeaseLost, StoreError, StoreFull
from pipeline.stores import Lines, NewRun, SqlStore
from pipeline.testing.conformance import CLAIMS, Place, check, drive

from . import places
from .memory_log import LogServer, MemoryLog

NEVER = 3600.0


def archiving(folder, **options):
    """A place whose stores share one log, which is archived all the time."""
    url = f"sqlite:///{folder}/turns.db"
    server = LogServer()
    back = places.sql(url).advance

    async def advance(seconds):
        await back(seconds)
        server.ahead += seconds

    return Place(lambda: SqlStore(url, log=MemoryLog(server), **options), advance)


OPTIONS = {
    "archived at once": {"archive_every": 0.001, "archive_bytes": 1},
    "never archived": {"archive_every": NEVER, "archive_bytes": 1 << 30},
}


@pytest.fixture(params=OPTIONS)
def place(request, tmp_path):
    return archiving(tmp_path, **OPTIONS[request.param])


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_sentence_of_the_contract_holds(claim, place):
    check(claim, place)


def test_random_calls_agree_with_the_model(place):
    async def run():
        try:
            await drive(place, steps=1_500, seed=random.randrange(2**32))
        finally:
            await place.close()

    asyncio.run(run())


class Site:
    """A database, a log, and as many workers' stores as are asked for."""

    def __init__(self, folder):
        self.path = folder / "turns.db"
        self.server = LogServer()
        self.stores = []

    def store(self, **options):
        options = {"archive_every": NEVER, **options}
        url = f"sqlite:///{self.path}"
        made = SqlStore(url, log=MemoryLog(self.server), **options)
        self.stores.append(made)
        return made

    def rows(self):
        with sqlite3.connect(self.path) as connection:
            return connection.execute(
                "SELECT run_id, first, size, event_id, data FROM turnpipe_log"
                " ORDER BY run_id, first"
            ).fetchall()

    def held(self, run_id="r"):
        return [chunk.first for chunk in self.server.runs[run_id].chunks]

    async def lapse(self):
        await places.sql(f"sqlite:///{self.path}").advance(1_000)
        self.server.ahead += 1_000


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@asynccontextmanager
async def closing(site):
    try:
        yield
    finally:
        for store in site.stores:
            await store.close()


def run(site, work):
    async def whole():
        async with asyncio.timeout(60), closing(site):
            await work()

    asyncio.run(whole())


async def claimed(store, run_id="r", worker="w1", **options):
    new = NewRun(id=run_id, manifest_hash="h")
    return await store.claim(new, worker=worker, lease=100, **options)


def said(fence, first, *texts, run_id="r"):
    data = b"".join([text.encode() + b"\n" for text in texts])
    return Lines(run_id, fence, first, len(texts), data)


def event(fence, event_id, run_id="r"):
    return Lines(run_id, fence, 0, 1, event_id.encode() + b"\n", event_id)


async def whole(store, run_id="r", after=0):
    found = b""
    while True:
        page = await store.read(run_id, after=after)
        assert page.chunks or page.lines <= after
        if not page.chunks:
            return found
        for chunk in page.chunks:
            assert chunk.first == after + 1
            after += chunk.count
            found += chunk.data


def test_lines_of_a_running_turn_are_in_the_log_alone_until_they_are_archived(site):
    async def work():
        store = site.store()
        fence = (await claimed(store)).fence
        for k in range(1, 6):
            await store.append([said(fence, k, f"{k}")])
        assert site.rows() == []
        assert (await store.status("r")).lines == 5
        await store._delivery.archive()
        assert [row[1:4] for row in site.rows()] == [(1, 5, None)]
        assert site.held() == [1, 2, 3, 4, 5], "trimmed one archiving behind"
        await store.append([said(fence, 6, "6")])
        await store._delivery.archive()
        assert site.held() == [6]
        for after in range(8):
            expected = "".join(f"{k}\n" for k in range(after + 1, 7)).encode()
            assert await whole(store, after=after) == expected

    run(site, work)


def test_settling_moves_the_rest_and_the_outcome_in_one_transaction(site):
    async def work():
        store = site.store()
        fence = (await claimed(store)).fence
        await store.append([said(fence, 1, "1", "2")])
        await store.append([event(fence, "e")])
        end = {"text": "12e"}
        await store.settle(
            "r", fence, status="completed", outcome=end, lines=said(fence, 4, "end")
        )
        assert [(row[1], row[3]) for row in site.rows()] == [
            (1, None),
            (3, "e"),
            (4, None),
        ]
        site.server.lose()  # a log expires: nobody needs it any more
        assert await whole(store) == b"1\n2\ne\nend\n"
        assert (await store.read("r", after=4)).closed

    run(site, work)


def test_an_append_that_is_late_finds_the_log_ended_before_settling_reads_it(site):
    async def work():
        store = site.store()
        fence = (await claimed(store)).fence
        await store.append([said(fence, 1, "1")])
        late = MemoryLog(site.server)
        given = []
        read = MemoryLog.read

        async def reading(log, run_id, **how):
            page = await read(log, run_id, **how)
            given.append(await late.append([said(fence, 2, "late")]))
            return page

        store._delivery.log.read = reading.__get__(store._delivery.log)
        await store.settle(
            "r", fence, status="completed", outcome={}, lines=said(fence, 2, "end")
        )
        assert given
        assert all(answers == [None] for answers in given)
        del store._delivery.log.read
        assert await whole(store) == b"1\nend\n"

    run(site, work)


def test_a_worker_that_dies_between_the_claims_leaves_a_lease_that_lapses(site):
    async def work():
        first, second = site.store(), site.store()
        fence = (await claimed(first)).fence
        await first.append([said(fence, 1, "1")])
        await first.release("r", fence)
        site.server.away = True
        with pytest.raises(StoreError):
            await claimed(second, worker="w2")
        site.server.away = False
        with pytest.raises(LeaseHeld):
            await claimed(first, worker="w3")
        again = await claimed(second, worker="w2")
        assert (again.mode, again.run.lines) == ("reentered", 1)

    run(site, work)


def test_the_former_owner_appends_nothing_once_another_has_begun(site):
    async def work():
        first, second = site.store(), site.store()
        fence = (await claimed(first)).fence
        await first.append([said(fence, 1, "1")])
        await site.lapse()
        # Its lease in the log still lives: only the new fence ends it.
        site.server.ahead -= 1_000
        await first.append([said(fence, 2, "between")])
        taken = await claimed(second, worker="w2")
        assert taken.run.lines == 2, "it is given what came between"
        assert await first.append([said(fence, 3, "late")]) == [None]
        await second.append([said(taken.fence, 3, "3")])
        assert await whole(first) == b"1\nbetween\n3\n"

    run(site, work)


def test_a_late_archiving_of_a_former_owner_writes_nothing(site):
    async def work():
        first, second = site.store(), site.store()
        fence = (await claimed(first)).fence
        await first.append([said(fence, 1, "1")])
        await site.lapse()
        await claimed(second, worker="w2")
        await first._delivery.archive()
        assert site.rows() == []
        await second._delivery.archive()
        assert [row[1] for row in site.rows()] == [1]

    run(site, work)


def test_lines_that_are_in_both_are_read_once(site):
    """Killed after the archiving's transaction, before the log was trimmed."""

    async def work():
        store = site.store()
        fence = (await claimed(store)).fence
        for k in range(1, 5):
            await store.append([said(fence, k, f"{k}")])
        await store._delivery.archive()
        await store.append([said(fence, 5, "5")])
        other = site.store()
        assert await whole(other) == b"1\n2\n3\n4\n5\n"
        await site.lapse()
        taken = await claimed(other, worker="w2")
        assert taken.run.lines == 5
        await other.append([said(taken.fence, 6, "6")])
        await other.settle("r", taken.fence, status="completed", outcome={})
        assert await whole(store) == b"1\n2\n3\n4\n5\n6\n"
        assert [row[1:3] for row in site.rows()] == [(1, 4), (5, 2)]

    run(site, work)


def test_a_log_that_lost_its_memory_ends_the_lease_and_what_was_archived_stays(site):
    async def work():
        store = site.store()
        fence = (await claimed(store)).fence
        await store.append([said(fence, 1, "1"), event(fence, "e")])
        await store._delivery.archive()
        await store.append([said(fence, 3, "lost")])
        site.server.lose()
        assert await store.append([said(fence, 4, "4")]) == [None]
        await store.release("r", fence)
        taken = await claimed(store, worker="w2")
        assert taken.run.lines == 2
        known, new = await store.append(
            [event(taken.fence, "e"), said(taken.fence, 3, "3")]
        )
        assert (known.line, known.accepted) == (2, False), "the database knew it"
        assert (new.line, new.accepted) == (3, True)
        assert await whole(store) == b"1\ne\n3\n"

    run(site, work)


def test_a_run_does_not_end_with_lines_missing(site):
    async def work():
        store = site.store()
        fence = (await claimed(store)).fence
        await store.append([said(fence, 1, "1", "2")])
        site.server.lose()
        for lines in (None, said(fence, 3, "end")):
            with pytest.raises(LeaseLost):
                await store.settle(
                    "r", fence, status="completed", outcome={}, lines=lines
                )
        assert (await store.status("r")).status == "running"

    run(site, work)


def test_a_log_that_is_not_closed_hinders_nobody(site):
    async def work():
        store, other = site.store(), site.store()
        fence = (await claimed(store)).fence
        await store.append([said(fence, 1, "1")])
        waiting = asyncio.ensure_future(other.wait("r", after=1, timeout=50))

        async def finish(run_id, fence):
            raise StoreError("the log is away")

        store._delivery.log.finish = finish
        await store.settle("r", fence, status="completed", outcome={})
        await asyncio.wait_for(waiting, 10)
        page = await other.read("r", after=1)
        assert (page.chunks, page.closed) == ((), True)

    run(site, work)


def test_a_database_that_is_away_keeps_lines_waiting_in_the_log(site):
    async def work():
        store = site.store(archive_every=0.01)
        fence = (await claimed(store)).fence
        moved = store._delivery._moved
        failures = 0
        again = asyncio.Event()

        async def failing(*args):
            nonlocal failures
            failures += 1
            if failures < 4:
                raise StoreError("the database is away")
            found = await moved(*args)
            again.set()
            return found

        store._delivery._moved = failing
        await store.append([said(fence, 1, "1")])
        await again.wait()
        assert [row[1] for row in site.rows()] == [1]

    run(site, work)


def test_a_log_that_is_full_is_archived_at_once(site):
    async def work():
        store = site.store()
        fence = (await claimed(store)).fence
        await store.append([said(fence, 1, "1")])
        append = store._delivery.log.append

        async def full(batch):
            raise StoreFull("the log is full")

        store._delivery.log.append = full
        with pytest.raises(StoreFull):
            await store.append([said(fence, 2, "2")])
        store._delivery.log.append = append
        while not site.rows():
            await asyncio.sleep(0)

    run(site, work)


def test_many_runs_are_archived_together(site):
    async def work():
        store = site.store()
        fences = {f"r{k}": (await claimed(store, f"r{k}")).fence for k in range(50)}
        for first in (1, 2, 3):
            await store.append(
                [said(fence, first, "x", run_id=i) for i, fence in fences.items()]
            )
        written = 0
        write = store._db.write

        async def counted(work):
            nonlocal written
            written += 1
            return await write(work)

        store._db.write = counted
        await store._delivery.archive()
        assert written == 1
        assert [row[1:3] for row in site.rows()] == [(1, 3)] * 50
        assert not store._delivery._runs["r7"].dirty

    run(site, work)


def test_long_logs_are_archived_in_pieces(site, monkeypatch):
    monkeypatch.setattr("pipeline.stores.sql_archive._PASS_BYTES", 10_000)

    async def work():
        store = site.store()
        fence = (await claimed(store)).fence
        text = "x" * 999
        for k in range(1, 101):
            await store.append([said(fence, k, text)])
        await store._delivery.archive()
        status = await store.status("r")
        assert sum(row[2] for row in site.rows()) == status.lines == 100
        assert await whole(store) == f"{text}\n".encode() * 100

    run(site, work)


def test_no_task_is_left_once_there_is_nothing_to_archive(site):
    async def work():
        store = site.store(archive_every=0.01)
        fence = (await claimed(store)).fence
        await store.append([said(fence, 1, "1")])
        task = store._delivery._task
        await asyncio.wait((task,), timeout=10)
        assert task.done()
        assert len(site.rows()) == 1
        await store.append([said(fence, 2, "2")])
        await asyncio.wait((store._delivery._task,), timeout=10)
        assert len(site.rows()) == 2

    run(site, work)


def test_closing_closes_the_log_too(site):
    async def work():
        store = site.store()
        fence = (await claimed(store)).fence
        await store.append([said(fence, 1, "1")])
        await store.close()
        assert store._delivery.log.closed
        assert store._delivery._task is None

    run(site, work)


def test_bounds_are_refused(tmp_path):
    for bound in ({"archive_every": 0}, {"archive_bytes": 0}):
        with pytest.raises(ValueError, match="above 0"):
            SqlStore("sqlite:///x.db", log=MemoryLog(), **bound)
