# ruff: noqa: D103 - a claim's name is what it says
"""Claims about workers that race: of those who would win, one does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from operators.errors import DurableError

from .claiming import claim, event, lines, owned, put, whole
from .place import LONG_S, Place
from .storm import storm

if TYPE_CHECKING:
    from ...stores.contract import Store

T = TypeVar("T")

ROUNDS = 12
RACERS = 4


async def _race(
    stores: list[Store], run: Callable[[Store, int], Awaitable[T]]
) -> list[T | str]:
    """Let each store object do it at once; give the answers, or the errors' codes."""

    async def one(store: Store, k: int) -> T | str:
        try:
            return await run(store, k)
        except DurableError as exc:
            return exc.code

    return await asyncio.gather(*[one(store, k) for k, store in enumerate(stores)])


async def _stores(place: Place) -> list[Store]:
    """Make store objects that are warm: who has to connect first loses every race."""
    stores = [place.store() for _ in range(RACERS)]
    for store in stores:
        await store.forget(older_than=0)
    return stores


@claim
async def racing_claims_have_one_winner(place: Place) -> None:
    stores = await _stores(place)
    for k in range(ROUNDS):

        async def create(store: Store, n: int, run_id: str = f"r{k}") -> str:
            return (await owned(store, run_id, f"w{n}")).mode

        found = await _race(stores, create)
        assert Counter(found) == {"created": 1, "lease_held": RACERS - 1}


@claim
async def racing_claims_of_one_worker_have_fences_of_their_own(place: Place) -> None:
    stores = await _stores(place)
    for k in range(ROUNDS):

        async def create(store: Store, _: int, run_id: str = f"r{k}") -> int:
            return (await owned(store, run_id)).fence

        fences = set(map(int, await _race(stores, create)))
        assert len(fences) == RACERS
        assert (await stores[0].status(f"r{k}")).fence == max(fences)


@claim
async def racing_takeovers_have_one_winner(place: Place) -> None:
    stores = await _stores(place)
    fence = (await owned(stores[0])).fence
    for _ in range(ROUNDS):
        await stores[0].release("r", fence)

        async def take(store: Store, n: int) -> tuple[str, int]:
            got = await owned(store, worker=f"w{n}")
            return got.mode, got.fence

        found = await _race(stores, take)
        fence += 1
        assert Counter(found) == {("taken", fence): 1, "lease_held": RACERS - 1}


@claim
async def racing_runs_of_a_session_have_one_winner(place: Place) -> None:
    stores = await _stores(place)
    for k in range(ROUNDS):

        async def create(store: Store, n: int, k: int = k) -> str:
            return (await owned(store, f"r{k}-{n}", f"w{n}", session=f"s{k}")).mode

        found = await _race(stores, create)
        assert Counter(found) == {"created": 1, "turn_active": RACERS - 1}
        assert len(await stores[0].runs(session=f"s{k}")) == 1


@claim
async def racing_runs_that_would_run_again_have_one_winner(place: Place) -> None:
    stores = await _stores(place)
    for n in range(RACERS):
        got = await owned(stores[0], f"r{n}", session="s")
        await stores[0].settle(f"r{n}", got.fence, status="failed", outcome={})
    for _ in range(ROUNDS):

        async def again(store: Store, n: int) -> int:
            got = await owned(store, f"r{n}", f"w{n}", session="s", reenter=True)
            return got.fence

        found = await _race(stores, again)
        assert Counter(found)["turn_active"] == RACERS - 1
        (running,) = await stores[0].runs(session="s", statuses=["running"])
        await stores[0].settle(running.id, running.fence, status="failed", outcome={})


@claim
async def racing_appends_of_one_run_leave_no_gap(place: Place) -> None:
    stores = await _stores(place)
    fence = (await owned(stores[0])).fence

    async def append(store: Store, n: int) -> None:
        for k in range(20):
            name = f"{n}.{k}"
            assert (await put(store, event("r", fence, name, name)) or (0, 0))[1]

    await _race(stores, append)
    said = (await whole(stores[0], "r")).decode().split()
    assert len(said) == len(set(said)) == 20 * RACERS
    for n in range(RACERS):
        mine = [line for line in said if line.startswith(f"{n}.")]
        assert mine == [f"{n}.{k}" for k in range(20)]


@claim
async def racing_appends_of_the_same_write_once(place: Place) -> None:
    stores = await _stores(place)
    fence = (await owned(stores[0])).fence
    for k in range(ROUNDS):
        at = 2 * k + 1
        for piece in (lines("r", fence, at, "x"), event("r", fence, f"e{k}", "y")):

            async def append(
                store: Store, _: int, piece: object = piece
            ) -> tuple[int, bool] | None:
                assert isinstance(piece, type(lines("r", 1, 1, "x")))
                return await put(store, piece)

            found = await _race(stores, append)
            assert Counter(found) == {(at, True): 1, (at, False): RACERS - 1}
            at += 1
    assert await whole(stores[0], "r") == b"x\ny\n" * ROUNDS


