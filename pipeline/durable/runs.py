"""`run_durable`: a task whose steps are recorded, so that it goes on where it died."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from operators.drive import resolved
from operators.errors import AwaitEventTimeout, DurableError, StoreError
from operators.turn import logger

from ..execution import manifest_hash
from ..stores.contract import Json, NewRun, Run, Signal, Step
from ..stores.memory import diverged
from .context import DurableContext
from .lease import Lease, as_json, check_lease, taken
from .patience import patiently

if TYPE_CHECKING:
    from ..stores.contract import Store

T = TypeVar("T")

_FIRST_POLL_S: Final = 0.01
_POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class DurableResult(Generic[T]):
    """What a durable run gave: `result`, and how the store has it.

    `steps` are all of the run's, replayed and new, by index.
    """

    result: T
    record: Run
    steps: Sequence[Step]


async def run_durable(
    run_id: str,
    manifest: Mapping[str, Any],
    store: Store,
    task: Callable[[DurableContext], Awaitable[T]],
    *,
    worker_id: str | None = None,
    lease: float = 30.0,
    default_outcome: Mapping[str, Json] | None = None,
) -> DurableResult[T]:
    """Run `task`, or go on where it had come to: completed steps are not run again.

    At-least-once: a step that ran when the process died runs again. The lease is renewed
    by time; where it is lost, what runs is cancelled and nothing more is written. A
    caller that is cancelled gives the lease back, so that another worker may go on at
    once. A run that completed is replayed from its steps, and stays as it ended.

    `manifest` is what `manifest_hash` takes. `default_outcome` is kept with the run when
    it ends, with `notes` and `code` where it fails, and `metadata.steps`.

    Raises:
        InputMismatch: the run was begun with another manifest.
        LeaseHeld: another worker runs it.
        LeaseLost: another worker may have it by now.
        StepDivergence: the task asked for other steps than were recorded.
        DurableError: code `cancelled`: it was asked to stop; `forgotten`: it completed,
            and its steps are not kept any more.
        StoreError: the store does not answer.
        Exception: what `task` raises, after the run has ended as failed.
    """
    check_lease(lease)
    default = dict(default_outcome or {})
    new = new_run(run_id, manifest, "run")
    owned = await taken(store, new, worker=worker_id, lease=lease)
    steps = _StoreSteps(store, owned)
    try:
        await steps.load()
        try:
            with owned.working():
                context = DurableContext(run_id, manifest, steps)
                result = await resolved(task(context))
        except Exception as exc:
            await steps.stop()
            await owned.fail(exc, default)
            raise
        finally:
            await steps.stop()
        metadata = {**default.get("metadata", {}), "steps": steps.count}
        await owned.settle("completed", {**default, "metadata": metadata})
    finally:
        await owned.close()
    record = await patiently(lambda: store.status(run_id), lease)
    recorded = await patiently(lambda: store.steps(run_id), lease)
    return DurableResult(result, record, recorded)


def new_run(
    run_id: str, manifest: Mapping[str, Any], kind: str, session: str | None = None
) -> NewRun:
    """Make what a claim asks for; the manifest is kept, for whoever recovers the run.

    Raises:
        TypeError: something in the manifest is missing, or not JSON.
    """
    fingerprint = manifest_hash(manifest)
    meta = {"kind": kind, "manifest": kept_manifest(manifest), "session": session}
    return NewRun(id=run_id, manifest_hash=fingerprint, meta=meta)


def kept_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Copy what counts of a manifest that `manifest_hash` took."""
    task = manifest["task"]
    return {
        "project_id": manifest["project_id"],
        "scenario_id": manifest.get("scenario_id"),
        "task": {key: task[key] for key in ("id", "intent", "domain")},
        "input": manifest.get("input"),
    }


def forgotten(run: Run) -> DurableError:
    """Say that a run which completed cannot be replayed."""
    return DurableError(
        f"{run.id!r} completed, and its steps are not kept any more: use what its record "
        f"says, or another run id",
        code="forgotten",
    )


class _StoreSteps:
    """The steps of one run, in a store, under a lease."""

    def __init__(self, store: Store, owned: Lease) -> None:
        self._store = store
        self._owned = owned
        self._recorded: dict[int, Step] = {}
        self._places = 0
        self._main = asyncio.current_task()
        self._running: set[asyncio.Task[Any]] = set()
        self.count = 0

    async def load(self) -> None:
        """Read what was recorded before.

        Raises:
            DurableError: code `forgotten`.
        """
        run = self._owned.run
        recorded = await self._owned.write(lambda: self._store.steps(run.id))
        self._recorded = {step.index: step for step in recorded}
        self.count = len(recorded)
        if run.status == "completed" and not recorded:
            metadata: Mapping[str, Any] = (run.outcome or {}).get("metadata") or {}
            if metadata.get("steps"):
                raise forgotten(run)

    async def stop(self) -> None:
        """Cancel the steps that other asyncio tasks still run, and wait for them."""
        for task in self._running:
            task.cancel()
        while self._running:
            await asyncio.wait(self._running)

    def place(self) -> int:
        self._places += 1
        return self._places - 1

    async def step(
        self,
        place: int,
        intent: str,
        kind: str,
        input_hash: str,
        work: Callable[[], Awaitable[Json]],
    ) -> Json:
        run_id = self._owned.run.id
        if self._owned.stopped is not None:
            raise self._owned.stopped
        before = self._recorded.get(place)
        if before is not None:
            diverged(run_id, before, intent, input_hash)
            if before.status == "completed":
                return before.result
        task = asyncio.current_task()
        if task is not None and task is not self._main:
            self._running.add(task)
        try:
            await self._begin(place, intent, kind, input_hash)
            try:
                result = await work()
            except Exception as exc:
                await self._failed(place, exc)
                raise
            await self._owned.write(
                lambda: self._store.end_step(
                    run_id, self._owned.fence, place, result=result
                )
            )
            return result
        finally:
            if task is not None:
                self._running.discard(task)

    async def _begin(self, place: int, intent: str, kind: str, input_hash: str) -> None:
        await self._owned.write(
            lambda: self._store.begin_step(
                self._owned.run.id,
                self._owned.fence,
                place,
                intent=intent,
                kind=kind,
                input_hash=input_hash,
            )
        )
        if place not in self._recorded:
            self.count += 1

    async def _failed(self, place: int, error: Exception) -> None:
        run_id = self._owned.run.id
        try:
            await self._owned.write(
                lambda: self._store.end_step(
                    run_id, self._owned.fence, place, error=as_json(error)
                )
            )
        except StoreError as exc:
            logger.warning("the error of a step of %r was not stored: %s", run_id, exc)

    async def event(
        self, place: int, key: str, limit: float | None, poll: float | None
    ) -> Json:
        async def wait() -> Json:
            loop = asyncio.get_running_loop()
            until = None if limit is None else loop.time() + limit
            pause = _FIRST_POLL_S if poll is None else poll
            run_id = self._owned.run.id
            while True:
                found = await self._owned.write(lambda: self._store.signal(run_id, key))
                if found is not None:
                    return found.payload
                left = pause if until is None else until - loop.time()
                if left <= 0:
                    raise AwaitEventTimeout(run_id, key, limit or 0.0)
                await asyncio.sleep(min(pause, left))
                if poll is None:
                    pause = min(pause * 1.5, _POLL_S)

        return await self.step(place, f"event:{key}", "event", "", wait)

    async def emit(self, key: str, payload: Json) -> Signal:
        return await self._owned.write(
            lambda: self._store.emit(
                self._owned.run.id, key, payload, fence=self._owned.fence
            )
        )
