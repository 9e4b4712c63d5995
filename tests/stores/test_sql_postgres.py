"""What is PostgreSQL's own: locks, lost connections, notifications, who may do what."""

import asyncio
import json
import random
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import make_url, text

from operators.errors import LeaseLost, StoreBusy, StoreError
from pipeline.stores import Lines, NewRun, SqlStore
from pipeline.stores.sql_waiting import _CHANNEL
from pipeline.testing.conformance import check

from . import places
from .postgres_line import line

asyncpg = pytest.importorskip("asyncpg")


@pytest.fixture
def url(postgres):
    return postgres.fresh()


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


@asynccontextmanager
async def connected(url):
    parts = make_url(url)
    connection = await asyncpg.connect(
        user=parts.username, database=parts.database, host=parts.query["host"]
    )
    try:
        yield connection
    finally:
        await connection.close()


async def claimed(store, run_id="r", lease=100.0, worker="w"):
    new = NewRun(id=run_id, manifest_hash="h")
    return (await store.claim(new, worker=worker, lease=lease)).fence


def said(fence, first, *texts, run_id="r"):
    data = b"".join([one.encode() + b"\n" for one in texts])
    return Lines(run_id, fence, first, len(texts), data)


async def whole(store, run_id="r"):
    page = await store.read(run_id)
    return b"".join([chunk.data for chunk in page.chunks])


async def until(seen):
    while not seen():
        await asyncio.sleep(0.005)


async def shown(store, setting):
    def work(connection):
        return connection.execute(text(f"SHOW {setting}")).scalar()

    return await store._db.look(work)


# -- answers that are lost

CALLS = {
    "claim": lambda store, _: claimed(store, "new"),
    "append": lambda store, fence: store.append([said(fence, 2, "two")]),
    "append_event": lambda store, fence: store.append(
        [Lines("r", fence, 0, 1, b"two\n", "e")]
    ),
    "begin_step": lambda store, fence: store.begin_step(
        "r", fence, 1, intent="i", kind="k"
    ),
    "end_step": lambda store, fence: store.end_step("r", fence, 0, result=1),
    "emit": lambda store, fence: store.emit("r", "k", 1, fence=fence),
    "set_handle": lambda store, fence: store.set_handle("r", fence, {"x": 1}),
    "request_cancel": lambda store, fence: store.request_cancel("r", "stop"),
    "renew": lambda store, fence: store.renew("w", lease=100),
    "settle": lambda store, fence: store.settle(
        "r", fence, status="completed", outcome={"x": 1}, lines=said(fence, 2, "two")
    ),
}


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_whose_commit_was_cut_may_be_made_again(url, name, cut):
    async def work():
        async with (
            opened(url) as other,
            line(url) as (there, through),
            opened(through) as store,
        ):
            fence = await claimed(store)
            await store.append([said(fence, 1, "one")])
            await store.begin_step("r", fence, 0, intent="i", kind="k")
            there.cut = cut
            with pytest.raises(StoreError):
                await CALLS[name](store, fence)
            assert there.cuts == 1
            again = await CALLS[name](store, fence)
            if name == "claim":
                assert again == (2 if cut == "after" else 1)
            if name.startswith("append"):
                assert (again[0].line, again[0].accepted) == (2, cut == "before")
            if name == "emit":
                assert again.accepted is (cut == "before")
            grew = name.startswith("append") or name == "settle"
            assert await whole(other) == (b"one\ntwo\n" if grew else b"one\n")
            status = (await other.status("r")).status
            assert status == ("completed" if name == "settle" else "running")

    run(work)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_cut_before_its_commit_is_made_again_by_itself(url, name):
    async def work():
        async with line(url) as (there, through), opened(through) as store:
            fence = await claimed(store)
            await store.append([said(fence, 1, "one")])
            await store.begin_step("r", fence, 0, intent="i", kind="k")
            there.cut = "any"
            await CALLS[name](store, fence)
            assert there.cuts == 1

    run(work)


def test_a_server_that_falls_silent_is_given_up(url, monkeypatch):
    monkeypatch.setattr("pipeline.stores.sql_server._ANSWER_S", 0.3)

    async def work():
        async with (
            opened(url) as other,
            line(url) as (there, through),
            opened(through) as store,
        ):
            fence = await claimed(store)
            there.cut = "silent"
            with pytest.raises(StoreBusy, match="does not answer"):
                await store.append([said(fence, 1, "one")])
            assert await whole(other) == b""
            there.silent.set()  # the server ends what waits for too long
            await store.append([said(fence, 1, "one")])
            assert await whole(other) == b"one\n"

    run(work)


