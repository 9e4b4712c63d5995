# ruff: noqa: D103 - a claim's name is what it says
"""Claims about asking: lists of runs, orphans, requests to cancel."""

from __future__ import annotations

from .claiming import IDS, claim, lines, overdue, owned, put
from .place import LONG_S, Place


@claim
async def runs_are_listed_newest_first_by_session_and_status(place: Place) -> None:
    store = place.store()
    for k in range(6):
        run_id = f"r{k}"
        got = await owned(store, run_id, session=f"s{k % 2}-{k // 2}")
        if k % 3 == 0:
            await store.settle(run_id, got.fence, status="failed", outcome={})
        if place.advance is not None:
            await place.advance(1)
    every = await store.runs()
    assert sorted([run.id for run in every]) == [f"r{k}" for k in range(6)]
    created = [run.created_at for run in every]
    assert created == sorted(created, reverse=True)
    if place.advance is not None:
        assert [run.id for run in every] == [f"r{k}" for k in reversed(range(6))]
    assert every == [await store.status(run.id) for run in every] or every[0].lapsed_s
    failed = await store.runs(statuses=["failed", "cancelled"])
    assert sorted([run.id for run in failed]) == ["r0", "r3"]
    running = await store.runs(statuses={"running"})
    assert sorted([run.id for run in running]) == ["r1", "r2", "r4", "r5"]
    assert [run.id for run in await store.runs(session="s1-0")] == ["r1"]
    assert list(await store.runs(session="s1-0", statuses=["failed"])) == []
    assert [
        run.id for run in await store.runs(session="s1-1", statuses=["failed"])
    ] == ["r3"]
    assert list(await store.runs(statuses=())) == []
    assert list(await store.runs(session="nobody's")) == []
    assert list(await store.runs(limit=2)) == every[:2]
    assert list(await store.runs(limit=0)) == []


@claim
async def a_session_s_runs_are_its_own_whatever_it_is_called(place: Place) -> None:
    store = place.store()
    for session in IDS:
        for k in range(2):
            got = await owned(store, f"{session} {k}", session=session)
            run_id = f"{session} {k}"
            await store.settle(run_id, got.fence, status="completed", outcome={})
    for session in IDS:
        found = [run.id for run in await store.runs(session=session)]
        assert sorted(found) == [f"{session} 0", f"{session} 1"]


@claim
async def orphans_are_running_runs_without_a_live_lease_the_longest_dead_first(
    place: Place,
) -> None:
    store, other = place.store(), place.store()
    await owned(store, "living", "w0", lease=100 * LONG_S)
    ended = await owned(store, "ended")
    await store.settle("ended", ended.fence, status="failed", outcome={})
    completed = await owned(store, "completed")
    fence = completed.fence
    await store.settle("completed", fence, status="completed", outcome={})
    await owned(store, "completed", reenter=True, lease=place.lease)
    names = ["b", "a", "d", "c"]
    for name in names:
        await overdue(place, store, name, name)
    found = await other.orphans()
    assert [run.id for run in found] == names
    dead = [run.lapsed_s or 0 for run in found]
    assert dead == sorted(dead, reverse=True)
    assert [run.id for run in await store.orphans(limit=2)] == ["b", "a"]
    await owned(store, "b", "w9")
    taken = await owned(store, "a", "w9")
    await store.settle("a", taken.fence, status="completed", outcome={})
    assert [run.id for run in await store.orphans()] == ["d", "c"]


@claim
async def a_run_whose_lease_is_over_is_read_and_says_so(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    await put(store, lines("r", fence, 1, "one"))
    assert (await store.read("r")).lapsed_s is None
    await overdue(place, store)
    page = await store.read("r")
    assert (len(page.chunks), page.lines, page.closed) == (1, 1, False)
    assert page.lapsed_s is not None
    assert page.lapsed_s >= 0
    run = await store.status("r")
    assert (run.status, run.closed) == ("running", False)
    (listed,) = await store.runs()
    assert listed.lapsed_s is not None


@claim
async def a_cancel_is_asked_for_once_and_stays(place: Place) -> None:
    store, other = place.store(), place.store()
    for run_id in IDS:
        await owned(store, run_id)
        assert await other.request_cancel(run_id, run_id) is True
        assert await store.request_cancel(run_id, "second") is True
        assert (await store.status(run_id)).cancel == run_id
    renewed = await store.renew("w1", lease=LONG_S)
    assert {run_id: one.cancel for run_id, one in renewed.items()} == {
        run_id: run_id for run_id in IDS
    }
    await store.release("turn:1", 1)
    taken = await owned(store, "turn:1", "w2")
    assert taken.run.cancel == "turn:1", "who takes it over is told"
    assert await put(store, lines("turn:1", taken.fence, 1, "x")) == (1, True)
    await store.settle("turn:1", taken.fence, status="cancelled", outcome={})
    assert (await store.status("turn:1")).cancel == "turn:1"
    assert await store.request_cancel("turn:1", "third") is False


@claim
async def a_cancel_reaches_a_run_whose_lease_is_over(place: Place) -> None:
    store = place.store()
    await overdue(place, store)
    assert await store.request_cancel("r", "the user") is True
    assert (await owned(store, worker="w2")).run.cancel == "the user"


@claim
async def a_run_that_runs_again_was_not_asked_to_stop(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    await store.request_cancel("r", "the user")
    await store.settle("r", fence, status="cancelled", outcome={})
    again = await owned(store, reenter=True)
    assert again.run.cancel is None
    assert await store.request_cancel("r", "once more") is True
    assert (await store.status("r")).cancel == "once more"
