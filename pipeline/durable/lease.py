"""A run that this worker owns: its lease kept by time, its work stopped when it is lost."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar

from operators.errors import DurableError, LeaseLost, StoreError, TurnMisuse
from operators.turn import logger

from .patience import patiently

if TYPE_CHECKING:
    from types import TracebackType

    from ..stores.contract import (
        Appended,
        Claim,
        EndStatus,
        Lines,
        NewRun,
        Run,
        Store,
    )

T = TypeVar("T")

LOOK_S: Final = 1.0
"""The most between two looks at the run: a cancel from elsewhere arrives with the next."""

SEE_THROUGH_S: Final = 5.0
"""How long a write that was begun may still take when its caller is cancelled."""

_numbers = count(1)


class Lease:
    """A claimed run. Renewed by a task of its own, whatever the work does meanwhile.

    `stopped` says why nothing more may be done: the lease is over (LeaseLost), somebody
    asked the run to stop (DurableError, code `cancelled`), or it has ended here. Work
    inside `working()` is cancelled when that happens.
    """

    __slots__ = (
        "_beat",
        "_claim",
        "_ended",
        "_expiry",
        "_keeper",
        "_lease",
        "_renewed",
        "_store",
        "_unwritten",
        "_worker",
        "_working",
        "stopped",
    )

    def __init__(
        self,
        store: Store,
        claim: Claim,
        *,
        worker: str,
        lease: float,
        beat: float,
        at: float,
    ) -> None:
        """Keep what `claim` gave `at` that time of the loop; renew every `beat` seconds."""
        self._store = store
        self._claim = claim
        self._worker = worker
        self._lease = lease
        self._beat = beat
        self._renewed = at
        self._ended = False
        self._unwritten: StoreError | None = None
        self._working: _Working | None = None
        self.stopped: DurableError | TurnMisuse | None = None
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_at(at + lease, self._expired)
        self._keeper = loop.create_task(
            self._keep(), name=f"turnpipe lease {self.run.id}"
        )

    @property
    def run(self) -> Run:
        """The run as it was claimed."""
        return self._claim.run

    @property
    def fence(self) -> int:
        """The fence under which this worker writes."""
        return self._claim.fence

    def working(self) -> _Working:
        """Cancel the current task, inside of this block, when the run is stopped.

        Raises:
            LeaseLost: the lease is over, whatever the block made of its cancellation.
            DurableError: code `cancelled`: somebody asked the run to stop.
        """
        return _Working(self)

    async def write(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Call the store, again where it could not answer; see it through once begun.

        Raises:
            LeaseLost: the lease is over: nothing was written.
        """
        if self.stopped is not None:
            raise self.stopped
        try:
            return await seen_through(patiently(ask, self._lease))
        except LeaseLost as exc:
            self.stopped = exc
            raise
        except StoreError as exc:
            self._unwritten = exc
            raise

    async def append(self, lines: Sequence[Lines]) -> Sequence[Appended]:
        """Append to the run's log.

        Raises:
            LeaseLost: the lease is over: nothing was written.
        """
        answers = await self.write(lambda: self._store.append(lines))
        appended = [answer for answer in answers if answer is not None]
        if len(appended) < len(lines):
            self.stopped = LeaseLost(self.run.id)
            raise self.stopped
        return appended

    async def settle(self, status: EndStatus, outcome: Mapping[str, Any]) -> None:
        """End the run; one that was completed before stays as it is."""
        if self.run.status != "completed":
            await self.write(
                lambda: self._store.settle(
                    self.run.id, self.fence, status=status, outcome=outcome
                )
            )
            self._ended = True

    async def fail(
        self, error: Exception, outcome: Mapping[str, Any], *, step: int | None = None
    ) -> None:
        """Record that the run failed, or was stopped; nothing where the lease is lost.

        Nor where `error` is that the store took no more: the run is left to be recovered.
        A store that cannot take it is logged: `error` is what the caller shall see.
        """
        if error is self._unwritten:
            return
        stopped = self.stopped
        status: EndStatus = "failed"
        notes = {"notes": described(error), "code": code_of(error)}
        if stopped is not None:
            if isinstance(stopped, (LeaseLost, TurnMisuse)):
                return
            status = "cancelled"
            self.stopped = None
        try:
            if step is not None and status == "failed":
                await self.write(
                    lambda: self._store.end_step(
                        self.run.id, self.fence, step, error=as_json(error)
                    )
                )
            await self.settle(status, {**outcome, **notes})
        except StoreError as exc:
            logger.warning("the failure of %r was not stored: %s", self.run.id, exc)
        finally:
            self.stopped = stopped

    async def close(self) -> None:
        """Stop renewing, and give the lease back where the run goes on without us."""
        lost = isinstance(self.stopped, LeaseLost)
        if self.stopped is None:
            self.stopped = TurnMisuse(f"the run {self.run.id!r} is over in this worker")
        self._expiry.cancel()
        self._keeper.cancel()
        await seen_through(self._let_go(release=not (lost or self._ended)))

    async def _let_go(self, *, release: bool) -> None:
        await asyncio.wait((self._keeper,))
        if release:
            try:
                async with asyncio.timeout(min(self._lease, SEE_THROUGH_S)):
                    await self._store.release(self.run.id, self.fence)
            except Exception as exc:
                logger.warning("the lease of %r was not released: %s", self.run.id, exc)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while self.stopped is None:
            await asyncio.sleep(min(self._beat, LOOK_S))
            now = loop.time()
            try:
                if now - self._renewed < self._beat * 0.99:
                    await self._look()
                else:
                    await self._renew(now)
            except DurableError as exc:
                logger.warning("the lease of %r was not renewed: %s", self.run.id, exc)

    async def _renew(self, now: float) -> None:
        renewed = await self._store.renew(self._worker, lease=self._lease)
        kept = renewed.get(self.run.id)
        if kept is None or kept.fence != self.fence:
            self._stop(LeaseLost(self.run.id))
            return
        self._renewed = now
        self._expiry.cancel()
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_at(now + self._lease, self._expired)
        self._hear(kept.cancel)

    async def _look(self) -> None:
        run = await self._store.status(self.run.id)
        if run.fence != self.fence:
            self._stop(LeaseLost(self.run.id))
        else:
            self._hear(run.cancel)

    def _hear(self, cancel: str | None) -> None:
        if cancel is not None and self.run.status == "running" and not self._ended:
            self._stop(
                DurableError(
                    f"{self.run.id!r} was asked to stop: {cancel}", code="cancelled"
                )
            )

    def _expired(self) -> None:
        self._stop(LeaseLost(self.run.id))

    def _stop(self, why: DurableError) -> None:
        if self.stopped is None:
            self.stopped = why
            if self._working is not None:
                self._working.cancel()


