"""Random calls of several workers on one store, each compared with the model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast

from ...stores.contract import Lines, NewRun
from .claims import whole
from .model import Model
from .place import LONG_S, Place

if TYPE_CHECKING:
    from ...stores.contract import Store

_WORKERS: Final = ("w1", "w2", "w3")
_RUNS: Final = tuple(f"run {k}" for k in range(6))
_SESSIONS: Final = (None, "s1", "s2")
_ENDS: Final = ("completed", "failed", "cancelled")


async def drive(place: Place, *, steps: int, seed: int, runs: int = 40) -> None:
    """Make `steps` random calls, comparing each answer, and all runs now and then.

    After so many calls that every run has ended and been forgotten the ids are new ones:
    `runs` of them at a time. The place must be able to let leases lapse.

    Raises:
        AssertionError: store and model differ; the message has the seed and the call.
    """
    assert place.lapse is not None, "driving needs a place whose leases can lapse"
    driver = _Driver(place, Random(seed))
    for step in range(steps):
        if step % (runs * 25) == 0:
            driver.generation += 1
        try:
            await driver.step()
            if step % 50 == 0:
                await driver.compare()
        except AssertionError as exc:
            raise AssertionError(
                f"seed {seed}, step {step}: {driver.last}: {exc}"
            ) from exc
    await driver.compare()


class _Driver:
    def __init__(self, place: Place, random: Random) -> None:
        self.place = place
        self.random = random
        self.model = Model()
        self.stores = {worker: place.store() for worker in _WORKERS}
        self.generation = 0
        self.last = ""
        self.written = 0
        self.calls: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (14, self.claim),
            (4, self.renew),
            (3, self.release),
            (1, self.lapse),
            (25, self.append),
            (10, self.append_event),
            (15, self.read),
            (6, self.settle),
            (4, self.request_cancel),
            (8, self.begin),
            (8, self.end),
            (6, self.emit),
            (4, self.set_handle),
            (1, self.forget),
        ]
        self.weights = [weight for weight, _ in self.calls]

    async def step(self) -> None:
        (chosen,) = self.random.choices(self.calls, self.weights)
        await chosen[1]()

    @property
    def store(self) -> Store:
        return self.stores[self.random.choice(_WORKERS)]

    def run_id(self) -> str:
        return f"{self.generation} {self.random.choice(_RUNS)}"

    def fence(self, run_id: str) -> int:
        """Choose a fence: mostly the right one."""
        run = self.model.runs.get(run_id)
        right = 1 if run is None else run.fence
        return right if self.random.random() < 0.8 else max(1, right - 1)

    async def both(
        self, name: str, model: Callable[[], Any], store: Callable[[], Awaitable[Any]]
    ) -> tuple[Any, Any]:
        """Ask both; the same error of both is an answer, too."""
        self.last = name
        expected: Any = None
        failed: type[BaseException] | None = None
        try:
            expected = model()
        except Exception as exc:
            failed = type(exc)
        try:
            found = await store()
        except Exception as exc:
            assert failed is not None, f"raised {exc!r}, expected {expected!r}"
            assert isinstance(exc, failed), f"raised {exc!r}, not {failed.__name__}"
            return None, None
        assert failed is None, f"gave {found!r}, expected {failed and failed.__name__}"
        return expected, found

    async def claim(self) -> None:
        run_id, worker = self.run_id(), self.random.choice(_WORKERS)
        known = self.model.runs.get(run_id)
        session = known.session if known else self.random.choice(_SESSIONS)
        if session is not None:
            session = f"{self.generation} {session}"
            session = known.session if known else session
        hash_ = "other" if self.random.random() < 0.05 else "h"
        hash_ = hash_ if known else "h"
        reenter = self.random.random() < 0.3
        new = NewRun(
            id=run_id, manifest_hash=hash_, session=session, meta={"k": run_id}
        )
        expected, found = await self.both(
            f"claim {run_id} by {worker}",
            lambda: self.model.claim(run_id, hash_, session, worker, reenter),
            lambda: self.stores[worker].claim(
                new, worker=worker, lease=LONG_S, reenter=reenter
            ),
        )
        if found is not None:
            assert (found.mode, found.fence) == expected

    async def renew(self) -> None:
        worker = self.random.choice(_WORKERS)
        expected, found = await self.both(
            f"renew {worker}",
            lambda: self.model.renew(worker),
            lambda: self.stores[worker].renew(worker, lease=LONG_S),
        )
        shown = {run_id: (one.fence, one.cancel) for run_id, one in found.items()}
        assert shown == expected

    async def release(self) -> None:
        run_id = self.run_id()
        fence = self.fence(run_id)
        expected, found = await self.both(
            f"release {run_id}",
            lambda: self.model.release(run_id, fence),
            lambda: self.store.release(run_id, fence),
        )
        assert found == expected

    async def lapse(self) -> None:
        self.last = "lapse"
        self.model.lapse()
        await cast("Callable[[], Awaitable[None]]", self.place.lapse)()

    async def append(self) -> None:
        run_id = self.run_id()
        fence = self.fence(run_id)
        run = self.model.runs.get(run_id)
        end = 0 if run is None else len(run.lines)
        count = self.random.randint(1, 4)
        first = end + 1
        if self.random.random() < 0.15:
            first = max(0, end + self.random.randint(-4, 3))
        said = self.said(count)
        known = [] if run is None else run.lines
        if first >= 1 and first + count - 1 <= end:
            said = known[first - 1 : first - 1 + count]
        if first < 1:  # no line has that number, whoever asks
            first = 1 + end

        lines = Lines(run_id, fence, first, count, b"".join(said))
        expected, found = await self.both(
            f"append {run_id} {first}+{count} fence {fence}",
            lambda: self.model.append(run_id, fence, first, said, None),
            lambda: self.store.append([lines]),
        )
        if found is not None:
            shown = found[0] and (found[0].line, found[0].accepted)
            assert shown == expected

    async def append_event(self) -> None:
        run_id = self.run_id()
        fence = self.fence(run_id)
        event = f"e{self.random.randrange(8)}"
        said = self.said(1)
        lines = Lines(run_id, fence, 0, 1, said[0], event)
        expected, found = await self.both(
            f"append {run_id} {event}",
            lambda: self.model.append(run_id, fence, 0, said, event),
            lambda: self.store.append([lines]),
        )
        assert (found[0] and (found[0].line, found[0].accepted)) == expected

    def said(self, count: int) -> list[bytes]:
        self.written += 1
        return [b"%d.%d\n" % (self.written, k) for k in range(count)]

    async def read(self) -> None:
        run_id = self.run_id()
        run = self.model.runs.get(run_id)
        after = self.random.randint(0, (0 if run is None else len(run.lines)) + 2)
        store = self.store
        expected, found = await self.both(
            f"read {run_id} after {after}",
            lambda: self.model.read(run_id, after),
            lambda: store.read(run_id, after=after),
        )
        if found is not None:
            assert found.closed == expected[1]
            assert await whole(store, run_id, after) == expected[0]

    async def settle(self) -> None:
        run_id = self.run_id()
        fence = self.fence(run_id)
        status: Any = self.random.choice(_ENDS)
        run = self.model.runs.get(run_id)
        said = self.said(2) if self.random.random() < 0.5 else []
        first = (0 if run is None else len(run.lines)) + 1
        lines = Lines(run_id, fence, first, 2, b"".join(said)) if said else None
        outcome = {"n": self.written}
        for _ in range(self.random.choice((1, 1, 2))):
            await self.both(
                f"settle {run_id} {status} fence {fence}",
                lambda: self.model.settle(run_id, fence, status, outcome, said),
                lambda: self.store.settle(
                    run_id, fence, status=status, outcome=outcome, lines=lines
                ),
            )

    async def request_cancel(self) -> None:
        run_id = self.run_id()

        def model() -> bool:
            run = self.model.known(run_id)
            if run.status != "running":
                return False
            run.cancel = run.cancel or "stop"
            return True

        expected, found = await self.both(
            f"cancel {run_id}", model, lambda: self.store.request_cancel(run_id, "stop")
        )
        assert found == expected

    async def begin(self) -> None:
        run_id, index = self.run_id(), self.random.randrange(3)
        fence = self.fence(run_id)
        intent = f"i{index}" if self.random.random() < 0.9 else "other"
        hash_ = self.random.choice(("", "", "a", "b"))
        expected, found = await self.both(
            f"begin {run_id} {index} {intent} {hash_}",
            lambda: self.model.begin(run_id, fence, index, intent, hash_),
            lambda: self.store.begin_step(
                run_id, fence, index, intent=intent, kind="logic", input_hash=hash_
            ),
        )
        if found is not None:
            assert found.attempts == expected

    async def end(self) -> None:
        run_id, index = self.run_id(), self.random.randrange(3)
        fence = self.fence(run_id)
        failed = self.random.random() < 0.3
        result = {"r": self.written}
        await self.both(
            f"end {run_id} {index}",
            lambda: self.model.end(run_id, fence, index, result, failed),
            lambda: self.store.end_step(
                run_id,
                fence,
                index,
                result=result,
                error={"message": "m"} if failed else None,
            ),
        )

    async def emit(self) -> None:
        run_id = self.run_id()
        key = f"k{self.random.randrange(3)}"
        fence = self.fence(run_id) if self.random.random() < 0.5 else None
        payload = {"p": self.random.random()}
        expected, found = await self.both(
            f"emit {run_id} {key}",
            lambda: self.model.emit(run_id, key, payload, fence),
            lambda: self.store.emit(run_id, key, payload, fence=fence),
        )
        if found is not None:
            assert (found.payload, found.accepted) == expected

    async def set_handle(self) -> None:
        run_id = self.run_id()
        fence = self.fence(run_id)
        handle = self.random.choice((None, {"box": self.written}))

        def model() -> None:
            self.model.owned(run_id, fence).handle = handle

        await self.both(
            f"handle {run_id}",
            model,
            lambda: self.store.set_handle(run_id, fence, handle),
        )

    async def forget(self) -> None:
        expected, found = await self.both(
            "forget",
            self.model.forget,
            lambda: self.store.forget(older_than=0, limit=10_000),
        )
        assert found == expected

    async def compare(self) -> None:
        """Compare every run of these ids, in every respect."""
        store = self.store
        mine = [r for r in self.model.runs if r.startswith(f"{self.generation} ")]
        for run_id in mine:
            expected = self.model.runs[run_id]
            run = await store.status(run_id)
            assert (run.status, run.fence, run.lines, run.first) == (
                expected.status,
                expected.fence,
                len(expected.lines),
                expected.kept_from,
            ), run_id
            assert (run.outcome, run.handle, run.cancel, run.session) == (
                expected.outcome,
                expected.handle,
                expected.cancel,
                expected.session,
            ), run_id
            lapsed = expected.status == "running" and not expected.leased
            assert (run.lapsed_s is not None) == lapsed, run_id
            kept = b"".join(expected.lines[expected.kept_from - 1 :])
            assert await whole(store, run_id, expected.kept_from - 1) == kept
            steps = {
                s.index: [s.intent, s.input_hash, s.status, s.attempts, s.result]
                for s in await store.steps(run_id)
            }
            assert steps == expected.steps, run_id
            for key, payload in expected.signals.items():
                signal = await store.signal(run_id, key)
                assert signal is not None
                assert signal.payload == payload
        running = sorted(
            run_id
            for run_id, run in self.model.runs.items()
            if run.status == "running" and not run.leased
        )
        found = sorted([run.id for run in await store.orphans(limit=100_000)])
        assert found == running
        await asyncio.sleep(0)
