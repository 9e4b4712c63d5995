"""`SqlStore`: runs in an SQLite file, or in PostgreSQL, by the same code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from operators.errors import (
    CursorGone,
    InputMismatch,
    LeaseHeld,
    LeaseLost,
    StoreError,
    TurnActive,
    UnknownTurn,
)

from .coding import to_json
from .contract import (
    PAGE_BYTES,
    Appended,
    Chunk,
    Claim,
    DeliveryLog,
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
from .sql_archive import Delivery
from .sql_engine import Database
from .sql_lines import add_chunks, append_lines, page_chunks
from .sql_rows import SIGNAL, STEPS, Statements, owns, run_of, signal_of, step_of
from .sql_schema import log as log_table
from .sql_schema import runs, signals, steps
from .sql_waiting import Waiting

_FORGET: Final = 50
"""How many runs are forgotten in one transaction: others write between."""

_PAUSE_S: Final = 0.25


class _Raced(Exception):
    """Another created the run, or the session's run, at the same moment."""


class SqlStore:
    """A store in an SQLite file, or in PostgreSQL across machines.

    `SqlStore("sqlite:///turns.db")` is a file beside the program (`sqlite:////var/...`
    an absolute path), in WAL mode with `synchronous=FULL`: what was acknowledged is on
    the disk. Only its user may read it, where this makes it. It has to be on a disk of
    this machine: SQLite's locks do not hold over a network.

    `SqlStore("postgresql://user:secret@host/name")` is any PostgreSQL from 12 on. A
    pooler between that has no prepared statements needs `prepared=False`.

    Tables are created on first use, named `turnpipe_...`; a newer schema is refused.
    Each call is one transaction, done as a whole even where its caller is cancelled.
    Where an answer is lost the call may have happened: StoreError, and it may be asked
    again. Waits end at once where the lines came through this store object, on PostgreSQL
    by NOTIFY, once a transaction, wherever they came from; on SQLite by looking whether
    the file changed, every `poll` seconds, once for all who wait. `pool_size` bounds the
    connections; one more listens or looks while somebody waits.

    With `log`, the lines of running turns go through it, and are archived here every
    `archive_every` seconds, and whenever `archive_bytes` of a run wait; `sql_archive`
    says what that promises. Leases, steps, signals and outcomes stay here. It is closed
    with the store.

    Raises:
        ValueError: the URL is of neither, or of a database in memory; a bound is not
            above 0.
    """

    def __init__(
        self,
        url: str,
        *,
        log: DeliveryLog | None = None,
        pool_size: int = 5,
        poll: float = 0.02,
        prepared: bool = True,
        archive_every: float = 5.0,
        archive_bytes: int = 256 << 10,
    ) -> None:
        """Read the URL; the database is opened on first use."""
        self._db = Database(url, pool_size=pool_size, prepared=prepared)
        self._sql = Statements(self._db)
        self._waiting = Waiting(self._db, self._sql, poll=poll)
        self._delivery: Delivery | None = None
        if log is not None:
            self._delivery = Delivery(
                self._db, self._sql, log, every=archive_every, size_bytes=archive_bytes
            )

    async def close(self) -> None:
        """Let go of the connections; waits end."""
        await self._waiting.close()
        if self._delivery is not None:
            await self._delivery.stop()
        await self._db.close()
        if self._delivery is not None:
            await self._delivery.stop()
            await self._delivery.log.close()

    # -- owning

    async def claim(
        self, new: NewRun, *, worker: str, lease: float, reenter: bool = False
    ) -> Claim:
        """Create the run, or take it over."""
        meta = to_json(dict(new.meta))
        self._sql.ids([new.id])  # refused where no log could be found by it

        def work(connection: Connection) -> Claim:
            return self._claim(connection, new, meta, worker, lease, reenter=reenter)

        return await self._db.whole(self._claimed(work, lease))

    async def _claimed(
        self, work: Callable[[Connection], Claim], lease: float
    ) -> Claim:
        while True:
            try:
                claim = await self._db.write(work)
            except _Raced:
                await asyncio.sleep(0)
                continue
            if self._delivery is None:
                return claim
            begun = await self._delivery.begun(claim, lease=lease)
            if begun is not None:
                return begun

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
            self._check_session(connection, new.id, new.session)
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
            return Claim(mode="finished", run=run_of(row), fence=0)
        live = row.owner is not None and row.lease_until > row.now
        if live and row.owner != worker:
            raise LeaseHeld(new.id, str(row.owner), row.lease_until - row.now)
        again = ended and row.status != "completed"
        if again:
            self._check_session(connection, new.id, row.session)
        changed: dict[str, Any] = {
            "fence": row.fence + 1,
            "owner": worker,
            "lease_until": row.now + lease,
            "updated_at": row.now,
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

    def _check_session(
        self, connection: Connection, run_id: str, session: str | None
    ) -> None:
        if session is None:
            return
        active = connection.execute(
            self._sql.list.where(runs.c.session == session, runs.c.status == "running")
        ).first()
        if active is not None and active.id == run_id:
            raise _Raced  # created since its row was looked for
        if active is not None:
            raise TurnActive(active.id, lapsed=active.lease_until <= active.now)

    async def renew(self, worker: str, *, lease: float) -> Mapping[str, Renewal]:
        """Renew the live leases of this worker."""

        def work(connection: Connection) -> list[Row[Any]]:
            held = connection.execute(self._sql.lock_owned, {"worker": worker}).all()
            now = max((row.now for row in held), default=0.0)
            live = [row for row in held if row.lease_until > now]
            if live:
                wanted = self._sql.ids(row.id for row in live)
                connection.execute(self._sql.renew, {**wanted, "until": now + lease})
            return live

        async def renewed() -> Mapping[str, Renewal]:
            live = await self._db.write(work)
            if self._delivery is not None:
                fences = {row.id: row.fence for row in live if row.status == "running"}
                await self._delivery.renewed(fences, lease=lease)
            return {row.id: Renewal(fence=row.fence, cancel=row.cancel) for row in live}

        return await self._db.whole(renewed())

    async def release(self, run_id: str, fence: int) -> bool:
        """End the lease now."""

        def work(connection: Connection) -> bool:
            row = self._locked(connection, run_id)
            if row is None or not owns(row, fence):
                return False
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id)
                .values(owner=None, lease_until=row.now, updated_at=row.now)
            )
            return True

        async def released() -> bool:
            done = await self._db.write(work)
            if done and self._delivery is not None:
                await self._delivery.released(run_id, fence)
            return done

        return await self._db.whole(released())

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

        def work(connection: Connection, rest: Sequence[Chunk] = ()) -> None:
            self._settle(
                connection,
                run_id,
                fence,
                status=status,
                outcome=encoded,
                rest=rest,
                lines=lines,
            )

        if self._delivery is not None:
            settled = self._settled(self._delivery, run_id, fence, work)
            await self._db.whole(settled)
        else:
            await self._db.write(work)
        self._waiting.wake([run_id])

    async def _settled(
        self,
        delivery: Delivery,
        run_id: str,
        fence: int,
        work: Callable[[Connection, Sequence[Chunk]], None],
    ) -> None:
        row = await self._db.look(lambda connection: self._looked(connection, run_id))
        if row is not None and row.status == "running" and owns(row, fence):
            left = row.lease_until - row.now
            async with delivery.ending(run_id, fence, row.lines, lease=left) as rest:
                await self._db.write(lambda connection: work(connection, rest))
        else:
            await self._db.write(lambda connection: work(connection, ()))
        await delivery.finished(run_id, fence)

    def _settle(
        self,
        connection: Connection,
        run_id: str,
        fence: int,
        *,
        status: EndStatus,
        outcome: bytes,
        rest: Sequence[Chunk],
        lines: Lines | None,
    ) -> None:
        row = self._locked(connection, run_id)
        if row is None:
            raise UnknownTurn(run_id)
        if row.status == status and row.settled_by == fence:
            return
        again = row.status == "completed" and lines is None
        if not owns(row, fence) or (row.status != "running" and not again):
            raise LeaseLost(run_id)
        if rest:
            add_chunks(connection, {run_id: row}, {run_id: rest}, row.now)
        if lines is not None:
            answers = append_lines(connection, self._sql, [lines])
            if answers[0] is None:
                raise LeaseLost(run_id)
        connection.execute(
            update(runs)
            .where(runs.c.id == run_id)
            .values(
                status=status,
                outcome=outcome,
                settled_by=fence,
                owner=None,
                lease_until=row.now,
                ended_at=row.now,
                updated_at=row.now,
            )
        )
        self._waiting.tell(connection, [run_id])

    # -- the log

    async def append(self, batch: Sequence[Lines]) -> Sequence[Appended | None]:
        """Append lines of any number of runs."""
        if not batch:
            return []
        if self._delivery is not None:
            answers = await self._db.whole(self._delivery.append(batch))
        else:
            answers = await self._db.write(
                lambda connection: self._append(connection, batch)
            )
        self._waiting.wake(_grown(batch, answers))
        return answers

    def _append(
        self, connection: Connection, batch: Sequence[Lines]
    ) -> list[Appended | None]:
        answers = append_lines(connection, self._sql, batch)
        self._waiting.tell(connection, _grown(batch, answers))
        return answers

    async def read(
        self, run_id: str, *, after: int = 0, limit_bytes: int = PAGE_BYTES
    ) -> Page:
        """Read the lines after number `after`."""
        if after < 0:
            raise ValueError(f"after must be 0 or more, not {after}")
        ahead: tuple[Chunk, ...] = ()
        known = 0
        if self._delivery is not None:
            # Before the database: what has been trimmed since is there by then.
            ahead, known = await self._delivery.read(
                run_id, after=after, limit_bytes=limit_bytes
            )

        def work(connection: Connection) -> Page:
            row = self._looked(connection, run_id)
            if row is None:
                raise UnknownTurn(run_id)
            run = run_of(row)
            lines = run.lines if run.closed else max(run.lines, known)
            if after < lines and after + 1 < run.first:
                raise CursorGone(run_id, run.first, lines)
            chunks = () if run.closed else ahead
            if not chunks and after < run.lines:
                chunks = page_chunks(
                    connection,
                    self._sql,
                    run_id,
                    after=after,
                    end=run.lines,
                    limit_bytes=limit_bytes,
                )
            if not chunks:
                lines = min(lines, max(after, run.lines))
            return Page(
                chunks=chunks, lines=lines, closed=run.closed, lapsed_s=run.lapsed_s
            )

        return await self._db.read(work)

    async def wait(self, run_id: str, *, after: int, timeout: float) -> None:  # noqa: ASYNC109 - the contract's
        """Return when the log may have grown past `after` or closed, or time is up.

        Where the database does not answer, too: `read` tells what is wrong.
        """
        ticket = self._waiting.enter(run_id, after)
        others: set[asyncio.Future[None]] = set()
        try:
            # Looked at after entering: what comes from now on is told.
            if not await self._grew(run_id, after):
                if self._delivery is not None:
                    delivered = self._delivery.log.wait(
                        run_id, after=after, timeout=timeout
                    )
                    others.add(asyncio.ensure_future(delivered))
                await asyncio.wait(
                    (ticket, *others),
                    timeout=timeout,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        except StoreError:
            await asyncio.wait((ticket,), timeout=min(timeout, _PAUSE_S))
        finally:
            self._waiting.leave(run_id, ticket)
            for other in others:
                other.cancel()
                await asyncio.wait((other,))
        for other in others:
            if not other.cancelled() and isinstance(other.exception(), StoreError):
                await asyncio.wait((ticket,), timeout=min(timeout, _PAUSE_S))

    async def _grew(self, run_id: str, after: int) -> bool:
        def work(connection: Connection) -> bool:
            rows = connection.execute(self._sql.grown, self._sql.ids([run_id]))
            row = rows.first()
            return row is None or row.lines > after or row.status != "running"

        return await self._db.look(work)

    # -- asking

    async def status(self, run_id: str) -> Run:
        """Tell how a run stands."""
        run = await self._db.look(lambda connection: self._run(connection, run_id))
        return (await self._counted([run]))[0]

    async def runs(
        self,
        *,
        session: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        limit: int = 100,
    ) -> Sequence[Run]:
        """List runs, the newest first."""
        asked = self._sql.list.order_by(runs.c.created_at.desc()).limit(limit)
        if session is not None:
            asked = asked.where(runs.c.session == session)
        if statuses is not None:
            asked = asked.where(runs.c.status.in_(list(statuses)))
        return await self._counted(
            await self._db.look(
                lambda connection: [run_of(row) for row in connection.execute(asked)]
            )
        )

    async def orphans(self, *, limit: int = 100) -> Sequence[Run]:
        """List the running runs whose lease is over."""

        def work(connection: Connection) -> list[Run]:
            rows = connection.execute(self._sql.orphans, {"most": limit})
            return [run_of(row) for row in rows]

        return await self._counted(await self._db.look(work))

    async def _counted(self, found: list[Run]) -> list[Run]:
        if self._delivery is None:
            return found
        return await self._delivery.counted(found)

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
                    .values(cancel=_text(reason), updated_at=row.now)
                )
            return True

        return await self._db.write(work)

    # -- steps, signals, the handle

    async def steps(self, run_id: str) -> Sequence[Step]:
        """List a run's steps by index."""

        def work(connection: Connection) -> list[Step]:
            asked = STEPS.order_by(steps.c.position)
            return [step_of(row) for row in connection.execute(asked, {"run": run_id})]

        return await self._db.look(work)

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
            now = self._own(connection, run_id, fence).now
            step = self._step(connection, run_id, index)
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
                return step
            diverged(run_id, step, intent, input_hash)
            changed: dict[str, Any] = {
                "status": "running",
                "attempts": step.attempts + 1,
                "error": None,
                "started_at": now,
                "ended_at": None,
            }
            self._change_step(connection, run_id, index, changed)
            return replace(step, **changed)

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
            now = self._own(connection, run_id, fence).now
            self._change_step(connection, run_id, index, {"ended_at": now, **changed})
            step = self._step(connection, run_id, index)
            if step is None:
                raise LookupError(f"step {index} of {run_id!r} ended before it began")
            return step

        return await self._db.write(work)

    async def emit(
        self, run_id: str, key: str, payload: Json, *, fence: int | None = None
    ) -> Signal:
        """Record a signal; the first under a key wins."""
        encoded = to_json(payload)

        def work(connection: Connection) -> Signal:
            if fence is not None:
                self._own(connection, run_id, fence)
            row = self._locked(connection, run_id)
            if row is None:
                raise UnknownTurn(run_id)
            asked = {"run": run_id, "key": key}
            there = connection.execute(SIGNAL, asked).first()
            if there is not None:
                return signal_of(there, accepted=False)
            values = {"payload": encoded, "emitted_at": row.now}
            made = insert(signals).values(run_id=run_id, key=key, **values)
            connection.execute(made)
            return signal_of(connection.execute(SIGNAL, asked).one())

        return await self._db.write(work)

    async def signal(self, run_id: str, key: str) -> Signal | None:
        """Return what was emitted under a key."""

        def work(connection: Connection) -> Signal | None:
            row = connection.execute(SIGNAL, {"run": run_id, "key": key}).first()
            return None if row is None else signal_of(row)

        return await self._db.look(work)

    async def set_handle(
        self, run_id: str, fence: int, handle: Mapping[str, Json] | None
    ) -> None:
        """Keep what it takes to reconnect."""
        encoded = None if handle is None else to_json(dict(handle))

        def work(connection: Connection) -> None:
            now = self._own(connection, run_id, fence).now
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id)
                .values(handle=encoded, updated_at=now)
            )

        await self._db.write(work)

    # -- keeping

    async def forget(self, *, older_than: float, limit: int = 1000) -> int:
        """Let go of the logs, steps and signals of runs that ended long ago."""
        forgotten = 0
        while forgotten < limit:
            most = min(_FORGET, limit - forgotten)
            work = partial(self._forget, older_than=older_than, most=most)
            done = await self._db.write(work)
            forgotten += done
            if done < most:
                break
        return forgotten

    def _forget(self, connection: Connection, *, older_than: float, most: int) -> int:
        ended = (
            select(runs.c.id)
            .where(
                runs.c.ended_at <= self._now(connection) - older_than,
                ~runs.c.forgotten,
            )
            .order_by(runs.c.id)
            .limit(most)
            .with_for_update()
        )
        ids = list(connection.execute(ended).scalars())
        for table in (log_table, steps, signals):
            connection.execute(delete(table).where(table.c.run_id.in_(ids)))
        connection.execute(
            update(runs)
            .where(runs.c.id.in_(ids))
            .values(first=runs.c.lines + 1, forgotten=True)
        )
        return len(ids)

    # -- rows

    def _now(self, connection: Connection) -> float:
        return float(connection.execute(self._sql.now).scalar_one())

    def _looked(self, connection: Connection, run_id: str) -> Row[Any] | None:
        return connection.execute(self._sql.look, {"run": run_id}).first()

    def _locked(self, connection: Connection, run_id: str) -> Row[Any] | None:
        """Read a run's row, and let nobody change it before this transaction ends."""
        return connection.execute(self._sql.lock, {"run": run_id}).first()

    def _run(self, connection: Connection, run_id: str) -> Run:
        row = self._looked(connection, run_id)
        if row is None:
            raise UnknownTurn(run_id)
        return run_of(row)

    def _own(self, connection: Connection, run_id: str, fence: int) -> Row[Any]:
        row = self._locked(connection, run_id)
        if row is None:
            raise UnknownTurn(run_id)
        if not owns(row, fence):
            raise LeaseLost(run_id)
        return row

    def _step(self, connection: Connection, run_id: str, index: int) -> Step | None:
        asked = STEPS.where(steps.c.position == index)
        row = connection.execute(asked, {"run": run_id}).first()
        return None if row is None else step_of(row)

    def _change_step(
        self, connection: Connection, run_id: str, index: int, changed: dict[str, Any]
    ) -> None:
        connection.execute(
            update(steps)
            .where(steps.c.run_id == run_id, steps.c.position == index)
            .values(**changed)
        )


def _grown(batch: Sequence[Lines], answers: Sequence[Appended | None]) -> list[str]:
    return sorted(
        {
            lines.run_id
            for lines, answer in zip(batch, answers, strict=True)
            if answer is not None and answer.accepted
        }
    )


def _text(given: str) -> str:
    """Write what somebody said so that any database keeps it."""
    return given.encode(errors="replace").decode().replace("\0", "\ufffd")
