"""The store of one process: everything the contract says, and gone with the process."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import time
from typing import Any, Final, cast

from operators.errors import (
    CursorGone,
    InputMismatch,
    LeaseHeld,
    LeaseLost,
    StepDivergence,
    TurnActive,
    UnknownTurn,
)

from .chunks import following, gap, overlap
from .coding import from_json, to_json
from .contract import (
    PAGE_BYTES,
    Appended,
    Chunk,
    Claim,
    EndStatus,
    Json,
    Lines,
    NewRun,
    Page,
    Renewal,
    Run,
    RunStatus,
    Signal,
    Step,
)


@dataclass(slots=True)
class _Kept:
    """One run: its row, and what hangs on it. JSON is kept as bytes, as a database does."""

    run: Run
    lease_until: float = 0.0
    log: list[Chunk] = field(default_factory=list[Chunk])
    event_lines: dict[str, int] = field(default_factory=dict[str, int])
    steps: dict[int, Step] = field(default_factory=dict[int, Step])
    signals: dict[str, tuple[bytes, float]] = field(
        default_factory=dict[str, tuple[bytes, float]]
    )
    settled_by: int = 0
    forgotten: bool = False
    waiters: set[asyncio.Future[None]] = field(
        default_factory=set["asyncio.Future[None]"]
    )


class MemoryStore:
    """A store for tests and for turns that need not outlive the process.

    `clock` gives the UNIX seconds by which leases lapse: a test moves it. Safe for any
    number of tasks of one event loop; not for threads.
    """

    def __init__(self, *, clock: Callable[[], float] = time) -> None:
        """Start empty."""
        self._clock: Final = clock
        self._runs: dict[str, _Kept] = {}
        self._closed = False

    async def close(self) -> None:
        """End all waits; what is kept stays, so a test may look at it."""
        for kept in self._runs.values():
            _wake(kept)

    # -- owning

    async def claim(
        self, new: NewRun, *, worker: str, lease: float, reenter: bool = False
    ) -> Claim:
        """Create the run, or take it over."""
        now = self._clock()
        kept = self._runs.get(new.id)
        if kept is None:
            self._check_session(new.session, now)
            meta = cast("Mapping[str, Json]", _copied(dict(new.meta)))
            run = Run(
                id=new.id,
                session=new.session,
                manifest_hash=new.manifest_hash,
                status="running",
                fence=1,
                owner=worker,
                lapsed_s=None,
                first=1,
                lines=0,
                cancel=None,
                outcome=None,
                handle=None,
                meta=meta,
                created_at=now,
                updated_at=now,
                ended_at=None,
            )
            self._runs[new.id] = kept = _Kept(run, now + lease)
            return Claim(mode="created", run=self._shown(kept), fence=1)
        run = kept.run
        if run.manifest_hash != new.manifest_hash:
            raise InputMismatch(new.id)
        live = run.owner is not None and kept.lease_until > now
        if run.closed and not reenter:
            return Claim(mode="finished", run=self._shown(kept), fence=0)
        if live and run.owner != worker:
            raise LeaseHeld(new.id, cast("str", run.owner), kept.lease_until - now)
        again = run.closed and run.status != "completed"
        if again:
            self._check_session(run.session, now)
            kept.forgotten = False
        kept.run = replace(
            run,
            fence=run.fence + 1,
            owner=worker,
            status="running" if again else run.status,
            outcome=None if again else run.outcome,
            ended_at=None if again else run.ended_at,
            cancel=None if again else run.cancel,
            updated_at=now,
        )
        kept.lease_until = now + lease
        own = live or run.closed
        return Claim(
            mode="reentered" if own else "taken",
            run=self._shown(kept),
            fence=kept.run.fence,
        )

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, Renewal]:
        """Renew the live leases of this worker."""
        now = self._clock()
        renewed: dict[str, Renewal] = {}
        for run_id, kept in self._runs.items():
            if kept.run.owner == worker and kept.lease_until > now:
                kept.lease_until = now + lease
                renewed[run_id] = Renewal(fence=kept.run.fence, cancel=kept.run.cancel)
        return renewed

    async def release(self, run_id: str, fence: int) -> bool:
        """End the lease now."""
        kept = self._runs.get(run_id)
        if kept is None or not self._owns(kept, fence):
            return False
        now = self._clock()
        kept.run = replace(kept.run, owner=None, updated_at=now)
        kept.lease_until = now
        return True

    async def settle(
        self,
        run_id: str,
        fence: int,
        *,
        status: EndStatus,
        outcome: Mapping[str, Json],
        lines: Lines | None = None,
    ) -> None:
        """End the run."""
        kept = self._known(run_id)
        if kept.run.status == status and kept.settled_by == fence:
            return
        again = kept.run.status == "completed" and lines is None
        if not self._owns(kept, fence) or (kept.run.closed and not again):
            raise LeaseLost(run_id)
        encoded = _copied(dict(outcome))
        if lines is not None and self._append(kept, lines) is None:
            raise LeaseLost(run_id)
        now = self._clock()
        kept.settled_by = fence
        kept.run = replace(
            kept.run,
            status=status,
            outcome=encoded,
            owner=None,
            ended_at=now,
            updated_at=now,
        )
        kept.lease_until = now
        _wake(kept)

    # -- the log

    async def append(self, batch: Sequence[Lines]) -> Sequence[Appended | None]:
        """Append lines of any number of runs."""
        self._check(batch)
        return [
            None if kept is None else self._append(kept, lines)
            for lines in batch
            for kept in (self._runs.get(lines.run_id),)
        ]

    def _check(self, batch: Sequence[Lines]) -> None:
        """Refuse the batch as a whole before any of it is written."""
        ends: dict[str, int] = {}
        for lines in batch:
            kept = self._runs.get(lines.run_id)
            if kept is None or not self._may_append(kept, lines.fence):
                continue
            end = ends.get(lines.run_id, kept.run.lines)
            if lines.event_id is not None:
                ends[lines.run_id] = end + (lines.event_id not in kept.event_lines)
                continue
            gap(lines, end)
            if lines.first + lines.count - 1 > end:
                overlap(lines, end)
                ends[lines.run_id] = end + lines.count

    def _append(self, kept: _Kept, lines: Lines) -> Appended | None:
        if not self._may_append(kept, lines.fence):
            return None
        run = kept.run
        first = run.lines + 1
        if lines.event_id is not None:
            known = kept.event_lines.get(lines.event_id)
            if known is not None:
                return Appended(known, accepted=False)
            kept.event_lines[lines.event_id] = first
        elif lines.first < first:
            overlap(lines, run.lines)
            return Appended(lines.first, accepted=False)
        else:
            gap(lines, run.lines)
        kept.log.append(Chunk(first, lines.count, bytes(lines.data), lines.event_id))
        kept.run = replace(run, lines=run.lines + lines.count, updated_at=self._clock())
        _wake(kept)
        return Appended(first, accepted=True)

    async def read(
        self, run_id: str, *, after: int = 0, limit_bytes: int = PAGE_BYTES
    ) -> Page:
        """Read the lines after number `after`."""
        if after < 0:
            raise ValueError(f"after must be 0 or more, not {after}")
        kept = self._known(run_id)
        run = self._shown(kept)
        if after < run.lines and after + 1 < run.first:
            raise CursorGone(run_id, run.first, run.lines)
        log = kept.log
        at = max(bisect.bisect_right(log, after, key=lambda chunk: chunk.first) - 1, 0)
        return Page(
            chunks=following(log[at:], after, limit_bytes),
            lines=run.lines,
            closed=run.closed,
            lapsed_s=run.lapsed_s,
        )

    async def wait(self, run_id: str, *, after: int, timeout: float) -> None:  # noqa: ASYNC109 - the contract's
        """Return when the log has grown, or closed, or time is up."""
        kept = self._runs.get(run_id)
        if kept is None or kept.run.lines > after or kept.run.closed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        kept.waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout)
        finally:
            kept.waiters.discard(waiter)

    # -- asking

    async def status(self, run_id: str) -> Run:
        """Tell how a run stands."""
        return self._shown(self._known(run_id))

    async def runs(
        self,
        *,
        session: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        limit: int = 100,
    ) -> Sequence[Run]:
        """List runs, the newest first."""
        found = [
            self._shown(kept)
            for kept in reversed(self._runs.values())
            if (session is None or kept.run.session == session)
            and (statuses is None or kept.run.status in statuses)
        ]
        found.sort(key=lambda run: run.created_at, reverse=True)
        return found[:limit]

    async def orphans(self, *, limit: int = 100) -> Sequence[Run]:
        """List the running runs whose lease is over."""
        now = self._clock()
        lapsed = [
            (kept.lease_until, self._shown(kept))
            for kept in self._runs.values()
            if kept.run.status == "running" and kept.lease_until <= now
        ]
        lapsed.sort(key=lambda pair: pair[0])
        return [run for _, run in lapsed[:limit]]

    async def request_cancel(self, run_id: str, reason: str) -> bool:
        """Leave word for the owner to stop."""
        kept = self._known(run_id)
        if kept.run.closed:
            return False
        if kept.run.cancel is None:
            kept.run = replace(kept.run, cancel=reason, updated_at=self._clock())
        return True

    # -- steps, signals, the handle

    async def steps(self, run_id: str) -> Sequence[Step]:
        """List a run's steps by index."""
        kept = self._runs.get(run_id)
        if kept is None:
            return []
        return [_shown_step(kept.steps[index]) for index in sorted(kept.steps)]

    async def begin_step(
        self,
        run_id: str,
        fence: int,
        index: int,
        *,
        intent: str,
        kind: str,
        input_hash: str = "",
    ) -> Step:
        """Record that a step runs, once more."""
        kept = self._owned(run_id, fence)
        now = self._clock()
        step = kept.steps.get(index)
        if step is None:
            step = Step(
                index=index,
                intent=intent,
                kind=kind,
                input_hash=input_hash,
                status="running",
                attempts=1,
                result=None,
                error=None,
                started_at=now,
                ended_at=None,
            )
        else:
            diverged(run_id, step, intent, input_hash)
            step = replace(
                step,
                status="running",
                attempts=step.attempts + 1,
                error=None,
                started_at=now,
                ended_at=None,
            )
        kept.steps[index] = step
        return _shown_step(step)

    async def end_step(
        self,
        run_id: str,
        fence: int,
        index: int,
        *,
        result: Json = None,
        error: Mapping[str, Json] | None = None,
    ) -> Step:
        """Record what became of a step."""
        kept = self._owned(run_id, fence)
        step = kept.steps.get(index)
        if step is None:
            raise LookupError(f"step {index} of {run_id!r} ended before it began")
        kept.steps[index] = step = replace(
            step,
            status="completed" if error is None else "failed",
            result=_copied(result) if error is None else step.result,
            error=None if error is None else _copied(dict(error)),
            ended_at=self._clock(),
        )
        return _shown_step(step)

    async def emit(
        self, run_id: str, key: str, payload: Json, *, fence: int | None = None
    ) -> Signal:
        """Record a signal; the first under a key wins."""
        kept = self._known(run_id) if fence is None else self._owned(run_id, fence)
        encoded = to_json(payload)
        accepted = key not in kept.signals
        if accepted:
            kept.signals[key] = (encoded, self._clock())
        held, emitted_at = kept.signals[key]
        return Signal(
            key=key, payload=from_json(held), emitted_at=emitted_at, accepted=accepted
        )

    async def signal(self, run_id: str, key: str) -> Signal | None:
        """Return what was emitted under a key."""
        kept = self._runs.get(run_id)
        held = None if kept is None else kept.signals.get(key)
        if held is None:
            return None
        return Signal(
            key=key, payload=from_json(held[0]), emitted_at=held[1], accepted=True
        )

    async def set_handle(
        self, run_id: str, fence: int, handle: Mapping[str, Json] | None
    ) -> None:
        """Keep what it takes to reconnect."""
        kept = self._owned(run_id, fence)
        copy = None if handle is None else _copied(dict(handle))
        kept.run = replace(kept.run, handle=copy, updated_at=self._clock())

    # -- keeping

    async def forget(self, *, older_than: float, limit: int = 1000) -> int:
        """Let go of the logs, steps and signals of runs that ended long ago."""
        before = self._clock() - older_than
        forgotten = 0
        for kept in self._runs.values():
            run = kept.run
            if forgotten == limit:
                break
            ended = run.ended_at is not None and run.ended_at <= before
            if ended and not kept.forgotten:
                kept.forgotten = True
                kept.log.clear()
                kept.event_lines.clear()
                kept.steps.clear()
                kept.signals.clear()
                kept.run = replace(run, first=run.lines + 1)
                forgotten += 1
        return forgotten

    # -- rules

    def _known(self, run_id: str) -> _Kept:
        kept = self._runs.get(run_id)
        if kept is None:
            raise UnknownTurn(run_id)
        return kept

    def _owned(self, run_id: str, fence: int) -> _Kept:
        kept = self._known(run_id)
        if not self._owns(kept, fence):
            raise LeaseLost(run_id)
        return kept

    def _owns(self, kept: _Kept, fence: int) -> bool:
        return (
            kept.run.fence == fence
            and kept.run.owner is not None
            and kept.lease_until > self._clock()
        )

    def _may_append(self, kept: _Kept, fence: int) -> bool:
        return not kept.run.closed and self._owns(kept, fence)

    def _check_session(self, session: str | None, now: float) -> None:
        if session is None:
            return
        for kept in self._runs.values():
            if kept.run.session == session and not kept.run.closed:
                raise TurnActive(kept.run.id, lapsed=kept.lease_until <= now)

    def _shown(self, kept: _Kept) -> Run:
        """Copy a run for the caller, with what the clock says of its lease."""
        run = kept.run
        lapsed: float | None = None
        if not run.closed:
            since = self._clock() - kept.lease_until
            lapsed = since if since >= 0 else None
        return replace(
            run,
            lapsed_s=lapsed,
            outcome=_copied(run.outcome),
            handle=_copied(run.handle),
            meta=_copied(run.meta),
        )


def diverged(run_id: str, step: Step, intent: str, input_hash: str) -> None:
    """Refuse another step than the one that was recorded.

    Raises:
        StepDivergence: the intents differ, or the hashes where both are given.
    """
    if step.intent != intent:
        raise StepDivergence(run_id, step.index, repr(step.intent), repr(intent))
    if step.input_hash and input_hash and step.input_hash != input_hash:
        raise StepDivergence(
            run_id,
            step.index,
            f"{step.intent!r} with input {step.input_hash:.12}",
            f"given input {input_hash:.12}",
        )


def _shown_step(step: Step) -> Step:
    return replace(step, result=_copied(step.result), error=_copied(step.error))


def _copied(value: Any) -> Any:
    """Copy JSON by way of its text, as a database does."""
    return None if value is None else from_json(to_json(value))


def _wake(kept: _Kept) -> None:
    waiters, kept.waiters = kept.waiters, set()
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
