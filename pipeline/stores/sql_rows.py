"""What a SqlStore asks of its tables, said once; and what rows mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    CTE,
    Connection,
    Executable,
    Row,
    Text,
    any_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)

from .coding import from_json
from .contract import Chunk, Run, Signal, Step
from .sql_schema import log, runs, signals, steps

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from .sql_engine import Database

PAGE_ROWS: Final = 1_000
"""How many rows of a log one page has at most."""

INSERT_LINES: Final = insert(log)
UPDATE_LINES: Final = (
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(lines=bindparam("end"), updated_at=bindparam("now"))
)
STEPS: Final = select(steps).where(steps.c.run_id == bindparam("run"))
SIGNAL: Final = select(signals).where(
    signals.c.run_id == bindparam("run"), signals.c.key == bindparam("key")
)


class Statements:
    """The statements that know the database's clock, made once, compiled once.

    A row of them has `now`: the clock, read after the row was locked, so that waiting
    for the lock makes no lease longer.
    """

    def __init__(self, db: Database) -> None:
        """Write them for this database."""
        self._sqlite: Final = db.is_sqlite
        now: ColumnElement[float] = db.now.label("now")
        self.now: Final = select(now)
        self.look: Final = select(runs, now).where(runs.c.id == bindparam("run"))
        self.list: Final = select(runs, now)
        self.orphans: Final = (
            select(runs, now)
            .where(runs.c.status == "running", runs.c.lease_until <= db.now)
            .order_by(runs.c.lease_until)
            .limit(bindparam("most"))
        )
        held = select(runs).where(runs.c.id == bindparam("run")).with_for_update().cte()
        self.lock: Final = select(held, now)
        self.lock_many: Final = select(_locked(self._among()), now)
        self.lock_owned: Final = select(
            _locked(runs.c.owner == bindparam("worker")), now
        )
        self.renew: Final = (
            update(runs)
            .where(self._among())
            .values(lease_until=bindparam("until", type_=runs.c.lease_until.type))
        )
        self.grown: Final = select(runs.c.id, runs.c.lines, runs.c.status).where(
            self._among()
        )
        self.page: Final = _page()
        self.events: Final = self._events()

    def ids(self, run_ids: Iterable[str]) -> dict[str, Any]:
        """Give ids to a statement, always in one order: batches never deadlock."""
        wanted = sorted(set(run_ids))
        return {"ids": self._many(wanted, wanted)}

    def pairs(self, asked: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Give pairs of a run and an event id to a statement."""
        run_ids, event_ids = [one for one, _ in asked], [one for _, one in asked]
        if self._sqlite:
            return {"pairs": self._many(asked, [*run_ids, *event_ids])}
        return {"run_ids": run_ids, "event_ids": event_ids}

    def _many(self, given: Any, texts: Iterable[str]) -> Any:
        if not self._sqlite:
            return given
        if any("\0" in one for one in texts):  # its JSON functions would stop there
            raise ValueError("NUL has no place in an id")
        return json.dumps(given)

    def _events(self) -> Executable:
        """Join the log with pairs: an index serves that, and not a list of pairs."""
        one: ColumnElement[str]
        other: ColumnElement[str]
        if self._sqlite:
            value = func.json_each(bindparam("pairs", type_=Text)).table_valued("value")
            one = func.json_extract(value.c.value, "$[0]")
            other = func.json_extract(value.c.value, "$[1]")
        else:
            unnested = func.unnest(
                bindparam("run_ids", type_=ARRAY(Text)),
                bindparam("event_ids", type_=ARRAY(Text)),
            )
            value = unnested.table_valued("run_id", "event_id").render_derived()
            one, other = value.c.run_id, value.c.event_id
        return select(log.c.run_id, log.c.event_id, log.c.first).select_from(
            value.join(log, (log.c.run_id == one) & (log.c.event_id == other))
        )

    def _among(self) -> ColumnElement[bool]:
        """Say that a run is among `ids`: one parameter, however many there are."""
        if self._sqlite:
            value = func.json_each(bindparam("ids", type_=Text)).table_valued("value")
            return runs.c.id.in_(select(value.c.value))
        return runs.c.id == any_(bindparam("ids", type_=ARRAY(Text)))


def _locked(which: ColumnElement[bool]) -> CTE:
    """Lock runs, in the order of their ids, and read what writing to them depends on."""
    return (
        select(
            runs.c.id,
            runs.c.status,
            runs.c.fence,
            runs.c.owner,
            runs.c.lease_until,
            runs.c.lines,
            runs.c.cancel,
        )
        .where(which)
        .order_by(runs.c.id)
        .with_for_update()
        .cte()
    )


def _page() -> Executable:
    """Ask for the rows after a line, up to a number of bytes, one at least."""
    begins = (
        select(func.max(log.c.first))
        .where(log.c.run_id == bindparam("run"), log.c.first <= bindparam("next"))
        .scalar_subquery()
    )
    upto = func.sum(func.length(log.c.data)).over(order_by=log.c.first).label("upto")
    rows = (
        select(log.c.first, log.c.size, log.c.event_id, log.c.data, upto)
        .where(
            log.c.run_id == bindparam("run"),
            log.c.first >= begins,
            log.c.first <= bindparam("end"),
        )
        .order_by(log.c.first)
        .limit(PAGE_ROWS)
        .subquery()
    )
    return (
        select(rows.c.first, rows.c.size, rows.c.event_id, rows.c.data)
        .where(
            or_(rows.c.upto <= bindparam("bytes"), rows.c.first <= bindparam("next"))
        )
        .order_by(rows.c.first)
    )


def known_events(
    connection: Connection, sql: Statements, asked: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """Find which event ids of which runs are in the log, and the lines they are in."""
    if not asked:
        return {}
    rows = connection.execute(sql.events, sql.pairs(asked))
    return {(row.run_id, row.event_id): row.first for row in rows}


def owns(row: Row[Any], fence: int) -> bool:
    """Tell whether a fence may write to the run."""
    return row.fence == fence and row.owner is not None and row.lease_until > row.now


def run_of(row: Row[Any]) -> Run:
    """Read a row of the runs, with the clock as `now`."""
    running = row.status == "running"
    lapsed = row.now - row.lease_until
    return Run(
        id=row.id,
        session=row.session,
        manifest_hash=row.manifest_hash,
        status=row.status,
        fence=row.fence,
        owner=row.owner,
        lapsed_s=lapsed if running and lapsed >= 0 else None,
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


def chunk_of(row: Row[Any]) -> Chunk:
    """Read a row of the log."""
    return Chunk(row.first, row.size, bytes(row.data), row.event_id)


def step_of(row: Row[Any]) -> Step:
    """Read a row of the steps."""
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


def signal_of(row: Row[Any], *, accepted: bool = True) -> Signal:
    """Read a row of the signals."""
    return Signal(
        key=row.key,
        payload=from_json(row.payload),
        emitted_at=row.emitted_at,
        accepted=accepted,
    )
