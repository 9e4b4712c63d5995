"""Drafts: what there is of a turn, saved now and then while it streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .drive import failure_of, resolved
from .saving import saved

if TYPE_CHECKING:
    from .event import Event
    from .turn import Parts, TurnContext, TurnRecord

_SHARE = 4


class Drafts:
    """The drafts of one turn: one timer, and at most one save in flight.

    The first event sets the timer. A beat is skipped that finds nothing new, or the
    last draft still in flight. What a save raises is logged: the next beat is its
    retry. The transforms that a draft passes are those opened so far.
    """

    __slots__ = (
        "_due",
        "_every",
        "_handle",
        "_label",
        "_limit",
        "_rewrites",
        "_save",
        "_saved",
        "_task",
        "_turn",
    )

    def __init__(
        self,
        save: Callable[[TurnRecord], object],
        turn: TurnContext,
        *,
        every: float,
        limit: float | None,
        label: str,
    ) -> None:
        """Save with `save` at every beat, `every` seconds of the turn's clock apart."""
        self._save = save
        self._turn = turn
        self._every = every
        self._limit = limit
        self._label = label
        self._rewrites = turn.rewrites
        self._saved: Parts = ()
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def on_event(self, event: Event) -> None:
        """Set the timer, at the first event."""
        if self._handle is None:
            self._due = self._turn.clock() + self._every
            self._arm(self._every)

    def stop(self) -> Awaitable[None] | None:
        """Begin no more drafts; return the wait for the one in flight, if there is one.

        It is given a share of `settle_timeout` to end by itself, then it is cancelled:
        what is saved after the wait comes later, even where the draft hung.
        """
        self._disarm()
        task = self._task
        if task is None or task.done():
            return None
        return self._ended(task, self._turn.settle_timeout / _SHARE)

    def close(self) -> Awaitable[None] | None:
        """Leave nothing behind, where the turn ended without a `stop`."""
        self._disarm()
        task = self._task
        if task is None or task.done():
            return None
        return self._ended(task, 0)

    async def _ended(self, task: asyncio.Task[None], grace: float) -> None:
        await asyncio.wait({task}, timeout=grace)
        if not task.done():
            self._turn.log(
                f"{self._label} gave a draft up that was not saved when the turn ended",
                operator=self._label,
            )
            task.cancel()
            await asyncio.wait({task})

    def _arm(self, delay: float) -> None:
        self._handle = asyncio.get_running_loop().call_later(delay, self._look)

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        """Begin the draft that is due."""
        now = self._turn.clock()
        if now >= self._due:
            self._due = now + self._every
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._draft(), name=self._label)
        self._arm(self._due - now)

    async def _draft(self) -> None:
        turn = self._turn
        if turn.ending is not None:  # it is no draft any more
            return
        record = turn.record()
        parts = record.parts
        if parts == self._saved:
            return
        try:
            text, shown = record.text, parts
            for rewrite in self._rewrites:
                made = rewrite(turn, text, shown)
                text, shown = made if isinstance(made, tuple) else await resolved(made)
            draft = replace(record, text=text, parts=shown)
            await saved(self._save, draft, limit=self._limit)
        except BaseException as exc:
            error = failure_of(exc)
        else:
            self._saved = parts
            return
        turn.log(f"{self._label} did not save a draft", error, operator=self._label)
