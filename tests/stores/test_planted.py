"""The suite finds a store that breaks its contract: each of these by one bug."""

import asyncio
from dataclasses import replace

import pytest

from operators.errors import LeaseHeld, LeaseLost, TurnActive
from pipeline.stores import MemoryStore
from pipeline.testing.conformance import CLAIMS, check, drive, explore, storm

from . import places


class ForgetsTheLease(MemoryStore):
    def _owns(self, kept, fence):
        return kept.run.fence == fence


class ForgetsTheFence(MemoryStore):
    def _owns(self, kept, fence):
        return kept.run.owner is not None and kept.lease_until > self._clock()


class ForgetsTheFenceInSettle(MemoryStore):
    async def settle(self, run_id, fence, *, lines=None, **ending):
        kept = self._runs.get(run_id)
        if kept is not None and kept.run.owner is not None and not kept.run.closed:
            fence = kept.run.fence
            lines = lines and replace(lines, fence=fence)
        await super().settle(run_id, fence, lines=lines, **ending)


class KeepsItsFence(MemoryStore):
    async def claim(self, new, **options):
        got = await super().claim(new, **options)
        if got.mode == "taken":
            kept = self._runs[new.id]
            kept.run = replace(kept.run, fence=got.fence - 1)
            got = replace(got, fence=got.fence - 1)
        return got


class TakesALiveRun(MemoryStore):
    async def claim(self, new, **options):
        try:
            return await super().claim(new, **options)
        except LeaseHeld:
            kept = self._runs[new.id]
            kept.lease_until = self._clock()
            return await super().claim(new, **options)


class ReusesLineNumbers(MemoryStore):
    def _append(self, kept, lines):
        answer = super()._append(kept, lines)
        if answer is not None and answer.accepted and lines.count == 3:
            kept.run = replace(kept.run, lines=kept.run.lines - 1)
        return answer


class DoublesEvents(MemoryStore):
    def _append(self, kept, lines):
        kept.event_lines.pop(lines.event_id, None)
        return super()._append(kept, lines)


class LosesTheSecondEvent(MemoryStore):
    async def append(self, batch):
        answers = list(await super().append(batch))
        seen = set()
        for lines, answer in zip(batch, answers, strict=True):
            if lines.event_id is not None and answer is not None and answer.accepted:
                if lines.run_id in seen:
                    self._runs[lines.run_id].event_lines.pop(lines.event_id)
                seen.add(lines.run_id)
        return answers


class WritesHalfOfABadBatch(MemoryStore):
    def _check(self, batch):
        return None


class LosesTheLastLines(MemoryStore):
    async def settle(self, run_id, fence, *, lines=None, **ending):
        await super().settle(run_id, fence, **ending)


class SettlesTwice(MemoryStore):
    async def settle(self, run_id, fence, **ending):
        if run_id in self._runs:
            self._runs[run_id].settled_by = 0
        await super().settle(run_id, fence, **ending)


class EndsAsAnother(MemoryStore):
    async def settle(self, run_id, fence, **ending):
        try:
            await super().settle(run_id, fence, **ending)
        except LeaseLost:
            kept = self._runs[run_id]
            if kept.settled_by != fence:
                raise
            kept.run = replace(kept.run, status=ending["status"])


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


class RenewsWhatIsOver(MemoryStore):
    async def renew(self, worker, *, lease):
        for kept in self._runs.values():
            if kept.run.owner == worker:
                kept.lease_until = self._clock() + 1
        return await super().renew(worker, lease=lease)


class CancelsForTheLast(MemoryStore):
    async def request_cancel(self, run_id, reason):
        kept = self._known(run_id)
        kept.run = replace(kept.run, cancel=None)
        return await super().request_cancel(run_id, reason)


class ForgetsWhatRuns(MemoryStore):
    async def forget(self, *, older_than, limit=1000):
        for kept in self._runs.values():
            kept.log.clear()
        return await super().forget(older_than=older_than, limit=limit)


class ListsOrphansAnyhow(MemoryStore):
    async def orphans(self, *, limit=100):
        return list(await super().orphans(limit=limit))[::-1]


class HidesThatItLapsed(MemoryStore):
    async def claim(self, new, **options):
        try:
            got = await super().claim(new, **options)
        except TurnActive as exc:
            exc.lapsed = False
            raise
        return got


class NeverWakes(MemoryStore):
    async def wait(self, run_id, *, after, timeout):  # noqa: ASYNC109 - the contract's
        kept = self._runs[run_id]
        if kept.run.lines <= after and not kept.run.closed:
            await asyncio.sleep(timeout)


class WritesInTwoTransactions(MemoryStore):
    """Lines are there before the run knows of them, and stay where it is cut."""

    async def settle(self, run_id, fence, *, lines=None, **ending):
        if lines is not None and self._known(run_id).settled_by != fence:
            await super().append([lines])
            await asyncio.sleep(0)
            lines = replace(lines, first=self._runs[run_id].run.lines + 1)
        await super().settle(run_id, fence, lines=lines, **ending)


