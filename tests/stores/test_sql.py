"""What is SQL's: the schema, the file, processes beside each other, plans, errors."""

import asyncio
import contextlib
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import event, text
from sqlalchemy.schema import CreateIndex

from operators.errors import LeaseLost, StoreBusy, StoreError, StoreSchema
from pipeline.stores import Lines, NewRun, SqlStore
from pipeline.stores.sql_engine import Database, parsed
from pipeline.stores.sql_rows import SIGNAL, STEPS, Statements
from pipeline.stores.sql_schema import VERSION, log, metadata, runs


@pytest.fixture
def path(tmp_path):
    return tmp_path / "turns.db"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, path):
    if request.param == "sqlite":
        return f"sqlite:///{path}"
    return request.getfixturevalue("postgres").fresh()


def run(work):
    async def whole():
        async with asyncio.timeout(60):
            await work()

    asyncio.run(whole())


@asynccontextmanager
async def opened(url, **options):
    store = SqlStore(url, **options)
    try:
        await store.orphans()
        yield store
    finally:
        await store.close()


async def claimed(store, run_id="r", worker="w", lease=100.0):
    new = NewRun(id=run_id, manifest_hash="h")
    return (await store.claim(new, worker=worker, lease=lease)).fence


def said(fence, first, *texts, run_id="r"):
    data = b"".join([one.encode() + b"\n" for one in texts])
    return Lines(run_id, fence, first, len(texts), data)


# -- opening


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("sqlite://", "MemoryStore"),
        ("sqlite:///:memory:", "MemoryStore"),
        ("sqlite:///file:x?mode=memory&uri=true", "MemoryStore"),
        ("sqlite:///file:x.db?uri=true", "by its path"),
        ("mysql://u:secret@host/name", "no store speaks 'mysql'"),
        ("turns.db", "sqlite:///turns.db"),
        ("", "sqlite:///turns.db"),
    ],
)
def test_a_url_that_cannot_be_is_refused_when_it_is_given(url, what):
    with pytest.raises(ValueError, match=what) as caught:
        SqlStore(url)
    assert "secret" not in str(caught.value)


def test_bounds_that_cannot_be_are_refused():
    for bound in ({"pool_size": 0}, {"poll": 0}):
        with pytest.raises(ValueError, match="must be"):
            SqlStore("sqlite:///x.db", **bound)


def test_a_file_s_driver_is_the_standard_library_s_and_a_server_s_asyncpg():
    assert parsed("sqlite:///x.db").drivername == "sqlite+pysqlite"
    for name in ("postgresql", "postgresql+psycopg"):
        assert parsed(f"{name}://u@h/d").drivername == "postgresql+asyncpg"


def test_nothing_is_opened_before_it_is_used(path):
    async def work():
        store = SqlStore(f"sqlite:///{path}")
        assert not path.exists()
        await store.close()
        await store.close()
        assert not path.exists()
        with pytest.raises(StoreError, match="closed"):
            await store.status("r")

    run(work)


def test_many_first_uses_at_once_open_once(url):
    async def work():
        stores = [SqlStore(url) for _ in range(4)]
        found = await asyncio.gather(
            *[store.orphans() for store in stores for _ in range(10)]
        )
        assert found == [[]] * 40
        for store in stores:
            await store.close()

    run(work)


OPENS = """
import asyncio, sys
from pipeline.stores import NewRun, SqlStore

async def main(url, name):
    store = SqlStore(url)
    got = await store.claim(NewRun(id=name, manifest_hash="h"), worker=name, lease=9)
    assert got.mode == "created"
    await store.close()

sys.stdin.readline()
asyncio.run(main(*sys.argv[1:]))
"""


def test_processes_that_open_at_once_make_one_schema(url):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENS, url, f"w{k}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(6)
    ]
    for worker in workers:  # all wait to be told, so that they begin together
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        _, said_ = worker.communicate(timeout=50)
        assert worker.returncode == 0, said_

    async def work():
        async with opened(url) as store:
            assert len(await store.runs()) == 6

    run(work)


