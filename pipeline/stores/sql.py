"""`SqlStore`: runs in an SQLite file, or in PostgreSQL, by the same code."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from operators.errors import (
    CursorGone,
    InputMismatch,
    LeaseHeld,
    LeaseLost,
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
from .memory import diverged
from .sql_engine import Database
from .sql_schema import log, runs, signals, steps
from .sql_waiting import Waiting

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

_ROWS: Final = 1_000
"""How many chunks one `read` looks at."""


class _Raced(Exception):
    """Another created the run, or the session's run, at the same moment."""


class _Held(NamedTuple):
    """What appending to a run depends on, and when that was looked at."""

    lines: int
    fence: int
    writable: bool
    now: float


class SqlStore:
    """A store in an SQLite file, or in PostgreSQL across machines.

    `SqlStore("sqlite:///turns.db")` is a file beside the program (`sqlite:////var/...`
    an absolute path), in WAL mode with `synchronous=FULL`: what was acknowledged is on
    the disk. `SqlStore("postgresql://user:secret@host/name")` is any PostgreSQL from 12
    on. Tables are created on first use, named `turnpipe_...`; a newer schema is refused.

    Each call is one transaction. Waits end at once where the lines came through this
    store object, on PostgreSQL by NOTIFY, once a transaction, wherever they came from;
    on SQLite by looking whether the file changed, every `poll` seconds, once for all
    who wait. `pool_size` bounds the connections.

    Raises:
        ValueError: the URL is of neither, or of a database in memory.
    """

    def __init__(self, url: str, *, pool_size: int = 5, poll: float = 0.02) -> None:
        """Read the URL; the database is opened on first use."""
        self._db = Database(url, pool_size=pool_size)
        self._waiting = Waiting(self._db, poll=poll)

    async def close(self) -> None:
        """Let go of the connections; waits end."""
        await self._waiting.close()
        await self._db.close()

    # -- owning

    async def claim(
        self, new: NewRun, *, worker: str, lease: float, reenter: bool = False
    ) -> Claim:
        """Create the run, or take it over."""
        meta = to_json(dict(new.meta))
        while True:
            try:
                return await self._db.write(
                    lambda connection: self._claim(
                        connection, new, meta, worker, lease, reenter=reenter
                    )
                )
            except _Raced:
                await asyncio.sleep(0)

    def _claim(
        self,
        connection: Connection,
        new: NewRun,
        meta: bytes,
        worker: str,
        lease: float,
        *,
        reenter: bool,
    ) -> Claim:
        row = self._locked(connection, new.id)
        if row is None:
            self._check_session(connection, new.session)
            now = self._now(connection)
            values = {
                "id": new.id,
                "session": new.session,
                "manifest_hash": new.manifest_hash,
                "status": "running",
                "fence": 1,
                "settled_by": 0,
                "owner": worker,
                "lease_until": now + lease,
                "first": 1,
                "lines": 0,
                "meta": meta,
                "forgotten": False,
                "created_at": now,
                "updated_at": now,
            }
            self._or_raced(connection, insert(runs).values(**values))
            return Claim(mode="created", run=self._run(connection, new.id), fence=1)
        if row.manifest_hash != new.manifest_hash:
            raise InputMismatch(new.id)
        ended = row.status != "running"
        if ended and not reenter:
            return Claim(mode="finished", run=_run_of(row), fence=0)
        live = row.owner is not None and row.left > 0
        if live and row.owner != worker:
            raise LeaseHeld(new.id, str(row.owner), row.left)
        again = ended and row.status != "completed"
        if again:
            self._check_session(connection, row.session)
        now = self._now(connection)
        changed: dict[str, Any] = {
            "fence": row.fence + 1,
            "owner": worker,
            "lease_until": now + lease,
            "updated_at": now,
        }
        if again:
            changed |= {
                "status": "running",
                "outcome": None,
                "ended_at": None,
                "cancel": None,
                "forgotten": False,
            }
        self._or_raced(
            connection, update(runs).where(runs.c.id == new.id).values(**changed)
        )
        return Claim(
            mode="reentered" if live or ended else "taken",
            run=self._run(connection, new.id),
            fence=row.fence + 1,
        )

    def _or_raced(self, connection: Connection, statement: Any) -> None:
        try:
            connection.execute(statement)
        except IntegrityError as exc:
            raise _Raced from exc

    def _check_session(self, connection: Connection, session: str | None) -> None:
        if session is None:
            return
        active = connection.execute(
            select(
                runs.c.id, (runs.c.lease_until <= self._db.now).label("lapsed")
            ).where(runs.c.session == session, runs.c.status == "running")
        ).first()
        if active is not None:
            raise TurnActive(active.id, lapsed=bool(active.lapsed))

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, Renewal]:
        """Renew the live leases of this worker."""

        def work(connection: Connection) -> Mapping[str, Renewal]:
            now = self._now(connection)
            rows = connection.execute(
                update(runs)
                .where(runs.c.owner == worker, runs.c.lease_until > now)
                .values(lease_until=now + lease)
                .returning(runs.c.id, runs.c.fence, runs.c.cancel)
            )
            return {row.id: Renewal(fence=row.fence, cancel=row.cancel) for row in rows}

        return await self._db.write(work)

    async def release(self, run_id: str, fence: int) -> bool:
        """End the lease now."""

        def work(connection: Connection) -> bool:
            now = self._now(connection)
            done = connection.execute(
                update(runs)
                .where(
                    runs.c.id == run_id,
                    runs.c.fence == fence,
                    runs.c.owner.is_not(None),
                    runs.c.lease_until > now,
                )
                .values(owner=None, lease_until=now, updated_at=now)
            )
            return done.rowcount == 1

        return await self._db.write(work)

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
        encoded = to_json(dict(outcome))

        def work(connection: Connection) -> None:
            row = self._locked(connection, run_id)
            if row is None:
                raise UnknownTurn(run_id)
            if row.status == status and row.settled_by == fence:
                return
            again = row.status == "completed" and lines is None
            if not _owns(row, fence) or (row.status != "running" and not again):
                raise LeaseLost(run_id)
            if lines is not None:
                answers = self._append(connection, [lines])
                if answers[0] is None:
                    raise LeaseLost(run_id)
            now = self._now(connection)
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id)
                .values(
                    status=status,
                    outcome=encoded,
                    settled_by=fence,
                    owner=None,
                    lease_until=now,
                    ended_at=now,
                    updated_at=now,
                )
            )
            self._waiting.tell(connection, [run_id])

        await self._db.write(work)
        self._waiting.wake([run_id])

    # -- the log

    async def append(self, batch: Sequence[Lines]) -> Sequence[Appended | None]:
        """Append lines of any number of runs."""
        if not batch:
            return []

        def work(connection: Connection) -> list[Appended | None]:
            answers = self._append(connection, batch)
            grown = _grown(batch, answers)
            if grown:
                self._waiting.tell(connection, grown)
            return answers

        answers = await self._db.write(work)
        self._waiting.wake(_grown(batch, answers))
        return answers

    def _append(
        self, connection: Connection, batch: Sequence[Lines]
    ) -> list[Appended | None]:
        held = self._held(connection, {lines.run_id for lines in batch})
        known = self._known_events(connection, batch)
        ends = {run_id: row.lines for run_id, row in held.items()}
        rows: list[dict[str, Any]] = []
        answers: list[Appended | None] = []
        for lines in batch:
            row = held.get(lines.run_id)
            if row is None or not row.writable or row.fence != lines.fence:
                answers.append(None)
                continue
            end = ends[lines.run_id]
            if lines.event_id is not None:
                there = known.get((lines.run_id, lines.event_id))
                if there is not None:
                    answers.append(Appended(there, accepted=False))
                    continue
                known[lines.run_id, lines.event_id] = end + 1
            else:
                gap(lines, end)
                if lines.first <= end:
                    overlap(lines, end)
                    answers.append(Appended(lines.first, accepted=False))
                    continue
            rows.append(
                {
                    "run_id": lines.run_id,
                    "first": end + 1,
                    "size": lines.count,
                    "event_id": lines.event_id,
                    "data": lines.data,
                }
            )
            ends[lines.run_id] = end + lines.count
            answers.append(Appended(end + 1, accepted=True))
        if rows:
            connection.execute(_INSERT_LINES, rows)
            connection.execute(
                _UPDATE_LINES,
                [
                    {"run": run_id, "end": end, "now": held[run_id].now}
                    for run_id, end in sorted(ends.items())
                    if end != held[run_id].lines
                ],
            )
        return answers

    def _held(self, connection: Connection, ids: Iterable[str]) -> dict[str, _Held]:
        """Lock the runs, always in one order; tell what appending depends on."""
        writable = (
            (runs.c.status == "running")
            & runs.c.owner.is_not(None)
            & (runs.c.lease_until > self._db.now)
        ).label("writable")
        rows = connection.execute(
            select(
                runs.c.id,
                runs.c.lines,
                runs.c.fence,
                writable,
                self._db.now.label("now"),
            )
            .where(runs.c.id.in_(bindparam("ids", expanding=True)))
            .order_by(runs.c.id)
            .with_for_update(),
            {"ids": sorted(ids)},
        )
        return {
            row.id: _Held(row.lines, row.fence, bool(row.writable), row.now)
            for row in rows
        }

    def _known_events(
        self, connection: Connection, batch: Sequence[Lines]
    ) -> dict[tuple[str, str], int]:
        asked: defaultdict[str, list[str]] = defaultdict(list)
        for lines in batch:
            if lines.event_id is not None:
                asked[lines.run_id].append(lines.event_id)
        return {
            (run_id, row.event_id): row.first
            for run_id, ids in asked.items()
            for row in connection.execute(
                select(log.c.event_id, log.c.first).where(
                    log.c.run_id == run_id,
                    log.c.event_id.in_(bindparam("ids", expanding=True)),
                ),
                {"ids": ids},
            )
        }

    async def read(
        self, run_id: str, *, after: int = 0, limit_bytes: int = PAGE_BYTES
    ) -> Page:
        """Read the lines after number `after`."""
        if after < 0:
            raise ValueError(f"after must be 0 or more, not {after}")

        def work(connection: Connection) -> Page:
            row = self._looked(connection, run_id)
            if row is None:
                raise UnknownTurn(run_id)
            if after < row.lines and after + 1 < row.first:
                raise CursorGone(run_id, row.first, row.lines)
            run = _run_of(row)
            chunks: tuple[Chunk, ...] = ()
            if after < run.lines:
                chunks = self._chunks(connection, run_id, after, run.lines, limit_bytes)
            return Page(
                chunks=chunks,
                lines=run.lines,
                closed=run.closed,
                lapsed_s=run.lapsed_s,
            )

        return await self._db.read(work)

    def _chunks(
        self,
        connection: Connection,
        run_id: str,
        after: int,
        end: int,
        limit_bytes: int,
    ) -> tuple[Chunk, ...]:
        begins = (
            select(func.max(log.c.first))
            .where(log.c.run_id == run_id, log.c.first <= after + 1)
            .scalar_subquery()
        )
        sizes = connection.execute(
            select(log.c.first, func.length(log.c.data).label("bytes"))
            .where(log.c.run_id == run_id, log.c.first >= begins, log.c.first <= end)
            .order_by(log.c.first)
            .limit(_ROWS)
        ).all()
        last, size = None, 0
        for row in sizes:
            if last is not None and size + row.bytes > limit_bytes:
                break
            last = row.first
            size += row.bytes
        if last is None:
            return ()
        rows = connection.execute(
            select(log.c.first, log.c.size, log.c.data, log.c.event_id)
            .where(
                log.c.run_id == run_id,
                log.c.first.between(sizes[0].first, last),
            )
            .order_by(log.c.first)
        )
        return following(
            (Chunk(r.first, r.size, bytes(r.data), r.event_id) for r in rows),
            after,
            max(limit_bytes, size),
        )

    async def wait(self, run_id: str, *, after: int, timeout: float) -> None:  # noqa: ASYNC109 - the contract's
        """Return when the log may have grown past `after` or closed, or time is up."""
        ticket = self._waiting.enter(run_id)
        try:

            def grown(connection: Connection) -> bool:
                row = connection.execute(
                    select(runs.c.lines, runs.c.status).where(runs.c.id == run_id)
                ).first()
                return row is None or row.lines > after or row.status != "running"

            # Looked at after entering: what comes from now on is told.
            if not await self._db.read(grown):
                await self._waiting.wait(ticket, timeout)
        finally:
            self._waiting.leave(run_id, ticket)

    # -- asking

    async def status(self, run_id: str) -> Run:
        """Tell how a run stands."""
        return await self._db.read(lambda connection: self._run(connection, run_id))

    async def runs(
        self,
        *,
        session: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        limit: int = 100,
    ) -> Sequence[Run]:
        """List runs, the newest first."""
        asked = self._select().order_by(runs.c.created_at.desc()).limit(limit)
        if session is not None:
            asked = asked.where(runs.c.session == session)
        if statuses is not None:
            asked = asked.where(runs.c.status.in_(list(statuses)))
        return await self._db.read(
            lambda connection: [_run_of(row) for row in connection.execute(asked)]
        )

    async def orphans(self, *, limit: int = 100) -> Sequence[Run]:
        """List the running runs whose lease is over."""
        asked = (
            self._select()
            .where(runs.c.status == "running", runs.c.lease_until <= self._db.now)
            .order_by(runs.c.lease_until)
            .limit(limit)
        )
        return await self._db.read(
            lambda connection: [_run_of(row) for row in connection.execute(asked)]
        )

    async def request_cancel(self, run_id: str, reason: str) -> bool:
        """Leave word for the owner to stop."""

        def work(connection: Connection) -> bool:
            row = self._locked(connection, run_id)
            if row is None:
                raise UnknownTurn(run_id)
            if row.status != "running":
                return False
            if row.cancel is None:
                connection.execute(
                    update(runs)
                    .where(runs.c.id == run_id)
                    .values(cancel=reason, updated_at=self._now(connection))
                )
            return True

        return await self._db.write(work)

    # -- steps, signals, the handle

    async def steps(self, run_id: str) -> Sequence[Step]:
        """List a run's steps by index."""
        asked = select(steps).where(steps.c.run_id == run_id).order_by(steps.c.position)
        return await self._db.read(
            lambda connection: [_step_of(row) for row in connection.execute(asked)]
        )

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

        def work(connection: Connection) -> Step:
            self._own(connection, run_id, fence)
            now = self._now(connection)
            step = self._step(connection, run_id, index)
            if step is None:
                connection.execute(
                    insert(steps).values(
                        run_id=run_id,
                        position=index,
                        intent=intent,
                        kind=kind,
                        input_hash=input_hash,
                        status="running",
                        attempts=1,
                        started_at=now,
                    )
                )
            else:
                diverged(run_id, step, intent, input_hash)
                connection.execute(
                    update(steps)
                    .where(steps.c.run_id == run_id, steps.c.position == index)
                    .values(
                        status="running",
                        attempts=steps.c.attempts + 1,
                        error=None,
                        started_at=now,
                        ended_at=None,
                    )
                )
            return cast("Step", self._step(connection, run_id, index))

        return await self._db.write(work)

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
        changed: dict[str, Any] = {"status": "completed", "error": None}
        if error is None:
            changed["result"] = to_json(result)
        else:
            changed = {"status": "failed", "error": to_json(dict(error))}

        def work(connection: Connection) -> Step:
            self._own(connection, run_id, fence)
            done = connection.execute(
                update(steps)
                .where(steps.c.run_id == run_id, steps.c.position == index)
                .values(ended_at=self._now(connection), **changed)
            )
            if done.rowcount != 1:
                raise LookupError(f"step {index} of {run_id!r} ended before it began")
            return cast("Step", self._step(connection, run_id, index))

        return await self._db.write(work)

    async def emit(
        self, run_id: str, key: str, payload: Json, *, fence: int | None = None
    ) -> Signal:
        """Record a signal; the first under a key wins."""
        encoded = to_json(payload)

        def work(connection: Connection) -> Signal:
            if fence is not None:
                self._own(connection, run_id, fence)
            elif self._locked(connection, run_id) is None:
                raise UnknownTurn(run_id)
            there = self._signal(connection, run_id, key)
            if there is not None:
                return Signal(
                    key=key,
                    payload=there.payload,
                    emitted_at=there.emitted_at,
                    accepted=False,
                )
            connection.execute(
                insert(signals).values(
                    run_id=run_id,
                    key=key,
                    payload=encoded,
                    emitted_at=self._now(connection),
                )
            )
            return cast("Signal", self._signal(connection, run_id, key))

        return await self._db.write(work)

    async def signal(self, run_id: str, key: str) -> Signal | None:
        """Return what was emitted under a key."""
        return await self._db.read(
            lambda connection: self._signal(connection, run_id, key)
        )

    async def set_handle(
        self, run_id: str, fence: int, handle: Mapping[str, Json] | None
    ) -> None:
        """Keep what it takes to reconnect."""
        encoded = None if handle is None else to_json(dict(handle))

        def work(connection: Connection) -> None:
            self._own(connection, run_id, fence)
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id)
                .values(handle=encoded, updated_at=self._now(connection))
            )

        await self._db.write(work)

    # -- keeping

    async def forget(self, *, older_than: float, limit: int = 1000) -> int:
        """Let go of the logs, steps and signals of runs that ended long ago."""

        def work(connection: Connection) -> int:
            ids = list(
                connection.execute(
                    select(runs.c.id)
                    .where(
                        runs.c.ended_at <= self._now(connection) - older_than,
                        ~runs.c.forgotten,
                    )
                    .order_by(runs.c.id)
                    .limit(limit)
                    .with_for_update()
                ).scalars()
            )
            for table in (log, steps, signals):
                connection.execute(delete(table).where(table.c.run_id.in_(ids)))
            connection.execute(
                update(runs)
                .where(runs.c.id.in_(ids))
                .values(first=runs.c.lines + 1, forgotten=True)
            )
            return len(ids)

        return await self._db.write(work)

    # -- rows

    def _now(self, connection: Connection) -> float:
        return float(connection.execute(select(self._db.now)).scalar_one())

    def _select(self) -> Any:
        left: ColumnElement[float] = (runs.c.lease_until - self._db.now).label("left")
        return select(runs, left)

    def _looked(self, connection: Connection, run_id: str) -> Row[Any] | None:
        return connection.execute(self._select().where(runs.c.id == run_id)).first()

    def _locked(self, connection: Connection, run_id: str) -> Row[Any] | None:
        """Read a run's row, and let nobody change it before this transaction ends."""
        return connection.execute(
            self._select().where(runs.c.id == run_id).with_for_update()
        ).first()

    def _run(self, connection: Connection, run_id: str) -> Run:
        row = self._looked(connection, run_id)
        if row is None:
            raise UnknownTurn(run_id)
        return _run_of(row)

    def _own(self, connection: Connection, run_id: str, fence: int) -> None:
        row = self._locked(connection, run_id)
        if row is None:
            raise UnknownTurn(run_id)
        if not _owns(row, fence):
            raise LeaseLost(run_id)

    def _step(self, connection: Connection, run_id: str, index: int) -> Step | None:
        row = connection.execute(
            select(steps).where(steps.c.run_id == run_id, steps.c.position == index)
        ).first()
        return None if row is None else _step_of(row)

    def _signal(self, connection: Connection, run_id: str, key: str) -> Signal | None:
        row = connection.execute(
            select(signals).where(signals.c.run_id == run_id, signals.c.key == key)
        ).first()
        if row is None:
            return None
        return Signal(
            key=key,
            payload=from_json(row.payload),
            emitted_at=row.emitted_at,
            accepted=True,
        )


