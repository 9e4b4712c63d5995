"""A log's rows: lines appended and read, inside a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .chunks import following, gap, overlap, sliced
from .contract import Appended, Chunk, Lines
from .sql_rows import INSERT_LINES, UPDATE_LINES, chunk_of, known_events

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row

    from .sql_rows import Statements


def held(
    connection: Connection, sql: Statements, run_ids: Iterable[str]
) -> dict[str, Row[Any]]:
    """Lock runs, and read what writing to them depends on."""
    rows = connection.execute(sql.lock_many, sql.ids(run_ids)).all()
    return {row.id: row for row in rows}


def writable(row: Row[Any], fence: int, now: float) -> bool:
    """Tell whether a fence may append to the run."""
    return bool(
        row.fence == fence
        and row.status == "running"
        and row.owner is not None
        and row.lease_until > now
    )


def append_lines(
    connection: Connection, sql: Statements, batch: Sequence[Lines]
) -> list[Appended | None]:
    """Append a batch, in a handful of statements however long it is.

    Raises:
        ValueError: lines would leave a gap, or overlap the log's end.
    """
    rows = held(connection, sql, [lines.run_id for lines in batch])
    # The latest: one run's row may have been locked before another's was waited for.
    now = max((row.now for row in rows.values()), default=0.0)
    asked = [(one.run_id, one.event_id) for one in batch if one.event_id is not None]
    known = known_events(connection, sql, asked)
    ends = {run_id: row.lines for run_id, row in rows.items()}
    new: list[dict[str, Any]] = []
    answers: list[Appended | None] = []
    for lines in batch:
        run_id = lines.run_id
        row = rows.get(run_id)
        if row is None or not writable(row, lines.fence, now):
            answers.append(None)
            continue
        end = ends[run_id]
        if lines.event_id is not None:
            there = known.get((run_id, lines.event_id))
            if there is not None:
                answers.append(Appended(there, accepted=False))
                continue
            known[run_id, lines.event_id] = end + 1
        else:
            gap(lines, end)
            if lines.first <= end:
                overlap(lines, end)
                answers.append(Appended(lines.first, accepted=False))
                continue
        new.append(
            _row(run_id, Chunk(end + 1, lines.count, lines.data, lines.event_id))
        )
        ends[run_id] = end + lines.count
        answers.append(Appended(end + 1, accepted=True))
    _write(connection, rows, ends, new, now)
    return answers


def add_chunks(
    connection: Connection,
    rows: Mapping[str, Row[Any]],
    found: Mapping[str, Sequence[Chunk]],
    now: float,
) -> dict[str, int]:
    """Write chunks of another log behind what is here; return where runs end now."""
    ends = {run_id: row.lines for run_id, row in rows.items()}
    new: list[dict[str, Any]] = []
    for run_id, chunks in found.items():
        for chunk in chunks:
            rest = sliced(chunk, ends[run_id])
            if rest is None:
                continue
            if rest.first != ends[run_id] + 1:
                break
            new.append(_row(run_id, rest))
            ends[run_id] += rest.count
    _write(connection, rows, ends, new, now)
    return ends


def page_chunks(
    connection: Connection,
    sql: Statements,
    run_id: str,
    *,
    after: int,
    end: int,
    limit_bytes: int,
) -> tuple[Chunk, ...]:
    """Read the lines after number `after`, up to line `end`."""
    found = connection.execute(
        sql.page, {"run": run_id, "next": after + 1, "end": end, "bytes": limit_bytes}
    )
    chunks = [chunk_of(row) for row in found]
    # The bytes were counted from the first row's beginning.
    size = sum([len(chunk.data) for chunk in chunks])
    return following(chunks, after, max(limit_bytes, size))


def _row(run_id: str, chunk: Chunk) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "first": chunk.first,
        "size": chunk.count,
        "event_id": chunk.event_id,
        "data": chunk.data,
    }


def _write(
    connection: Connection,
    rows: Mapping[str, Row[Any]],
    ends: Mapping[str, int],
    new: list[dict[str, Any]],
    now: float,
) -> None:
    if not new:
        return
    connection.execute(INSERT_LINES, new)
    connection.execute(
        UPDATE_LINES,
        [
            {"run": run_id, "end": end, "now": now}
            for run_id, end in sorted(ends.items())
            if end != rows[run_id].lines
        ],
    )
