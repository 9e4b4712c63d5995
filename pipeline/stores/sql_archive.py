"""Lines of running turns in a delivery log, moved into the database as they grow old.

Two systems, and no transaction over both. What holds is the order of things:

* **Claiming** raises the fence in the database, then begins it in the log. Between the
  two the former owner may still append: what it appends there is part of the log that
  the new one is given. From then on only the new one appends. A worker that dies
  between them leaves a lease that lapses.
* **Archiving** reads lines from the log, writes them under the run's fence and lease into
  the database, then trims the log, one archiving behind. A worker that dies between
  leaves lines in both, which are the same, under the same numbers.
* **Settling** ends the lease in the log first, so that no append that is still on its way
  follows; then the rest of the lines, the last ones and the outcome go into the database
  in one transaction; then the log is closed. A worker that dies before the transaction
  leaves a run that is taken over with all its lines; after it, the run has ended, readers
  read the database, and the log expires by itself.
* **Reading** asks the log for what it has and the database for the rest. Whether a run
  has ended, and whose it is, only the database says.

What was acknowledged is as durable as the log makes it, until it is archived (after
`archive_every` seconds, or `archive_bytes`), and then as durable as the database. Where
the log loses its memory, the lines since the last archiving are lost, to readers who saw
them, too: their owner is told LeaseLost, and whoever takes the run over goes on from what
the database has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from operators.errors import LeaseLost, StoreError, StoreFull
from operators.turn import logger

from .contract import PAGE_BYTES, Appended, Chunk, Claim, DeliveryLog, Lines, Run
from .sql_lines import add_chunks, held, writable
from .sql_rows import known_events

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from .sql_engine import Database
    from .sql_rows import Statements

_FAR: Final = 1 << 52
"""A line that no log reaches: asked after, a log only tells how many it has."""

_ROW_BYTES: Final = 32 << 10
"""Up to how many bytes archived chunks are put together in one row."""

_PASS_BYTES: Final = 4 << 20
"""How much one archiving moves in one transaction, about."""


@dataclass(slots=True)
class _Kept:
    """A run that this worker appends to.

    `intact`: the log has known all its event ids from the first on.
    """

    fence: int
    intact: bool
    archived: int = 0
    lines: int = 0
    size: int = 0
    dirty: bool = False


class Delivery:
    """A delivery log beside the database, and the archiving of this worker's runs."""

    def __init__(
        self,
        db: Database,
        sql: Statements,
        log: DeliveryLog,
        *,
        every: float,
        size_bytes: int,
    ) -> None:
        """Archive a run `every` seconds, or when so many bytes of it wait."""
        if every <= 0 or size_bytes <= 0:
            raise ValueError(
                f"archive_every and archive_bytes must be above 0, not {every} and "
                f"{size_bytes}"
            )
        self._db = db
        self._sql = sql
        self.log: Final = log
        self._every = every
        self._size_bytes = size_bytes
        self._runs: dict[str, _Kept] = {}
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """End archiving: what the log holds is there for who takes the runs over."""
        self._runs.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    # -- owning

    async def begun(self, claim: Claim, *, lease: float) -> Claim | None:
        """Begin a claim's fence in the log; None where a later claim was before it."""
        run = claim.run
        if run.closed:
            return claim
        try:
            lines = await self.log.begin(
                run.id, claim.fence, lease=lease, lines=run.lines
            )
        except LeaseLost:
            return None
        self._runs[run.id] = _Kept(
            claim.fence,
            intact=run.lines == 0,
            archived=run.lines,
            lines=lines,
            dirty=lines > run.lines,
        )
        if lines > run.lines:
            self._archive_soon()
        return replace(claim, run=replace(run, lines=lines))

    async def renewed(self, fences: Mapping[str, int], *, lease: float) -> None:
        """Renew the leases in the log."""
        if fences:
            await self.log.renew(fences, lease=lease)

    async def released(self, run_id: str, fence: int) -> None:
        """End the lease in the log; where that fails, the next claim's fence ends it."""
        self._runs.pop(run_id, None)
        with suppress(StoreError):
            await self.log.renew({run_id: fence}, lease=0)

    async def finished(self, run_id: str, fence: int) -> None:
        """Close the log; where that fails it expires by itself."""
        self._runs.pop(run_id, None)
        try:
            await self.log.finish(run_id, fence)
        except StoreError as exc:
            logger.warning("the log of %r was not closed: %s", run_id, exc)

    # -- lines

    async def append(self, batch: Sequence[Lines]) -> list[Appended | None]:
        """Append to the log, but event ids that only the database knows."""
        answers = await self._archived_events(batch)
        asked = [lines for k, lines in enumerate(batch) if k not in answers]
        try:
            given = iter(await self.log.append(asked) if asked else ())
        except StoreFull:
            self._due.set()
            raise
        found = [answers[k] if k in answers else next(given) for k in range(len(batch))]
        for lines, answer in zip(batch, found, strict=True):
            self._count(lines, answer)
        return found

    def _count(self, lines: Lines, answer: Appended | None) -> None:
        kept = self._runs.get(lines.run_id)
        if answer is None:
            if kept is not None and kept.fence == lines.fence:
                del self._runs[lines.run_id]
            return
        if kept is None or kept.fence < lines.fence:
            kept = self._runs[lines.run_id] = _Kept(lines.fence, intact=False)
        kept.lines = max(kept.lines, answer.line + lines.count - 1)
        kept.dirty = True
        if answer.accepted:
            kept.size += len(lines.data)
            if kept.size >= self._size_bytes:
                self._due.set()
        self._archive_soon()

    async def _archived_events(
        self, batch: Sequence[Lines]
    ) -> dict[int, Appended | None]:
        """Answer for event ids in the database that the log may not know any more."""
        asked = {
            k: (lines.run_id, lines.event_id)
            for k, lines in enumerate(batch)
            if lines.event_id is not None and not self._intact(lines)
        }
        if not asked:
            return {}

        def work(connection: Connection) -> dict[int, Appended | None]:
            known = known_events(connection, self._sql, list(asked.values()))
            if not known:
                return {}
            rows = held(connection, self._sql, {run_id for run_id, _ in known})
            found: dict[int, Appended | None] = {}
            for k, pair in asked.items():
                if pair in known:
                    row = rows[pair[0]]
                    mine = writable(row, batch[k].fence, row.now)
                    line = known[pair]
                    found[k] = Appended(line, accepted=False) if mine else None
            return found

        return await self._db.write(work)

    def _intact(self, lines: Lines) -> bool:
        kept = self._runs.get(lines.run_id)
        return kept is not None and kept.intact and kept.fence == lines.fence

    async def read(
        self, run_id: str, *, after: int, limit_bytes: int
    ) -> tuple[tuple[Chunk, ...], int]:
        """Read what the log has after a line, and how many lines it knows of."""
        page = await self.log.read(run_id, after=after, limit_bytes=limit_bytes)
        if page is not None:
            return page
        return (), await self.lines(run_id)

    async def lines(self, run_id: str) -> int:
        """Tell how many lines the log knows of."""
        page = await self.log.read(run_id, after=_FAR, limit_bytes=1)
        return 0 if page is None else page[1]

    async def counted(self, runs: Iterable[Run]) -> list[Run]:
        """Put the lines that are in the log to those in the database."""

        async def one(run: Run) -> Run:
            if run.closed:
                return run
            return replace(run, lines=max(run.lines, await self.lines(run.id)))

        return list(await asyncio.gather(*[one(run) for run in runs]))

    @asynccontextmanager
    async def ending(
        self, run_id: str, fence: int, lines: int, *, lease: float
    ) -> AsyncGenerator[list[Chunk]]:
        """End the lease in the log, give what it holds after line number `lines`.

        Where the run is not ended then, the lease goes on.

        Raises:
            LeaseLost: the log has lost lines that it had acknowledged.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + lease
        await self.log.renew({run_id: fence}, lease=0)
        ended = False
        try:
            found, end = await self._read_on(run_id, lines, limit_bytes=None)
            kept = self._runs.get(run_id)
            if kept is not None and kept.fence == fence and end < kept.lines:
                raise LeaseLost(run_id)
            yield _merged(found)
            ended = True
        finally:
            left = until - loop.time()
            if not ended and left > 0:
                with suppress(StoreError, LeaseLost):
                    await self.log.begin(run_id, fence, lease=left, lines=lines)

    async def _read_on(
        self, run_id: str, after: int, *, limit_bytes: int | None
    ) -> tuple[list[Chunk], int]:
        found: list[Chunk] = []
        size = 0
        while limit_bytes is None or size < limit_bytes:
            page = await self.log.read(run_id, after=after, limit_bytes=PAGE_BYTES)
            if page is None or not page[0]:
                break
            for chunk in page[0]:
                after = chunk.first + chunk.count - 1
                size += len(chunk.data)
                found.append(chunk)
        return found, after

    # -- archiving

    def _archive_soon(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._archiving(), name="turnpipe archive")

    async def _archiving(self) -> None:
        """Archive while there is something to archive."""
        while any(kept.dirty for kept in self._runs.values()):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._due.wait()
            self._due.clear()
            try:
                await self.archive()
            except StoreError as exc:
                logger.warning("lines were not archived, trying again: %s", exc)

    async def archive(self) -> None:
        """Move what the log holds of this worker's runs into the database."""
        dirty = [run_id for run_id, kept in self._runs.items() if kept.dirty]
        while dirty:
            dirty = await self._archive(dirty)

    async def _archive(self, dirty: Collection[str]) -> list[str]:
        """Move a few runs' lines, in one transaction; return whose are left."""
        ends = await self._archived(dirty)
        left = list(dirty)
        found: dict[str, list[Chunk]] = {}
        fences: dict[str, int] = {}
        size = 0
        while left and size < _PASS_BYTES:
            run_id = left.pop()
            kept = self._runs.get(run_id)
            if kept is None:
                continue
            if run_id not in ends:
                self._runs.pop(run_id, None)
                continue
            kept.dirty, kept.size = False, 0
            try:
                chunks, end = await self._read_on(
                    run_id, ends[run_id], limit_bytes=_PASS_BYTES
                )
            except BaseException:
                kept.dirty = True
                raise
            fences[run_id] = kept.fence
            found[run_id] = _merged(chunks)
            size += sum([len(chunk.data) for chunk in chunks])
            if end < kept.lines and chunks:
                left.append(run_id)
        try:
            ends = await self._moved(found, fences)
        except BaseException:
            for run_id in found:
                if run_id in self._runs:
                    self._runs[run_id].dirty = True
            raise
        await self._trim(ends, fences)
        return left

    async def _archived(self, run_ids: Collection[str]) -> dict[str, int]:
        """Tell how many lines of running runs the database has."""
        params = self._sql.ids(run_ids)

        def work(connection: Connection) -> dict[str, int]:
            rows = connection.execute(self._sql.grown, params)
            return {row.id: row.lines for row in rows if row.status == "running"}

        return await self._db.look(work)

    async def _moved(
        self, found: Mapping[str, list[Chunk]], fences: Mapping[str, int]
    ) -> dict[str, int]:
        """Write chunks where this worker owns the run; return where those end now."""

        def work(connection: Connection) -> dict[str, int]:
            rows = held(connection, self._sql, found)
            now = max((row.now for row in rows.values()), default=0.0)
            mine = {
                run_id: row
                for run_id, row in rows.items()
                if writable(row, fences[run_id], now)
            }
            kept = {run_id: found[run_id] for run_id in mine}
            return add_chunks(connection, mine, kept, now)

        return await self._db.write(work) if found else {}

    async def _trim(self, ends: Mapping[str, int], fences: Mapping[str, int]) -> None:
        """Trim one archiving behind: readers at the log's end still find it there."""
        for run_id, fence in fences.items():
            kept = self._runs.get(run_id)
            if kept is None or kept.fence != fence:
                continue
            if run_id not in ends:
                self._runs.pop(run_id, None)
                continue
            upto, kept.archived = kept.archived, ends[run_id]
            if upto:
                with suppress(StoreError):
                    await self.log.trim(run_id, upto=upto)


def _merged(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Put small chunks together, but those with an event id."""
    found: list[Chunk] = []
    first, count, size = 0, 0, 0
    parts: list[bytes] = []

    def put() -> None:
        nonlocal count, size
        if parts:
            found.append(Chunk(first, count, b"".join(parts)))
            parts.clear()
            count = size = 0

    for chunk in chunks:
        if chunk.event_id is not None or size + len(chunk.data) > _ROW_BYTES:
            put()
        if chunk.event_id is not None:
            found.append(chunk)
            continue
        if not parts:
            first = chunk.first
        parts.append(chunk.data)
        count += chunk.count
        size += len(chunk.data)
    put()
    return found
