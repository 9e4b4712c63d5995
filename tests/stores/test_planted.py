"""The suite finds a store that breaks its contract: ten of them, each by one bug."""

import asyncio
from dataclasses import replace

import pytest

from operators.errors import TurnActive
from pipeline.stores import MemoryStore
from pipeline.testing.conformance import CLAIMS, LONG_S, Place, check, drive


class ForgetsTheLease(MemoryStore):
    def _owns(self, kept, fence):
        return kept.run.fence == fence


class ForgetsTheFence(MemoryStore):
    def _owns(self, kept, fence):
        return kept.run.owner is not None and kept.lease_until > self._clock()


class KeepsItsFence(MemoryStore):
    async def claim(self, new, **options):
        got = await super().claim(new, **options)
        if got.mode == "taken":
            kept = self._runs[new.id]
            kept.run = replace(kept.run, fence=got.fence - 1)
            got = replace(got, fence=got.fence - 1)
        return got


class DoublesEvents(MemoryStore):
    def _append(self, kept, lines):
        kept.event_lines.pop(lines.event_id, None)
        return super()._append(kept, lines)


class LosesTheLastLines(MemoryStore):
    async def settle(self, run_id, fence, *, lines=None, **ending):
        await super().settle(run_id, fence, **ending)


class SettlesTwice(MemoryStore):
    async def settle(self, run_id, fence, **ending):
        if run_id in self._runs:
            self._runs[run_id].settled_by = 0
        await super().settle(run_id, fence, **ending)


class ReadsFromTheChunk(MemoryStore):
    async def read(self, run_id, *, after=0, **limits):
        page = await super().read(run_id, after=after, **limits)
        for chunk in self._runs[run_id].log:
            if chunk.first <= after < chunk.first + chunk.count - 1:
                return replace(page, chunks=(chunk, *page.chunks[1:]))
        return page


class RunsSessionsTogether(MemoryStore):
    def _check_session(self, session, now):
        return None


class LetsTheLastSignalWin(MemoryStore):
    async def emit(self, run_id, key, payload, *, fence=None):
        kept = self._runs.get(run_id)
        if kept is not None:
            kept.signals.pop(key, None)
        return await super().emit(run_id, key, payload, fence=fence)


class NeverWakes(MemoryStore):
    async def wait(self, run_id, *, after, timeout):  # noqa: ASYNC109 - the contract's
        kept = self._runs[run_id]
        if kept.run.lines <= after and not kept.run.closed:
            await asyncio.sleep(timeout)


class ForgetsWhatRuns(MemoryStore):
    async def forget(self, *, older_than, limit=1000):
        for kept in self._runs.values():
            kept.log.clear()
        return await super().forget(older_than=older_than, limit=limit)


class HidesThatItLapsed(MemoryStore):
    async def claim(self, new, **options):
        try:
            got = await super().claim(new, **options)
        except TurnActive as exc:
            exc.lapsed = False
            raise
        return got


BROKEN = [
    ForgetsTheLease,
    ForgetsTheFence,
    KeepsItsFence,
    DoublesEvents,
    LosesTheLastLines,
    SettlesTwice,
    ReadsFromTheChunk,
    RunsSessionsTogether,
    LetsTheLastSignalWin,
    NeverWakes,
    ForgetsWhatRuns,
    HidesThatItLapsed,
]


def place(kind):
    ahead = 0.0
    store = kind(clock=lambda: 1_000.0 + ahead)

    async def lapse():
        nonlocal ahead
        ahead += LONG_S + 1

    return Place(lambda: store, lapse)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_store_is_found(kind):
    found = []
    for claim in CLAIMS:
        try:
            check(claim, place(kind))
        except Exception:  # an answer that should have come, or one that should not
            found.append(claim)
        if found:
            break
    assert found, f"no claim notices {kind.__name__}"


@pytest.mark.parametrize(
    "kind", [k for k in BROKEN if k not in (NeverWakes, HidesThatItLapsed)]
)
def test_random_calls_find_it_too(kind):
    async def run():
        await drive(place(kind), steps=20_000, seed=1)

    with pytest.raises(AssertionError, match="seed 1"):
        asyncio.run(run())


def test_the_store_that_is_whole_passes_where_they_do_not():
    asyncio.run(drive(place(MemoryStore), steps=20_000, seed=1))
