"""`TurnHub`: turns that live on when their readers, or their process, go."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, cast

from operators.drive import cancelling
from operators.errors import (
    DurableError,
    InputMismatch,
    LeaseHeld,
    StoreError,
    TurnActive,
    TurnMisuse,
)
from operators.operator import name_of
from operators.turn import TurnIdentity, TurnOutcome, logger

from ..execution import derive_execution_id, manifest_hash
from ..pipeline import Pipeline
from ..stores.contract import Chunk, NewRun
from .carrier import Carrier
from .hub_turn import HubTurn
from .journal import Journal
from .listing import all_of
from .patience import patiently
from .records import identity_from_json, identity_to_json, outcome_from_json
from .resume import gone_on, reduced, supervised
from .status import TurnStatus, is_turn, status_of
from .tail import Room

if TYPE_CHECKING:
    from types import TracebackType

    from operators.turn import Log

    from ..stores.contract import Claim, Run, Store

T = TypeVar("T")
Busy: TypeAlias = Literal["reject", "queue", "cancel_previous"]
Recovered: TypeAlias = Literal["resumed", "settled"]
_BUSY: Final = ("reject", "queue", "cancel_previous")

BEAT_S: Final = 1.0
"""The most between two renewals: a cancel from elsewhere arrives with the next."""

WAIT_S: Final = 1.0
"""How often a reader of another worker's turn looks whether that still lives."""

GRACE_S: Final = 3.0
"""How long a dead worker's turn is left to `recover`, before a reader ends it."""

MEMORY_BYTES: Final = 64 << 20