def test_connections_that_the_server_ended_are_not_noticed(url):
    async def work():
        async with opened(url) as store, connected(url) as admin:
            fence = await claimed(store)
            await asyncio.gather(*[store.status("r") for _ in range(10)])
            for k in range(1, 5):
                ended = await admin.fetch(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                assert ended
                await store.append([said(fence, k, f"{k}")])
                await asyncio.gather(*[store.status("r") for _ in range(10)])
            assert await whole(store) == b"1\n2\n3\n4\n"

    run(work)


def test_calls_that_are_cancelled_leave_no_transaction_open(url):
    async def work():
        async with opened(url, pool_size=2) as store, connected(url) as admin:
            fence = await claimed(store)
            for k in range(60):
                calls = [
                    asyncio.ensure_future(call)
                    for call in (
                        store.append([said(fence, 1, "one")]),
                        store.read("r"),
                        store.status("r"),
                        store.renew("w", lease=100),
                    )
                ]
                for _ in range(k):
                    await asyncio.sleep(0)
                for call in calls:
                    call.cancel()
                await asyncio.wait(calls)
            assert await whole(store) == b"one\n"
            states = await admin.fetch(
                "SELECT state FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert {row["state"] for row in states} == {"idle"}

    run(work)


# -- locks


def test_who_waited_for_a_lock_until_its_lease_was_over_writes_nothing(url):
    async def work():
        async with opened(url) as store, connected(url) as admin:
            fence = await claimed(store, lease=0.4)
            holding = admin.transaction()
            await holding.start()
            await admin.execute("SELECT 1 FROM turnpipe_runs WHERE id = 'r' FOR UPDATE")
            calls = [
                asyncio.ensure_future(call)
                for call in (
                    store.append([said(fence, 1, "late")]),
                    store.set_handle("r", fence, {"late": 1}),
                    store.renew("w", lease=100),
                )
            ]
            while await admin.fetchval(
                "SELECT lease_until > extract(epoch FROM clock_timestamp())"
                " FROM turnpipe_runs"
            ):
                await asyncio.sleep(0.01)
            assert not any(call.done() for call in calls)
            await holding.rollback()
            assert await calls[0] == [None]
            with pytest.raises(LeaseLost):
                await calls[1]
            assert await calls[2] == {}
            assert (await store.status("r")).lapsed_s is not None

    run(work)


def test_batches_and_renewals_in_any_order_never_deadlock(url):
    async def work():
        async with opened(url) as one, opened(url) as two, connected(url) as admin:
            ids = [f"r{k}" for k in range(30)]
            fences = {run_id: await claimed(one, run_id) for run_id in ids}

            async def append(store, name):
                for k in range(25):
                    chosen = random.sample(ids, 20)
                    event = f"{name}{k}"
                    await store.append(
                        [Lines(i, fences[i], 0, 1, b"x\n", event) for i in chosen]
                    )

            async def renew(store):
                for _ in range(40):
                    await store.renew("w", lease=100)

            await asyncio.gather(
                append(one, "a"), append(two, "b"), renew(one), renew(two)
            )
        async with connected(url) as admin:
            found = await admin.fetchval(
                "SELECT deadlocks FROM pg_stat_database"
                " WHERE datname = current_database()"
            )
            assert found == 0

    run(work)


def test_a_worker_that_stops_in_a_transaction_does_not_hold_its_run(url):
    async def work():
        async with opened(url) as store:
            assert await shown(store, "idle_in_transaction_session_timeout") == "5s"

    run(work)


def test_what_is_acknowledged_is_on_the_disk_whatever_the_server_s_default(url):
    async def work():
        async with connected(url) as admin:
            name = make_url(url).database
            await admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        async with opened(url) as store:
            assert await shown(store, "synchronous_commit") == "on"

    run(work)


def test_a_page_is_of_one_moment(url):
    async def work():
        async with opened(url) as store, connected(url) as admin:
            fence = await claimed(store)
            await store.append([said(fence, 1, "1", "2")])
            await store.settle("r", fence, status="completed", outcome={})
            looked = store._looked
            pages = []

            def slow(connection, run_id):
                row = looked(connection, run_id)
                connection.execute(text("SELECT pg_advisory_xact_lock(7)"))
                return row

            store._looked = slow
            await admin.execute("SELECT pg_advisory_lock(7)")
            reading = asyncio.ensure_future(store.read("r"))
            while not await admin.fetchval(
                "SELECT count(*) FROM pg_locks WHERE NOT granted"
            ):
                await asyncio.sleep(0.01)
            assert await store.forget(older_than=0) == 1
            await admin.execute("SELECT pg_advisory_unlock(7)")
            pages.append(await reading)
            assert sum(chunk.count for chunk in pages[0].chunks) == pages[0].lines == 2

    run(work)


# -- hearing of others


def test_a_wait_hears_of_another_store_s_lines_and_of_the_end(url):
    async def work():
        async with opened(url) as one, opened(url) as two:
            fence = await claimed(one)
            for k in range(20):
                waiting = asyncio.ensure_future(two.wait("r", after=k, timeout=50))
                await asyncio.sleep(0)
                if k < 19:
                    await one.append([said(fence, k + 1, "x")])
                else:
                    await one.settle("r", fence, status="completed", outcome={})
                await asyncio.wait_for(waiting, 5)

    run(work)


def test_one_notification_a_transaction_names_its_runs(url):
    async def work():
        async with opened(url) as store, connected(url) as admin:
            heard = []
            await admin.add_listener(_CHANNEL, lambda *found: heard.append(found[3]))
            ids = ["a", "line\nbreak", "q'\"", "emoji \N{PARTY POPPER}"]
            fences = {i: await claimed(store, i) for i in ids}
            batch = [said(f, 1, "x", run_id=i) for i, f in fences.items()]
            await store.append(batch)
            await until(lambda: heard)
            assert [json.loads(one) for one in heard] == [sorted(ids)]
            heard.clear()
            await store.append(batch)
            await admin.execute("SELECT 1")
            assert heard == [], "nothing is new"

    run(work)


def test_a_batch_of_more_runs_than_a_notification_names_wakes_all(url):
    async def work():
        async with opened(url) as one, opened(url) as two:
            ids = [f"{k} {'x' * 400}" for k in range(60)]
            fences = {i: await claimed(one, i) for i in ids}
            waits = [
                asyncio.ensure_future(two.wait(i, after=0, timeout=50)) for i in ids
            ]
            await until(lambda: len(two._waiting._tickets) == len(ids))
            await one.append([said(f, 1, "x", run_id=i) for i, f in fences.items()])
            await asyncio.wait_for(asyncio.gather(*waits), 5)

    run(work)


def test_listening_begins_anew_where_its_connection_ends(url):
    async def work():
        async with opened(url) as one, opened(url) as two, connected(url) as admin:
            fence = await claimed(one)
            for k in range(3):
                waiting = asyncio.ensure_future(two.wait("r", after=k, timeout=50))
                while not (
                    found := await admin.fetch(
                        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
                        " AND datname = current_database()"
                    )
                ):
                    await asyncio.sleep(0.01)
                await admin.execute(f"SELECT pg_terminate_backend({found[0]['pid']})")
                await one.append([said(fence, k + 1, "x")])
                await asyncio.wait_for(waiting, 5)

    run(work)


def test_a_pooler_that_keeps_notifications_back_only_delays_a_wait(url, monkeypatch):
    async def work():
        async with opened(url) as one, opened(url) as two:
            fence = await claimed(one)
            monkeypatch.setattr(two._waiting, "_heard", lambda payload: None)
            waiting = asyncio.ensure_future(two.wait("r", after=0, timeout=50))
            await until(lambda: two._waiting._tickets)
            await one.append([said(fence, 1, "x")])
            await asyncio.wait_for(waiting, 10)

    run(work)


def test_a_pool_of_one_connection_can_wait_and_write(url):
    async def work():
        async with opened(url, pool_size=1) as store, connected(url) as admin:
            fence = await claimed(store)
            waiting = asyncio.ensure_future(store.wait("r", after=0, timeout=50))
            while not await admin.fetch(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
                " AND datname = current_database()"
            ):
                await asyncio.sleep(0.01)
            await store.append([said(fence, 1, "x")])
            await asyncio.wait_for(waiting, 5)

    run(work)


# -- who may do what


def test_a_user_who_may_not_make_tables_uses_those_that_are_there(url):
    async def work():
        async with opened(url), connected(url) as admin:
            await admin.execute(
                "REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
                "DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN;"
                "GRANT SELECT, INSERT, UPDATE, DELETE"
                " ON ALL TABLES IN SCHEMA public TO plain"
            )
        async with opened(url.replace("postgres@", "plain@")) as store:
            fence = await claimed(store)
            assert (await store.append([said(fence, 1, "x")]))[0].accepted
        async with connected(url) as admin:
            await admin.execute("DROP OWNED BY plain; DROP ROLE plain")

    run(work)


def test_a_user_who_may_not_make_tables_is_told_so(url):
    async def work():
        async with connected(url) as admin:
            await admin.execute(
                "REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
                "DROP ROLE IF EXISTS nobody; CREATE ROLE nobody LOGIN"
            )
        store = SqlStore(url.replace("postgres@", "nobody@"))
        with pytest.raises(StoreError, match=r"permission denied.*grant"):
            await store.orphans()
        await store.close()
        async with connected(url) as admin:
            await admin.execute("DROP ROLE nobody")

    run(work)


def test_errors_of_connecting_say_what_and_never_the_password(url):
    async def work():
        async with connected(url) as admin:
            await admin.execute(
                "DROP ROLE IF EXISTS narrow; CREATE ROLE narrow LOGIN CONNECTION LIMIT 0"
            )
        name = make_url(url).database
        for changed, kind, what in (
            (url.replace(name, "nowhere"), StoreError, "make the database first"),
            (url.replace("postgres@", "who:secret@"), StoreError, "log in"),
            (url.replace("postgres@", "narrow:secret@"), StoreBusy, "too many conn"),
            (url.replace("host=", "host=/nowhere"), StoreError, "cannot be reached"),
            ("postgresql://u:secret@127.0.0.1:1/x", StoreError, "cannot be reached"),
        ):
            store = SqlStore(changed)
            with pytest.raises(kind, match=what) as caught:
                await store.orphans()
            assert type(caught.value) is kind
            error = caught.value
            while error is not None:
                assert "secret" not in f"{error!r} {error}"
                error = error.__cause__ or error.__context__
            await store.close()
        async with connected(url) as admin:
            await admin.execute("DROP ROLE narrow")

    run(work)


def test_what_a_message_says_has_no_lines_in_it(url):
    async def work():
        async with opened(url) as store, connected(url) as admin:
            fence = await claimed(store)
            await admin.execute("DROP TABLE turnpipe_log")
            with pytest.raises(StoreError, match="does not exist") as caught:
                await store.append([said(fence, 1, "private words")])
            assert "private" not in f"{caught.value} {caught.value.__cause__}"

    run(work)


def test_text_that_it_cannot_keep_is_refused(url):
    async def work():
        async with opened(url) as store:
            for run_id in ("nul\0", "lone \ud800"):
                with pytest.raises(ValueError, match=r"keeps no such text"):
                    await claimed(store, run_id)
            fence = await claimed(store)
            await store.request_cancel("r", "nul\0 and \ud800")
            assert (await store.status("r")).cancel == "nul\ufffd and ?"
            await store.set_handle("r", fence, {"x": "\0\ud800"})
            assert (await store.status("r")).handle == {"x": "\0\ud800"}

    run(work)


@pytest.mark.parametrize(
    "claim",
    [
        "lines_are_numbered_from_1_and_read_from_every_cursor",
        "racing_claims_have_one_winner",
        "settling_ends_a_run_with_its_last_lines_at_once",
    ],
)
def test_poolers_without_prepared_statements_are_served(url, claim):
    check(claim, places.sql(url, prepared=False))


def test_a_pooler_is_left_no_statement(url):
    async def work():
        async with opened(url, prepared=False, pool_size=1) as store:
            fence = await claimed(store)
            for k in range(1, 4):
                await store.append([said(fence, k, "x")])

            def left(connection):
                asked = "SELECT name FROM pg_prepared_statements"
                return connection.execute(text(asked)).scalars().all()

            assert len(await store._db.look(left)) <= 1, "but the one that asks"

    run(work)
