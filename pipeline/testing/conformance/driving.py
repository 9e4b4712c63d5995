"""Random calls of several workers on one store, each compared with the model."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Final

from .calls import Calls

if TYPE_CHECKING:
    from ...stores.contract import EndStatus
    from .model import ModelRun, Piece
    from .place import Place

_WORKERS: Final = ("w1", "w2", "w3")
_RUNS: Final = tuple(f"run {k}" for k in range(6))
_SESSIONS: Final = (None, "s1", "s2")
_ENDS: Final[tuple[EndStatus, ...]] = ("completed", "failed", "cancelled")
_LIFE: Final = 500
"""After so many calls the runs are ended, and new ones begun."""


async def drive(
    place: Place, *, steps: int, seed: int, seconds: float | None = None
) -> Counter[str]:
    """Make `steps` random calls, comparing each answer, and all runs now and then.

    The place's clock must move. The same seed makes the same calls. With `seconds` it
    stops then. Returns how often each call was answered, and how ("claim LeaseHeld");
    "steps" is how many there were.

    Raises:
        AssertionError: store and model differ; the message has the seed and the calls.
        ValueError: the place's clock does not move.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    random = Random(seed)
    answered: Counter[str] = Counter()
    stores = [place.store() for _ in range(3)]
    driver: _Driver | None = None
    step = 0
    try:
        while step < steps and (ends is None or time.monotonic() < ends):
            if driver is None or step % _LIFE == 0:
                if driver is not None:
                    await driver.calls.compare()
                    await driver.calls.end_all()
                prefix = f"{seed}/{step // _LIFE} "
                calls = Calls(place, stores, prefix, answered)
                driver = _Driver(calls, random)
            await driver.step()
            step += 1
            if step % 10 == 0:
                await driver.calls.compare([driver.chosen])
            if step % 50 == 0:
                await driver.calls.compare_lists()
        if driver is not None:
            await driver.calls.compare()
            await driver.calls.end_all()
    except AssertionError as exc:
        last = "\n  ".join(driver.calls.history) if driver is not None else ""
        raise AssertionError(
            f"seed {seed}, step {step}: {exc}; the calls until then:\n  {last}"
        ) from exc
    answered["steps"] = step
    return answered


class _Driver:
    def __init__(self, calls: Calls, random: Random) -> None:
        self.calls = calls
        self.random = random
        self.chosen = _RUNS[0]
        does: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (16, self.claim),
            (4, self.renew),
            (2, self.release),
            (2, self.advance),
            (25, self.append),
            (12, self.read),
            (6, self.settle),
            (4, self.request_cancel),
            (6, self.begin),
            (8, self.end),
            (5, self.emit),
            (4, self.set_handle),
            (1, self.forget),
        ]
        self.does = [call for _, call in does]
        self.weights = [weight for weight, _ in does]

    async def step(self) -> None:
        self.chosen = self.random.choice(_RUNS)
        (chosen,) = self.random.choices(self.does, self.weights)
        await chosen()

    @property
    def run(self) -> ModelRun | None:
        return self.calls.run(self.chosen)

    def mostly(self, share: float) -> bool:
        return self.random.random() < share

    def fence(self) -> int:
        """Choose a fence: mostly the right one."""
        right = 1 if self.run is None else self.run.fence
        return (
            right if self.mostly(0.85) else max(1, right + self.random.choice((-1, 1)))
        )

    async def claim(self) -> None:
        session = self.random.choice(_SESSIONS)
        await self.calls.claim(
            self.chosen,
            self.random.choice(_WORKERS),
            lease=self.random.choice((0, 1, 3, 9)),
            session=session,
            hash_="h" if self.run is None or self.mostly(0.95) else "other",
            reenter=self.mostly(0.4),
        )

    async def renew(self) -> None:
        lease = self.random.choice((0, 1, 3))
        await self.calls.renew(self.random.choice(_WORKERS), lease=lease)

    async def release(self) -> None:
        await self.calls.release(self.chosen, self.fence())

    async def advance(self) -> None:
        await self.calls.advance(self.random.choice((1, 1, 2, 5)))

    async def append(self) -> None:
        runs = [self.chosen]
        if self.mostly(0.2):
            runs += self.random.choices(_RUNS, k=self.random.randint(1, 3))
        pieces: list[Piece] = []
        for self.chosen in runs:
            event = f"e{self.random.randrange(8)}" if self.mostly(0.3) else None
            ahead = 0 if self.mostly(0.85) else self.random.randint(-4, 2)
            count = self.random.randint(1, 4)
            if runs.count(self.chosen) > 1 and event is None:
                event = f"e{self.random.randrange(8)}"  # where it ends is not known
            pieces.append(
                self.calls.piece(
                    self.chosen, self.fence(), ahead=ahead, count=count, event=event
                )
            )
        await self.calls.append(*pieces)

    async def read(self) -> None:
        end = 0 if self.run is None else len(self.run.lines)
        limit = self.random.choice((1, 10, 30, 1 << 20))
        await self.calls.read(self.chosen, self.random.randint(0, end + 2), limit)

    async def settle(self) -> None:
        fence = self.fence()
        last = None
        if self.mostly(0.5):
            ahead = 0 if self.mostly(0.85) else self.random.randint(-2, 1)
            last = self.calls.piece(self.chosen, fence, ahead=ahead, count=2)
        times = self.random.choice((1, 1, 2))
        status = self.random.choice(_ENDS)
        await self.calls.settle(self.chosen, fence, status, last=last, times=times)

    async def request_cancel(self) -> None:
        reason = self.random.choice(("why", "stop", ""))
        await self.calls.request_cancel(self.chosen, reason)

    async def begin(self) -> None:
        index = self.random.randrange(3)
        intent = f"i{index}" if self.mostly(0.9) else "other"
        hash_ = self.random.choice(("", "", "a", "b"))
        await self.calls.begin_step(self.chosen, self.fence(), index, intent, hash_)

    async def end(self) -> None:
        error = {"message": "m"} if self.mostly(0.3) else None
        index = self.random.randrange(3)
        await self.calls.end_step(self.chosen, self.fence(), index, error=error)

    async def emit(self) -> None:
        key = f"k{self.random.randrange(4)}"
        fence = self.fence() if self.mostly(0.5) else None
        await self.calls.emit(self.chosen, key, fence=fence)

    async def set_handle(self) -> None:
        handle = self.random.choice((None, {"box": self.random.random()}))
        await self.calls.set_handle(self.chosen, self.fence(), handle)

    async def forget(self) -> None:
        await self.calls.forget(self.random.choice((0, 1, 4)))
        await asyncio.sleep(0)
