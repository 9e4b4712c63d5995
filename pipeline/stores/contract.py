"""The contract of a store: what every one of them promises, word for word.

A store keeps *runs*: a turn that a hub carries, or a durable run. Each has an owner with
a lease, a fence number, a log of lines, steps, signals, a handle, and an outcome.

* **Claiming** is one conditional write. Every claim that gives a lease raises the fence.
* **The clock** is the store's own, the same for all workers: leases lapse by it, times
  are UNIX seconds of it.
* **Writing** needs the run's current fence and a live lease. Who has not both is told
  so (LeaseLost, or None in a batch) and has written nothing. So a worker that slept
  through its lease never writes again, even if nobody took its run meanwhile.
* **The log** is numbered from 1, without gaps. What `append` and `settle` acknowledged
  is durable, and is all that a reader ever sees.
* **Everything acknowledged may be asked again**: a write that was interrupted may have
  happened, so `append` is idempotent by line number or event id, `settle` and the
  others by their content.

Cancelling a call leaves the store whole; whether the call happened is not known then.
What a database raises is mapped: StoreBusy, StoreFull, StoreSchema, StoreError.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

RunStatus: TypeAlias = Literal["running", "completed", "failed", "cancelled"]
EndStatus: TypeAlias = Literal["completed", "failed", "cancelled"]
StepStatus: TypeAlias = Literal["running", "completed", "failed"]
Json: TypeAlias = Any

PAGE_BYTES: Final = 1 << 20
"""How much of a log one `read` gives, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """What a claim asks for.

    `manifest_hash` fingerprints the input: the same id with another is refused.
    `session` is the key under which only one run may be running; None: any number.
    `meta` is JSON that is kept with the run, as it was first given.
    """

    id: str
    manifest_hash: str
    session: str | None = None
    meta: Mapping[str, Json] = field(default_factory=dict[str, Json])


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as it stands in the store.

    `lapsed_s` is how long ago its lease ended, None while the lease lives and where the
    run has ended. The log's lines `first` to `lines` are kept. `cancel` is the reason
    with which somebody asked it to stop.
    """

    id: str
    session: str | None
    manifest_hash: str
    status: RunStatus
    fence: int
    owner: str | None
    lapsed_s: float | None
    first: int
    lines: int
    cancel: str | None
    outcome: Mapping[str, Json] | None
    handle: Mapping[str, Json] | None
    meta: Mapping[str, Json]
    created_at: float
    updated_at: float
    ended_at: float | None

    @property
    def closed(self) -> bool:
        """Whether the run has ended: its log grows no more."""
        return self.status != "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a claim gave.

    `created`: a new run, `taken`: one whose lease had lapsed, `reentered`: one of this
    worker's own, or one that had ended and was asked for with `reenter`; all three with
    a lease, under `fence`. `finished`: it had ended; there is no lease, and `fence` is 0.
    """

    mode: Literal["created", "taken", "reentered", "finished"]
    run: Run
    fence: int


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines for a log: `count` of them in `data`, each ended by LF, `first` the first.

    With `event_id` it is one line, appended where the log ends (`first` is 0), once per
    id.
    """

    run_id: str
    fence: int
    first: int
    count: int
    data: bytes
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where lines are in the log; `accepted` is False for those that were there."""

    line: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines of a log as they are read, `first` the number of the first."""

    first: int
    count: int
    data: bytes
    event_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a log: `chunks` in order, none where nothing follows the cursor (yet).

    The log has `lines` lines by now. `closed` and `lapsed_s` are the run's, as of the
    same moment: a page that reaches `lines` with `closed` set is the last.
    """

    chunks: tuple[Chunk, ...]
    lines: int
    closed: bool
    lapsed_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """One run of a worker whose lease was renewed; `cancel` as in Run."""

    fence: int
    cancel: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a durable run; `index` from 0 is its identity.

    `input_hash` is "" where it was not given. `error` is `{"message", "code"}`.
    """

    index: int
    intent: str
    kind: str
    input_hash: str
    status: StepStatus
    attempts: int
    result: Json
    error: Mapping[str, Json] | None
    started_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What was emitted under a key; `accepted` is False where another came first."""

    key: str
    payload: Json
    emitted_at: float
    accepted: bool


