"""`run_supervised_turn`: a turn that is produced elsewhere, and outlives its reader."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from operators.errors import CursorGone

from ..execution import canonical_hash
from ..sources.supervised import SupervisedAdapter, SupervisedEvent
from ..stores.coding import from_json
from ..stores.memory import diverged
from .ahead import Ahead
from .generation import Generation, last_generation, payloads, restarted
from .lease import Lease, check_lease
from .runs import new_run
from .turn import (
    DurableTurn,
    Standing,
    Text,
    begun,
    ended,
    first_step,
    owned_stream,
    recorded,
)

if TYPE_CHECKING:
    from operators.event import Event

    from ..stores.contract import Lines, Store


def run_supervised_turn(
    *,
    store: Store,
    run_id: str,
    manifest: Mapping[str, Any],
    adapter: SupervisedAdapter,
    worker_id: str | None = None,
    lease: float = 60.0,
    heartbeat: float | None = None,
    intent: str = "turn",
    session: str | None = None,
) -> DurableTurn:
    """Read a turn through its log: each event once, whoever dies on the way.

    * fresh: the adapter is started
    * resumed: what is logged is told again, then the adapter is attached to the stored
      handle, after the last event of the log
    * replayed: it had ended; the log is told again, the adapter is not touched

    An event is yielded once the log holds it, under its id: one that comes again is not
    told twice. The lease is renewed every `heartbeat` seconds (by default a third of
    it), however silent the run. An error of the adapter fails the run and keeps its
    handle: tried again, it is resumed.

    A log without a handle cannot be gone on with: then the run is started anew, what was
    logged is void, and a line `log.restarted` says so. The stream tells the last attempt
    alone, from its first event on; so does each replay.

    Raises, at the stream's first event: InputMismatch, LeaseHeld, StepDivergence,
    CursorGone (it ended, and its log is not kept), StoreError; later LeaseLost, and what
    the adapter raises, after the run has ended as failed.
    """
    check_lease(lease)
    if heartbeat is not None:
        check_lease(heartbeat, "heartbeat")
        if heartbeat >= lease:
            raise ValueError(
                f"heartbeat ({heartbeat:g} s) must be shorter than the lease ({lease:g} s)"
            )
    new = new_run(run_id, manifest, "supervised", session)
    input_hash = canonical_hash(manifest.get("input"))
    standing = Standing()
    text = Text()

    async def told(owned: Lease) -> AsyncGenerator[Event]:
        step = await first_step(store, owned)
        run = owned.run
        if run.status == "completed" and (step is None or run.first > 1):
            raise CursorGone(run_id, run.first, run.lines)
        generation = await last_generation(store, owned)
        if step is not None and step.status == "completed":
            diverged(run_id, step, intent, input_hash)
            standing.mode = "replayed"
            count = generation.lines - generation.void
            await _settled(owned, intent, count, standing.mode)
            async for event in payloads(store, owned, generation):
                text.add(event)
                yield event
            standing.text = text.whole()
            return
        await begun(store, owned, intent, input_hash)
        handle = run.handle
        if handle is None or handle.get("status") in _OVER:
            standing.mode = "fresh"
            if generation.lines > generation.void:
                generation = await restarted(store, owned, generation)
            begin = adapter.start
        else:
            standing.mode = "resumed"
            async for event in payloads(store, owned, generation):
                text.add(event)
                yield event
            begin = partial(adapter.attach, handle, generation.last_id)
        log = _Log(store, owned, generation, text)
        ahead = Ahead(begin)
        try:
            while True:
                events = await recorded(owned, lambda: log.take(ahead))
                if events is None:
                    break
                for event in events:
                    yield event
        finally:
            await ahead.close()
        await ended(store, owned, {"eventCount": log.count})
        if log.handle is not None:
            await log.keep({**log.handle, "status": "completed"})
        await _settled(owned, intent, log.count, standing.mode)
        standing.text = text.whole()

    stream = owned_stream(
        store,
        new=new,
        standing=standing,
        told=told,
        worker=worker_id,
        lease=lease,
        beat=heartbeat,
    )
    return DurableTurn(standing, stream)


_OVER = ("failed", "cancelled")


class _Log:
    """What is told of a run: each line that the log takes, in its order, once."""

    def __init__(
        self, store: Store, owned: Lease, generation: Generation, text: Text
    ) -> None:
        self._store = store
        self._owned = owned
        self._generation = generation
        self._text = text
        self._last = generation.lines
        self.handle = owned.run.handle

    @property
    def count(self) -> int:
        """How many events the generation has."""
        return self._last - self._generation.void

    async def take(self, ahead: Ahead[SupervisedEvent]) -> list[Event] | None:
        """Log what the adapter gave; return what of it is new, None at the end."""
        events = await ahead.take()
        if not events:
            return None
        lines: list[Lines] = []
        new: list[Event] = []
        newer: Mapping[str, Any] | None = None
        for event in events:
            if event.handle is not None and event.handle != self.handle:
                if not _only_cursor(event.handle, newer or self.handle):
                    new += await self._append(lines, newer)
                    lines = []
                newer = event.handle
            line = self._generation.line(self._owned, event.event_id, event.payload)
            lines.append(line)
        return new + await self._append(lines, newer)

    async def keep(self, handle: Mapping[str, Any]) -> None:
        """Keep a handle."""
        run = self._owned.run
        await self._owned.write(
            lambda: self._store.set_handle(run.id, self._owned.fence, handle)
        )
        self.handle = handle

    async def _append(
        self, lines: list[Lines], handle: Mapping[str, Any] | None
    ) -> list[Event]:
        """Append lines, the newest handle before them; return those not told yet.

        The line's number tells, not whether this append wrote it: one whose answer was
        lost is asked again.
        """
        if handle is not None and handle != self.handle:
            await self.keep(handle)
        new: list[Event] = []
        if not lines:
            return new
        for line, answer in zip(lines, await self._owned.append(lines), strict=True):
            if answer.line > self._last:
                self._last = answer.line
                event: Event = from_json(line.data)
                self._text.add(event)
                new.append(event)
        return new


def _only_cursor(handle: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
    """Tell whether a handle reaches the same run, further on."""
    if before is None:
        return False
    return {**handle, "cursor": None} == {**before, "cursor": None}


async def _settled(owned: Lease, intent: str, count: int, mode: str) -> None:
    metadata = {"events": count, "mode": mode}
    await owned.settle("completed", {"notes": intent, "metadata": metadata})
