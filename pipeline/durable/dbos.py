"""`on_dbos`: the same durable task on DBOS, an engine that SQLite or PostgreSQL carries.

    answer = on_dbos(task)                     # before DBOS.launch()
    DBOS(config={"name": "app", "system_database_url": "sqlite:///dbos.db"})
    DBOS.launch()                              # runs of a process that died go on
    done = await answer.run("run-1", manifest)

Extra `dbos`. Steps are DBOS's steps, `await_event` its events; queues, schedules, workers
on other machines and the console are DBOS's own, and work as its documentation says.
"""

from __future__ import annotations

import copyreg
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast
from urllib.parse import quote

from dbos import DBOS, SetWorkflowID, StepReservation, WorkflowStatus
from dbos import error as dbos_error

from operators.drive import resolved
from operators.errors import (
    AwaitEventTimeout,
    InputMismatch,
    StepDivergence,
    TurnMisuse,
    UnknownTurn,
)

from ..execution import manifest_hash
from ..stores.contract import Json, Run, RunStatus, Signal, Step
from .context import DurableContext, as_kept
from .runs import DurableResult, kept_manifest

T = TypeVar("T")

_Token: TypeAlias = str
_FOR_EVER_S: Final = 10.0 * 365 * 86400
_PAYLOAD: Final = "payload"
_STATUSES: Final[Mapping[str, RunStatus]] = {
    "SUCCESS": "completed",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}


@DBOS.workflow(name="turnpipe.signal")
async def _signal(token: _Token, payload: Json) -> list[Any]:
    """Hold one signal: the first workflow under the signal's id is the one that is."""
    now = await DBOS.run_step_async({"name": "now"}, _now)
    await DBOS.set_event_async(_PAYLOAD, [payload])
    return [token, payload, now]


async def _now() -> float:
    from time import time

    return time()


class DbosTask(Generic[T]):
    """A durable task that DBOS runs; made by `on_dbos`."""

    def __init__(
        self, task: Callable[[DurableContext], Awaitable[T]], name: str
    ) -> None:
        """Register `task` as the workflow `name`."""
        self.name: Final = name

        # DBOS takes the version of an application from the text of its workflows: with
        # `wraps` that of the task, so a changed task does not take over an old one's runs.
        @wraps(task)
        async def workflow(manifest: dict[str, Any]) -> T:
            run_id = str(DBOS.workflow_id)
            context = DurableContext(run_id, manifest, _DbosSteps(run_id))
            return cast("T", await resolved(task(context)))

        self._workflow = DBOS.workflow(name=name)(workflow)

    async def run(
        self, run_id: str, manifest: Mapping[str, Any], *, retry: bool = True
    ) -> DurableResult[T]:
        """Run the task, or wait for the run that has this id; give its result.

        A caller that is cancelled leaves the run running. A run that failed is run again
        from the first step that failed, or, with `retry=False`, raises its error again.

        Raises:
            InputMismatch: the run was begun with another manifest.
            StepDivergence: the task asked for other steps than were recorded.
            Exception: what `task` raises.
        """
        fingerprint = manifest_hash(manifest)
        handle: Any
        status = await DBOS.get_workflow_status_async(run_id)
        if status is None:
            with SetWorkflowID(run_id):
                handle = await DBOS.start_workflow_async(
                    cast("Any", self._workflow), kept_manifest(manifest)
                )
            status = await DBOS.get_workflow_status_async(run_id)
        else:
            handle = await DBOS.retrieve_workflow_async(run_id)
        if status is None or status.input is None:
            raise UnknownTurn(run_id)
        if (
            status.name != self.name
            or manifest_hash(status.input["args"][0]) != fingerprint
        ):
            raise InputMismatch(run_id)
        if retry and status.status == "ERROR":
            handle = await self._again(run_id)
        result = await handle.get_result()
        record = await self.status(run_id)
        return DurableResult(cast("T", result), record, await _steps(run_id))

    async def emit(self, run_id: str, key: str, payload: Json) -> Signal:
        """Emit `payload` under `key` for a run; the first under a key wins.

        Raises:
            UnknownTurn: there is no such run.
            TypeError: `payload` is not JSON.
        """
        if await DBOS.get_workflow_status_async(run_id) is None:
            raise UnknownTurn(run_id)
        kept = as_kept(payload, f"the event {key!r}")
        return await _emit(run_id, key, kept, os.urandom(16).hex())

    async def status(self, run_id: str) -> Run:
        """Tell how a run stands.

        Raises:
            UnknownTurn: there is no such run.
        """
        status = await DBOS.get_workflow_status_async(run_id)
        if status is None:
            raise UnknownTurn(run_id)
        return _run_of(status)

    async def _again(self, run_id: str) -> Any:
        steps = await DBOS.list_workflow_steps_async(run_id)
        failed = [step["function_id"] for step in steps if step["error"] is not None]
        after = max((step["function_id"] for step in steps), default=0) + 1
        try:
            return await DBOS.rewind_workflow_async(
                run_id, start_step=min(failed, default=after)
            )
        except dbos_error.DBOSException:  # another caller was faster
            return await DBOS.retrieve_workflow_async(run_id)


