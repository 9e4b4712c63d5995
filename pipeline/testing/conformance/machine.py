"""The same comparison by hypothesis: what differs comes as the fewest calls that show it.

Needs the extra `testing`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from .calls import Calls

if TYPE_CHECKING:
    from ...stores.contract import EndStatus
    from .place import Place

RUNS: Final = st.sampled_from(["a", "b", "c"])
WORKERS: Final = st.sampled_from(["w1", "w2"])
ENDS: Final[st.SearchStrategy[EndStatus]] = st.sampled_from(
    ["completed", "failed", "cancelled"]
)
OFF: Final = st.sampled_from([0, 0, 0, 0, 0, -1, 1])
"""How far a fence is from the right one."""
LEASES: Final = st.integers(0, 3)
STEPS: Final = st.integers(0, 1)
_ALL_CHECKS: Final = [HealthCheck.too_slow, HealthCheck.filter_too_much]
KEYS: Final = st.sampled_from(["k", "l"])


class StoreMachine(RuleBasedStateMachine):
    """Calls of workers on one store; `explore` says which, and gives the loop."""

    fresh: ClassVar[Iterator[Calls]]
    runner: ClassVar[asyncio.Runner]

    def __init__(self) -> None:
        """Begin with runs that nobody has seen."""
        super().__init__()
        self.calls: Calls = next(self.fresh)
        self.touched: set[str] = set()

    def do(self, call: Coroutine[Any, Any, None]) -> None:
        """Run a call in the loop that all examples share, and compare what it touched."""
        touched, self.touched = self.touched, set()

        async def both() -> None:
            await call
            if touched:
                await self.calls.compare(sorted(touched))

        self.runner.run(both())

    def fence(self, run: str, off: int) -> int:
        """Give a run's fence, or one beside it."""
        self.touched.add(run)
        known = self.calls.run(run)
        return max(0, (1 if known is None else known.fence) + off)

    @rule(
        run=RUNS,
        worker=WORKERS,
        lease=LEASES,
        session=st.sampled_from([None, "s"]),
        other_input=st.sampled_from([False, False, False, True]),
        reenter=st.booleans(),
    )
    def claim(
        self,
        *,
        run: str,
        worker: str,
        lease: int,
        session: str | None,
        other_input: bool,
        reenter: bool,
    ) -> None:
        """Claim a run."""
        self.touched.add(run)
        hash_ = "other" if other_input else "h"
        self.do(
            self.calls.claim(
                run, worker, lease=lease, session=session, hash_=hash_, reenter=reenter
            )
        )

    @rule(worker=WORKERS, lease=LEASES)
    def renew(self, *, worker: str, lease: int) -> None:
        """Renew a worker's leases."""
        self.do(self.calls.renew(worker, lease=lease))

    @rule(run=RUNS, off=OFF)
    def release(self, *, run: str, off: int) -> None:
        """Release a run."""
        self.do(self.calls.release(run, self.fence(run, off)))

    @rule(units=st.integers(1, 4))
    def advance(self, *, units: int) -> None:
        """Move the clock on."""
        self.do(self.calls.advance(units))

    @rule(
        parts=st.lists(
            st.tuples(
                RUNS, OFF, st.sampled_from([0, 0, 0, -2, -1, 1]), st.integers(1, 3)
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda part: part[0],
        )
    )
    def append(self, *, parts: list[tuple[str, int, int, int]]) -> None:
        """Append lines by number, of several runs."""
        pieces = [
            self.calls.piece(run, self.fence(run, off), ahead=ahead, count=count)
            for run, off, ahead, count in parts
        ]
        self.do(self.calls.append(*pieces))

    @rule(
        parts=st.lists(
            st.tuples(RUNS, OFF, st.sampled_from(["e1", "e2", "e3"])),
            min_size=1,
            max_size=4,
        )
    )
    def append_events(self, *, parts: list[tuple[str, int, str]]) -> None:
        """Append lines by id."""
        pieces = [
            self.calls.piece(run, self.fence(run, off), event=event)
            for run, off, event in parts
        ]
        self.do(self.calls.append(*pieces))

    @rule(run=RUNS, after=st.integers(0, 8), limit=st.sampled_from([1, 9, 1 << 20]))
    def read(self, *, run: str, after: int, limit: int) -> None:
        """Read a log from a cursor."""
        self.do(self.calls.read(run, after, limit))

    @rule(
        run=RUNS,
        off=OFF,
        status=ENDS,
        last=st.sampled_from([None, 0, 0, -1, 1]),
        times=st.integers(1, 2),
    )
    def settle(
        self, *, run: str, off: int, status: EndStatus, last: int | None, times: int
    ) -> None:
        """End a run."""
        fence = self.fence(run, off)
        piece = None
        if last is not None:
            piece = self.calls.piece(run, fence, ahead=last, count=2)
        self.do(self.calls.settle(run, fence, status, last=piece, times=times))

    @rule(run=RUNS, reason=st.sampled_from(["why", "stop", ""]))
    def request_cancel(self, *, run: str, reason: str) -> None:
        """Ask a run to stop."""
        self.touched.add(run)
        self.do(self.calls.request_cancel(run, reason))

    @rule(
        run=RUNS,
        off=OFF,
        index=STEPS,
        other=st.sampled_from([False, False, True]),
        hash_=st.sampled_from(["", "x", "y"]),
    )
    def begin_step(
        self, *, run: str, off: int, index: int, other: bool, hash_: str
    ) -> None:
        """Begin a step."""
        intent = "other" if other else f"i{index}"
        fence = self.fence(run, off)
        self.do(self.calls.begin_step(run, fence, index, intent, hash_))

    @rule(run=RUNS, off=OFF, index=STEPS, failed=st.booleans())
    def end_step(self, *, run: str, off: int, index: int, failed: bool) -> None:
        """End a step."""
        error = {"message": "m", "code": None} if failed else None
        self.do(self.calls.end_step(run, self.fence(run, off), index, error=error))

    @rule(run=RUNS, key=KEYS, off=st.sampled_from([None, None, 0, -1]))
    def emit(self, *, run: str, key: str, off: int | None) -> None:
        """Emit a signal."""
        fence = self.fence(run, off or 0)
        self.do(self.calls.emit(run, key, fence=None if off is None else fence))

    @rule(run=RUNS, off=OFF, handle=st.sampled_from([None, {}, {"box": 1}]))
    def set_handle(self, *, run: str, off: int, handle: Any) -> None:
        """Keep a handle."""
        self.do(self.calls.set_handle(run, self.fence(run, off), handle))

    @rule(units=st.integers(0, 3))
    def forget(self, *, units: int) -> None:
        """Forget what ended."""
        self.do(self.calls.forget(units))

    @rule()
    def lists(self) -> None:
        """List runs and orphans."""
        self.do(self.calls.compare_lists())

    def teardown(self) -> None:
        """Compare all; leave nothing that a later example would find."""
        try:
            self.do(self.calls.compare())
            self.do(self.calls.compare_lists())
        finally:
            self.do(self.calls.end_all())


def explore(place: Place, *, examples: int = 100, steps: int = 50) -> None:
    """Compare the store with the model on `examples` sequences of up to `steps` calls.

    The place's clock must move.

    Raises:
        AssertionError: they differ; hypothesis says by which calls.
        ValueError: the place's clock does not move.
    """
    stores = [place.store() for _ in range(3)]
    if place.advance is None:
        raise ValueError("the place's clock does not move: Place(open, advance)")
    fresh = (Calls(place, stores, f"{k} ", Counter()) for k in itertools.count())
    with asyncio.Runner() as runner:
        shared = {"fresh": fresh, "runner": runner}
        machine = type("StoreMachine", (StoreMachine,), shared)
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate, Phase.shrink],
                    suppress_health_check=_ALL_CHECKS,
                ),
            )
        finally:
            runner.run(place.close())
