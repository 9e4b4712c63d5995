"""One lazily re-armed timer that interrupts a wait: what `timeout` stands on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Interrupt the waits of one turn whose deadline passes, with a single timer.

    Use it around one `await` and never across a `yield`:

        deadline.begin(at, now)
        try:
            item = await anext(source)
        finally:
            late = deadline.end()

    A wait only stores its deadline. The timer, when it fires, looks whether that has
    come, and is set again, or cancels the waiting task, unless `late()` says that it has
    the wait ended by other means. Times are on `clock`, seconds.
    """

    __slots__ = (
        "_armed",
        "_at",
        "_clock",
        "_fired",
        "_handle",
        "_late",
        "_requests",
        "_task",
    )

    def __init__(
        self, clock: Callable[[], float], late: Callable[[], object] | None = None
    ) -> None:
        """Start without a timer."""
        self._clock = clock
        self._late = late
        self._at = math.inf
        self._armed = math.inf
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._requests = 0
        self._fired = False

    def begin(self, at: float, now: float) -> None:
        """Watch the wait that the current task begins."""
        task = self._task = asyncio.current_task()
        assert task is not None, "asyncio runs this outside of a task"
        self._requests = task.cancelling()
        self._at = at
        if at < self._armed:
            self._arm(now)

    def end(self) -> bool:
        """End the wait; tell whether it was interrupted.

        Raises:
            CancelledError: it was, and somebody else cancelled the task as well. The
                count of cancellations tells ours from theirs, as in `asyncio.timeout`.
        """
        self._at = math.inf
        task, self._task = self._task, None
        if not self._fired or task is None:
            return False
        self._fired = False
        if task.uncancel() > self._requests:
            raise asyncio.CancelledError
        return True

    def close(self) -> None:
        """Drop the timer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, now: float) -> None:
        self.close()
        self._armed = self._at
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(self._at - now, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._armed = math.inf
        if self._task is None:  # nobody waits: the next wait sets the timer
            return
        now = self._clock()
        if now < self._at:
            self._arm(now)
            return
        if self._late is not None and self._late():
            return
        self._fired = True
        self._task.cancel()


def is_seconds(value: object) -> bool:
    """Tell whether a limit is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 < value < math.inf