class AppendsAfterALook(MemoryStore):
    """Looks where the log ends, and writes there a moment later."""

    async def append(self, batch):
        ends = {one.run_id: self._runs[one.run_id].run.lines for one in batch}
        await asyncio.sleep(0)
        answers = await super().append(batch)
        for lines, answer in zip(batch, answers, strict=True):
            if lines.event_id is not None and answer is not None and answer.accepted:
                end = ends[lines.run_id] + lines.count
                kept = self._runs[lines.run_id]
                kept.run = replace(kept.run, lines=end)
        return answers


class ClaimsAfterALook(MemoryStore):
    """Looks who owns the run, and takes it a moment later."""

    async def claim(self, new, **options):
        kept = self._runs.get(new.id)
        free = kept is not None and (
            kept.run.owner is None or kept.lease_until <= self._clock()
        )
        await asyncio.sleep(0)
        if free and not kept.run.closed:
            kept.run = replace(kept.run, owner=None)
        return await super().claim(new, **options)


ALONE = [
    ForgetsTheLease,
    ForgetsTheFence,
    ForgetsTheFenceInSettle,
    KeepsItsFence,
    TakesALiveRun,
    ReusesLineNumbers,
    DoublesEvents,
    LosesTheSecondEvent,
    WritesHalfOfABadBatch,
    LosesTheLastLines,
    SettlesTwice,
    EndsAsAnother,
    ReadsFromTheChunk,
    RunsSessionsTogether,
    LetsTheLastSignalWin,
    RenewsWhatIsOver,
    CancelsForTheLast,
    ForgetsWhatRuns,
    ListsOrphansAnyhow,
    HidesThatItLapsed,
]
"""A worker alone meets the bug: whoever makes the right calls one by one."""

TOGETHER = [WritesInTwoTransactions, AppendsAfterALook, ClaimsAfterALook]
"""It takes two at once, or a call that is cancelled."""


def place(kind):
    return places.memory(None, kind)


@pytest.mark.parametrize("kind", [*ALONE, *TOGETHER, NeverWakes])
def test_a_broken_store_is_found(kind):
    for claim in CLAIMS:
        if claim.startswith("a_storm_"):
            continue  # it has a test of its own
        try:
            check(claim, place(kind))
        except Exception:  # an answer that should have come, or one that should not
            return
    pytest.fail(f"no claim notices {kind.__name__}")


@pytest.mark.parametrize("kind", ALONE)
def test_random_calls_find_it_too(kind):
    with pytest.raises(AssertionError, match="seed 1, step") as caught:
        asyncio.run(drive(place(kind), steps=20_000, seed=1))
    with pytest.raises(AssertionError) as again:
        asyncio.run(drive(place(kind), steps=20_000, seed=1))
    assert f"{again.value}".partition(":")[0] == f"{caught.value}".partition(":")[0]


@pytest.mark.parametrize("kind", TOGETHER)
def test_a_storm_finds_what_it_takes_two_for(kind):
    with pytest.raises((AssertionError, ValueError)):
        asyncio.run(storm(place(kind), seed=1, calls=8_000, cancels=0.05))


def test_hypothesis_shows_a_bug_by_the_fewest_calls():
    with pytest.raises(AssertionError, match="cancel") as caught:
        explore(place(CancelsForTheLast), examples=400, steps=30)
    shown = [note.partition("(")[0] for note in caught.value.__notes__]
    assert shown.count("state.request_cancel") == 2
    assert len([one for one in shown if one.startswith("state.")]) <= 6


def test_the_store_that_is_whole_passes_where_they_do_not():
    asyncio.run(drive(place(MemoryStore), steps=20_000, seed=1))
    asyncio.run(storm(place(MemoryStore), seed=1, calls=4_000))


ANSWERS = """
    append, append ValueError
    begin_step, begin_step LeaseLost, begin_step StepDivergence, begin_step UnknownTurn
    claim, claim InputMismatch, claim LeaseHeld, claim TurnActive
    emit, emit LeaseLost, emit UnknownTurn
    end_step, end_step LeaseLost, end_step LookupError, end_step UnknownTurn
    forget, read, read CursorGone, read UnknownTurn, release, renew
    request_cancel, request_cancel UnknownTurn
    set_handle, set_handle LeaseLost, set_handle UnknownTurn
    settle, settle LeaseLost, settle UnknownTurn, settle ValueError
"""


def test_random_calls_reach_every_answer_of_the_contract():
    answered = asyncio.run(drive(place(MemoryStore), steps=20_000, seed=2))
    for answer in ANSWERS.replace("\n", ",").split(","):
        assert not answer.strip() or answered[answer.strip()] >= 5, answer
