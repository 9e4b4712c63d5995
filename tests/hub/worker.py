"""What the tests of hubs share: workers that die, a clock that is moved, turns."""

import asyncio
import json
from time import time

from sqlalchemy import update

import operators as ops
from pipeline import Pipeline, TurnIdentity
from pipeline.durable import TurnHub
from pipeline.stores import MemoryStore, RedisLog, SqlStore
from pipeline.stores.sql_schema import runs
from tests.stores.places import back
from tests.stores.valkey_server import fresh_prefix

IDENTITY = TurnIdentity(tenant_id="ws-1", session_id="s-1", user_id="u-1", turn_index=0)
EXECUTION_ID = "ws-1:s-1:0"
PART = {"type": "text", "id": "p1"}
TERMINALS = {"session.run.completed", "session.run.failed", "session.run.cancelled"}
LEASE_S = 30.0


def delta(text):
    return {"type": "message.part.updated", "data": {"part": PART, "delta": text}}


class MemoryPlace:
    """Where runs are kept, in this process; its clock is moved by hand."""

    def __init__(self):
        self.ahead = 0.0
        self._store = MemoryStore(clock=lambda: time() + self.ahead)

    def store(self):
        return self._store

    async def lapse(self, ago=1.0):
        """Let every lease have ended so many seconds ago, about."""
        self.ahead += LEASE_S + ago

    async def close(self):
        await self._store.close()


class SqlPlace:
    """Where runs are kept: a database, with a store object for each who asks."""

    def __init__(self, url):
        self.url = url
        self._made = []

    def store(self):
        made = SqlStore(self.url)
        self._made.append(made)
        return made

    async def lapse(self, ago=1.0):
        past = update(runs).values(lease_until=runs.c.lease_until - LEASE_S - ago)
        await self.store()._db.write(lambda connection: connection.execute(past))

    async def close(self):
        for store in self._made:
            await store.close()


class LogPlace(SqlPlace):
    """The same, with a delivery log beside it."""

    def __init__(self, url, valkey):
        super().__init__(url)
        self.valkey = valkey
        self.prefix = fresh_prefix()

    def store(self):
        log = RedisLog(self.valkey.url, prefix=self.prefix)
        made = SqlStore(self.url, log=log, archive_every=0.2)
        self._made.append(made)
        return made

    async def lapse(self, ago=1.0):
        await super().lapse(ago)
        back(self.valkey, self.prefix, LEASE_S + ago)


class Line:
    """A worker's line to its store: once cut, no call of the worker comes back."""

    def __init__(self, store):
        self.store = store
        self.cut = False

    def __getattr__(self, name):
        method = getattr(self.store, name)

        async def call(*args, **options):
            if self.cut:
                await asyncio.get_running_loop().create_future()
            result = await method(*args, **options)
            if self.cut:
                await asyncio.get_running_loop().create_future()
            return result

        return call

    async def close(self):
        await self.store.close()


class Worker:
    """A hub that can be killed: from then on it reaches nothing any more."""

    def __init__(self, store, **options):
        self.line = Line(store)
        self.hub = TurnHub(self.line, lease=LEASE_S, drain_timeout=0.2, **options)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        if not self.line.cut:
            await self.hub.close()
        else:
            await self.bury()

    def kill(self):
        self.line.cut = True

    async def bury(self):
        """Take the dead worker's tasks out of the test's loop."""
        try:
            await self._bury()
        finally:
            await self.line.store.close()

    async def _bury(self):
        mine = [t for t in asyncio.all_tasks() if t.get_name().startswith("turnpipe")]
        hub = self.hub
        own = {c.task for c in hub._carriers.values()} | set(hub._tasks)
        own |= {t for t in (hub._beating, hub._journal._task) if t is not None}
        for task in [t for t in mine if t in own]:
            task.cancel()
        for _ in range(200):
            left = [t for t in own if not t.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            settlers = [c.run._settler for c in hub._carriers.values()]
            for task in settlers:
                if task is not None:
                    task.cancel()
            await asyncio.sleep(0.01)


class Gate:
    """A source that gives one event each time it is let; counts how often it is run."""

    def __init__(self, *events, error=None):
        self.events = events
        self.error = error
        self.runs = 0
        self.closed = 0
        self.steps = asyncio.Semaphore(0)

    def let(self, count=1):
        for _ in range(count):
            self.steps.release()

    def all(self):
        self.let(len(self.events) + 1)

    async def __call__(self):
        self.runs += 1
        try:
            for event in self.events:
                await self.steps.acquire()
                yield event
            await self.steps.acquire()
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


class Saved(list):
    """What a sink stored; by execution id, as an upsert does."""

    async def __call__(self, record):
        await asyncio.sleep(0)
        self.append(record)

    @property
    def texts(self):
        return [record.text for record in self]


def chat(source, save=None, *, partial=False, more=()):
    made = Pipeline(source) | ops.lifecycle() | ops.accumulate()
    for operator in more:
        made |= operator
    return made | ops.persist(save if save is not None else Saved(), partial=partial)


async def read_all(turn, after=0):
    return [event async for event in turn.events(after=after)]


async def read_bytes(turn, after=0):
    return b"".join([chunk async for chunk in turn.body(after=after)])


def kinds(events):
    return [event["type"] for event in events]


def lines(body):
    return [json.loads(line) for line in body.splitlines()]


def text_of(events):
    """Gather the text as a client does: deltas add, a text without delta replaces."""
    texts = {}
    for event in events:
        if event["type"] != "message.part.updated":
            continue
        data = event["data"]
        part = data["part"]
        if data.get("delta"):
            texts[part["id"]] = texts.get(part["id"], "") + data["delta"]
        elif part["type"] in ("text", "reasoning"):
            texts[part["id"]] = part["text"]
    return "".join(texts.values())


async def until(condition, limit_s=5.0):
    """Wait for what another task is about to make true."""
    async with asyncio.timeout(limit_s):
        while not (
            value := await condition()
            if asyncio.iscoroutinefunction(condition)
            else condition()
        ):
            await asyncio.sleep(0.002)
    return value


async def logged(store, count, execution_id=EXECUTION_ID):
    """Wait until the log has so many lines."""

    async def there():
        return (await store.status(execution_id)).lines >= count

    await until(there)