class _Working:
    """What `Lease.working` gives: as `asyncio.timeout`, for the end of a lease."""

    __slots__ = ("_before", "_cancelled", "_lease", "_task")

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._cancelled = False

    def cancel(self) -> None:
        """Cancel the block's task."""
        self._cancelled = True
        self._task.cancel()

    def __enter__(self) -> None:
        if self._lease.stopped is not None:
            raise self._lease.stopped
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._lease._working = self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lease._working = None
        stopped = self._lease.stopped
        if stopped is None:
            return
        others = self._cancelled and self._task.uncancel() > self._before
        if isinstance(error, asyncio.CancelledError):
            if others or not self._cancelled:
                return  # somebody else's, and theirs wins
        elif error is stopped or not (error is None or isinstance(error, Exception)):
            return
        raise stopped from error


async def taken(
    store: Store,
    new: NewRun,
    *,
    worker: str | None,
    lease: float,
    beat: float | None = None,
) -> Lease:
    """Claim a run, or enter one again that has ended, and keep its lease.

    Raises:
        InputMismatch: it was begun with another manifest.
        LeaseHeld: another worker has it.
        StoreError: the store does not answer.
    """
    name = worker or new_worker_id()
    loop = asyncio.get_running_loop()
    at = loop.time()

    async def ask() -> Claim:
        nonlocal at
        at = loop.time()
        return await store.claim(new, worker=name, lease=lease, reenter=True)

    claiming = loop.create_task(patiently(ask, lease), name="turnpipe claim")
    try:
        claim = await asyncio.shield(claiming)
    except asyncio.CancelledError:
        await seen_through(_given_back(store, claiming))
        raise
    every = lease / 3 if beat is None else beat
    return Lease(store, claim, worker=name, lease=lease, beat=every, at=at)


async def _given_back(store: Store, claiming: asyncio.Task[Claim]) -> None:
    """Undo a claim whose caller was cancelled: it may have happened."""
    await asyncio.wait((claiming,), timeout=SEE_THROUGH_S)
    claiming.cancel()
    await asyncio.wait((claiming,))
    if not claiming.cancelled():
        with suppress(Exception):
            claim = claiming.result()
            await store.release(claim.run.id, claim.fence)


async def seen_through(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end also when cancelled, for a while; then be cancelled."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="turnpipe write")
    cancelled: asyncio.CancelledError | None = None
    timer: asyncio.TimerHandle | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as exc:
            cancelled = exc
            timer = timer or loop.call_later(SEE_THROUGH_S, task.cancel)
    if timer is not None:
        timer.cancel()
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # looked at: the cancellation is what the caller hears
        try:
            raise cancelled
        finally:
            del cancelled
    return task.result()


def new_worker_id() -> str:
    """Name a worker that nobody else is."""
    host = os.environ.get("HOSTNAME") or socket.gethostname()
    return f"{host}:{os.getpid()}:{os.urandom(5).hex()}:{next(_numbers)}"


def described(error: BaseException) -> str:
    """Tell an error's message, or its class where it has none."""
    return (str(error) or type(error).__name__)[:2000]


def code_of(error: BaseException) -> str:
    """Tell an error's stable code, or its class."""
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else type(error).__name__


def as_json(error: BaseException) -> dict[str, str]:
    """Write an error as steps keep it."""
    return {"message": described(error), "code": code_of(error)}


def check_lease(lease: object, name: str = "lease") -> None:
    """Refuse what is not a positive number of seconds.

    Raises:
        TypeError: it is no number.
        ValueError: it is not positive, or not finite.
    """
    if isinstance(lease, bool) or not isinstance(lease, (int, float)):
        raise TypeError(f"{name} must be seconds, a number, not {lease!r}")
    if not 0 < lease < float("inf"):
        raise ValueError(f"{name} must be positive, finite seconds, not {lease!r}")