def test_a_second_loop_is_told_to_have_its_own_store(path):
    store = SqlStore(f"sqlite:///{path}")

    async def first():
        await store.orphans()

    async def second():
        with pytest.raises(StoreError, match="second event loop"):
            await store.orphans()

    async def last():
        await store.close()

    with asyncio.Runner() as runner:
        runner.run(first())
        asyncio.new_event_loop().close()
        with asyncio.Runner() as other:
            thread = threading.Thread(target=lambda: other.run(second()))
            thread.start()
            thread.join()
        runner.run(last())


def test_a_newer_schema_is_refused_and_left_as_it_is(url):
    async def work():
        async with opened(url) as store:
            await store._db.write(
                lambda connection: connection.execute(
                    text("UPDATE turnpipe_schema SET version = 99")
                )
            )
        store = SqlStore(url)
        for _ in range(2):
            with pytest.raises(StoreSchema, match=rf"99.*knows {VERSION}.*upgrade"):
                await store.orphans()
        await store.close()

    run(work)


def test_a_store_that_could_not_open_opens_when_it_can(path):
    async def work():
        folder = path.parent / "later"
        store = SqlStore(f"sqlite:///{folder}/turns.db")
        with pytest.raises(StoreError, match="folder does not exist: make it"):
            await store.orphans()
        folder.mkdir()
        assert await store.orphans() == []
        await store.close()

    run(work)


# -- the file


def test_the_file_is_its_user_s_alone_and_one_that_is_there_stays_as_it_is(path):
    async def work():
        async with opened(f"sqlite:///{path}") as store:
            await claimed(store)
            for one in path.parent.iterdir():
                assert stat.S_IMODE(one.stat().st_mode) == 0o600, one
        path.chmod(0o640)
        async with opened(f"sqlite:///{path}"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o640

    run(work)


def test_the_file_is_written_ahead_and_synced_in_full(path):
    async def work():
        async with opened(f"sqlite:///{path}") as store:

            def pragmas(connection):
                return [
                    connection.execute(text(f"PRAGMA {name}")).scalar()
                    for name in ("journal_mode", "synchronous", "busy_timeout")
                ]

            assert await store._db.write(pragmas) == ["wal", 2, 5000]
            assert await store._db.read(pragmas) == ["wal", 2, 5000]
            with pytest.raises(StoreError, match=r"readonly|read-only|query_only"):
                await store._db.read(
                    lambda connection: connection.execute(
                        text("DELETE FROM turnpipe_log")
                    )
                )

    run(work)


def test_a_file_that_is_something_else_is_left_as_it_is(path):
    path.write_bytes(b"dear diary, " * 1000)

    async def work():
        store = SqlStore(f"sqlite:///{path}")
        with pytest.raises(StoreError, match=r"not a database.*another file"):
            await store.orphans()
        await store.close()

    run(work)
    assert path.read_bytes().startswith(b"dear diary")


def test_a_file_that_another_holds_is_busy_and_is_used_when_it_is_let_go(
    path, monkeypatch
):
    monkeypatch.setattr("pipeline.stores.sql_engine._BUSY_MS", 100)

    async def work():
        async with opened(f"sqlite:///{path}") as store:
            fence = await claimed(store)
            with contextlib.closing(sqlite3.connect(path)) as other:
                other.isolation_level = None
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreBusy, match=r"locked.*try again"):
                    await store.append([said(fence, 1, "x")])
                assert (await store.status("r")).lines == 0, "reading goes on"
                other.execute("ROLLBACK")
            answers = await store.append([said(fence, 1, "x")])
            assert answers[0].accepted

    run(work)


