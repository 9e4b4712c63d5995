"""Each call of a store, made to the model as well, and the answers compared."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ...stores.contract import EndStatus, Lines, NewRun
from .claiming import whole
from .model import Model, ModelRun, Piece

if TYPE_CHECKING:
    from ...stores.contract import Run, Store
    from .place import Place

UNIT_S: Final = 10_000.0
"""One unit of the model's time; no step of a test takes half of it."""

_HISTORY: Final = 12


class Calls:
    """Store objects on one place and the model of it, asked the same.

    Run ids, sessions and workers are kept apart from those of others by `prefix`;
    `forget` finds nothing of others after their `end_all`.
    """

    def __init__(
        self, place: Place, stores: Sequence[Store], prefix: str, answered: Counter[str]
    ) -> None:
        """Ask these store objects in turn; count what they answer in `answered`."""
        if place.advance is None:
            raise ValueError("the place's clock does not move: Place(open, advance)")
        self.prefix = prefix
        self.model = Model()
        self.answered = answered
        self._advance = place.advance
        self._stores: Final = stores
        self._turn = 0
        self._said = 0
        self.history: deque[str] = deque(maxlen=_HISTORY)

    @property
    def store(self) -> Store:
        """Give the store objects in turn: they shall not differ."""
        self._turn += 1
        return self._stores[self._turn % len(self._stores)]

    def named(self, name: str) -> str:
        """Give a run's or a worker's whole name."""
        return f"{self.prefix}{name}"

    def run(self, name: str) -> ModelRun | None:
        """Look at a run of the model."""
        return self.model.runs.get(self.named(name))

    def words(self, count: int) -> list[bytes]:
        """Make lines that no other is like."""
        self._said += 1
        return [b"%d.%d\n" % (self._said, k) for k in range(count)]

    async def both(
        self, call: str, model: Callable[[], Any], store: Callable[[], Awaitable[Any]]
    ) -> tuple[Any, Any, bool]:
        """Ask both; the same error of both is an answer, too (the last is False)."""
        self.history.append(call)
        name = call.partition(" ")[0]
        expected: Any = None
        found: Any = None
        failed: Exception | None = None
        raised: Exception | None = None
        try:
            expected = model()
        except Exception as exc:
            failed = exc
        try:
            found = await store()
        except Exception as exc:
            raised = exc
        if raised is not None:
            _same_error(raised, failed, expected)
            self.answered[f"{name} {type(failed).__name__}"] += 1
            return None, None, False
        assert failed is None, f"gave {found!r}, expected {type(failed).__name__}"
        self.answered[name] += 1
        return expected, found, True

    # -- owning

    async def advance(self, units: int) -> None:
        """Move the clock on."""
        self.history.append(f"advance {units}")
        self.model.now += units
        await self._advance(units * UNIT_S)

    async def claim(
        self,
        name: str,
        worker: str,
        *,
        lease: int = 1,
        session: str | None = None,
        hash_: str = "h",
        reenter: bool = False,
    ) -> None:
        """Claim, for half a unit more than `lease`."""
        run_id, worker = self.named(name), self.named(worker)
        session = None if session is None else self.named(session)
        new = NewRun(id=run_id, manifest_hash=hash_, session=session, meta={"k": name})
        expected, found, answered = await self.both(
            f"claim {name} by {worker} for {lease}, {session=} {hash_=} {reenter=}",
            lambda: self.model.claim(
                run_id,
                worker,
                hash_=hash_,
                session=session,
                lease=lease + 0.5,
                reenter=reenter,
            ),
            lambda: self.store.claim(
                new, worker=worker, lease=(lease + 0.5) * UNIT_S, reenter=reenter
            ),
        )
        if answered:
            assert (found.mode, found.fence) == expected
            assert found.run.meta == {"k": name}
            self._alike(found.run)

    async def renew(self, worker: str, *, lease: int = 1) -> None:
        """Renew."""
        worker = self.named(worker)
        expected, found, _ = await self.both(
            f"renew {worker} for {lease}",
            lambda: self.model.renew(worker, lease + 0.5),
            lambda: self.store.renew(worker, lease=(lease + 0.5) * UNIT_S),
        )
        shown = {run_id: (one.fence, one.cancel) for run_id, one in found.items()}
        assert shown == expected, f"gave {shown}, expected {expected}"

    async def release(self, name: str, fence: int) -> None:
        """Release."""
        run_id = self.named(name)
        expected, found, _ = await self.both(
            f"release {name} fence {fence}",
            lambda: self.model.release(run_id, fence),
            lambda: self.store.release(run_id, fence),
        )
        assert found is expected

    async def settle(
        self,
        name: str,
        fence: int,
        status: EndStatus,
        *,
        last: Piece | None = None,
        times: int = 1,
    ) -> None:
        """Settle, and settle again."""
        run_id, outcome = self.named(name), {"n": self._said}
        for _ in range(times):
            await self.both(
                f"settle {name} fence {fence} {status} {last and last[2:]}",
                lambda: self.model.settle(run_id, fence, status, outcome, last),
                lambda: self.store.settle(
                    run_id,
                    fence,
                    status=status,
                    outcome=outcome,
                    lines=None if last is None else _lines(last),
                ),
            )

    # -- the log

    def piece(
        self,
        name: str,
        fence: int,
        *,
        ahead: int = 0,
        count: int = 1,
        event: str | None = None,
    ) -> Piece:
        """Make lines for the end of a log, or so many lines off; known ones as known."""
        run = self.run(name)
        known = [] if run is None else run.lines
        if event is not None:
            return Piece(self.named(name), fence, 0, self.words(1), event)
        first = max(1, len(known) + 1 + ahead)
        said = list(known[first - 1 : first - 1 + count])
        said += self.words(count - len(said)) if len(said) < count else []
        return Piece(self.named(name), fence, first, said)

    async def append(self, *pieces: Piece) -> None:
        """Append a batch."""
        shown = [
            f"{p.run_id} fence {p.fence} {p.first}+{len(p.said)} {p.event or ''}"
            for p in pieces
        ]
        expected, found, answered = await self.both(
            f"append {'; '.join(shown)}",
            lambda: self.model.append(pieces),
            lambda: self.store.append([_lines(piece) for piece in pieces]),
        )
        if answered:
            told = [one and (one.line, one.accepted) for one in found]
            assert told == expected, f"gave {told}, expected {expected}"

    async def read(self, name: str, after: int, limit_bytes: int = 1 << 20) -> None:
        """Read to the end."""
        run_id = self.named(name)

        async def read() -> tuple[bytes, bool]:
            store = self.store
            page = await store.read(run_id, after=after, limit_bytes=limit_bytes)
            rest = await whole(store, run_id, after, limit_bytes=limit_bytes)
            assert rest.startswith(b"".join([chunk.data for chunk in page.chunks]))
            assert bool(page.chunks) == bool(rest)
            return rest, page.closed

        expected, found, _ = await self.both(
            f"read {name} after {after}", lambda: self.model.read(run_id, after), read
        )
        assert found == expected, f"gave {found!r}, expected {expected!r}"

    # -- steps, signals, the handle

    async def begin_step(
        self, name: str, fence: int, index: int, intent: str, hash_: str
    ) -> None:
        """Begin."""
        run_id = self.named(name)
        expected, found, answered = await self.both(
            f"begin_step {name} fence {fence} {index} {intent} {hash_}",
            lambda: self.model.begin_step(run_id, fence, index, intent, hash_),
            lambda: self.store.begin_step(
                run_id, fence, index, intent=intent, kind="logic", input_hash=hash_
            ),
        )
        if answered:
            assert (found.status, found.attempts) == expected

    async def end_step(
        self,
        name: str,
        fence: int,
        index: int,
        *,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """End."""
        run_id, result = self.named(name), [self._said]
        expected, found, answered = await self.both(
            f"end_step {name} fence {fence} {index} {error}",
            lambda: self.model.end_step(run_id, fence, index, result, error),
            lambda: self.store.end_step(
                run_id, fence, index, result=result, error=error
            ),
        )
        if answered:
            assert (found.status, found.attempts) == expected

    async def emit(self, name: str, key: str, *, fence: int | None = None) -> None:
        """Emit."""
        run_id, payload = self.named(name), {"p": self.words(1)[0].decode()}
        expected, found, answered = await self.both(
            f"emit {name} {key} fence {fence}",
            lambda: self.model.emit(run_id, key, payload, fence),
            lambda: self.store.emit(run_id, key, payload, fence=fence),
        )
        if answered:
            assert (found.payload, found.accepted) == expected

    async def set_handle(self, name: str, fence: int, handle: Any) -> None:
        """Keep a handle."""
        run_id = self.named(name)
        await self.both(
            f"set_handle {name} fence {fence} {handle}",
            lambda: self.model.set_handle(run_id, fence, handle),
            lambda: self.store.set_handle(run_id, fence, handle),
        )

    async def request_cancel(self, name: str, reason: str) -> None:
        """Ask to stop."""
        run_id = self.named(name)
        expected, found, _ = await self.both(
            f"request_cancel {name} {reason}",
            lambda: self.model.request_cancel(run_id, reason),
            lambda: self.store.request_cancel(run_id, reason),
        )
        assert found is expected

    # -- keeping

    async def forget(self, units: int = 0) -> None:
        """Let go of what ended so many units ago, and a half more if any."""
        older = units + 0.5 if units else 0.0
        expected, found, _ = await self.both(
            f"forget {units}",
            lambda: self.model.forget(older),
            lambda: self.store.forget(older_than=older * UNIT_S, limit=10**6),
        )
        assert found == expected, f"gave {found}, expected {expected}"

    async def end_all(self) -> None:
        """End and forget every run that still runs, so others find nothing of these.

        As well as it can be done: a store that breaks its contract is left as it is.
        """
        await self._advance(100 * UNIT_S)
        store = self.store
        for run_id, run in self.model.runs.items():
            new = NewRun(id=run_id, manifest_hash=run.hash, session=run.session)
            with suppress(Exception):
                got = await store.claim(new, worker="last", lease=UNIT_S)
                if got.mode != "finished":
                    end: EndStatus = "failed"
                    await store.settle(run_id, got.fence, status=end, outcome={})
        with suppress(Exception):
            await store.forget(older_than=0, limit=10**6)

    # -- comparing

    def _alike(self, run: Run) -> None:
        """Compare what a store says of a run."""
        expected = self.model.runs[run.id]
        said = {
            "status": run.status,
            "session": run.session,
            "manifest_hash": run.manifest_hash,
            "fence": run.fence,
            "owner": run.owner,
            "lines": run.lines,
            "first": run.first,
            "outcome": run.outcome,
            "handle": run.handle,
            "cancel": run.cancel,
            "ended": run.ended_at is not None,
        }
        owner = expected.owner
        right = {
            "status": expected.status,
            "session": expected.session,
            "manifest_hash": expected.hash,
            "fence": expected.fence,
            "owner": owner,
            "lines": len(expected.lines),
            "first": expected.kept_from,
            "outcome": expected.outcome,
            "handle": expected.handle,
            "cancel": expected.cancel,
            "ended": expected.ended is not None,
        }
        differ = {k: (said[k], right[k]) for k in said if said[k] != right[k]}
        assert not differ, f"{run.id}: found, expected: {differ}"
        lapsed = None
        if expected.status == "running" and expected.until <= self.model.now:
            lapsed = self.model.now - expected.until
        if lapsed is None or run.lapsed_s is None:
            assert lapsed is run.lapsed_s, f"{run.id}: lapsed {run.lapsed_s}, {lapsed}"
        else:
            off = abs(run.lapsed_s / UNIT_S - lapsed)
            assert off < 0.25, f"{run.id}: {run.lapsed_s} s, and not {lapsed} units"

    async def compare(self, names: Sequence[str] | None = None) -> None:
        """Compare every run, or these, in every respect."""
        chosen = self.model.runs
        if names is not None:
            ids = [self.named(name) for name in names]
            chosen = {k: self.model.runs[k] for k in ids if k in self.model.runs}
        for run_id, expected in chosen.items():
            store = self.store
            self._alike(await store.status(run_id))
            kept = b"".join(expected.lines[expected.kept_from - 1 :])
            assert await whole(store, run_id, expected.kept_from - 1) == kept, run_id
            steps = {
                s.index: [
                    s.intent,
                    s.input_hash,
                    s.status,
                    s.attempts,
                    s.result,
                    s.error,
                ]
                for s in await store.steps(run_id)
            }
            assert steps == expected.steps, f"{run_id}: {steps}, not {expected.steps}"
            for key, payload in expected.signals.items():
                signal = await store.signal(run_id, key)
                assert signal is not None, f"{run_id}: {key} is gone"
                assert signal.payload == payload, f"{run_id}: {key}"

    async def compare_lists(self) -> None:
        """Compare what lists runs."""
        right = self.model.orphans()
        found = [run.id for run in await self.store.orphans(limit=10**6)]
        found = [run_id for run_id in found if run_id.startswith(self.prefix)]
        assert sorted(found) == sorted(right), f"orphans {found}, not {list(right)}"
        ends = [right[run_id] for run_id in found]
        assert ends == sorted(ends), "orphans: the longest dead first"
        for session in {run.session for run in self.model.runs.values()} - {None}:
            listed = await self.store.runs(session=session, limit=10**6)
            mine = {k: r for k, r in self.model.runs.items() if r.session == session}
            assert sorted([run.id for run in listed]) == sorted(mine), session
            ages = [mine[run.id].created for run in listed]
            assert ages == sorted(ages, reverse=True), "runs: the newest first"
            running = [run.id for run in listed if run.status == "running"]
            assert len(running) <= 1, f"{running} run at once in {session}"
        await asyncio.sleep(0)


def _lines(piece: Piece) -> Lines:
    data = b"".join(piece.said)
    return Lines(
        piece.run_id, piece.fence, piece.first, len(piece.said), data, piece.event
    )


def _same_error(raised: Exception, expected: Exception | None, answer: object) -> None:
    """Compare an error with the model's, and what it tells."""
    if expected is None:
        raise AssertionError(f"raised {raised!r}, expected {answer!r}") from raised
    kind = type(expected)
    alike = kind in {LookupError, ValueError} and isinstance(raised, kind)
    if type(raised) is not kind and not alike:
        raise AssertionError(f"raised {raised!r}, not {kind.__name__}") from raised
    for told in ("execution_id", "lapsed", "owner", "first", "last", "index"):
        was, right = getattr(raised, told, None), getattr(expected, told, None)
        assert was == right, f"{kind.__name__}.{told} is {was!r}, not {right!r}"
