"""SQLite on a disk that fails: at every write and every sync, for once or for good."""

import asyncio
import sqlite3
import time

import pytest

import operators as ops
from operators.errors import DurableError, StoreBusy, StoreError, StoreFull
from operators.event import delta, text_part
from pipeline import Pipeline, TurnIdentity
from pipeline.durable import TurnHub
from pipeline.durable.records import events_of
from pipeline.stores import Lines, NewRun, SqlStore

from .failing_disk import FULL, failing_disk, library

pytestmark = pytest.mark.skipif(
    library() is None, reason="this Python has its SQLite inside: no VFS fits under it"
)

IDENTITY = TurnIdentity(session_id="s", turn_index=0)
ID = "turn"
WORDS = ("one ", "two ", "three ")
TERMINALS = {"session.run.completed", "session.run.failed", "session.run.cancelled"}
LEASE_S = 0.4


class Turn:
    """One turn on a disk that may fail, and what was seen of it."""

    def __init__(self, path):
        self.url = f"sqlite:///{path}"
        self.runs = 0
        self.saved = []
        self.shown = []

    async def produce(self):
        self.runs += 1
        part = text_part("t")
        for word in WORDS:
            await asyncio.sleep(0.006)  # a group of its own for each
            yield delta(part, word)

    def chat(self):
        return (
            Pipeline(self.produce)
            | ops.lifecycle()
            | ops.accumulate()
            | ops.persist(self.saved.append, partial=True)
        )

    async def run(self, disk, nth, **how):
        """Run it on a disk that fails; return the error its reader was given, if any."""
        store = SqlStore(self.url)
        await store.orphans()  # opens it: the turn is what shall meet the fault
        async with TurnHub(store, lease=LEASE_S, drain_timeout=0.1) as hub:
            disk.fail(nth, **how)
            try:
                turn = await hub.start(
                    self.chat(), IDENTITY, execution_id=ID, log=lambda *_: None
                )
                async for event in turn.events():
                    self.shown.append(event)
                await turn.outcome()
            except DurableError as exc:
                return exc
            finally:
                disk.heal()
        return None

    async def recovered(self):
        """Wait for the lease, take the turn over, and read it whole."""
        async with TurnHub(SqlStore(self.url), lease=LEASE_S) as hub:
            gives_up = time.monotonic() + 10
            while time.monotonic() < gives_up:
                try:
                    status = await hub.status(ID)
                except DurableError:  # it was never begun
                    return None
                if status.status in ("completed", "failed"):
                    break
                await hub.recover({"produce": self.chat()})
                await asyncio.sleep(0.02)
            return [event async for event in hub.attach(ID).events()]

    def check(self, events):
        assert events[: len(self.shown)] == self.shown, "what was shown is lost"
        kinds = [event["type"] for event in events]
        assert kinds[0] == "session.run.started"
        assert [k for k in kinds if k in TERMINALS] == kinds[-1:]
        assert kinds[-1] == "session.run.completed"
        said = "".join(event["data"]["delta"] for event in events[1:-1])
        assert said == "".join(WORDS)
        final = {(r.status, r.text) for r in self.saved if r.status == "completed"}
        assert final == {("completed", said)}


def alone(test):
    async def bounded():
        async with asyncio.timeout(60):
            return await test

    return asyncio.run(bounded())


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("kinds", [("write",), ("sync",)], ids=["write", "sync"])
def test_every_nth_failure_breaks_no_promise(tmp_path, monkeypatch, kinds, sticky):
    monkeypatch.setattr("pipeline.durable.hub.GRACE_S", 0.1)
    with failing_disk() as disk:
        nth = 0
        while True:
            nth += 1 + (kinds == ("write",)) * sticky * 5
            turn = Turn(tmp_path / f"turns-{nth}.db")
            error = alone(turn.run(disk, nth, kinds=kinds, sticky=sticky))
            events = alone(turn.recovered())
            if error is not None:
                assert isinstance(error, StoreError | DurableError)
                assert "disk I/O error" in str(error) or error.code == "lease_lost"
            if events is not None:
                turn.check(events)
            if not disk.failed:
                assert error is None
                break
            if not sticky:  # one failure is mended by asking again
                assert error is None
                assert turn.runs == 1
        assert nth > 5, "the turn writes and syncs more often than that"


def test_a_full_disk_says_so_and_loses_nothing(tmp_path):
    with failing_disk() as disk:
        turn = Turn(tmp_path / "turns.db")
        failing = turn.run(disk, 24, kinds=("write",), code=FULL, sticky=True)
        error = alone(failing)
        assert isinstance(error, StoreFull | DurableError)
        turn.check(alone(turn.recovered()))


def test_a_full_disk_is_told_from_other_failures(tmp_path):
    async def test(disk):
        store = SqlStore(f"sqlite:///{tmp_path}/turns.db")
        claim = await store.claim(
            NewRun(id="r", manifest_hash="h"), worker="w", lease=30
        )
        disk.fail(1, kinds=("write",), code=FULL)
        lines = [Lines("r", claim.fence, 1, 1, b"{}\n")]
        with pytest.raises(StoreFull, match=r"turns\.db: no room is left"):
            await store.append(lines)
        disk.heal()
        assert (await store.append(lines))[0].line == 1
        await store.close()

    with failing_disk() as disk:
        alone(test(disk))


def test_a_sync_that_failed_may_have_happened_and_is_not_doubled(tmp_path):
    async def test(disk):
        store = SqlStore(f"sqlite:///{tmp_path}/turns.db")
        claim = await store.claim(
            NewRun(id="r", manifest_hash="h"), worker="w", lease=30
        )
        for first in range(1, 40, 2):
            lines = [Lines("r", claim.fence, first, 2, b"{}\n{}\n")]
            disk.fail(1, kinds=("sync",))
            with pytest.raises(StoreError, match="disk I/O error"):
                await store.append(lines)
            disk.heal()
            assert (await store.append(lines))[0].line == first
        page = await store.read("r")
        assert page.lines == 40
        assert len(events_of(page.chunks)) == 40
        await store.close()

    with failing_disk() as disk:
        alone(test(disk))


def test_a_locked_database_is_waited_for_and_then_told(tmp_path):
    async def test():
        path = tmp_path / "turns.db"
        turn = Turn(path)
        store = SqlStore(turn.url)
        await store.orphans()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.5, other.execute, "ROLLBACK")
        async with TurnHub(store, lease=5) as hub:
            begun = await hub.start(turn.chat(), IDENTITY, execution_id=ID)
            turn.shown = [event async for event in begun.events()]
        turn.check(await turn.recovered())
        other.close()

    alone(test())


def test_a_database_that_stays_locked_is_busy(tmp_path, monkeypatch):
    async def test():
        path = tmp_path / "turns.db"
        store = SqlStore(f"sqlite:///{path}")
        await store.orphans()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        new = NewRun(id="r", manifest_hash="h")
        with pytest.raises(StoreBusy, match="is busy"):
            await store.claim(new, worker="w", lease=1)
        other.execute("ROLLBACK")
        assert (await store.claim(new, worker="w", lease=1)).mode == "created"
        other.close()
        await store.close()

    monkeypatch.setattr("pipeline.stores.sql_engine._BUSY_MS", 100)
    alone(test())
