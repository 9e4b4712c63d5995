"""A delivery log in memory: what its protocol says, and memory that can be lost."""

import asyncio
from dataclasses import dataclass, field
from time import time

from operators.errors import LeaseLost, StoreError
from pipeline.stores.chunks import following, gap, overlap
from pipeline.stores.contract import PAGE_BYTES, Appended, Chunk


@dataclass(slots=True)
class Kept:
    fence: int = 0
    until: float = 0.0
    lines: int = 0
    closed: bool = False
    chunks: list = field(default_factory=list)
    events: dict = field(default_factory=dict)
    waiters: set = field(default_factory=set)


class LogServer:
    """What many `MemoryLog`s share. `away` makes every call fail."""

    def __init__(self):
        self.runs = {}
        self.ahead = 0.0
        self.away = False
        self.calls = []

    def now(self):
        return time() + self.ahead

    def lose(self):
        for kept in self.runs.values():
            _wake(kept)
        self.runs.clear()


class MemoryLog:
    def __init__(self, server=None):
        self.server = server or LogServer()
        self.waits = set()
        self.closed = False

    async def close(self):
        self.closed = True
        for waiter in self.waits:
            if not waiter.done():
                waiter.set_result(None)

    async def _called(self, name, *args):
        self.server.calls.append((name, *args))
        await asyncio.sleep(0)
        if self.server.away:
            raise StoreError("the log is away")

    async def begin(self, run_id, fence, *, lease, lines):
        await self._called("begin", run_id, fence)
        kept = self.server.runs.setdefault(run_id, Kept())
        if kept.fence > fence:
            raise LeaseLost(run_id)
        if kept.lines <= lines:
            kept.lines = lines
            kept.chunks.clear()
            kept.events.clear()  # the store knows those that it has
        if kept.fence < fence:
            kept.closed = False
        kept.fence, kept.until = fence, self.server.now() + lease
        return kept.lines

    async def renew(self, fences, *, lease):
        await self._called("renew", dict(fences), lease)
        for run_id, fence in fences.items():
            kept = self.server.runs.get(run_id)
            if kept is not None and self._owns(kept, fence):
                kept.until = self.server.now() + lease

    def _owns(self, kept, fence):
        live = kept.until > self.server.now() and not kept.closed
        return kept.fence == fence and live

    async def append(self, batch):
        await self._called("append", len(batch))
        ends = {}
        for lines in batch:  # whole or not at all
            kept = self.server.runs.get(lines.run_id)
            if kept is not None and self._owns(kept, lines.fence):
                end = ends.get(lines.run_id, kept.lines)
                if lines.event_id is None:
                    gap(lines, end)
                    overlap(lines, end)
                    end = max(end, lines.first + lines.count - 1)
                elif lines.event_id not in kept.events:
                    end += 1
                ends[lines.run_id] = end
        return [self._append(lines) for lines in batch]

    def _append(self, lines):
        kept = self.server.runs.get(lines.run_id)
        if kept is None or not self._owns(kept, lines.fence):
            return None
        if lines.event_id is not None:
            if lines.event_id in kept.events:
                return Appended(kept.events[lines.event_id], accepted=False)
            kept.events[lines.event_id] = kept.lines + 1
        elif lines.first <= kept.lines:
            return Appended(lines.first, accepted=False)
        first = kept.lines + 1
        kept.chunks.append(Chunk(first, lines.count, lines.data, lines.event_id))
        kept.lines += lines.count
        _wake(kept)
        return Appended(first, accepted=True)

    async def read(self, run_id, *, after=0, limit_bytes=PAGE_BYTES):
        await self._called("read", run_id, after)
        kept = self.server.runs.get(run_id)
        if kept is None:
            return None
        if after >= kept.lines:
            return (), kept.lines
        if not kept.chunks or kept.chunks[0].first > after + 1:
            return None
        return following(kept.chunks, after, limit_bytes), kept.lines

    async def wait(self, run_id, *, after, timeout):  # noqa: ASYNC109 - the protocol's
        kept = self.server.runs.get(run_id)
        if kept is not None and (kept.lines > after or kept.closed):
            return
        waiter = asyncio.get_running_loop().create_future()
        self.waits.add(waiter)
        if kept is not None:
            kept.waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout)
        finally:
            self.waits.discard(waiter)
            if kept is not None:
                kept.waiters.discard(waiter)

    async def trim(self, run_id, *, upto):
        await self._called("trim", run_id, upto)
        kept = self.server.runs.get(run_id)
        while kept and kept.chunks:
            chunk = kept.chunks[0]
            if chunk.first + chunk.count - 1 > upto:
                break
            del kept.chunks[0]

    async def finish(self, run_id, fence):
        await self._called("finish", run_id, fence)
        kept = self.server.runs.get(run_id)
        if kept is not None and kept.fence == fence:
            kept.closed = True
            _wake(kept)


def _wake(kept):
    for waiter in kept.waiters:
        if not waiter.done():
            waiter.set_result(None)
