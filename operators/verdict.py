"""A verdict on a text, and how to get one: what `guard` stands on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .drive import failure_of, resolved
from .errors import TurnBlocked

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext


@dataclass(frozen=True, slots=True)
class Blocked:
    """A check's verdict: this text must not go out.

    `reason` goes to the log and into the turn's error; `replacement`, where it is
    given, is shown in place of the guard's own.
    """

    reason: str = ""
    replacement: str | None = None


class Checker:
    """The check of one turn, at its texts. `shut` once it has blocked or raised."""

    __slots__ = ("_check", "_name", "_on_verdict", "_replacement", "_turn", "shut")

    def __init__(
        self,
        check: Callable[..., Any],
        on_verdict: Callable[..., object] | None,
        replacement: str,
        turn: TurnContext,
        name: str,
    ) -> None:
        """Begin a turn; `replacement` is that of a block which brings none."""
        self._check = check
        self._on_verdict = on_verdict
        self._replacement = replacement
        self._turn = turn
        self._name = name
        self.shut = False

    async def look(self, text: str) -> Blocked | None:
        """Check a text.

        Raises: what the check raises; TypeError: it gave something else than a verdict.
        """
        try:
            value = self._check(text)
            if inspect.isawaitable(value):
                value = await resolved(value)
            return self._told(value, text)
        except BaseException as exc:
            failure = failure_of(exc)
            self.shut = True
        raise failure

    def look_at_once(self, text: str) -> Blocked | None:
        """Check a text with a check that is no coroutine function; raises as `look`."""
        try:
            value = self._check(text)
            if inspect.isawaitable(value):
                if inspect.iscoroutine(value):
                    value.close()
                raise TypeError(
                    f"{self._name}: the check gave an awaitable: declare it with "
                    f"`async def`, so that it is awaited"
                )
            return self._told(value, text)
        except BaseException as exc:
            failure = failure_of(exc)
            self.shut = True
        raise failure

    def replacement(self, blocked: Blocked) -> str:
        """Tell what is shown in place of what was blocked."""
        own = blocked.replacement
        return self._replacement if own is None else own

    def error(self, blocked: Blocked) -> TurnBlocked:
        """Make the failure of the turn."""
        return TurnBlocked(blocked.reason)

    def _told(self, value: object, text: str) -> Blocked | None:
        verdict = _verdict(value, self._name)
        if verdict is not None:
            self.shut = True
        if self._on_verdict is not None:
            try:
                self._on_verdict(verdict, text)
            except Exception as exc:
                name = self._name
                self._turn.log(f"{name}: on_verdict raised", exc, operator=name)
        return verdict


def _verdict(value: object, name: str) -> Blocked | None:
    """Read what a check gave; None passes."""
    if value is None or value is True:
        return None
    if value is False:
        return Blocked()
    if isinstance(value, Blocked):
        return value
    raise TypeError(
        f"{name}: the check gave {type(value).__name__}: it gives True or None to pass, "
        f"False or Blocked(reason) to block"
    )


def given(
    events: list[Event], error: Exception | None, turn: TurnContext
) -> Iterator[Event]:
    """Give the last events of a guard, then raise what fails the turn.

    A source that ran to its end has not been drained for those behind the guard.
    """
    yield from events
    if error is not None:
        if turn.ending is not None:
            turn.ending.drained = False
        raise error
