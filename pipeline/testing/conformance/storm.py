"""Many workers at once, calls cancelled in their middle: what must hold of the rest.

Which worker wins is not known before, so no model is asked: each notes what it was told,
and afterwards every note must fit one history.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from operators.errors import LeaseHeld, LeaseLost, TurnActive, UnknownTurn

from ...stores.contract import EndStatus, Lines, NewRun
from .claiming import whole
from .place import LONG_S, Place

if TYPE_CHECKING:
    from ...stores.contract import Store

T = TypeVar("T")

_SESSIONS: Final = {"r0": None, "r1": "s1", "r2": "s1", "r3": "s2", "r4": None}
_LIFE: Final = 200
"""After so many calls there are new runs: most of the old have ended."""
_ENDS: Final[tuple[EndStatus, ...]] = ("completed", "failed", "cancelled")
_LEASES: Final = (LONG_S, LONG_S, 0.01, 0.05)


async def storm(
    place: Place, *, seed: int, calls: int, workers: int = 4, cancels: float = 0.1
) -> None:
    """Let workers make `calls` random calls at once, and look whether all fits.

    A part of the calls, `cancels`, is cancelled in its middle.

    Raises:
        AssertionError: a rule is broken; the message has the seed.
    """
    book = _Book()
    crew = [
        _Worker(f"w{k}", place.store(), Random(f"{seed} {k}"), book, cancels)
        for k in range(workers)
    ]
    reader, other = place.store(), place.store()
    readers = [
        asyncio.ensure_future(_follow(one, name, book))
        for name, one in zip(_SESSIONS, (reader, other) * 3, strict=False)
    ]
    readers.append(asyncio.ensure_future(_watch(other, book)))
    try:
        await asyncio.gather(*[one.work(calls // workers) for one in crew])
        for task in readers:
            if task.done():
                task.result()
        for run_id, notes in list(book.runs.items()):
            await _check(reader, run_id, notes)
    except AssertionError as exc:
        raise AssertionError(f"storm {seed}: {exc}") from exc
    finally:
        for task in readers:
            task.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


@dataclass(slots=True)
class _Notes:
    """What the workers were told of one run."""

    lines: dict[int, bytes] = field(default_factory=dict[int, bytes])
    claims: dict[int, int] = field(default_factory=dict[int, int])
    ends: dict[int, str] = field(default_factory=dict[int, str])
    signals: defaultdict[str, list[tuple[bool, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    begins: defaultdict[int, list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )
    doubtful_claims: int = 0
    doubtful_begins: defaultdict[int, int] = field(
        default_factory=lambda: defaultdict(int)
    )
    doubtful_signals: set[str] = field(default_factory=set[str])
    read: list[bytes] = field(default_factory=list[bytes])


@dataclass(slots=True)
class _Book:
    """The notes of all runs, and which runs are called for now."""

    runs: defaultdict[str, _Notes] = field(default_factory=lambda: defaultdict(_Notes))
    calls: int = 0

    def named(self, name: str) -> str:
        """Give a run's whole id, or a session's."""
        return f"{name}:{self.calls // _LIFE}"

    def session(self, run_id: str) -> str | None:
        """Give the session of a run."""
        name, _, life = run_id.partition(":")
        session = _SESSIONS[name]
        return None if session is None else f"{session}:{life}"


@dataclass(slots=True)
class _Held:
    """A run that a worker owns, as far as it knows."""

    fence: int
    lines: int
    safe: bool
    """Nobody else can have it: its lease is long, and no claim of ours is in doubt."""


class _Cut(Exception):
    """The call was cancelled: whether it happened is not known."""


class _Worker:
    def __init__(
        self,
        name: str,
        store: Store,
        random: Random,
        book: _Book,
        cancels: float,
    ) -> None:
        self.name = name
        self.store = store
        self.random = random
        self.book = book
        self.notes = book.runs
        self.cancels = cancels
        self.held: dict[str, _Held] = {}
        self.doubtful: set[str] = set()
        self.serial = 0
        self.mine: list[Callable[[str], Awaitable[None]]] = [
            *[self.append] * 6,
            *[self.append_event] * 3,
            *[self.settle] * 2,
            self.append_at_once,
            self.begin,
            self.claim,
            self.emit,
            self.release,
            self.renew,
        ]
        self.others: list[Callable[[str], Awaitable[None]]] = [
            *[self.claim] * 4,
            self.emit,
            self.renew,
        ]

    async def work(self, calls: int) -> None:
        for _ in range(calls):
            await asyncio.sleep(0)  # a store in memory would not let go
            self.book.calls += 1
            run_id = self.book.named(self.random.choice(list(_SESSIONS)))
            if self.held and self.random.random() < 0.7:
                run_id = self.random.choice(list(self.held))
            does = self.mine if run_id in self.held else self.others
            try:
                await self.random.choice(does)(run_id)
            except _Cut:
                pass
            except LeaseLost:
                self.lost(run_id)
            except UnknownTurn:
                assert run_id not in self.held, f"{run_id} is not there any more"

    async def call(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call, or cancel it in its middle."""
        if self.random.random() >= self.cancels:
            return await call
        task = asyncio.ensure_future(call)
        for _ in range(int(1.5 ** self.random.randrange(18))):
            if task.done():
                break
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        if task.cancelled():
            raise _Cut
        return task.result()

    def lost(self, run_id: str) -> None:
        held = self.held.pop(run_id, None)
        assert held is None or not held.safe, (
            f"{self.name} lost {run_id}, fence {held.fence}, though its lease lives"
        )

    def said(self, run_id: str, fence: int) -> bytes:
        self.serial += 1
        return f"{run_id} {fence} {self.name}.{self.serial}\n".encode()

    async def claim(self, run_id: str) -> None:
        lease = self.random.choice(_LEASES)
        new = NewRun(id=run_id, manifest_hash="h", session=self.book.session(run_id))
        notes = self.notes[run_id]
        before = self.held.pop(run_id, None)
        reenter = self.random.random() < 0.7
        try:
            got = await self.call(
                self.store.claim(new, worker=self.name, lease=lease, reenter=reenter)
            )
        except _Cut:
            self.doubtful.add(run_id)
            notes.doubtful_claims += 1
            raise
        except (LeaseHeld, TurnActive):
            assert before is None or not before.safe, f"{self.name} held {run_id}"
            return
        if got.mode == "finished":
            assert before is None or not before.safe, f"{run_id} was ended by another"
            return
        assert got.fence not in notes.claims, f"fence {got.fence} was given twice"
        notes.claims[got.fence] = got.run.lines
        if got.run.status == "running":
            safe = lease == LONG_S and run_id not in self.doubtful
            self.held[run_id] = _Held(got.fence, got.run.lines, safe)

    async def append(self, run_id: str) -> None:
        held = self.held.get(run_id)
        if held is None:
            return
        pieces = [
            self.said(run_id, held.fence) for _ in range(self.random.choice((1, 1, 3)))
        ]
        piece = Lines(run_id, held.fence, held.lines + 1, len(pieces), b"".join(pieces))
        while True:  # a call that was cut is asked again, until it is answered
            try:
                (answer,) = await self.call(self.store.append([piece]))
                break
            except _Cut:
                continue
        if answer is None:
            self.lost(run_id)
            return
        assert answer.line == piece.first
        for k, said in enumerate(pieces):
            self.notes[run_id].lines[piece.first + k] = said
        held.lines += len(pieces)

    async def append_event(self, run_id: str) -> None:
        held = self.held.get(run_id)
        if held is None:
            return
        said = self.said(run_id, held.fence)
        piece = Lines(run_id, held.fence, 0, 1, said, said.decode())
        lines: set[int] = set()
        while len(lines) < 1 or self.random.random() < 0.3:
            try:
                (answer,) = await self.call(self.store.append([piece]))
            except _Cut:
                continue
            if answer is None:
                self.lost(run_id)
                break
            lines.add(answer.line)
        assert len(lines) <= 1, f"one event id is at lines {lines}"
        for line in lines:
            self.notes[run_id].lines[line] = said
            held.lines = line

    async def append_at_once(self, run_id: str) -> None:
        held = self.held.get(run_id)
        if held is None:
            return
        said = [self.said(run_id, held.fence) for _ in range(3)]
        pieces = [Lines(run_id, held.fence, 0, 1, one, one.decode()) for one in said]
        found = await asyncio.gather(*[self.store.append([one]) for one in pieces])
        for one, (answer,) in zip(said, found, strict=True):
            if answer is None:
                self.lost(run_id)
                continue
            self.notes[run_id].lines[answer.line] = one
            held.lines = max(held.lines, answer.line)

    async def settle(self, run_id: str) -> None:
        held = self.held.get(run_id)
        if held is None:
            return
        status = self.random.choice(_ENDS)
        said = self.said(run_id, held.fence)
        last = Lines(run_id, held.fence, held.lines + 1, 1, said)
        while True:
            try:
                await self.call(
                    self.store.settle(
                        run_id, held.fence, status=status, outcome={}, lines=last
                    )
                )
                break
            except _Cut:
                held.safe = False  # it may have ended, and run again under another
        notes = self.notes[run_id]
        notes.ends[held.fence] = status
        notes.lines[last.first] = said
        del self.held[run_id]

    async def release(self, run_id: str) -> None:
        held = self.held.pop(run_id, None)
        if held is not None:
            done = await self.call(self.store.release(run_id, held.fence))
            assert done or not held.safe, f"{self.name} held {run_id}"

    async def emit(self, run_id: str) -> None:
        key = f"k{self.random.randrange(20)}"
        said = self.said(run_id, 0).decode()
        notes = self.notes[run_id]
        try:
            signal = await self.call(self.store.emit(run_id, key, said))
        except _Cut:
            notes.doubtful_signals.add(said)
            raise
        assert not signal.accepted or signal.payload == said
        notes.signals[key].append((signal.accepted, cast("str", signal.payload)))

    async def begin(self, run_id: str) -> None:
        held = self.held.get(run_id)
        if held is None:
            return
        index = self.random.randrange(3)
        notes = self.notes[run_id]
        try:
            step = await self.call(
                self.store.begin_step(
                    run_id, held.fence, index, intent=f"i{index}", kind="logic"
                )
            )
        except _Cut:
            notes.doubtful_begins[index] += 1
            raise
        notes.begins[index].append(step.attempts)

    async def renew(self, _: str) -> None:
        renewed = await self.call(self.store.renew(self.name, lease=LONG_S))
        for run_id, held in self.held.items():
            if held.safe:
                assert run_id in renewed, f"{self.name} held {run_id}"
                assert renewed[run_id].fence == held.fence


