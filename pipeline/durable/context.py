"""What a durable task gets: steps that run once, events, time and ids that stay."""

from __future__ import annotations

import asyncio
import inspect
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol, TypeVar, overload

from operators.drive import failure_of
from operators.errors import TurnMisuse

from ..execution import canonical_hash
from ..stores.coding import from_json, to_json
from ..stores.contract import Json, Signal

T = TypeVar("T")

_within: ContextVar[str | None] = ContextVar("turnpipe_step", default=None)


class Steps(Protocol):
    """What records a run's steps: a store, or another engine."""

    def place(self) -> Any:
        """Take the next place in the run's order."""
        ...

    async def step(
        self,
        place: Any,
        intent: str,
        kind: str,
        input_hash: str,
        work: Callable[[], Awaitable[Json]],
    ) -> Json:
        """Run `work` and record what it gives, or give what was recorded."""
        ...

    async def event(
        self, place: Any, key: str, limit: float | None, poll: float | None
    ) -> Json:
        """Give what was emitted under `key`, recorded as a step."""
        ...

    async def emit(self, key: str, payload: Json) -> Signal:
        """Emit; the first under a key wins."""
        ...


class DurableContext:
    """A run as its task sees it. The task asks for the same steps in the same order.

    A step's place is taken when `step` (or `await_event`, `now`, `uuid`) is *called*, in
    the task's own asyncio task; what it returns may be awaited anywhere. So
    `asyncio.gather(ctx.step("a", f), ctx.step("b", g))` is the same every time. Called
    from another asyncio task, or inside another step, the order would depend on timing:
    that is refused (TurnMisuse).
    """

    __slots__ = ("_steps", "_task", "project_id", "run_id", "scenario_id")

    def __init__(self, run_id: str, manifest: Mapping[str, Any], steps: Steps) -> None:
        """Make it in the asyncio task that runs the durable task."""
        self.run_id = run_id
        self.project_id: str = manifest["project_id"]
        self.scenario_id: str | None = manifest.get("scenario_id")
        self._steps = steps
        self._task = asyncio.current_task()

    @overload
    def step(
        self,
        intent: str,
        fn: Callable[[], Coroutine[Any, Any, T]],
        *,
        kind: str = "logic",
        fingerprint: Json = None,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        intent: str,
        fn: Callable[[], T],
        *,
        kind: str = "logic",
        fingerprint: Json = None,
    ) -> Coroutine[Any, Any, T]: ...
    def step(
        self,
        intent: str,
        fn: Callable[[], Any],
        *,
        kind: str = "logic",
        fingerprint: Json = None,
    ) -> Coroutine[Any, Any, Any]:
        """Run `fn`, sync or async, and record what it returns; once recorded, give that.

        What it returns is JSON, and is given back as JSON has it: a tuple as a list. A
        sync `fn` runs on the event loop: what blocks goes through `asyncio.to_thread`.
        `fn` runs again where the process died before its result was recorded, and where
        it raised and the run is tried again; so what the task is to survive is caught
        inside of `fn`. `fingerprint` is JSON that `fn` depends on.

        Raises:
            StepDivergence: the run had recorded another intent, or fingerprint, here.
            TypeError: what `fn` returned is not JSON.
            TurnMisuse: it is called from another asyncio task, or inside a step.
            LeaseLost: another worker may have the run by now.
        """
        if not intent:
            raise ValueError("a step's intent must name it, not be empty")
        input_hash = "" if fingerprint is None else canonical_hash(fingerprint)
        place = self._place(intent)
        return self._steps.step(
            place, intent, kind, input_hash, partial(_made, intent, fn)
        )

    def await_event(
        self, key: str, *, timeout: float | None = 60.0, poll: float | None = None
    ) -> Coroutine[Any, Any, Json]:
        """Wait until something is emitted under `key`; give its payload.

        `timeout` seconds are counted from when this attempt begins to wait; None waits
        for ever. `poll` seconds is how often the store is asked; by default often at
        first, then twice a second.

        Raises:
            AwaitEventTimeout: nothing was emitted in time.
            StepDivergence: as `step`.
            LeaseLost: as `step`.
        """
        place = self._place(f"event:{key}")
        return self._steps.event(place, key, timeout, poll)

    async def emit_event(self, key: str, payload: Json) -> Signal:
        """Emit `payload` under `key`, for this run; the first under a key wins.

        It takes no place. The answer's `accepted` is False where another was first, so
        also when the run is replayed.

        Raises:
            TypeError: `payload` is not JSON.
            LeaseLost: as `step`.
        """
        return await self._steps.emit(key, as_kept(payload, f"the event {key!r}"))

    def now(self) -> Coroutine[Any, Any, float]:
        """Give the UNIX seconds of when this was first asked."""
        return self.step("deterministic:now", time.time, kind="deterministic")

    def uuid(self) -> Coroutine[Any, Any, str]:
        """Give a random id, the same one each time."""
        return self.step("deterministic:uuid", _uuid, kind="deterministic")

    def _place(self, intent: str) -> Any:
        outer = _within.get()
        if outer is not None:
            raise TurnMisuse(
                f"step {intent!r} was asked for inside of step {outer!r}: what that one "
                f"gives is recorded as a whole; ask for both in the task, one after another"
            )
        if asyncio.current_task() is not self._task:
            raise TurnMisuse(
                f"step {intent!r} was asked for in another asyncio task than the run's: "
                f"its place would depend on timing; call ctx.step in the task itself, and "
                f"await what it returns elsewhere: gather(ctx.step(...), ctx.step(...))"
            )
        return self._steps.place()


async def _made(intent: str, fn: Callable[[], Any]) -> Json:
    token = _within.set(intent)
    try:
        value = fn()
        if inspect.isawaitable(value):
            value = await value
    except BaseException as exc:
        failure = failure_of(exc)  # raises where somebody asked for it
        if failure is exc:
            raise
        raise failure from exc
    finally:
        _within.reset(token)
    return as_kept(value, f"what step {intent!r} returned")


def as_kept(value: Any, what: str) -> Json:
    """Return `value` as it comes back from a store.

    Raises:
        TypeError: it is not JSON.
    """
    try:
        return from_json(to_json(value))
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(
            f"{what} is not JSON ({exc}): return dicts, lists, texts and numbers, and make "
            f"other objects from them outside of the step"
        ) from exc


def _uuid() -> str:
    return str(uuid.uuid4())
