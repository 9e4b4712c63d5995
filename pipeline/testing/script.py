"""`scripted`: a source that does what the test says, and tells what was done to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from operators.event import Event

Fault: TypeAlias = "BaseException | type[BaseException]"


@dataclass(slots=True)
class Played:
    """What happened to the script in one turn.

    `pulled` counts the reads that it gave, `cancelled` the cancellations that reached
    it; `given` holds the very objects it yielded.
    """

    opened: bool = False
    closed: bool = False
    ended: bool = False
    pulled: int = 0
    cancelled: int = 0
    given: list[Any] = field(default_factory=list[Any])


class Scripted:
    """The source that `scripted` makes; a pipeline calls it once per turn."""

    def __init__(
        self,
        events: Sequence[Any],
        *,
        delays: Mapping[int, float] | float,
        errors: Mapping[int, Fault],
        hang: int | None,
        steps: int,
        finally_steps: int,
        finally_hangs: bool,
        ignores_cancel: int,
    ) -> None:
        """Keep the script."""
        self.events = events
        self.delays = delays
        self.errors = errors
        self.hang = hang
        self.steps = steps
        self.finally_steps = finally_steps
        self.finally_hangs = finally_hangs
        self.ignores_cancel = ignores_cancel
        self.turns: list[Played] = []

    def __call__(self) -> AsyncGenerator[Event | list[Event], None]:
        """Open the script for one turn."""
        played = Played()
        self.turns.append(played)
        return self._play(played)

    @property
    def opened(self) -> int:
        """In how many turns it was opened."""
        return sum(played.opened for played in self.turns)

    @property
    def closed(self) -> int:
        """In how many it was closed, its cleanup done."""
        return sum(played.closed for played in self.turns)

    @property
    def pulled(self) -> int:
        """How many reads it gave, in all turns."""
        return sum(played.pulled for played in self.turns)

    @property
    def cancelled(self) -> int:
        """How many cancellations reached it, in all turns."""
        return sum(played.cancelled for played in self.turns)

    def changed(self) -> list[tuple[Any, Any]]:
        """List what was yielded and is not any more as it was: `(was, is)`."""
        return [
            (was, now)
            for played in self.turns
            for was, now in zip(self.events, played.given, strict=False)
            if was != now
        ]

    async def _play(self, played: Played) -> AsyncGenerator[Any, None]:
        played.opened = True
        shared: dict[int, Any] = {}  # deltas that share a part go on sharing its copy
        try:
            for index, item in enumerate(self.events):
                await self._before(index, played)
                played.pulled += 1
                given = deepcopy(item, shared)
                played.given.append(given)
                yield given
            await self._before(len(self.events), played)
            played.ended = True
        finally:
            try:
                for _ in range(self.finally_steps):
                    await asyncio.sleep(0)
                if self.finally_hangs:
                    await asyncio.get_running_loop().create_future()
            finally:
                played.closed = True

    async def _before(self, index: int, played: Played) -> None:
        """Do what the script says for before one event; cancellations are counted."""
        while True:
            try:
                await self._wait(index)
                break
            except asyncio.CancelledError:
                played.cancelled += 1
                if played.cancelled > self.ignores_cancel:
                    raise
        error = self.errors.get(index)
        if error is not None:
            raise error

    async def _wait(self, index: int) -> None:
        for _ in range(self.steps):
            await asyncio.sleep(0)
        delays = self.delays
        delay = delays.get(index, 0.0) if isinstance(delays, Mapping) else delays
        if delay:
            await asyncio.sleep(delay)
        if index == self.hang:
            await asyncio.get_running_loop().create_future()


def scripted(
    events: Iterable[Event | list[Event] | Any],
    *,
    delays: Mapping[int, float] | Sequence[float] | float = 0.0,
    errors: Mapping[int, Fault] | None = None,
    hang: int | None = None,
    steps: int = 0,
    finally_steps: int = 0,
    finally_hangs: bool = False,
    ignores_cancel: int = 0,
) -> Scripted:
    """Make a source that yields `events`, a list among them as one read.

    Events are counted from 0; the end is one more event. Before each it goes around the
    loop `steps` times, then waits its delay (seconds of the loop's clock, one for all
    or each its own), hangs for good where `hang` says so, and raises its error.
    `finally_steps` and `finally_hangs` say how its cleanup behaves. The first
    `ignores_cancel` cancellations are swallowed, as a bad client library does.

    It yields copies, so `changed()` can tell what the pipeline wrote into them.
    """
    if isinstance(delays, Sequence):
        delays = dict(enumerate(delays))
    items = list(events)
    _within("hang", [] if hang is None else [hang], len(items))
    _within("errors", errors or (), len(items))
    return Scripted(
        items,
        delays=delays,
        errors=dict(errors or {}),
        hang=hang,
        steps=steps,
        finally_steps=finally_steps,
        finally_hangs=finally_hangs,
        ignores_cancel=ignores_cancel,
    )


def _within(name: str, indices: Iterable[int], count: int) -> None:
    for index in indices:
        if not 0 <= index <= count:
            raise ValueError(
                f"{name} names event {index}: there are {count}, from 0 on; {count} is "
                f"the end"
            )