async def _follow(store: Store, name: str, book: _Book) -> None:
    """Read a log as it grows; and so the next run's."""
    while True:
        run_id = book.named(name)
        notes = book.runs[run_id]
        while run_id == book.named(name):
            after = len(notes.read)
            try:
                page = await store.read(run_id, after=after, limit_bytes=100)
            except UnknownTurn:
                await asyncio.sleep(0.002)
                continue
            for chunk in page.chunks:
                assert chunk.first == len(notes.read) + 1, f"{run_id}: {chunk}"
                notes.read += chunk.data.splitlines(keepends=True)
            assert len(notes.read) <= page.lines
            if not page.chunks:
                await store.wait(run_id, after=after, timeout=0.05)
                await asyncio.sleep(0.002 if page.closed else 0)


async def _watch(store: Store, book: _Book) -> None:
    """Look whether ever two runs of a session run."""
    while True:
        for name in ("s1", "s2"):
            session = book.named(name)
            running = await store.runs(session=session, statuses=["running"])
            assert len(running) <= 1, f"{[run.id for run in running]} run at once"
        await asyncio.sleep(0.005)


async def _check(store: Store, run_id: str, notes: _Notes) -> None:
    try:
        run = await store.status(run_id)
    except UnknownTurn:
        assert not notes.claims
        return
    log = (await whole(store, run_id)).splitlines(keepends=True)
    assert len(log) == run.lines
    assert len(set(log)) == len(log), f"{run_id}: a line stands twice"
    assert log[: len(notes.read)] == notes.read, f"{run_id}: a reader saw another log"
    for line, said in notes.lines.items():
        assert log[line - 1] == said, f"{run_id}: line {line} was {said!r}"
    fences = [int(said.split()[1]) for said in log]
    assert fences == sorted(fences), f"{run_id}: a stale fence wrote: {fences}"
    for fence, lines in notes.claims.items():
        before, after = fences[:lines], fences[lines:]
        assert all(one < fence for one in before), f"{run_id}: claim {fence}"
        assert all(one >= fence for one in after), f"{run_id}: claim {fence}"
    if not notes.doubtful_claims:
        assert run.fence == max(notes.claims, default=run.fence), f"{run_id}: fence"
    if run.fence in notes.ends:
        assert run.status == notes.ends[run.fence], f"{run_id} ended as {run.status}"
    for key, told in notes.signals.items():
        winners = [payload for accepted, payload in told if accepted]
        assert len(winners) <= 1, f"{run_id}: {key} has {len(winners)} winners"
        (payload,) = {payload for _, payload in told}
        assert winners or payload in notes.doubtful_signals
        kept = await store.signal(run_id, key)
        assert kept is not None
        assert kept.payload == payload
    for step in await store.steps(run_id):
        told_attempts = notes.begins[step.index]
        assert len(set(told_attempts)) == len(told_attempts)
        doubt = notes.doubtful_begins[step.index]
        counted = len(told_attempts)
        assert counted <= step.attempts <= counted + doubt, f"{run_id}: {step}"