def test_a_full_disk_is_told_as_such(path):
    async def work():
        async with opened(f"sqlite:///{path}") as store:
            fence = await claimed(store)

            def narrow(connection):
                pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}")

            await store._db.write(narrow)
            with pytest.raises(StoreError, match="free some") as caught:
                await store.append([said(fence, 1, "x" * 100_000)])
            assert caught.value.code == "store.full"
            assert (await store.append([said(fence, 1, "x")]))[0].accepted

    run(work)


def test_a_wait_sees_what_another_store_on_the_file_writes(path):
    async def work():
        url = f"sqlite:///{path}"
        async with opened(url) as one, opened(url) as two:
            fence = await claimed(one)
            await claimed(one, "quiet")
            quiet = asyncio.ensure_future(two.wait("quiet", after=0, timeout=50))
            for k in range(10):
                waiting = asyncio.ensure_future(two.wait("r", after=k, timeout=50))
                await asyncio.sleep(0.03)
                await one.append([said(fence, k + 1, "x")])
                await asyncio.wait_for(waiting, 5)
            assert not quiet.done(), "only those whose runs have grown are woken"
            await one.settle("quiet", 1, status="failed", outcome={})
            await asyncio.wait_for(quiet, 5)
            task = two._waiting._task
            await asyncio.wait((task,), timeout=5)
            assert task.done(), "nobody waits, so nobody looks"

    run(work)


# -- calls


def test_a_call_that_is_cancelled_is_done_before_what_is_asked_later(url):
    async def work():
        async with opened(url) as store:
            fence = await claimed(store)
            for k in range(60):
                first = asyncio.ensure_future(store.set_handle("r", fence, {"n": k}))
                for _ in range(k % 20):
                    await asyncio.sleep(0)
                first.cancel()
                await asyncio.wait((first,))
                await store.set_handle("r", fence, {"later": k})
                assert (await store.status("r")).handle == {"later": k}

    run(work)


def test_closing_waits_for_what_is_under_way(url):
    async def work():
        store = SqlStore(url)
        fence = await claimed(store)
        calls = [
            asyncio.ensure_future(store.append([said(fence, 1, "one")])),
            asyncio.ensure_future(store.set_handle("r", fence, {"x": 1})),
        ]
        await asyncio.sleep(0)
        await store.close()
        answers, _ = await asyncio.gather(*calls)
        assert answers[0].accepted

    run(work)


def test_a_batch_is_a_handful_of_statements_however_long_it_is(url):
    async def work():
        async with opened(url) as store:
            ids = [f"r{k:03}" for k in range(60)]
            fences = {run_id: await claimed(store, run_id) for run_id in ids}
            counts = []
            for some in (ids[:1], ids[1:]):
                seen = []
                batch = [said(fences[i], 1, "x", run_id=i) for i in some]
                batch += [Lines(i, fences[i], 0, 1, b"e\n", "e") for i in some]

                def counted(connection, batch=batch, seen=seen):
                    event.listen(
                        connection, "before_execute", lambda *given: seen.append(given)
                    )
                    return store._append(connection, batch)

                await store._db.write(counted)
                counts.append(len(seen))
            assert counts[0] == counts[1] <= 5

    run(work)


def test_forgetting_many_lets_others_write_between(url, monkeypatch):
    monkeypatch.setattr("pipeline.stores.sql._FORGET", 2)

    async def work():
        async with opened(url) as store:
            for k in range(7):
                await claimed(store, f"r{k}")
                await store.settle(f"r{k}", 1, status="failed", outcome={})
            writes = []
            write = store._db.write

            async def counted(work):
                writes.append(await write(work))
                return writes[-1]

            store._db.write = counted
            assert await store.forget(older_than=0, limit=5) == 5
            assert writes == [2, 2, 1]
            assert await store.forget(older_than=0) == 2

    run(work)


def test_the_clock_is_the_database_s(url, monkeypatch):
    async def work():
        async with opened(url) as store:
            monkeypatch.setattr("time.time", lambda: 0.0)
            fence = await claimed(store, lease=0.2)
            while (await store.status("r")).lapsed_s is None:
                await asyncio.sleep(0.02)
            with pytest.raises(LeaseLost):
                await store.set_handle("r", fence, {})

    run(work)


