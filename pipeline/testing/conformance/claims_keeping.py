# ruff: noqa: D103 - a claim's name is what it says
"""Claims about keeping: what is forgotten is gone, and says so."""

from __future__ import annotations

import asyncio

from operators.errors import CursorGone, InputMismatch

from ...stores.contract import NewRun
from .claiming import claim, event, lines, owned, put, raises, whole
from .place import Place


async def _lived(place: Place, run_id: str, *, ends: bool) -> None:
    store = place.store()
    fence = (await owned(store, run_id)).fence
    await put(store, lines(run_id, fence, 1, "1", "2"))
    await put(store, event(run_id, fence, "e", "3"))
    await store.emit(run_id, "k", 1)
    await store.begin_step(run_id, fence, 0, intent="i", kind="k")
    await store.set_handle(run_id, fence, {"box": 1})
    if ends:
        outcome = {"text": "kept"}
        await store.settle(run_id, fence, status="completed", outcome=outcome)


@claim
async def what_is_forgotten_is_gone_and_says_so(place: Place) -> None:
    store, other = place.store(), place.store()
    await _lived(place, "old", ends=True)
    await _lived(place, "running", ends=False)
    await owned(store, "lapsed")
    await store.release("lapsed", 1)
    before = await store.status("old")
    assert await store.forget(older_than=3600) == 0
    assert await store.forget(older_than=0) == 1
    assert await other.forget(older_than=0) == 0
    for after in (0, 1, 2):
        error = await raises(CursorGone, other.read("old", after=after))
        assert (error.execution_id, error.first, error.last) == ("old", 4, 3)
    for after in (3, 4):
        page = await store.read("old", after=after)
        assert (page.chunks, page.closed, page.lines) == ((), True, 3)
    await asyncio.wait_for(store.wait("old", after=3, timeout=60), 10)
    run = await other.status("old")
    assert (run.outcome, run.lines, run.first) == ({"text": "kept"}, 3, 4)
    assert (run.status, run.ended_at) == ("completed", before.ended_at)
    assert (run.meta, run.created_at) == (before.meta, before.created_at)
    assert list(await store.steps("old")) == []
    assert await store.signal("old", "k") is None
    assert await whole(store, "running") == b"1\n2\n3\n"
    assert len(await store.steps("running")) == 1
    assert await store.signal("running", "k") is not None
    finished = await owned(store, "old")
    assert (finished.mode, finished.run.outcome) == ("finished", {"text": "kept"})
    other_input = NewRun(id="old", manifest_hash="other")
    await raises(InputMismatch, store.claim(other_input, worker="w", lease=1))


@claim
async def only_so_many_are_forgotten_at_once(place: Place) -> None:
    store = place.store()
    for k in range(5):
        await _lived(place, f"r{k}", ends=True)
    assert await store.forget(older_than=0, limit=2) == 2
    gone = [run.id for run in await store.runs() if run.first > 1]
    assert len(gone) == 2
    for k in range(5):
        if f"r{k}" not in gone:
            assert await whole(store, f"r{k}") == b"1\n2\n3\n"
    assert await store.forget(older_than=0, limit=2) == 2
    assert await store.forget(older_than=0, limit=2) == 1
    assert await store.forget(older_than=0, limit=2) == 0


@claim
async def what_ended_lately_is_kept(place: Place) -> None:
    store = place.store()
    await _lived(place, "old", ends=True)
    await (place.advance or asyncio.sleep)(0.3)
    ended = (await store.status("old")).ended_at
    await _lived(place, "young", ends=True)
    later = (await store.status("young")).ended_at
    assert ended is not None
    assert later is not None
    assert later > ended
    if place.advance is not None:
        await place.advance(3000)
        await _lived(place, "younger", ends=True)
        assert await store.forget(older_than=3600) == 0
        assert await store.forget(older_than=1800) == 2
        assert await whole(store, "younger") == b"1\n2\n3\n"
        assert await store.forget(older_than=0) == 1
    else:
        assert await store.forget(older_than=600) == 0
        assert await store.forget(older_than=0) == 2


@claim
async def a_forgotten_run_that_runs_again_goes_on_behind_what_is_gone(
    place: Place,
) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    await put(store, lines("r", fence, 1, "1", "2"))
    await put(store, event("r", fence, "e", "3"))
    await store.settle("r", fence, status="failed", outcome={})
    assert await store.forget(older_than=0) == 1
    again = await owned(store, reenter=True)
    assert (again.run.first, again.run.lines) == (4, 3)
    assert await put(store, lines("r", again.fence, 4, "4")) == (4, True)
    assert await put(store, lines("r", again.fence, 4, "4")) == (4, False)
    assert await put(store, lines("r", again.fence, 1, "1")) == (1, False)
    assert await put(store, event("r", again.fence, "e", "5")) == (5, True)
    assert await whole(store, "r", 3) == b"4\n5\n"
    error = await raises(CursorGone, store.read("r", after=2))
    assert (error.first, error.last) == (4, 5)
    assert await store.forget(older_than=0) == 0
    await store.settle("r", again.fence, status="failed", outcome={})
    assert await store.forget(older_than=0) == 1
    assert (await store.status("r")).first == 6
