"""What the tests of durable runs and turns share: stores, dead workers, manifests."""

import asyncio
from time import time

from pipeline.stores import MemoryStore, NewRun, SqlStore

MANIFEST = {
    "project_id": "ws-1",
    "task": {"id": "t-1", "intent": "answer", "domain": "chat"},
    "input": {"question": "why?"},
}
OTHER = {**MANIFEST, "input": {"question": "how?"}}


def run(backend, test):
    """Run a test's coroutine function with its backend; no task may be left."""

    async def bounded():
        try:
            async with asyncio.timeout(30):
                await test()
                await asyncio.sleep(0)
                left = [
                    task.get_name()
                    for task in asyncio.all_tasks()
                    if task.get_name().startswith("turnpipe")
                    and "store" not in task.get_name()
                ]
                assert not left, f"left behind: {left}"
        finally:
            if backend is not None:
                await backend.close()

    asyncio.run(bounded())


class Backend:
    """Where a test's runs are kept: `open()` is another worker's store on the same data."""

    lease = 0.4

    def __init__(self, url):
        self.url = url
        self._opened = []

    def open(self):
        store = SqlStore(self.url)
        self._opened.append(store)
        return store

    async def lapse(self, run_id):
        """Wait until the run's lease is over: nobody may be renewing it."""
        store = self.open()
        async with asyncio.timeout(10):
            while (await store.status(run_id)).lapsed_s is None:
                await asyncio.sleep(0.02)

    async def close(self):
        for store in self._opened:
            await store.close()


class InMemory(Backend):
    """One store for all workers; its clock is moved."""

    lease = 30.0

    def __init__(self):
        super().__init__("memory")
        self.ahead = 0.0
        self._store = MemoryStore(clock=lambda: time() + self.ahead)

    def open(self):
        return self._store

    async def lapse(self, run_id):
        self.ahead += self.lease + 5


class Line:
    """A worker's line to its store: once cut, no call of the worker comes back."""

    def __init__(self, store):
        self.store = store
        self.cut = False
        self.calls = []

    def __getattr__(self, name):
        method = getattr(self.store, name)

        async def call(*args, **options):
            if self.cut:
                await asyncio.get_running_loop().create_future()
            self.calls.append(name)
            result = await method(*args, **options)
            if self.cut:
                await asyncio.get_running_loop().create_future()
            return result

        return call


class Moments:
    """A store that calls `reached` at its nth moment: as a call begins, or has ended."""

    def __init__(self, store, n):
        self.store = store
        self.left = n
        self.reached = None

    def __getattr__(self, name):
        method = getattr(self.store, name)

        async def call(*args, **options):
            self._pass()
            try:
                return await method(*args, **options)
            finally:
                self._pass()

        return call

    def _pass(self):
        if self.left == 0:
            self.reached()
        self.left -= 1


async def bury(*tasks):
    """Take a dead worker's tasks out of the loop: its line is cut, so it writes nothing."""
    own = [
        t
        for t in asyncio.all_tasks()
        if t is not asyncio.current_task() and t.get_name().startswith("turnpipe")
    ]
    left = {*tasks, *own}
    for _ in range(100):
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.01)
        left = {
            t
            for t in asyncio.all_tasks()
            if t is not asyncio.current_task()
            and (t in tasks or t.get_name().startswith("turnpipe"))
        } | {t for t in left if not t.done()}
        if not left:
            return


async def logged(backend, run_id, lines):
    """Wait until a run's log has so many lines."""
    store = backend.open()
    async with asyncio.timeout(5):
        while (await store.status(run_id)).lines < lines:
            await asyncio.sleep(0.005)


class Sudden(Exception):
    """What a task under test raises."""


async def take_away(backend, run_id):
    """Let another worker have the run, as if this one's lease had lapsed unnoticed."""
    store = backend.open()
    current = await store.status(run_id)
    await store.release(run_id, current.fence)
    new = NewRun(id=run_id, manifest_hash=current.manifest_hash)
    return await store.claim(new, worker="thief", lease=60)
