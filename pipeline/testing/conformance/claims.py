"""What the contract of a store says, sentence by sentence, each as a function.

`CLAIMS` has them by name; each is given a `Place` with fresh data, and raises
AssertionError where the store does not keep the promise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from operators.errors import (
    CursorGone,
    InputMismatch,
    LeaseHeld,
    LeaseLost,
    StepDivergence,
    TurnActive,
    UnknownTurn,
)

from ...stores.contract import Chunk, Lines, NewRun
from .place import LONG_S, Place

if TYPE_CHECKING:
    from ...stores.contract import Claim, Store

Check: TypeAlias = Callable[[Place], Awaitable[None]]

CLAIMS: Final[dict[str, Check]] = {}

IDS: Final = (
    "turn:1",
    "a/../b",
    "{brace}:{}",
    "quote'\"`;--",
    "p%20q",
    "emoji \N{PARTY POPPER} \u4e2d",
    "x" * 256,
    " spaced ",
)
DATA: Final = b'{"type":"x"}\n'


def claim(check: Check) -> Check:
    """Put a check among the claims."""
    CLAIMS[check.__name__] = check
    return check


async def raises(kind: type[BaseException], pending: Awaitable[object]) -> Any:
    """Return the error of this kind that awaiting raises."""
    try:
        value = await pending
    except kind as exc:
        return exc
    raise AssertionError(f"{kind.__name__} was not raised; it gave {value!r}")


async def owned(
    store: Store, run_id: str = "r", worker: str = "w1", **options: Any
) -> Claim:
    """Claim a run for a long time."""
    session = options.pop("session", None)
    new = NewRun(id=run_id, manifest_hash="h", session=session)
    return await store.claim(new, worker=worker, lease=options.pop("lease", LONG_S))


def lines(run_id: str, fence: int, first: int, *said: str) -> Lines:
    """Make lines."""
    data = b"".join([text.encode() + b"\n" for text in said])
    return Lines(run_id, fence, first, len(said), data)


async def whole(store: Store, run_id: str, after: int = 0) -> bytes:
    """Read a log to its present end, in whatever pages."""
    found: list[bytes] = []
    while True:
        page = await store.read(run_id, after=after)
        if not page.chunks:
            return b"".join(found)
        for chunk in page.chunks:
            assert chunk.first == after + 1, "chunks follow each other"
            assert chunk.data.count(b"\n") == chunk.count
            after += chunk.count
            found.append(chunk.data)


# -- owning


@claim
async def a_new_run_is_created_with_its_input_and_a_lease(place: Place) -> None:
    store = place.store()
    for run_id in IDS:
        meta = {"request": {"q": run_id, "n": [1, None, 2.5, 2**70], "s": "\ud800"}}
        new = NewRun(id=run_id, manifest_hash="h", meta=meta)
        got = await store.claim(new, worker="w", lease=LONG_S)
        assert (got.mode, got.fence) == ("created", 1)
        run = await store.status(run_id)
        assert run == got.run or run.updated_at >= got.run.updated_at
        assert (run.id, run.status, run.owner) == (run_id, "running", "w")
        assert (run.lines, run.first, run.lapsed_s) == (0, 1, None)
        assert run.meta == meta
        assert not run.closed


@claim
async def another_input_is_refused_before_the_lease_is_looked_at(place: Place) -> None:
    store = place.store()
    got = await owned(store)
    other = NewRun(id="r", manifest_hash="other")
    for worker in ("w1", "w2"):
        await raises(InputMismatch, store.claim(other, worker=worker, lease=1))
    await store.settle("r", got.fence, status="completed", outcome={})
    await raises(InputMismatch, store.claim(other, worker="w1", lease=1))


@claim
async def a_live_lease_keeps_others_out_and_its_worker_may_come_again(
    place: Place,
) -> None:
    store = place.store()
    await owned(store)
    error = await raises(LeaseHeld, owned(store, worker="w2"))
    assert (error.execution_id, error.owner) == ("r", "w1")
    assert 0 < error.expires_in <= LONG_S
    again = await owned(store)
    assert (again.mode, again.fence) == ("reentered", 2)


@claim
async def a_lapsed_lease_lets_another_take_over_under_a_higher_fence(
    place: Place,
) -> None:
    store, other = place.store(), place.store()
    first = await owned(store, lease=place.lease)
    await store.append([lines("r", first.fence, 1, "one")])
    await place.lapsed(store, "r")
    orphan = (await store.orphans())[0]
    assert orphan.id == "r"
    assert orphan.lapsed_s is not None
    second = await owned(other, worker="w2")
    assert (second.mode, second.fence, second.run.lines) == ("taken", 2, 1)
    assert await store.orphans() == []
    assert (await store.append([lines("r", first.fence, 2, "late")]))[0] is None
    assert (await other.append([lines("r", second.fence, 2, "two")]))[0] is not None
    assert await whole(store, "r") == b"one\ntwo\n"


@claim
async def a_lease_that_is_over_writes_nothing_though_nobody_took_it(
    place: Place,
) -> None:
    store = place.store()
    got = await owned(store, lease=place.lease)
    await store.begin_step("r", got.fence, 0, intent="i", kind="logic")
    await place.lapsed(store, "r")
    fence = got.fence
    assert (await store.append([lines("r", fence, 1, "x")])) == [None]
    ending = store.settle("r", fence, status="completed", outcome={})
    begun = store.begin_step("r", fence, 1, intent="i", kind="logic")
    for pending in (
        ending,
        begun,
        store.end_step("r", fence, 0, result=1),
        store.emit("r", "k", 1, fence=fence),
        store.set_handle("r", fence, {}),
    ):
        await raises(LeaseLost, pending)
    assert await store.release("r", fence) is False
    assert await store.renew("w1", lease=LONG_S) == {}
    run = await store.status("r")
    assert (run.lines, run.status, run.handle) == (0, "running", None)


@claim
async def renewing_keeps_all_live_leases_of_a_worker_and_tells_of_cancels(
    place: Place,
) -> None:
    store = place.store()
    for k in range(5):
        await owned(store, f"r{k}")
    await owned(store, "other", worker="w2")
    await store.request_cancel("r3", "the user")
    ended = await owned(store, "ended")
    await store.settle("ended", ended.fence, status="failed", outcome={})
    renewed = await store.renew("w1", lease=LONG_S)
    assert sorted(renewed) == [f"r{k}" for k in range(5)]
    assert {one.fence for one in renewed.values()} == {1}
    assert {k: one.cancel for k, one in renewed.items() if one.cancel} == {
        "r3": "the user"
    }


@claim
async def a_renewed_lease_lasts(place: Place) -> None:
    store = place.store()
    await owned(store, lease=place.lease)
    await store.renew("w1", lease=10 * LONG_S)
    await owned(store, "witness", lease=place.lease)
    await place.lapsed(store, "witness")
    assert (await store.status("r")).lapsed_s is None
    await raises(LeaseHeld, owned(store, worker="w2"))


@claim
async def a_released_run_may_be_taken_at_once(place: Place) -> None:
    store = place.store()
    got = await owned(store)
    assert await store.release("r", got.fence + 1) is False
    assert await store.release("r", got.fence) is True
    assert await store.release("r", got.fence) is False
    assert await store.release("nobody", 1) is False
    assert [run.id for run in await store.orphans()] == ["r"]
    assert (await store.append([lines("r", got.fence, 1, "x")])) == [None]
    assert (await owned(store, worker="w2")).mode == "taken"


@claim
async def one_run_of_a_session_runs_at_a_time(place: Place) -> None:
    store = place.store()
    first = await owned(store, "a", session="s")
    error = await raises(TurnActive, owned(store, "b", session="s"))
    assert (error.execution_id, error.lapsed) == ("a", False)
    await owned(store, "c", session="t")
    await owned(store, "d")
    await owned(store, "e")
    await store.release("a", first.fence)
    assert (await raises(TurnActive, owned(store, "b", session="s"))).lapsed
    taken = await owned(store, "a", worker="w2", session="s")
    await store.settle("a", taken.fence, status="cancelled", outcome={})
    assert (await owned(store, "b", session="s")).mode == "created"
    await raises(UnknownTurn, store.status("nobody"))


@claim
async def a_finished_run_is_given_without_a_lease_or_entered_again(
    place: Place,
) -> None:
    store = place.store()
    new = NewRun(id="r", manifest_hash="h", session="s")
    for status in ("completed", "failed", "cancelled"):
        new = NewRun(id=status, manifest_hash="h", session="s")
        got = await store.claim(new, worker="w", lease=LONG_S)
        await store.settle(status, got.fence, status=status, outcome={"x": 1})
        again = await store.claim(new, worker="w2", lease=LONG_S)
        assert (again.mode, again.fence, again.run.status) == ("finished", 0, status)
        assert again.run.outcome == {"x": 1}
        entered = await store.claim(new, worker="w2", lease=LONG_S, reenter=True)
        assert (entered.mode, entered.fence) == ("reentered", 2)
        now = await store.status(status)
        if status == "completed":
            assert (now.status, now.outcome) == ("completed", {"x": 1})
        else:
            assert (now.status, now.outcome, now.ended_at) == ("running", None, None)
            await raises(TurnActive, owned(store, "another", session="s"))
        await store.settle(status, entered.fence, status=status, outcome={"x": 2})
        assert (await store.status(status)).outcome == {"x": 2}


@claim
async def racing_claims_have_one_winner(place: Place) -> None:
    stores = [place.store() for _ in range(4)]
    for k in range(10):

        async def race(store: Store, worker: str, run_id: str = f"r{k}") -> object:
            try:
                return (await owned(store, run_id, worker=worker)).mode
            except LeaseHeld:
                return "held"

        found = await asyncio.gather(
            *[race(store, f"w{n}") for n, store in enumerate(stores)]
        )
        assert sorted(map(str, found)) == ["created", "held", "held", "held"]


@claim
async def racing_runs_of_a_session_have_one_winner(place: Place) -> None:
    stores = [place.store() for _ in range(4)]
    for k in range(10):

        async def race(store: Store, run_id: str, session: str = f"s{k}") -> str:
            try:
                return (await owned(store, run_id, session=session)).mode
            except TurnActive:
                return "active"

        found = await asyncio.gather(
            *[race(store, f"r{k}-{n}") for n, store in enumerate(stores)]
        )
        assert sorted(found) == ["active", "active", "active", "created"]


# -- the log


@claim
async def lines_are_numbered_from_1_and_read_from_every_cursor(place: Place) -> None:
    store = place.store()
    for run_id in IDS:
        got = await owned(store, run_id)
        end = 0
        for count in (1, 3, 1, 5, 2):
            said = [f"{end + k + 1}" for k in range(count)]
            answer = await store.append([lines(run_id, got.fence, end + 1, *said)])
            assert answer[0] is not None
            assert (answer[0].line, answer[0].accepted) == (end + 1, True)
            end += count
        every = [f"{k}\n".encode() for k in range(1, end + 1)]
        for after in range(end + 3):
            assert await whole(store, run_id, after) == b"".join(every[after:])
            page = await store.read(run_id, after=after)
            assert (page.lines, page.closed, page.lapsed_s) == (end, False, None)


@claim
async def pages_hold_whole_lines_about_as_many_bytes_as_asked(place: Place) -> None:
    store = place.store()
    got = await owned(store)
    large = "x" * 300_000
    said = ["a", large, "b", "c" * 1000, large, "d"]
    for k, text in enumerate(said):
        await store.append([lines("r", got.fence, k + 1, text)])
    for limit in (1, 1_000, 301_000, 10**7):
        after, found = 0, b""
        while True:
            page = await store.read("r", after=after, limit_bytes=limit)
            if not page.chunks:
                break
            size = sum([len(chunk.data) for chunk in page.chunks])
            assert size <= limit or len(page.chunks) == 1
            for chunk in page.chunks:
                after += chunk.count
                found += chunk.data
        assert found == "".join([f"{text}\n" for text in said]).encode()


@claim
async def appending_again_writes_nothing_and_gaps_are_refused(place: Place) -> None:
    store = place.store()
    got = await owned(store)
    first = lines("r", got.fence, 1, "1", "2", "3")
    for accepted in (True, False, False):
        answer = (await store.append([first]))[0]
        assert answer is not None
        assert (answer.line, answer.accepted) == (1, accepted)
    inside = (await store.append([lines("r", got.fence, 2, "2")]))[0]
    assert inside is not None
    assert not inside.accepted
    for wrong in (
        lines("r", got.fence, 5, "5"),
        lines("r", got.fence, 3, "3", "4"),
        lines("r", got.fence, 0, "0"),
    ):
        await raises(ValueError, store.append([wrong]))
    assert await whole(store, "r") == b"1\n2\n3\n"


@claim
async def a_batch_is_of_many_runs_and_one_stale_fence_hinders_no_other(
    place: Place,
) -> None:
    store = place.store()
    fences = {f"r{k}": (await owned(store, f"r{k}")).fence for k in range(20)}
    ended = await owned(store, "ended")
    await store.settle("ended", ended.fence, status="completed", outcome={})
    batch = [lines(run_id, fence, 1, run_id) for run_id, fence in fences.items()]
    batch.insert(3, lines("r1", 99, 2, "stale"))
    batch.insert(7, lines("ended", ended.fence, 1, "late"))
    batch.insert(9, lines("nobody", 1, 1, "unknown"))
    batch.append(lines("r0", fences["r0"], 2, "more"))
    answers = await store.append(batch)
    refused = [k for k, answer in enumerate(answers) if answer is None]
    assert refused == [3, 7, 9]
    assert await whole(store, "r0") == b"r0\nmore\n"
    assert await whole(store, "r1") == b"r1\n"
    assert await whole(store, "ended") == b""
    assert list(await store.append([])) == []


@claim
async def event_ids_are_appended_once_each(place: Place) -> None:
    store = place.store()
    got = await owned(store)

    def event(event_id: str, text: str) -> Lines:
        return Lines("r", got.fence, 0, 1, text.encode() + b"\n", event_id)

    answers = await store.append([event("a", "1"), event("b", "2"), event("a", "3")])
    shown = [(one.line, one.accepted) for one in answers if one is not None]
    assert shown == [(1, True), (2, True), (1, False)]
    again = await store.append([event("b", "other"), event("c", "3")])
    shown = [(one.line, one.accepted) for one in again if one is not None]
    assert shown == [(2, False), (3, True)]
    page = await store.read("r", after=1)
    assert page.chunks == (Chunk(2, 1, b"2\n", "b"), Chunk(3, 1, b"3\n", "c"))
    other = await owned(store, "r2")
    more = await store.append([Lines("r2", other.fence, 0, 1, b"x\n", "a")])
    assert more[0] is not None
    assert more[0].accepted


@claim
async def racing_appends_of_one_run_leave_no_gap(place: Place) -> None:
    stores = [place.store() for _ in range(3)]
    got = await owned(stores[0])

    async def put(store: Store, name: str) -> None:
        for k in range(20):
            await store.append(
                [Lines("r", got.fence, 0, 1, f"{name}{k}\n".encode(), f"{name}{k}")]
            )

    await asyncio.gather(*[put(store, "abc"[n]) for n, store in enumerate(stores)])
    said = (await whole(stores[0], "r")).split()
    assert len(said) == len(set(said)) == 60
    for name in (b"a", b"b", b"c"):
        mine = [line for line in said if line.startswith(name)]
        assert mine == [name + str(k).encode() for k in range(20)]


@claim
async def what_a_log_holds_comes_back_byte_for_byte(place: Place) -> None:
    store = place.store()
    got = await owned(store)
    said = [b"\x00\xff\xfe\n", "\u2028 \u0085 \ufeff\n".encode(), b"\\ud800\n", b"\n"]
    for k, data in enumerate(said):
        await store.append([Lines("r", got.fence, k + 1, 1, data)])
    assert await whole(store, "r") == b"".join(said)


@claim
async def bad_cursors_and_unknown_runs_are_told(place: Place) -> None:
    store = place.store()
    await owned(store)
    await raises(ValueError, store.read("r", after=-1))
    for pending in (
        store.read("nobody"),
        store.status("nobody"),
        store.request_cancel("nobody", "x"),
        store.emit("nobody", "k", 1),
        store.settle("nobody", 1, status="failed", outcome={}),
        store.begin_step("nobody", 1, 0, intent="i", kind="k"),
        store.set_handle("nobody", 1, {}),
    ):
        await raises(UnknownTurn, pending)
    assert list(await store.steps("nobody")) == []
    assert await store.signal("nobody", "k") is None


@claim
async def a_wait_ends_with_the_next_line_the_close_or_the_time(place: Place) -> None:
    store, other = place.store(), place.store()
    got = await owned(store)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await store.wait("r", after=0, timeout=0.1)
    assert loop.time() - began < 5
    for reader in (store, other):
        line = (await store.status("r")).lines
        waiting = asyncio.ensure_future(reader.wait("r", after=line, timeout=20))
        await asyncio.sleep(0.05)
        await store.append([lines("r", got.fence, line + 1, "x")])
        await asyncio.wait_for(waiting, 10)
    await store.wait("r", after=0, timeout=20)
    waits = [
        asyncio.ensure_future(reader.wait("r", after=2, timeout=20))
        for reader in (store, other)
    ]
    await asyncio.sleep(0.05)
    await store.settle("r", got.fence, status="completed", outcome={})
    await asyncio.wait_for(asyncio.gather(*waits), 10)
    await store.wait("r", after=99, timeout=20)


@claim
async def closing_ends_waits(place: Place) -> None:
    store = place.store()
    await owned(store)
    waiting = asyncio.ensure_future(store.wait("r", after=0, timeout=60))
    await asyncio.sleep(0.05)
    await store.close()
    await asyncio.wait((waiting,), timeout=10)
    assert waiting.done()
    if not waiting.cancelled():
        waiting.exception()
    await store.close()


# -- settling


@claim
async def settling_ends_a_run_with_its_last_lines_at_once(place: Place) -> None:
    store = place.store()
    got = await owned(store, session="s")
    await store.append([lines("r", got.fence, 1, "one")])
    last = lines("r", got.fence, 2, "two", "end")
    for _ in range(3):  # an answer that was lost is asked for again
        await store.settle(
            "r", got.fence, status="completed", outcome={"text": "\ud800"}, lines=last
        )
    run = await store.status("r")
    assert (run.status, run.lines, run.closed, run.owner) == (
        "completed",
        3,
        True,
        None,
    )
    assert run.outcome == {"text": "\ud800"}
    assert run.ended_at is not None
    page = await store.read("r")
    assert (page.closed, page.lapsed_s) == (True, None)
    assert await whole(store, "r") == b"one\ntwo\nend\n"
    assert (await store.append([lines("r", got.fence, 4, "late")])) == [None]
    other = store.settle("r", got.fence, status="failed", outcome={})
    await raises(LeaseLost, other)
    assert await store.request_cancel("r", "late") is False
    assert await store.orphans() == []


@claim
async def a_stale_fence_settles_nothing(place: Place) -> None:
    store = place.store()
    got = await owned(store)
    await store.release("r", got.fence)
    taken = await owned(store, worker="w2")
    last = lines("r", got.fence, 1, "x")
    await raises(
        LeaseLost,
        store.settle("r", got.fence, status="failed", outcome={}, lines=last),
    )
    assert (await store.status("r")).lines == 0
    await store.settle("r", taken.fence, status="completed", outcome={})
    assert (await store.status("r")).status == "completed"


# -- asking


@claim
async def runs_are_listed_newest_first_by_session_and_status(place: Place) -> None:
    store = place.store()
    for k in range(6):
        run_id = f"r{k}"
        got = await owned(store, run_id, session=f"s{k % 2}-{k // 2}")
        if k % 3 == 0:
            await store.settle(run_id, got.fence, status="failed", outcome={})
    every = [run.id for run in await store.runs()]
    assert sorted(every) == [f"r{k}" for k in range(6)]
    created = [run.created_at for run in await store.runs()]
    assert created == sorted(created, reverse=True)
    failed = await store.runs(statuses=["failed", "cancelled"])
    assert sorted([run.id for run in failed]) == ["r0", "r3"]
    assert [run.id for run in await store.runs(session="s1-0")] == ["r1"]
    assert len(await store.runs(limit=2)) == 2


@claim
async def a_cancel_is_asked_for_once_and_stays(place: Place) -> None:
    store = place.store()
    await owned(store)
    assert await store.request_cancel("r", "first") is True
    assert await store.request_cancel("r", "second") is True
    assert (await store.status("r")).cancel == "first"


# -- steps, signals, the handle


@claim
async def steps_are_begun_ended_and_tried_again(place: Place) -> None:
    store = place.store()
    got = await owned(store)
    fence = got.fence
    step = await store.begin_step("r", fence, 0, intent="a", kind="llm", input_hash="1")
    assert (step.index, step.status, step.attempts) == (0, "running", 1)
    failed = await store.end_step("r", fence, 0, error={"message": "m", "code": "c"})
    assert (failed.status, failed.error) == ("failed", {"message": "m", "code": "c"})
    again = await store.begin_step("r", fence, 0, intent="a", kind="llm")
    assert (again.attempts, again.status, again.error) == (2, "running", None)
    done = await store.end_step("r", fence, 0, result={"x": [1, "\ud800", 2**70]})
    assert (done.status, done.result) == ("completed", {"x": [1, "\ud800", 2**70]})
    assert done.ended_at is not None
    await store.begin_step("r", fence, 1, intent="b", kind="tool")
    await store.end_step("r", fence, 1)
    assert [(s.index, s.intent, s.kind) for s in await store.steps("r")] == [
        (0, "a", "llm"),
        (1, "b", "tool"),
    ]
    assert (await store.steps("r"))[1].result is None


@claim
async def another_step_in_the_same_place_diverges(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    await store.begin_step("r", fence, 0, intent="a", kind="llm", input_hash="1")
    for intent, input_hash in (("b", "1"), ("b", ""), ("a", "2")):
        await raises(
            StepDivergence,
            store.begin_step(
                "r", fence, 0, intent=intent, kind="llm", input_hash=input_hash
            ),
        )
    assert (await store.steps("r"))[0].attempts == 1
    await raises(LookupError, store.end_step("r", fence, 7))


@claim
async def the_first_signal_under_a_key_wins_for_good(place: Place) -> None:
    stores = [place.store() for _ in range(3)]
    got = await owned(stores[0])
    assert await stores[0].signal("r", "k") is None
    found = await asyncio.gather(
        *[store.emit("r", "k", {"by": n}) for n, store in enumerate(stores)]
    )
    winners = [one for one in found if one.accepted]
    assert len(winners) == 1
    winner = winners[0]
    assert all(one.payload == winner.payload for one in found)
    kept = await stores[1].signal("r", "k")
    assert kept is not None
    assert (kept.payload, kept.emitted_at) == (winner.payload, winner.emitted_at)
    assert (await stores[0].emit("r", "k2", None, fence=got.fence)).accepted
    await raises(LeaseLost, stores[0].emit("r", "k3", 1, fence=got.fence + 1))


@claim
async def the_handle_is_kept_and_taken_back(place: Place) -> None:
    store = place.store()
    fence = (await owned(store)).fence
    for handle in ({"box": "1", "n": 2**70}, {}, None):
        await store.set_handle("r", fence, handle)
        assert (await store.status("r")).handle == handle
    await raises(LeaseLost, store.set_handle("r", fence + 1, {}))


# -- keeping


@claim
async def what_is_forgotten_is_gone_and_says_so(place: Place) -> None:
    store = place.store()
    for run_id in ("old", "running"):
        fence = (await owned(store, run_id)).fence
        await store.append([lines(run_id, fence, 1, "1", "2")])
        await store.emit(run_id, "k", 1)
        await store.begin_step(run_id, fence, 0, intent="i", kind="k")
    outcome = {"text": "kept"}
    await store.settle("old", 1, status="completed", outcome=outcome)
    assert await store.forget(older_than=3600) == 0
    assert await store.forget(older_than=0) == 1
    assert await store.forget(older_than=0) == 0
    for after in (0, 1):
        error = await raises(CursorGone, store.read("old", after=after))
        assert (error.first, error.last) == (3, 2)
    page = await store.read("old", after=2)
    assert (page.chunks, page.closed) == ((), True)
    run = await store.status("old")
    assert (run.outcome, run.lines, run.first) == (outcome, 2, 3)
    assert list(await store.steps("old")) == []
    assert await store.signal("old", "k") is None
    assert await whole(store, "running") == b"1\n2\n"
    finished = await owned(store, "old")
    assert finished.mode == "finished"


# -- interrupted


@claim
async def a_call_that_is_cancelled_anywhere_leaves_the_store_whole(
    place: Place,
) -> None:
    store = place.store()
    got = await owned(store)
    end = 0
    for ticks in range(40):
        text = f"{ticks}"
        piece = lines("r", got.fence, end + 1, text)
        writing = asyncio.ensure_future(store.append([piece]))
        for _ in range(ticks):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait((writing,))
        answer = (await store.append([piece]))[0]
        assert answer is not None
        end += 1
        assert (await store.status("r")).lines == end
    said = "".join([f"{k}\n" for k in range(end)]).encode()
    assert await whole(store, "r") == said
