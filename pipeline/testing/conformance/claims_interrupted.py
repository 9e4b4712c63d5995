# ruff: noqa: D103 - a claim's name is what it says
"""Claims about calls that are cancelled: the store stays whole, and they are repeated.

Each call is cancelled before it began, after one step of the loop, after two, and so on
at growing distances, until it is through before it can be cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from .claiming import claim, event, lines, owned, put, whole
from .place import LONG_S, Place

if TYPE_CHECKING:
    from ...stores.contract import Store

Call: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]
Look: TypeAlias = Callable[[Any], Awaitable[None]]
Case: TypeAlias = "Callable[[Store, str], Coroutine[Any, Any, tuple[Call, Look]]]"
"""Prepares a run; gives the call, and a look at the answer of its repetition."""


async def cut(call: Call, ticks: int) -> bool:
    """Cancel a call after so many steps of the loop; tell whether it was in time."""
    task = asyncio.ensure_future(call())
    for _ in range(ticks):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
    return task.cancelled()


async def _everywhere(place: Place, case: Case) -> None:
    store = place.store()
    ticks, late = 0, 0
    while late < 2:  # once more after it was too late: the answer was on its way
        call, look = await case(store, f"{case.__name__} {ticks}")
        late += not await cut(call, ticks)
        await look(await call())
        ticks = max(ticks + 1, int(ticks * 1.6))
        assert ticks < 10_000_000, "the call never ends"


@claim
async def a_claim_that_is_cancelled_may_be_made_again(place: Place) -> None:
    other = place.store()

    async def new(store: Store, run_id: str) -> tuple[Call, Look]:
        async def look(got: Any) -> None:
            assert got.mode in {"created", "reentered"}
            run = await other.status(run_id)
            assert (run.owner, run.session, run.lines) == ("w1", run_id, 0)

        return lambda: owned(store, run_id, session=run_id), look

    async def taken(store: Store, run_id: str) -> tuple[Call, Look]:
        first = await owned(store, run_id, "dead")
        await put(store, lines(run_id, first.fence, 1, "one"))
        await store.release(run_id, first.fence)

        async def look(got: Any) -> None:
            assert got.mode in {"taken", "reentered"}
            assert got.fence > first.fence
            assert (got.run.owner, got.run.lines) == ("w1", 1)

        return lambda: owned(store, run_id), look

    async def entered(store: Store, run_id: str) -> tuple[Call, Look]:
        first = await owned(store, run_id)
        await store.settle(run_id, first.fence, status="failed", outcome={"x": 1})

        async def look(got: Any) -> None:
            assert (got.mode, got.run.status) == ("reentered", "running")
            assert (got.run.outcome, got.run.ended_at) == (None, None)

        return lambda: owned(store, run_id, reenter=True), look

    for case in (new, taken, entered):
        await _everywhere(place, case)


@claim
async def an_append_that_is_cancelled_may_be_made_again(place: Place) -> None:
    other = place.store()

    async def numbered(store: Store, run_id: str) -> tuple[Call, Look]:
        fence = (await owned(store, run_id)).fence

        async def look(answers: Any) -> None:
            assert [one.line for one in answers] == [1, 3]
            assert await put(other, lines(run_id, fence, 4, "more")) == (4, True)
            assert await whole(other, run_id) == b"a\nb\nc\nmore\n"

        batch = [lines(run_id, fence, 1, "a", "b"), lines(run_id, fence, 3, "c")]
        return lambda: store.append(batch), look

    async def by_id(store: Store, run_id: str) -> tuple[Call, Look]:
        fence = (await owned(store, run_id)).fence
        beside = (await owned(store, f"{run_id} beside")).fence

        async def look(answers: Any) -> None:
            assert [one.line for one in answers] == [1, 1, 2]
            assert len({one.accepted for one in answers}) == 1, "all of it, or nothing"
            assert await whole(other, run_id) == b"x\nz\n"
            assert await whole(other, f"{run_id} beside") == b"y\n"

        batch = [
            event(run_id, fence, "1", "x"),
            event(f"{run_id} beside", beside, "1", "y"),
            event(run_id, fence, "2", "z"),
        ]
        return lambda: store.append(batch), look

    for case in (numbered, by_id):
        await _everywhere(place, case)


@claim
async def a_settle_that_is_cancelled_may_be_made_again(place: Place) -> None:
    other = place.store()

    async def case(store: Store, run_id: str) -> tuple[Call, Look]:
        fence = (await owned(store, run_id, session="s")).fence
        await put(store, lines(run_id, fence, 1, "one"))
        last = lines(run_id, fence, 2, "end")

        async def look(_: None) -> None:
            run = await other.status(run_id)
            assert (run.status, run.lines, run.outcome) == ("failed", 2, {"x": 1})
            assert run.owner is None
            assert await whole(other, run_id) == b"one\nend\n"

        return (
            lambda: store.settle(
                run_id, fence, status="failed", outcome={"x": 1}, lines=last
            ),
            look,
        )

    await _everywhere(place, case)


@claim
async def a_step_that_is_cancelled_may_be_recorded_again(place: Place) -> None:
    other = place.store()

    async def begun(store: Store, run_id: str) -> tuple[Call, Look]:
        fence = (await owned(store, run_id)).fence

        async def look(step: Any) -> None:
            assert (step.status, step.intent) == ("running", "i")
            assert step.attempts in {1, 2}
            assert [one.index for one in await other.steps(run_id)] == [0]

        return (
            lambda: store.begin_step(run_id, fence, 0, intent="i", kind="llm"),
            look,
        )

    async def ended(store: Store, run_id: str) -> tuple[Call, Look]:
        fence = (await owned(store, run_id)).fence
        await store.begin_step(run_id, fence, 0, intent="i", kind="llm")

        async def look(step: Any) -> None:
            assert (step.status, step.result) == ("completed", ["x"])
            assert list(await other.steps(run_id)) == [step]

        return lambda: store.end_step(run_id, fence, 0, result=["x"]), look

    for case in (begun, ended):
        await _everywhere(place, case)


@claim
async def a_word_that_is_cancelled_may_be_left_again(place: Place) -> None:
    """Signals, handles, requests to cancel."""
    other = place.store()

    async def emitted(store: Store, run_id: str) -> tuple[Call, Look]:
        await owned(store, run_id)

        async def look(signal: Any) -> None:
            assert signal.payload == "p"
            kept = await other.signal(run_id, "k")
            assert kept is not None
            assert (kept.payload, kept.emitted_at) == ("p", signal.emitted_at)
            assert not (await store.emit(run_id, "k", "q")).accepted

        return lambda: store.emit(run_id, "k", "p"), look

    async def handled(store: Store, run_id: str) -> tuple[Call, Look]:
        fence = (await owned(store, run_id)).fence

        async def look(_: None) -> None:
            assert (await other.status(run_id)).handle == {"box": 1}

        return lambda: store.set_handle(run_id, fence, {"box": 1}), look

    async def stopped(store: Store, run_id: str) -> tuple[Call, Look]:
        await owned(store, run_id)

        async def look(asked: bool) -> None:
            assert asked is True
            assert (await other.status(run_id)).cancel == "why"

        return lambda: store.request_cancel(run_id, "why"), look

    for case in (emitted, handled, stopped):
        await _everywhere(place, case)


@claim
async def a_lease_that_is_renewed_or_released_by_half_is_whole(place: Place) -> None:
    other = place.store()

    async def renewed(store: Store, run_id: str) -> tuple[Call, Look]:
        fence = (await owned(store, run_id, run_id)).fence

        async def look(found: Any) -> None:
            assert {name: one.fence for name, one in found.items()} == {run_id: fence}
            assert await put(other, lines(run_id, fence, 1, "x")) == (1, True)

        return lambda: store.renew(run_id, lease=LONG_S), look

    async def released(store: Store, run_id: str) -> tuple[Call, Look]:
        fence = (await owned(store, run_id)).fence

        async def look(_: bool) -> None:
            assert (await owned(other, run_id, "w2")).mode == "taken"
            assert await store.release(run_id, fence) is False

        return lambda: store.release(run_id, fence), look

    for case in (renewed, released):
        await _everywhere(place, case)


@claim
async def forgetting_that_is_cancelled_may_be_asked_for_again(place: Place) -> None:
    other = place.store()

    async def case(store: Store, run_id: str) -> tuple[Call, Look]:
        fence = (await owned(store, run_id)).fence
        await store.emit(run_id, "k", 1)
        last = lines(run_id, fence, 1, "x")
        await store.settle(run_id, fence, status="failed", outcome={}, lines=last)

        async def look(count: int) -> None:
            assert count in {0, 1}
            assert (await other.status(run_id)).first == 2
            assert await other.signal(run_id, "k") is None

        return lambda: store.forget(older_than=0), look

    await _everywhere(place, case)


@claim
async def a_reader_that_is_cancelled_hinders_no_other(place: Place) -> None:
    async def case(store: Store, run_id: str) -> tuple[Call, Look]:
        fence = (await owned(store, run_id)).fence
        await put(store, lines(run_id, fence, 1, "x"))

        async def ask() -> object:
            page = await store.read(run_id)
            await store.runs(limit=3)
            await store.orphans()
            return page.chunks[0].data, (await store.status(run_id)).lines

        async def look(found: Any) -> None:
            assert found == (b"x\n", 1)
            assert await put(store, lines(run_id, fence, 2, "y")) == (2, True)

        return ask, look

    await _everywhere(place, case)


@claim
async def a_wait_that_is_cancelled_leaves_the_others_waiting(place: Place) -> None:
    store, other = place.store(), place.store()
    fence = (await owned(store)).fence
    for line, ticks in enumerate((0, 1, 2, 3, 5, 8, 13, 50, 400)):
        waits = [
            asyncio.ensure_future(one.wait("r", after=line, timeout=30))
            for one in (store, other, store)
        ]
        await cut(partial(store.wait, "r", after=line, timeout=30), ticks)
        waits[0].cancel()
        await put(store, lines("r", fence, line + 1, "x"))
        await asyncio.wait_for(asyncio.gather(*waits[1:]), 10)


@claim
async def a_cancelled_call_does_not_happen_after_a_later_one(place: Place) -> None:
    """What the same store object is asked later stands, whatever became of the other."""
    store = place.store()
    fence = (await owned(store)).fence
    for ticks in (0, 1, 2, 3, 4, 6, 9, 14, 20, 30, 50, 80, 120, 200, 300) * 3:
        await cut(partial(store.set_handle, "r", fence, {"cancelled": 1}), ticks)
        await store.set_handle("r", fence, {"later": 1})
        await cut(lambda: owned(store), ticks)
        fence = (await owned(store)).fence
        await asyncio.sleep(0.002)
        assert (await store.status("r")).handle == {"later": 1}
        await store.set_handle("r", fence, {"its fence is": "the run's"})