@claim
async def racing_emitters_have_one_winner_whom_all_are_told(place: Place) -> None:
    stores = await _stores(place)
    await owned(stores[0])
    for k in range(ROUNDS):

        async def emit(store: Store, n: int, k: int = k) -> tuple[bool, int, float]:
            signal = await store.emit("r", f"k{k}", n)
            return signal.accepted, signal.payload, signal.emitted_at

        found = await _race(stores, emit)
        assert Counter([one[0] for one in found]) == {True: 1, False: RACERS - 1}
        assert len({one[1:] for one in found}) == 1
        kept = await stores[-1].signal("r", f"k{k}")
        assert kept is not None
        assert (kept.payload, kept.emitted_at) == found[0][1:]


@claim
async def racing_ends_of_a_run_have_one_winner(place: Place) -> None:
    stores = await _stores(place)
    ends = ("completed", "failed", "cancelled", "failed")
    for k in range(ROUNDS):
        run_id = f"r{k}"
        fence = (await owned(stores[0], run_id)).fence

        async def end(
            store: Store, n: int, run_id: str = run_id, f: int = fence
        ) -> str:
            last = lines(run_id, f, 1, ends[n])
            status = ends[n]
            await store.settle(
                run_id,
                f,
                status=status,  # type: ignore[arg-type]  # one of EndStatus
                outcome={"by": status},
                lines=last,
            )
            return status

        found = await _race(stores, end)
        run = await stores[0].status(run_id)
        won = {one for one in found if one != "lease_lost"}
        assert won == {run.status}
        assert run.outcome == {"by": run.status}
        assert await whole(stores[0], run_id) == f"{run.status}\n".encode()


@claim
async def a_takeover_and_a_late_writer_leave_one_history(place: Place) -> None:
    """What a stale worker was told is written stands before what its heir writes."""
    stores = await _stores(place)
    for k in range(ROUNDS):
        run_id = f"r{k}"
        old = (await owned(stores[0], run_id)).fence
        told: list[str] = []

        async def late(
            run_id: str = run_id, f: int = old, told: list[str] = told
        ) -> None:
            for n in range(8):
                if await put(stores[1], event(run_id, f, f"{n}", f"old {n}")) is None:
                    return
                told.append(f"old {n}")

        async def heir(run_id: str = run_id, f: int = old) -> int:
            await asyncio.sleep(0)
            await stores[2].release(run_id, f)
            got = await owned(stores[3], run_id, "w2")
            for n in range(3):
                piece = event(run_id, got.fence, f"heir {n}", f"new {n}")
                assert await put(stores[3], piece) is not None
            return got.run.lines

        _, found = await asyncio.gather(late(), heir())
        said = (await whole(stores[0], run_id)).decode().splitlines()
        assert said == [*told, "new 0", "new 1", "new 2"]
        assert found == len(told)


@claim
async def racing_begins_of_a_step_are_all_counted(place: Place) -> None:
    stores = await _stores(place)
    fence = (await owned(stores[0])).fence
    for k in range(ROUNDS):

        async def begin(store: Store, _: int, k: int = k) -> int:
            step = await store.begin_step("r", fence, k, intent="i", kind="logic")
            return step.attempts

        assert sorted(map(int, await _race(stores, begin))) == [1, 2, 3, 4]


@claim
async def racing_forgets_count_each_run_once(place: Place) -> None:
    stores = await _stores(place)
    for k in range(ROUNDS):
        for n in range(3):
            run_id = f"r{k}-{n}"
            fence = (await owned(stores[0], run_id)).fence
            last = lines(run_id, fence, 1, "x")
            await stores[0].settle(
                run_id, fence, status="failed", outcome={}, lines=last
            )
        found = await _race(stores, lambda store, _: store.forget(older_than=0))
        assert sum(map(int, found)) == 3


@claim
async def batches_of_the_same_runs_in_other_orders_do_not_block_each_other(
    place: Place,
) -> None:
    stores = await _stores(place)
    fences = {f"r{k}": (await owned(stores[0], f"r{k}")).fence for k in range(6)}

    async def append(store: Store, n: int) -> None:
        ids = list(fences)
        for k in range(10):
            ids = ids[n + 1 :] + ids[: n + 1]
            batch = [event(r, fences[r], f"{n}.{k}", f"{n}.{k}") for r in ids]
            assert all(one and one.accepted for one in await store.append(batch))
            await store.renew("w1", lease=LONG_S)

    await _race(stores, append)
    for run_id in fences:
        said = (await whole(stores[0], run_id)).decode().split()
        assert Counter(said) == {
            f"{n}.{k}": 1 for n in range(RACERS) for k in range(10)
        }


@claim
async def a_storm_of_calls_breaks_no_rule(place: Place) -> None:
    await storm(place, seed=1, calls=400, cancels=0)


@claim
async def a_storm_of_calls_of_which_some_are_cancelled_breaks_no_rule(
    place: Place,
) -> None:
    await storm(place, seed=2, calls=400, cancels=0.2)
