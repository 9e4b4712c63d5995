"""Text checked while it streams: the mode `stream_first` of `guard`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Final

from .errors import TurnError
from .guarded import Texts, replaced
from .verdict import given

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext
    from .verdict import Checker
    from .windowed import Text

_WINDOWS: Final = 16
"""How far the text may be ahead of its check, in windows; then the stream waits."""


class Watching:
    """One turn of a guard that lets text out at once: a tap, and one task that checks.

    The task takes what has come since its last check, so there is one check at a time,
    of the more text the slower it is.
    """

    def __init__(
        self, checker: Checker, window: int, turn: TurnContext, name: str
    ) -> None:
        """Begin without a task."""
        self._checker = checker
        self._texts = Texts(window)
        self._limit = window * _WINDOWS
        self._turn = turn
        self._name = name
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self._shown: dict[Text, Event] = {}
        self._out: list[Event] = []
        self._last = False

    def on_event(self, event: Event) -> Awaitable[None] | None:
        """Let an event pass; begin a check where one is due."""
        text = self._texts.take(event)
        if text is None:
            return None
        if self._error is not None:
            raise self._error
        self._shown[text] = event
        if text.due:
            self._begin()
            if text.unchecked > self._limit:
                return self._caught_up()
        return None

    async def finish(self) -> Iterable[Event]:
        """Wait for the checks of all that went out; raise what is wrong.

        Where the turn has failed or was cancelled, what its reader has seen is not
        checked any more.
        """
        self._last = True
        ending = self._turn.ending
        if ending is not None and not ending.drained:
            await self.close()
            return self._out
        while self._error is None and self._texts.due(all_=True):
            await self._caught_up()
        return given(self._out, self._error, self._turn)

    async def close(self) -> None:
        """Leave no task behind."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _begin(self) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._check(), name=self._name)
        return self._task

    async def _caught_up(self) -> None:
        await asyncio.wait((self._begin(),))
        if self._error is not None and not self._last:
            raise self._error

    async def _check(self) -> None:
        """Check what is due; at the end, everything."""
        while texts := self._texts.due(all_=self._last):
            for text in texts:
                seen = text.checking()
                try:
                    blocked = await self._checker.look(seen)
                except Exception as exc:
                    self._fail(self._raised(exc))
                    return
                if blocked is not None:
                    instead = self._checker.replacement(blocked)
                    if instead:
                        self._out.append(replaced(self._shown[text], instead))
                    self._fail(self._checker.error(blocked))
                    return
                text.passed(seen)

    def _raised(self, error: Exception) -> Exception:
        """Give a failure its code: the turn cannot tell whose it is."""
        if isinstance(error, TurnError):
            return error
        failure = TurnError(
            f"{self._name}: the check raised {type(error).__name__}: {error}",
            code="operator_failed",
        )
        failure.__cause__ = error
        return failure

    def _fail(self, error: Exception) -> None:
        self._error = error
        if not self._last:
            self._turn.stop(error)