class TurnHub:
    """Owns turns: each runs in a task of its own, a response is only a reader of it.

    A turn's lines are in the store before anybody reads them. The same execution id
    attaches to the turn that there is, or replays it, and never runs its source twice
    at a time. One turn of a session runs at a time: `busy` says what becomes of another
    (`"reject"` with TurnActive, `"queue"` behind it, `"cancel_previous"`).

    Use it as `async with TurnHub(store) as hub`: on leaving, turns end for
    `drain_timeout` seconds, then settle as cancelled, code `shutdown`, and the store is
    closed.

    `worker_id` names this worker in the store; left out it is unique. `lease` (seconds)
    is how soon another worker may take over where this one dies; it is renewed by time.
    `pipelines` are known by name, for `recover`; `start` adds its own. `memory_bytes`
    bounds what is kept of all turns' last lines for readers here.
    """

    def __init__(
        self,
        store: Store,
        *,
        worker_id: str | None = None,
        lease: float = 30.0,
        busy: Busy = "reject",
        drain_timeout: float = 10.0,
        pipelines: Mapping[str, Pipeline] | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """Make a hub; nothing runs before its first use."""
        _check_seconds("lease", lease)
        _check_seconds("drain_timeout", drain_timeout, least=0)
        _check_busy(busy)
        self._store = store
        self.worker_id: Final = worker_id or _new_worker_id()
        self._lease = float(lease)
        self._busy: Busy = busy
        self._drain_timeout = drain_timeout
        self._pipelines: dict[str, Pipeline] = dict(pipelines or {})
        self._carriers: dict[str, Carrier] = {}
        self._journal = Journal(store, patience=self._lease, room=Room(memory_bytes))
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._beating: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._closed = False

    async def __aenter__(self) -> TurnHub:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    # -- what a user calls

    async def start(
        self,
        pipeline: Pipeline,
        identity: TurnIdentity,
        request: Any = None,
        *,
        execution_id: str | None = None,
        busy: Busy | None = None,
        name: str | None = None,
        settle_timeout: float = 10.0,
        log: Log | None = None,
        clock: Callable[[], float] | None = None,
    ) -> HubTurn:
        """Start a turn, or attach to the one that has its execution id.

        Returns once the store has it: then it runs on, whoever leaves. `request` is
        JSON: it is kept, since who takes the turn over needs it. Without `execution_id`
        it is derived from the identity, the tenant in it. A turn whose worker died goes
        on here, with this pipeline. `name` is what `recover` knows the pipeline by, by
        default its source's name. The rest is as `Pipeline.start` takes it.

        Raises:
            InputMismatch: the execution id was used with another request or identity.
            TurnActive: the session has a turn that runs, and `busy` is `"reject"`.
            TypeError: `request` is not JSON; or as `Pipeline.start`.
            StoreError: the store does not answer.
            TurnMisuse: the hub is closed.
        """
        self._check_open()
        if busy is not None:
            _check_busy(busy)
        if not isinstance(pipeline, Pipeline):
            raise TypeError(f"pipeline must be a Pipeline, not {pipeline!r}")
        options = {"settle_timeout": settle_timeout, "log": log, "clock": clock}
        made = pipeline.start(
            identity, request=request, execution_id=execution_id, **cast("Any", options)
        )
        run_id = made.context.execution_id
        called = name or name_of(pipeline.source)
        new = NewRun(
            id=run_id,
            manifest_hash=_hash_of(run_id, identity, request),
            session=session_key(identity),
            meta={
                "identity": identity_to_json(identity),
                "request": request,
                "pipeline": called,
            },
        )
        self._pipelines[called] = pipeline
        # A task of its own: a caller that is cancelled between the claim and the turn's
        # first step must not leave a turn that nobody runs.
        starting = self._spawn(
            self._start(pipeline, new, busy or self._busy, options), f"start {run_id}"
        )
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled() and not cancelling():
                self._check_open()
            raise
        return HubTurn(self, run_id)

    def attach(self, execution_id: str, after: int = 0) -> HubTurn:
        """Make a reader of a turn, from line `after` on; whether it is there, reads tell.

        Raises:
            ValueError: `after` is negative.
        """
        return HubTurn(self, execution_id, after)

    async def cancel(self, execution_id: str, reason: str = "cancelled") -> bool:
        """Ask a turn to stop, wherever it runs; False where it has ended.

        Another worker's turn hears it within two seconds.

        Raises:
            UnknownTurn: there is no such turn.
        """
        carrier = self._carriers.get(execution_id)
        if carrier is not None and not carrier.over:
            carrier.stop(reason)
            return True
        return await self._store.request_cancel(execution_id, reason)

    async def status(self, execution_id: str) -> TurnStatus:
        """Tell how a turn stands.

        Raises:
            UnknownTurn: there is no such turn.
        """
        return status_of(await self._store.status(execution_id))

    async def turns(
        self, identity: TurnIdentity | None = None, *, limit: int = 100
    ) -> list[TurnStatus]:
        """List turns, the newest first; those of one session, where one is named."""
        session = None if identity is None else session_key(identity)
        runs = await self._store.runs(session=session, limit=limit)
        return [status_of(run) for run in runs]

    async def recover(
        self, pipelines: Mapping[str, Pipeline] | None = None
    ) -> Mapping[str, Recovered]:
        """Take over the turns of dead workers; tell by execution id what became of each.

        A turn whose pipeline is among `pipelines`, or has a supervised source, goes on
        here: `"resumed"`. Every other is `"settled"`: as failed, code `lost`, its text
        as logged, which partial sinks store where the hub knows the pipeline; one that
        had come to its end, as it was to end, its message stored.
        """
        self._check_open()
        given = dict(pipelines or {})
        self._pipelines.update(given)
        done: dict[str, Recovered] = {}

        async def one(run: Run) -> None:
            try:
                how = await self._recover(run, given)
            except DurableError as exc:
                logger.warning("turn %s was not recovered: %s", run.id, exc)
            else:
                if how is not None:
                    done[run.id] = how

        orphans = await self._ask(partial(all_of, self._store.orphans))
        async with asyncio.TaskGroup() as group:
            for run in filter(is_turn, orphans):
                group.create_task(one(run), name=f"turnpipe recover {run.id}")
        return done

    async def forget(self, *, older_than: float) -> int:
        """Let go of the logs of turns that ended so many seconds ago; tell how many.

        Their outcomes stay: reading one raises CursorGone.
        """
        return await self._store.forget(older_than=older_than)

    async def close(self) -> None:
        """Let turns end, then stop them; close the store. May be called again."""
        self._closing = True
        await _stopped(self._tasks)  # what would start more
        await self._drain()
        await _stopped(() if self._beating is None else (self._beating,))
        self._beating = None
        self._closed = True
        await self._journal.close()
        await self._store.close()

    # -- starting

    async def _start(
        self, pipeline: Pipeline, new: NewRun, busy: Busy, options: dict[str, Any]
    ) -> None:
        async with self._alone(new.id):
            self._beat()
            carrier = self._carriers.get(new.id)
            if carrier is not None:
                if carrier.manifest_hash != new.manifest_hash:
                    raise InputMismatch(new.id)
                return
            if busy == "queue":
                async with self._alone(f"session {new.session}"):
                    claim = await self._claimed(new, busy)
            else:
                claim = await self._claimed(new, busy)
            if claim is None or claim.mode == "finished":
                return
            if claim.mode == "created":
                self._carry(pipeline, claim, options)
            else:
                await self._go_on(pipeline, claim, options)

    async def _claimed(self, new: NewRun, busy: Busy) -> Claim | None:
        """Claim a run; None where another worker runs it."""
        while True:
            try:
                return await self._ask(
                    lambda: self._store.claim(
                        new, worker=self.worker_id, lease=self._lease
                    )
                )
            except LeaseHeld:
                return None
            except TurnActive as exc:
                active = exc
            run = await self._ask(partial(self._store.status, active.execution_id))
            if run.lapsed_s is not None and is_turn(run):
                await self._recover(run, {})
            elif run.closed:
                continue
            elif busy == "reject":
                raise active
            else:
                if busy == "cancel_previous":
                    await self.cancel(active.execution_id, "superseded")
                await self._until_closed(active.execution_id)

    def _carry(
        self, pipeline: Pipeline, claim: Claim, options: Mapping[str, Any]
    ) -> Carrier:
        """Run a turn under a lease; the readers here follow it."""
        meta = claim.run.meta
        run = supervised(pipeline, claim, self._store).start(
            identity_from_json(meta["identity"]),
            request=meta.get("request"),
            execution_id=claim.run.id,
            **options,
        )
        carrier = Carrier(self._store, self._journal, claim, run, self._lease)
        self._carriers[claim.run.id] = carrier
        carrier.task.add_done_callback(lambda task: self._carried(carrier, task))
        if claim.run.cancel is not None:
            carrier.stop(claim.run.cancel)
        self._beat()
        return carrier

    def _carried(self, carrier: Carrier, task: asyncio.Task[None]) -> None:
        if self._carriers.get(carrier.execution_id) is carrier:
            del self._carriers[carrier.execution_id]
        carrier.tail.clear()
        if not task.cancelled() and task.exception() is not None:
            logger.error(
                "turn %s could not be carried",
                carrier.execution_id,
                exc_info=task.exception(),
            )

    # -- recovering

    async def _recover(
        self, run: Run, given: Mapping[str, Pipeline]
    ) -> Recovered | None:
        """Take one orphan over; None where it is another's by now, or has ended."""
        work = self._spawn(self._recover_alone(run, given), f"recover {run.id}")
        return await asyncio.shield(work)

    async def _recover_alone(
        self, run: Run, given: Mapping[str, Pipeline]
    ) -> Recovered | None:
        async with self._alone(run.id):
            self._beat()
            if run.id in self._carriers:
                return None
            new = NewRun(
                id=run.id, manifest_hash=run.manifest_hash, session=run.session
            )
            try:
                claim = await self._ask(
                    lambda: self._store.claim(
                        new, worker=self.worker_id, lease=self._lease
                    )
                )
            except (LeaseHeld, TurnActive):
                return None
            if claim.mode == "finished":
                return None
            name = str(claim.run.meta.get("pipeline"))
            pipeline = given.get(name)
            if pipeline is None and claim.run.handle is not None:
                known = self._pipelines.get(name)
                if known is not None and hasattr(known.source, "adapter"):
                    pipeline = known
            if pipeline is not None:
                return await self._go_on(pipeline, claim, {})
            await self._settle_lost(self._pipelines.get(name), claim)
            return "settled"

    async def _go_on(
        self, pipeline: Pipeline, claim: Claim, options: Mapping[str, Any]
    ) -> Recovered:
        """Run a dead worker's turn again, from where its log ends."""
        logged = await self._logged(claim)
        made = await reduced(pipeline, claim, logged, self._store, only_recorded=True)
        if made is not None:
            await asyncio.wait((self._carry(made, claim, options).task,))
            return "settled"
        self._carry(gone_on(pipeline, logged), claim, options)
        return "resumed"

    async def _settle_lost(self, pipeline: Pipeline | None, claim: Claim) -> None:
        logged = await self._logged(claim)
        made = await reduced(pipeline, claim, logged, self._store)
        assert made is not None
        await asyncio.wait((self._carry(made, claim, {}).task,))

    async def _logged(self, claim: Claim) -> list[Chunk]:
        """Read the whole log of a run."""
        chunks: list[Chunk] = []
        after = 0
        while after < claim.run.lines:
            page = await self._ask(partial(self._store.read, claim.run.id, after=after))
            chunks.extend(page.chunks)
            after = page.chunks[-1].first + page.chunks[-1].count - 1
        return chunks

    # -- reading

    async def _follow(
        self, execution_id: str, after: int
    ) -> AsyncIterator[list[Chunk]]:
        """Give the chunks after a line, until the turn's log is closed."""
        while True:
            carrier = self._carriers.get(execution_id)
            tail = None if carrier is None else carrier.tail
            if tail is not None and not tail.lost:
                chunks = tail.after(after)
                if chunks:
                    after = chunks[-1].first + chunks[-1].count - 1
                    yield chunks
                    continue
                if chunks is not None:
                    if tail.closed:
                        return
                    await tail.wait(after)
                    continue
            page = await self._ask(partial(self._store.read, execution_id, after=after))
            if page.chunks:
                after = page.chunks[-1].first + page.chunks[-1].count - 1
                yield list(page.chunks)
            if after < page.lines:
                continue
            if page.closed:
                return
            if page.lapsed_s is not None and page.lapsed_s > GRACE_S:
                run = await self._ask(partial(self._store.status, execution_id))
                if is_turn(run):
                    await self._recover(run, {})
                    continue
            if tail is None or tail.lost:
                await self._store.wait(execution_id, after=after, timeout=WAIT_S)

    async def _until_closed(self, execution_id: str) -> None:
        lines = (await self._ask(lambda: self._store.status(execution_id))).lines
        async for _ in self._follow(execution_id, lines):
            pass

    async def _outcome(self, execution_id: str) -> TurnOutcome:
        while True:
            carrier = self._carriers.get(execution_id)
            if carrier is not None:
                await asyncio.wait((carrier.task,))
                if carrier.outcome is not None and not carrier.tail.lost:
                    return carrier.outcome
            await self._until_closed(execution_id)
            run = await self._ask(lambda: self._store.status(execution_id))
            if run.outcome is not None:
                return outcome_from_json(run.outcome)

    # -- keeping leases

    def _beat(self) -> None:
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._beats(), name="turnpipe leases")

    async def _beats(self) -> None:
        """Renew this worker's leases, by time; hear what others ask of its turns."""
        every = min(self._lease / 3, BEAT_S)
        loop = asyncio.get_running_loop()
        renewed_at = loop.time()
        while self._carriers or self._locks:
            await asyncio.sleep(every)
            began = loop.time()
            claimed = dict(self._carriers)
            try:
                renewed = await self._store.renew(self.worker_id, lease=self._lease)
            except StoreError as exc:
                logger.warning("leases were not renewed: %s", exc)
                if loop.time() - renewed_at > self._lease:
                    for carrier in list(self._carriers.values()):
                        carrier.lease_lost()
                continue
            renewed_at = began
            for run_id, carrier in claimed.items():
                kept = renewed.get(run_id)
                if kept is None or kept.fence != carrier.fence:
                    carrier.lease_lost()
                elif kept.cancel is not None:
                    carrier.stop(kept.cancel)
            for run_id, kept in renewed.items():
                # A claim whose caller was cancelled: nobody runs it.
                if run_id not in self._carriers and run_id not in self._locks:
                    with suppress(StoreError):
                        await self._store.release(run_id, kept.fence)

    # -- the hub's own

    async def _drain(self) -> None:
        tasks = [carrier.task for carrier in self._carriers.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._drain_timeout)
        for carrier in list(self._carriers.values()):
            carrier.stop("shutdown", "shutdown")
        tasks = [carrier.task for carrier in self._carriers.values()]
        if tasks:
            await asyncio.wait(tasks)

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncGenerator[None]:
        """Do one thing at a time for a turn, or a session."""
        lock, users = self._locks.get(key, (None, 0))
        lock = lock or asyncio.Lock()
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the store, again where it could not answer, for as long as a lease lives."""
        if self._closed:
            raise TurnMisuse("the hub is closed: make another")
        return await patiently(ask, self._lease)

    def _spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=f"turnpipe {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _check_open(self) -> None:
        if self._closing:
            raise TurnMisuse("the hub is closed: make another")


async def _stopped(tasks: Iterable[asyncio.Task[Any]]) -> None:
    left = list(tasks)
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)


def session_key(identity: TurnIdentity) -> str:
    """Name a session so that no two tenants share one."""
    whole = derive_execution_id(identity.tenant_id or "-", identity.session_id, 0)
    return whole.rpartition(":")[0]


def _hash_of(run_id: str, identity: TurnIdentity, request: Any) -> str:
    try:
        return manifest_hash(
            {
                "project_id": identity.tenant_id or "-",
                "task": {"id": run_id, "intent": "turn", "domain": "chat"},
                "input": {"identity": identity_to_json(identity), "request": request},
            }
        )
    except TypeError as exc:
        raise TypeError(
            f"a hub keeps the request, so it must be JSON ({exc}): pass the parsed body, "
            f"not the request object"
        ) from exc


def _new_worker_id() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(5).hex()}"


def _check_busy(busy: object) -> None:
    if busy not in _BUSY:
        raise ValueError(f"busy must be one of {', '.join(_BUSY)}, not {busy!r}")


def _check_seconds(name: str, value: object, *, least: float | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds, a number, not {value!r}")
    if not (value > 0 if least is None else value >= least):
        raise ValueError(f"{name} must be positive seconds, not {value!r}")
