# ruff: noqa: D103 - a claim's name is what it says
"""Claims about settling: the end of a run, once."""

from __future__ import annotations

from typing import Any

from operators.errors import LeaseLost, UnknownTurn

from .claiming import (
    IDS,
    VALUES,
    claim,
    event,
    lines,
    overdue,
    owned,
    put,
    raises,
    shown,
    whole,
)
from .claims_owning import ENDS
from .place import Place


@claim
async def settling_ends_a_run_with_its_last_lines_at_once(place: Place) -> None:
    store, other = place.store(), place.store()
    fence = (await owned(store, session="s")).fence
    await put(store, lines("r", fence, 1, "one"))
    last = lines("r", fence, 2, "two", "end")
    await store.settle("r", fence, status="completed", outcome={"x": 1}, lines=last)
    run = await other.status("r")
    assert (run.status, run.lines, run.closed) == ("completed", 3, True)
    assert (run.owner, run.lapsed_s, run.outcome) == (None, None, {"x": 1})
    assert run.ended_at is not None
    page = await other.read("r")
    assert (page.closed, page.lapsed_s, page.lines) == (True, None, 3)
    assert await whole(store, "r") == b"one\ntwo\nend\n"
    assert await put(store, lines("r", fence, 4, "late")) is None
    assert await put(store, lines("r", fence, 1, "one")) is None
    assert await store.request_cancel("r", "late") is False
    assert await store.orphans() == []
    assert await store.renew("w1", lease=1) == {}


@claim
async def settling_again_with_fence_and_status_changes_nothing(place: Place) -> None:
    store, other = place.store(), place.store()
    for status in ENDS:
        fence = (await owned(store, status)).fence
        last = lines(status, fence, 1, "end")
        first: dict[str, Any] = {"status": status, "lines": last}
        await store.settle(status, fence, outcome={"by": 0}, **first)
        before = await shown(store, status)
        for one in (other, store):
            await one.settle(status, fence, outcome={"by": 1}, **first)
            assert await shown(store, status) == before
        for wrong in ENDS:
            if wrong != status:
                ending = store.settle(status, fence, status=wrong, outcome={})
                await raises(LeaseLost, ending)
        for stale in (fence - 1, fence + 1):
            ending = store.settle(status, stale, status=status, outcome={})
            await raises(LeaseLost, ending)
        assert await shown(store, status) == before


@claim
async def settling_again_is_answered_after_the_lease_would_have_lapsed(
    place: Place,
) -> None:
    store = place.store()
    while True:  # a lease that is over before it is used is no answer
        fence = (await owned(store, lease=place.lease)).fence
        try:
            await store.settle("r", fence, status="completed", outcome={})
            break
        except LeaseLost:
            continue
    await overdue(place, store, "witness")
    await store.settle("r", fence, status="completed", outcome={"again": 1})
    assert (await store.status("r")).outcome == {}


@claim
async def last_lines_that_are_there_already_are_not_written_again(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    last = lines("r", fence, 1, "one", "end")
    await put(store, last)
    await store.settle("r", fence, status="completed", outcome={}, lines=last)
    assert await whole(store, "r") == b"one\nend\n"
    fence = (await owned(store, "e")).fence
    await put(store, event("e", fence, "id", "said"))
    again = event("e", fence, "id", "said once more")
    await store.settle("e", fence, status="completed", outcome={}, lines=again)
    run = await store.status("e")
    assert (run.status, run.lines) == ("completed", 1)
    assert await whole(store, "e") == b"said\n"


@claim
async def last_lines_that_leave_a_gap_end_nothing(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    await put(store, lines("r", fence, 1, "one"))
    for wrong in (lines("r", fence, 3, "x"), lines("r", fence, 1, "one", "two")):
        ending = store.settle("r", fence, status="failed", outcome={}, lines=wrong)
        await raises(ValueError, ending)
    run = await store.status("r")
    assert (run.status, run.lines, run.owner) == ("running", 1, "w1")
    assert await put(store, lines("r", fence, 2, "two")) == (2, True)


@claim
async def a_stale_fence_settles_nothing(place: Place) -> None:
    store = place.store()
    got = await owned(store)
    await store.release("r", got.fence)
    taken = await owned(store, worker="w2")
    last = lines("r", got.fence, 1, "x")
    for piece in (None, last):
        ending = store.settle("r", got.fence, status="failed", outcome={}, lines=piece)
        await raises(LeaseLost, ending)
    run = await store.status("r")
    assert (run.lines, run.status, run.outcome) == (0, "running", None)
    await store.settle("r", taken.fence, status="completed", outcome={})
    assert (await store.status("r")).status == "completed"
    ending = store.settle("r", got.fence, status="completed", outcome={})
    await raises(LeaseLost, ending)


@claim
async def outcomes_are_kept_as_they_were(place: Place) -> None:
    store = place.store()
    for run_id in IDS:
        fence = (await owned(store, run_id)).fence
        outcome = {run_id: list(VALUES)}
        await store.settle(run_id, fence, status="completed", outcome=outcome)
        assert (await store.status(run_id)).outcome == outcome
    ending = store.settle("nobody", 1, status="completed", outcome={})
    await raises(UnknownTurn, ending)