class Store(Protocol):
    """Where runs are kept. Opens itself on first use; `close` may be called again."""

    async def close(self) -> None:
        """Let go of connections and tasks; waits end."""
        ...

    # -- owning

    async def claim(
        self, new: NewRun, *, worker: str, lease: float, reenter: bool = False
    ) -> Claim:
        """Create the run, or take it over, with a lease of `lease` seconds.

        With `reenter`, a run that has ended is given too: completed, it stays so;
        failed or cancelled, it runs again, its log goes on.

        Raises:
            InputMismatch: it was begun with another `manifest_hash`; looked at first.
            LeaseHeld: it is another worker's, whose lease lives.
            TurnActive: it would be created (or would run again), and another run of the
                session is running.
        """
        ...

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, Renewal]:
        """Renew the live leases of this worker, all in one; return them by run id.

        A run that is missing is lost: its lease was over, or another took it.
        """
        ...

    async def release(self, run_id: str, fence: int) -> bool:
        """End the lease now, the run goes on running: the next may take it over."""
        ...

    async def settle(
        self,
        run_id: str,
        fence: int,
        *,
        status: EndStatus,
        outcome: Mapping[str, Json],
        lines: Lines | None = None,
    ) -> None:
        """End the run: last lines, status, outcome and closed log in one transaction.

        Again, with the fence and status that ended it, changes nothing.

        Raises:
            LeaseLost: it is not this fence's to end.
            UnknownTurn: there is no such run.
        """
        ...

    # -- the log

    async def append(self, batch: Sequence[Lines]) -> Sequence[Appended | None]:
        """Append lines of any number of runs, in order, in one transaction.

        None stands where the fence is stale, the lease over, or the run has ended; that
        hinders no other. Lines that are in the log already are not written again.

        Raises:
            ValueError: lines would leave a gap, or overlap the log's end.
        """
        ...

    async def read(
        self, run_id: str, *, after: int = 0, limit_bytes: int = PAGE_BYTES
    ) -> Page:
        """Read the lines after number `after`, whole lines, at least one if there is.

        A cursor past the end gives no lines.

        Raises:
            UnknownTurn: there is no such run.
            CursorGone: lines after the cursor are not kept any more.
            ValueError: `after` is negative.
        """
        ...

    async def wait(self, run_id: str, *, after: int, timeout: float) -> None:  # noqa: ASYNC109 - a bound, not a deadline that raises
        """Return when the log may have grown past `after` or closed, or time is up."""
        ...

    # -- asking

    async def status(self, run_id: str) -> Run:
        """Tell how a run stands.

        Raises:
            UnknownTurn: there is no such run.
        """
        ...

    async def runs(
        self,
        *,
        session: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        limit: int = 100,
    ) -> Sequence[Run]:
        """List runs, the newest first; those of one session, of some statuses."""
        ...

    async def orphans(self, *, limit: int = 100) -> Sequence[Run]:
        """List the running runs whose lease is over, the longest dead first."""
        ...

    async def request_cancel(self, run_id: str, reason: str) -> bool:
        """Leave word for the owner to stop; the first reason stays.

        Returns False where the run has ended.

        Raises:
            UnknownTurn: there is no such run.
        """
        ...

    # -- steps, signals, the handle

    async def steps(self, run_id: str) -> Sequence[Step]:
        """List a run's steps by index; none for a run that there is not."""
        ...

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
        """Record that a step runs, once more: `attempts` grows, its error is cleared.

        Raises:
            StepDivergence: it was recorded with another intent, or another hash where
                both are given.
            LeaseLost: as the contract's rule of writing.
            UnknownTurn: there is no such run.
        """
        ...

    async def end_step(
        self,
        run_id: str,
        fence: int,
        index: int,
        *,
        result: Json = None,
        error: Mapping[str, Json] | None = None,
    ) -> Step:
        """Record what became of a step: failed where `error` is given, else completed.

        Raises:
            LookupError: the step was not begun.
            LeaseLost: as the contract's rule of writing.
            UnknownTurn: there is no such run.
        """
        ...

    async def emit(
        self, run_id: str, key: str, payload: Json, *, fence: int | None = None
    ) -> Signal:
        """Record a signal; the first under a key wins, for good.

        Anyone may emit; with `fence` only the run's owner.

        Raises:
            LeaseLost: a fence is given, and does not own the run.
            UnknownTurn: there is no such run.
        """
        ...

    async def signal(self, run_id: str, key: str) -> Signal | None:
        """Return what was emitted under a key, `accepted` True."""
        ...

    async def set_handle(
        self, run_id: str, fence: int, handle: Mapping[str, Json] | None
    ) -> None:
        """Keep what it takes to reconnect to whatever produces the run's events.

        Raises:
            LeaseLost: as the contract's rule of writing.
            UnknownTurn: there is no such run.
        """
        ...

    # -- keeping

    async def forget(self, *, older_than: float, limit: int = 1000) -> int:
        """Let go of the logs, steps and signals of runs that ended so many seconds ago.

        The run's own row stays, with its outcome: its lines are `CursorGone`. Returns
        how many runs it was.
        """
        ...


class DeliveryLog(Protocol):
    """A faster log beside a store: it holds a running turn's lines, the store the rest.

    The same rule of writing holds: only the fence last `open`ed, while its lease lives
    by the log's own clock.
    """

    async def close(self) -> None:
        """Let go of connections and tasks; waits end."""
        ...

    async def begin(self, run_id: str, fence: int, *, lease: float, lines: int) -> int:
        """Let only `fence` append from now on; return how many lines the run has.

        `lines` are in the store already: the log goes on from there where it has less.

        Raises:
            LeaseLost: a higher fence has begun.
        """
        ...

    async def renew(self, fences: Mapping[str, int], *, lease: float) -> None:
        """Renew the leases of runs, by id."""
        ...

    async def append(self, batch: Sequence[Lines]) -> Sequence[Appended | None]:
        """Append as a store does."""
        ...

    async def read(
        self, run_id: str, *, after: int = 0, limit_bytes: int = PAGE_BYTES
    ) -> tuple[tuple[Chunk, ...], int] | None:
        """Read lines after a cursor, and how many there are; None: the store has them.

        None is the answer where the line after the cursor was trimmed, and where the
        log does not know the run (any more).
        """
        ...

    async def wait(self, run_id: str, *, after: int, timeout: float) -> None:  # noqa: ASYNC109 - as Store.wait
        """Return as a store's `wait` does."""
        ...

    async def trim(self, run_id: str, *, upto: int) -> None:
        """Let go of the lines up to this one: the store has them."""
        ...

    async def finish(self, run_id: str, fence: int) -> None:
        """Close: nothing more is appended; readers' waits end; it expires by itself."""
        ...
