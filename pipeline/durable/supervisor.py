"""`SessionSupervisor`: runs whose worker is gone go on, without readers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from operators.errors import DurableError, LeaseHeld
from operators.turn import logger

from .lease import check_lease
from .listing import all_of
from .turn import DurableTurn

if TYPE_CHECKING:
    from types import TracebackType

    from ..stores.contract import Run, Store

Resolved: TypeAlias = DurableTurn | object | None


@dataclass(slots=True)
class Checked:
    """What a check made of the orphans it found: the ids of their runs.

    `ended`: read to their end; `held`: another worker was faster; `left`: nobody here
    knows them; `failed`: with an error, which is logged.
    """

    ended: list[str] = field(default_factory=list[str])
    held: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])
    failed: list[str] = field(default_factory=list[str])


class SessionSupervisor:
    """Lets orphaned runs go on: those that run in the store, and whose lease is over.

    `resolve_orphan(run)` says how a run goes on; `run.meta` has its `kind`, `manifest`
    and `session`. It returns a DurableTurn, which is read to its end; None, where the run
    is not for this supervisor; or, being a coroutine, has done the work itself (such as
    `run_durable`) and returns anything else.

    The store remembers what runs, so no run of a session hides another. Use it as `async
    with supervisor:` to check every `every` seconds; leaving stops what it has begun,
    whose leases are given back. A run is left alone until its lease has been over for
    `grace` seconds, for a reader that comes back by itself. `at_once` runs go on at the
    same time.
    """

    def __init__(
        self,
        store: Store,
        *,
        resolve_orphan: Callable[[Run], Resolved | Awaitable[Resolved]],
        every: float = 60.0,
        grace: float = 0.0,
        at_once: int = 8,
    ) -> None:
        """Make it; nothing is checked before it is asked to."""
        check_lease(every, "every")
        if at_once < 1:
            raise ValueError(f"at_once must be 1 or more, not {at_once!r}")
        self._store: Final = store
        self._resolve: Final = resolve_orphan
        self._every = every
        self._grace = grace
        self._turns = asyncio.Semaphore(at_once)
        self._begun: dict[str, asyncio.Task[None]] = {}
        self._checking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SessionSupervisor:
        """Begin to check."""
        self._checking = asyncio.create_task(
            self._check_on(), name="turnpipe supervisor"
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop checking, and what was begun."""
        tasks = [*self._begun.values()]
        if self._checking is not None:
            tasks.append(self._checking)
        for task in tasks:
            task.cancel()
        while not all(task.done() for task in tasks):
            await asyncio.wait(tasks)

    async def active(self, session: str) -> Sequence[Run]:
        """List a session's runs that have not ended, the newest first."""
        runs = await all_of(partial(self._store.runs, statuses=["running"]))
        return [run for run in runs if run.meta.get("session") == session]

    async def check(self) -> Checked:
        """Look for orphans once, and wait until those found have gone on to their end.

        Those that an earlier check has begun are not waited for.

        Raises:
            StoreError: the store does not answer.
        """
        checked = Checked()
        tasks = await self._begin(checked)
        try:
            if tasks:
                await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            while not all(task.done() for task in tasks):
                await asyncio.wait(tasks)
            raise
        return checked

    async def _check_on(self) -> None:
        while True:
            try:
                await self._begin(Checked())
            except DurableError as exc:
                logger.warning("orphans were not looked for: %s", exc)
            await asyncio.sleep(self._every)

    async def _begin(self, checked: Checked) -> list[asyncio.Task[None]]:
        tasks: list[asyncio.Task[None]] = []
        for run in await all_of(self._store.orphans):
            if run.id not in self._begun and (run.lapsed_s or 0.0) >= self._grace:
                task = asyncio.create_task(
                    self._go_on(run, checked), name=f"turnpipe orphan {run.id}"
                )
                self._begun[run.id] = task
                task.add_done_callback(partial(self._forget, run.id))
                tasks.append(task)
        return tasks

    async def _go_on(self, run: Run, checked: Checked) -> None:
        try:
            async with self._turns:
                ended = await self._drained(run)
            (checked.ended if ended else checked.left).append(run.id)
        except LeaseHeld:
            checked.held.append(run.id)
        except Exception as exc:
            checked.failed.append(run.id)
            logger.warning("the orphan %r did not go on: %r", run.id, exc)

    def _forget(self, run_id: str, task: asyncio.Task[None]) -> None:
        del self._begun[run_id]

    async def _drained(self, run: Run) -> bool:
        resolved: Any = self._resolve(run)
        if inspect.isawaitable(resolved):
            resolved = await resolved
        if resolved is None:
            return False
        if isinstance(resolved, DurableTurn):
            stream = resolved.stream
            try:
                async for _ in stream:
                    pass
            finally:
                await stream.aclose()
        return True
