"""Several sources read at the same time: what `hedge` and `merge` stand on."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from operators.drive import failure_of

from .closing import CLOSE_TIMEOUT

if TYPE_CHECKING:
    from operators.turn import TurnContext

    from .candidate import Candidate


class Ended:
    """What comes last of a source: it ended, or failed with `error`."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None = None) -> None:
        """Keep how it ended."""
        self.error = error


DUE: Final = Ended()
"""What `next` gives when the time passed to it is over."""

Arrival: TypeAlias = "tuple[Candidate, Any]"


class Pulling:
    """Candidates, each read and closed by a task of its own, one read ahead.

    A started read cannot move to another task, so the task that opens a source also
    iterates and closes it, in a copy of the reader's context. It pulls further only
    when what it gave was taken: `next` gives reads in order of their arrival, and an
    `Ended` as the last of each candidate.
    """

    __slots__ = ("_arrived", "_ready", "_room", "_tasks", "_turn")

    def __init__(self, turn: TurnContext) -> None:
        """Read nothing yet."""
        self._turn = turn
        self._ready: deque[Arrival] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._room: dict[Candidate, asyncio.Future[None]] = {}
        self._tasks: dict[Candidate, asyncio.Task[None]] = {}

    def start(self, candidate: Candidate, kind: str) -> None:
        """Begin to read a candidate."""
        self._tasks[candidate] = asyncio.create_task(
            self._pull(candidate), name=f"{kind}({candidate.name})"
        )

    async def next(self, *, within: float | None = None) -> Arrival | Ended:
        """Take what arrived first, waiting for it; `DUE` after `within` seconds."""
        ready = self._ready
        if not ready:
            loop = asyncio.get_running_loop()
            self._arrived = loop.create_future()
            timer = None
            if within is not None:
                timer = loop.call_later(within, _wake, self._arrived)
            try:
                await self._arrived
            finally:
                if timer is not None:
                    timer.cancel()
            if not ready:
                return DUE
        arrival = ready.popleft()
        room = self._room.pop(arrival[0], None)
        if room is not None:
            _wake(room)
        return arrival

    def leave(self, candidate: Candidate) -> None:
        """Cancel the reading of a candidate and drop what arrived of it.

        Its source closes in its own time; `close` waits for that.
        """
        self._tasks[candidate].cancel()
        self._ready = deque(one for one in self._ready if one[0] is not candidate)

    async def close(self) -> None:
        """Stop all that still read, and wait until their sources have closed.

        Each cancellation of the caller meanwhile reaches their cleanup, as if it had
        iterated them, and is raised when they have ended.
        """
        try:
            await _ended(list(self._tasks.values()))
        finally:
            for candidate, task in self._tasks.items():
                if task.done() and not task.cancelled():
                    error = task.exception()
                    if error is not None:
                        self._turn.log("closing the source raised", error)
                self._room.pop(candidate, None)

    async def _pull(self, candidate: Candidate) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this outside of a task"
        loop = asyncio.get_running_loop()
        ended = Ended()
        try:
            try:
                async for item in await candidate.open():
                    if task.cancelling():  # the source went on all the same
                        raise asyncio.CancelledError
                    room = self._room[candidate] = loop.create_future()
                    self._put(candidate, item)
                    await room
            finally:
                await candidate.close()
        except BaseException as exc:
            if task.cancelling() and not isinstance(exc, asyncio.CancelledError):
                raise  # `close` logs it
            ended = Ended(failure_of(exc))
        self._put(candidate, ended)

    def _put(self, candidate: Candidate, item: Any) -> None:
        self._ready.append((candidate, item))
        if self._arrived is not None:
            _wake(self._arrived)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel the tasks and wait until they are over, however often this is cancelled.

    A cleanup that takes longer than `CLOSE_TIMEOUT` is cancelled as well.
    """
    for task in tasks:
        if not task.cancelling():  # else it is closing already
            task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)
        except asyncio.CancelledError as exc:
            cancelled = exc
        for task in tasks:
            task.cancel()
    if cancelled is not None:
        raise cancelled
