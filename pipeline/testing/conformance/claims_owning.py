# ruff: noqa: D103 - a claim's name is what it says
"""Claims about owning: one conditional write, a lease, a fence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from operators.errors import InputMismatch, LeaseHeld, LeaseLost, TurnActive

from ...stores.contract import NewRun
from .claiming import (
    IDS,
    VALUES,
    claim,
    lines,
    overdue,
    owned,
    put,
    raises,
    shown,
    whole,
)
from .place import LONG_S, Place

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...stores.contract import EndStatus, Store

ENDS: tuple[EndStatus, ...] = ("completed", "failed", "cancelled")


@claim
async def a_new_run_is_created_with_its_input_and_a_lease(place: Place) -> None:
    store = place.store()
    for run_id in IDS:
        meta: dict[str, Any] = {"request": list(VALUES), run_id: {}}
        new = NewRun(id=run_id, manifest_hash=run_id, session=run_id, meta=meta)
        got = await store.claim(new, worker=run_id, lease=LONG_S)
        assert (got.mode, got.fence) == ("created", 1)
        run = await store.status(run_id)
        assert run == got.run
        assert (run.id, run.manifest_hash, run.session, run.owner) == (run_id,) * 4
        assert (run.status, run.closed, run.fence) == ("running", False, 1)
        assert (run.lines, run.first, run.lapsed_s, run.ended_at) == (0, 1, None, None)
        assert (run.outcome, run.handle, run.cancel) == (None, None, None)
        assert run.meta == meta
        assert run.created_at == run.updated_at
    assert len(await store.runs()) == len(IDS), "no id is taken for another"


@claim
async def a_run_keeps_what_it_was_first_given(place: Place) -> None:
    store = place.store()
    meta = {"k": ["as it was"]}
    new = NewRun(id="r", manifest_hash="h", session="s", meta=meta)
    first = await store.claim(new, worker="w", lease=LONG_S)
    meta["k"].append("changed afterwards")
    for run in (first.run, await store.status("r")):
        assert run.meta == {"k": ["as it was"]}
    other = NewRun(id="r", manifest_hash="h", session="t", meta={"another": 1})
    again = await store.claim(other, worker="w", lease=LONG_S)
    assert again.run.meta == {"k": ["as it was"]}
    assert (again.run.session, again.run.created_at) == ("s", first.run.created_at)


@claim
async def what_a_caller_changes_afterwards_is_not_what_is_kept(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    given = {"k": [1]}
    await store.set_handle("r", fence, given)
    await store.emit("r", "k", given)
    await store.begin_step("r", fence, 0, intent="i", kind="logic")
    await store.end_step("r", fence, 0, result=given)
    given["k"].append(2)
    for _ in range(2):
        signal = await store.signal("r", "k")
        assert signal is not None
        run, (step,) = await store.status("r"), await store.steps("r")
        found: list[Any] = [run.handle, signal.payload, step.result]
        for kept in found:
            assert kept == {"k": [1]}
            kept["k"].append(3)


@claim
async def another_input_is_refused_before_the_lease_is_looked_at(place: Place) -> None:
    store = place.store()
    got = await owned(store, session="s")
    other = NewRun(id="r", manifest_hash="other")
    for worker in ("w1", "w2"):
        error = await raises(InputMismatch, store.claim(other, worker=worker, lease=1))
        assert error.execution_id == "r"
    await store.release("r", got.fence)
    await raises(InputMismatch, store.claim(other, worker="w2", lease=1))
    again = await owned(store)
    await store.settle("r", again.fence, status="failed", outcome={})
    for reenter in (False, True):
        asked = store.claim(other, worker="w1", lease=1, reenter=reenter)
        await raises(InputMismatch, asked)
    assert (await store.status("r")).fence == again.fence


@claim
async def a_live_lease_keeps_others_out_and_its_worker_may_come_again(
    place: Place,
) -> None:
    store, other = place.store(), place.store()
    first = await owned(store)
    error = await raises(LeaseHeld, owned(other, worker="w2"))
    assert (error.execution_id, error.owner) == ("r", "w1")
    assert 0 < error.expires_in <= LONG_S
    assert (await store.status("r")).fence == first.fence, "a refusal changes nothing"
    again = await owned(store)
    assert (again.mode, again.fence) == ("reentered", 2)
    assert (
        await put(store, lines("r", first.fence, 1, "by a worker's former self"))
        is None
    )
    assert await put(store, lines("r", again.fence, 1, "x")) == (1, True)


@claim
async def a_lapsed_lease_lets_another_take_over_under_a_higher_fence(
    place: Place,
) -> None:
    store, other = place.store(), place.store()
    early = await owned(store)
    await put(store, lines("r", early.fence, 1, "one"))
    stale = await overdue(place, store)
    second = await owned(other, worker="w2")
    assert (second.mode, second.fence, second.run.lines) == ("taken", stale + 1, 1)
    assert (second.run.owner, second.run.lapsed_s) == ("w2", None)
    for fence in (early.fence, stale):
        assert await put(store, lines("r", fence, 2, "late")) is None
    assert await put(other, lines("r", second.fence, 2, "two")) == (2, True)
    assert await whole(store, "r") == b"one\ntwo\n"


@claim
async def a_worker_takes_its_own_run_again_where_its_lease_has_lapsed(
    place: Place,
) -> None:
    store = place.store()
    fence = await overdue(place, store)
    again = await owned(store)
    assert (again.mode, again.fence) == ("taken", fence + 1)


@claim
async def every_claim_that_gives_a_lease_raises_the_fence(place: Place) -> None:
    store = place.store()
    fences = [(await owned(store)).fence, (await owned(store)).fence]
    await store.release("r", fences[-1])
    fences.append((await owned(store, worker="w2")).fence)
    fences.append((await owned(store, worker="w2", lease=place.lease)).fence)
    await place.lapsed(store, "r")
    fences.append((await owned(store)).fence)
    for status in ("failed", "cancelled", "completed"):
        await store.settle("r", fences[-1], status=status, outcome={})
        assert (await owned(store)).fence == 0
        assert (await store.status("r")).fence == fences[-1]
        fences.append((await owned(store, reenter=True)).fence)
    assert fences == list(range(1, 9))
    assert (await store.status("r")).fence == 8


def _writes(
    store: Store, run_id: str, fence: int
) -> list[Callable[[], Awaitable[object]]]:
    """Name each call that writes under a fence and raises LeaseLost."""
    last = lines(run_id, fence, 1, "last")
    by, end, begin = {"by": fence}, store.settle, store.begin_step
    return [
        lambda: end(run_id, fence, status="completed", outcome=by),
        lambda: end(run_id, fence, status="failed", outcome=by, lines=last),
        lambda: begin(run_id, fence, 0, intent="i", kind="logic"),
        lambda: begin(run_id, fence, 1, intent="i", kind="logic"),
        lambda: store.end_step(run_id, fence, 0, result=fence),
        lambda: store.end_step(run_id, fence, 0, error={"message": "m"}),
        lambda: store.emit(run_id, "key", fence, fence=fence),
        lambda: store.set_handle(run_id, fence, by),
        lambda: store.set_handle(run_id, fence, None),
    ]


async def _refused(store: Store, run_id: str, *fences: int) -> None:
    before = await shown(store, run_id, "key")
    for fence in fences:
        for write in _writes(store, run_id, fence):
            await raises(LeaseLost, write())
        batch = [lines(run_id, fence, 1, "x"), lines(run_id, fence, 7, "a gap")]
        assert list(await store.append(batch)) == [None, None]
        assert await store.release(run_id, fence) is False
    assert await shown(store, run_id, "key") == before, (
        "what is refused has not happened"
    )


async def _begun(store: Store) -> int:
    fence = (await owned(store)).fence
    await store.begin_step("r", fence, 0, intent="i", kind="logic")
    await store.set_handle("r", fence, {"box": 1})
    return fence


@claim
async def a_lease_that_is_over_writes_nothing_though_nobody_took_it(
    place: Place,
) -> None:
    store = place.store()
    first = await _begun(store)
    fence = await overdue(place, store)
    await _refused(store, "r", first, fence)
    assert await store.renew("w1", lease=LONG_S) == {}
    await _refused(store, "r", fence)
    run = await store.status("r")
    assert (run.lines, run.status, run.handle) == (0, "running", {"box": 1})


@claim
async def a_fence_that_is_not_the_run_s_writes_nothing(place: Place) -> None:
    store = place.store()
    first = await _begun(store)
    again = (await owned(store)).fence
    await _refused(store, "r", first, again + 1, 0, -1)


@claim
async def a_run_that_was_taken_over_is_written_by_nobody_else(place: Place) -> None:
    store, other = place.store(), place.store()
    first = await _begun(store)
    await store.release("r", first)
    await owned(other, worker="w2")
    await _refused(store, "r", first)
    assert await store.renew("w1", lease=LONG_S) == {}
    assert list(await store.renew("w2", lease=LONG_S)) == ["r"]


@claim
async def a_run_that_ended_is_written_by_nobody(place: Place) -> None:
    store = place.store()
    fence = await _begun(store)
    await store.settle("r", fence, status="cancelled", outcome={})
    await _refused(store, "r", fence, fence + 1)
    entered = await owned(store, reenter=True)
    await store.settle("r", entered.fence, status="completed", outcome={})
    ended = await owned(store, reenter=True)
    assert ended.run.status == "completed"
    assert await put(store, lines("r", ended.fence, 1, "x")) is None, (
        "its log is closed"
    )


@claim
async def renewing_keeps_all_live_leases_of_a_worker_and_tells_of_cancels(
    place: Place,
) -> None:
    store = place.store()
    await overdue(place, store, "lapsed")
    for k in range(5):
        await owned(store, f"r{k}")
    await owned(store, "r4")
    await owned(store, "other", worker="w2")
    await store.request_cancel("r3", "the user")
    ended = await owned(store, "ended")
    await store.settle("ended", ended.fence, status="failed", outcome={})
    left = await owned(store, "released")
    await store.release("released", left.fence)
    renewed = await store.renew("w1", lease=LONG_S)
    assert {run_id: (one.fence, one.cancel) for run_id, one in renewed.items()} == {
        "r0": (1, None),
        "r1": (1, None),
        "r2": (1, None),
        "r3": (1, "the user"),
        "r4": (2, None),
    }
    assert await store.renew("nobody", lease=LONG_S) == {}


@claim
async def a_renewed_lease_lasts(place: Place) -> None:
    store = place.store()
    await owned(store, lease=place.lease)
    while "r" not in await store.renew("w1", lease=10 * LONG_S):
        await owned(store, lease=place.lease)  # it was over before it was renewed
    await overdue(place, store, "witness", "w3")
    assert (await store.status("r")).lapsed_s is None
    await raises(LeaseHeld, owned(store, worker="w2"))
    assert [run.id for run in await store.orphans()] == ["witness"]


@claim
async def a_released_run_may_be_taken_at_once(place: Place) -> None:
    store = place.store()
    got = await owned(store)
    assert await store.release("r", got.fence + 1) is False
    assert await store.release("r", got.fence) is True
    assert await store.release("r", got.fence) is False
    assert await store.release("nobody", 1) is False
    run = await store.status("r")
    assert (run.status, run.owner, run.lapsed_s is None) == ("running", None, False)
    assert [run.id for run in await store.orphans()] == ["r"]
    await _refused(store, "r", got.fence)
    taken = await owned(store, worker="w2")
    assert (taken.mode, taken.fence) == ("taken", got.fence + 1)


@claim
async def one_run_of_a_session_runs_at_a_time(place: Place) -> None:
    store = place.store()
    first = await owned(store, "a", session="s")
    error = await raises(TurnActive, owned(store, "b", session="s"))
    assert (error.execution_id, error.lapsed) == ("a", False)
    assert "b" not in [run.id for run in await store.runs()]
    await owned(store, "c", session="S")
    await owned(store, "d")
    await owned(store, "e")
    assert (await owned(store, "a", session="s")).fence == first.fence + 1
    await store.release("a", first.fence + 1)
    assert (await raises(TurnActive, owned(store, "b", session="s"))).lapsed
    taken = await owned(store, "a", worker="w2", session="s")
    assert not (await raises(TurnActive, owned(store, "b", session="s"))).lapsed
    await store.settle("a", taken.fence, status="cancelled", outcome={})
    assert (await owned(store, "b", session="s")).mode == "created"
    asked = owned(store, "a", worker="w2", session="s", reenter=True)
    assert (await raises(TurnActive, asked)).execution_id == "b"
    run = await store.status("a")
    assert (run.status, run.fence) == ("cancelled", taken.fence)


@claim
async def a_completed_run_is_entered_again_beside_its_session_s_next(
    place: Place,
) -> None:
    store = place.store()
    got = await owned(store, "a", session="s")
    await store.settle("a", got.fence, status="completed", outcome={"x": 1})
    await owned(store, "b", session="s")
    again = await owned(store, "a", worker="w2", session="s", reenter=True)
    assert (again.mode, again.run.status) == ("reentered", "completed")
    error = await raises(LeaseHeld, owned(store, "a", session="s", reenter=True))
    assert error.owner == "w2"
    assert (await owned(store, "a", session="s")).mode == "finished"
    assert (await store.status("a")).outcome == {"x": 1}
    assert await store.orphans() == []


@claim
async def a_finished_run_is_given_without_a_lease_or_entered_again(
    place: Place,
) -> None:
    store = place.store()
    for status in ENDS:
        got = await owned(store, status, session="s")
        await store.set_handle(status, got.fence, {"box": status})
        await store.begin_step(status, got.fence, 0, intent="i", kind="logic")
        await put(store, lines(status, got.fence, 1, "one"))
        await store.settle(status, got.fence, status=status, outcome={"x": 1})
        before = await store.status(status)
        again = await owned(store, status, "w2", session="s")
        assert (again.mode, again.fence, again.run.status) == ("finished", 0, status)
        assert again.run == before == await store.status(status)
        assert again.run.outcome == {"x": 1}
        assert "w2" not in await store.renew("w2", lease=LONG_S)
        entered = await owned(store, status, "w2", session="s", reenter=True)
        assert (entered.mode, entered.fence) == ("reentered", 2)
        now = await store.status(status)
        assert (now.handle, now.lines) == ({"box": status}, 1)
        assert [step.index for step in await store.steps(status)] == [0]
        if status == "completed":
            assert (now.status, now.outcome) == ("completed", {"x": 1})
            assert now.ended_at == before.ended_at
        else:
            assert (now.status, now.outcome, now.ended_at) == ("running", None, None)
            await raises(TurnActive, owned(store, "another", session="s"))
            assert await put(store, lines(status, 2, 2, "two")) == (2, True)
            assert await whole(store, status) == b"one\ntwo\n"
        await store.settle(status, entered.fence, status=status, outcome={"x": 2})
        assert (await store.status(status)).outcome == {"x": 2}


@claim
async def what_was_acknowledged_is_there_when_the_store_is_opened_anew(
    place: Place,
) -> None:
    store = place.store()
    for run_id in IDS:
        fence = (await owned(store, run_id, session=run_id)).fence
        await put(store, lines(run_id, fence, 1, "one", "two"))
        await store.begin_step(run_id, fence, 0, intent=run_id, kind="llm")
        await store.emit(run_id, run_id, run_id)
        await store.set_handle(run_id, fence, {"box": run_id})
        await store.request_cancel(run_id, run_id)
    fence = (await owned(store, "ended")).fence
    await store.settle("ended", fence, status="completed", outcome={"x": 1})
    kept = [await shown(store, run_id, run_id) for run_id in (*IDS, "ended")]
    await place.close()
    anew = place.store()
    assert [await shown(anew, run_id, run_id) for run_id in (*IDS, "ended")] == kept
    for run_id in IDS:
        assert await put(anew, lines(run_id, 1, 3, "three")) == (3, True)
    assert len(await anew.renew("w1", lease=LONG_S)) == len(IDS)


@claim
async def the_clock_is_the_store_s_and_the_same_for_all(place: Place) -> None:
    store, other = place.store(), place.store()
    await overdue(place, store)
    first = await store.status("r")
    assert first.lapsed_s is not None
    await asyncio.sleep(0.01)
    second = await other.status("r")
    assert second.lapsed_s is not None
    assert first.lapsed_s <= second.lapsed_s < first.lapsed_s + LONG_S
    assert first.created_at == second.created_at
    early = await owned(store, "early")
    late = await owned(other, "late", worker="w2")
    assert early.run.created_at <= late.run.created_at < early.run.created_at + LONG_S
    await other.settle("late", late.fence, status="failed", outcome={})
    run = await store.status("late")
    assert run.ended_at is not None
    assert run.created_at <= run.ended_at <= run.updated_at