# -- plans


def _plans(connection, sqlite):
    sql = Statements(
        Database("sqlite:///x" if sqlite else "postgresql://h/d", pool_size=1)
    )
    asked = {
        "look": (sql.look, {"run": "r7"}),
        "lock": (sql.lock, {"run": "r7"}),
        "lock_many": (sql.lock_many, sql.ids(["r7", "r8"])),
        "lock_owned": (sql.lock_owned, {"worker": "w7"}),
        "grown": (sql.grown, sql.ids(["r7", "r8"])),
        "orphans": (sql.orphans, {"most": 10}),
        "page": (sql.page, {"run": "r7", "next": 3, "end": 9, "bytes": 1000}),
        "events": (sql.events, sql.pairs([("r7", "e1"), ("r8", "e2")])),
        "steps": (STEPS, {"run": "r7"}),
        "signal": (SIGNAL, {"run": "r7", "key": "k"}),
        "newest": (sql.list.order_by(runs.c.created_at.desc()).limit(10), {}),
        "session": (sql.list.where(runs.c.session == "s7"), {}),
        "ended": (
            sql.list.where(runs.c.ended_at <= 5.0, ~runs.c.forgotten).limit(10),
            {},
        ),
    }
    sent = []
    event.listen(
        connection,
        "before_cursor_execute",
        lambda _connection, _cursor, *given: sent.append(given[:2]),
    )
    for name, (statement, params) in asked.items():
        connection.execute(statement, params).all()
        said_, values = sent[-1]
        prefix = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        found = connection.exec_driver_sql(prefix + said_, values)
        yield name, "\n".join([str(tuple(row)) for row in found])


def test_every_query_has_its_index(url):
    async def work():
        async with opened(url) as store:
            sqlite = store._db.is_sqlite

            def fill(connection):
                connection.execute(
                    runs.insert(),
                    [
                        {
                            "id": f"r{k}",
                            "session": f"s{k}",
                            "manifest_hash": "h",
                            "status": "running" if k % 50 == 0 else "completed",
                            "fence": 1,
                            "settled_by": 0,
                            "owner": f"w{k}" if k % 50 == 0 else None,
                            "lease_until": float(k),
                            "first": 1,
                            "lines": 9,
                            "meta": b"{}",
                            "created_at": float(k),
                            "updated_at": 0.0,
                            "ended_at": None if k % 50 == 0 else float(k),
                            "forgotten": k % 100 != 1,
                        }
                        for k in range(5_000)
                    ],
                )
                connection.execute(
                    log.insert(),
                    [
                        {
                            "run_id": f"r{k}",
                            "first": n,
                            "size": 1,
                            "event_id": f"e{n}",
                            "data": b"x\n",
                        }
                        for k in range(500)
                        for n in range(1, 10)
                    ],
                )
                connection.exec_driver_sql("ANALYZE")
                return list(_plans(connection, sqlite))

            plans = await store._db.write(fill)
            assert len(plans) == 13
            for name, plan in plans:
                if name in {"steps", "signal"} and not sqlite:
                    continue  # empty tables are read as they are
                for table in ("turnpipe_runs", "turnpipe_log"):
                    whole = f"Seq Scan on {table}" in plan
                    lines = plan.splitlines()
                    whole |= any(f"SCAN {table}'" in one for one in lines)
                    assert not whole, f"{name}:\n{plan}"
                assert "Index" in plan or "INDEX" in plan, f"{name}:\n{plan}"

    run(work)


def test_a_session_s_running_run_is_one_by_the_schema_itself():
    (index,) = [one for one in runs.indexes if one.name == "turnpipe_one_running"]
    assert index.unique
    said_ = str(CreateIndex(index))
    assert "turnpipe_runs (session)" in said_
    assert {
        table for table in metadata.tables if not table.startswith("turnpipe_")
    } == set()