def on_dbos(
    task: Callable[[DurableContext], Awaitable[T]], *, name: str | None = None
) -> DbosTask[T]:
    """Register a durable task with DBOS; call it before `DBOS.launch()`.

    `name` is what a run that is recovered is found by, by default the function's own with
    its module. What differs from `run_durable` is DBOS's: a run lives on when its caller
    is cancelled; a step that failed, and whose error the task survived, raises that error
    again when the run is replayed; results are kept by DBOS's serializer.
    """
    return DbosTask(task, name or f"{task.__module__}.{task.__qualname__}")


class _DbosSteps:
    """The steps of one workflow, as DBOS records them."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._emits = 0

    def place(self) -> StepReservation:
        return DBOS.reserve_step()

    async def step(
        self,
        place: StepReservation,
        intent: str,
        kind: str,
        input_hash: str,
        work: Callable[[], Awaitable[Json]],
    ) -> Json:
        async def kept() -> dict[str, Any]:
            return {"kind": kind, "input_hash": input_hash, "value": await work()}

        try:
            done = await place.run_async({"name": intent, "preemptible": True}, kept)
        except dbos_error.DBOSUnexpectedStepError as exc:
            raise StepDivergence(
                self._run_id, place.step_id, "another step", repr(intent)
            ) from exc
        before = done["input_hash"]
        if before and input_hash and before != input_hash:
            raise StepDivergence(
                self._run_id,
                place.step_id,
                f"{intent!r} with input {before:.12}",
                f"given input {input_hash:.12}",
            )
        return done["value"]

    async def event(
        self, place: StepReservation, key: str, limit: float | None, poll: float | None
    ) -> Json:
        found: Any = await DBOS.get_event_async(
            signal_id(self._run_id, key),
            _PAYLOAD,
            timeout_seconds=_FOR_EVER_S if limit is None else limit,
        )

        async def received() -> Json:
            if found is None:
                raise AwaitEventTimeout(self._run_id, key, limit or 0.0)
            return found[0]

        return await self.step(place, f"event:{key}", "event", "", received)

    async def emit(self, key: str, payload: Json) -> Signal:
        if DBOS.step_id is not None:
            raise TurnMisuse(
                f"event {key!r} is emitted inside of a step, which DBOS cannot record: "
                f"emit it in the task itself, before or after the step"
            )
        self._emits += 1  # the same again when the run is replayed
        return await _emit(self._run_id, key, payload, f"{self._run_id}:{self._emits}")


def signal_id(run_id: str, key: str) -> str:
    """Name the workflow that holds a run's signal."""
    return f"{quote(run_id, safe='')}:signal:{quote(key, safe='')}"


async def _emit(run_id: str, key: str, payload: Json, token: _Token) -> Signal:
    with SetWorkflowID(signal_id(run_id, key)):
        handle = await DBOS.start_workflow_async(cast("Any", _signal), token, payload)
    first, held, at = cast("list[Any]", await handle.get_result())
    return Signal(key=key, payload=held, emitted_at=at, accepted=first == token)


async def _steps(run_id: str) -> list[Step]:
    """List the steps of our own among those of DBOS."""
    steps: list[Step] = []
    for step in await DBOS.list_workflow_steps_async(run_id):
        error = step["error"]
        output: Any = step["output"]
        if error is None and not (isinstance(output, dict) and "input_hash" in output):
            continue
        kept = cast("dict[str, Any]", output or {})
        started, ended = step["started_at_epoch_ms"], step["completed_at_epoch_ms"]
        steps.append(
            Step(
                index=len(steps),
                intent=step["function_name"],
                kind=kept.get("kind", ""),
                input_hash=kept.get("input_hash", ""),
                status="completed" if error is None else "failed",
                attempts=1,
                result=kept.get("value"),
                error=None if error is None else {"message": str(error)},
                started_at=(started or 0) / 1000,
                ended_at=None if ended is None else ended / 1000,
            )
        )
    return steps


def _run_of(status: WorkflowStatus) -> Run:
    kept: Any = {} if status.input is None else status.input["args"][0]
    state: RunStatus = _STATUSES.get(status.status, "running")
    created, updated = (status.created_at or 0) / 1000, (status.updated_at or 0) / 1000
    return Run(
        id=status.workflow_id,
        session=None,
        manifest_hash=manifest_hash(kept),
        status=state,
        fence=status.recovery_attempts or 0,
        owner=status.executor_id if state == "running" else None,
        lapsed_s=None,
        first=1,
        lines=0,
        cancel=None,
        outcome=None,
        handle=None,
        meta={"kind": "dbos", "manifest": kept},
        created_at=created,
        updated_at=updated,
        ended_at=None if state == "running" else (status.completed_at or 0) / 1000,
    )


def _reduced(error: Exception) -> tuple[Any, ...]:
    return _rebuilt, (type(error), error.args, vars(error))


def _rebuilt(kind: type[Exception], args: tuple[Any, ...], held: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(held)
    return error


# DBOS keeps errors as pickles; these cannot be made again from their message alone.
for _kind in (AwaitEventTimeout, StepDivergence, InputMismatch, UnknownTurn):
    copyreg.pickle(_kind, cast("Any", _reduced))