_INSERT_LINES: Final = insert(log)
_UPDATE_LINES: Final = (
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(lines=bindparam("end"), updated_at=bindparam("now"))
)


def _owns(row: Row[Any], fence: int) -> bool:
    return row.fence == fence and row.owner is not None and row.left > 0


def _grown(batch: Sequence[Lines], answers: Sequence[Appended | None]) -> list[str]:
    return sorted(
        {
            lines.run_id
            for lines, answer in zip(batch, answers, strict=True)
            if answer is not None and answer.accepted
        }
    )


def _run_of(row: Row[Any]) -> Run:
    lapsed = None
    if row.status == "running" and row.left <= 0:
        lapsed = -row.left
    return Run(
        id=row.id,
        session=row.session,
        manifest_hash=row.manifest_hash,
        status=row.status,
        fence=row.fence,
        owner=row.owner,
        lapsed_s=lapsed,
        first=row.first,
        lines=row.lines,
        cancel=row.cancel,
        outcome=from_json(row.outcome),
        handle=from_json(row.handle),
        meta=from_json(row.meta),
        created_at=row.created_at,
        updated_at=row.updated_at,
        ended_at=row.ended_at,
    )


def _step_of(row: Row[Any]) -> Step:
    return Step(
        index=row.position,
        intent=row.intent,
        kind=row.kind,
        input_hash=row.input_hash,
        status=row.status,
        attempts=row.attempts,
        result=from_json(row.result),
        error=from_json(row.error),
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
