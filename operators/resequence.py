"""`resequence`: numbered events in the order of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .errors import CompositionError, TurnError
from .keyed import at_least, finder
from .operator import Operator, Stage

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext

OnGap: TypeAlias = Literal["release", "fail"]


def resequence(
    key: str | Callable[[Event], int | None],
    /,
    *,
    first: int,
    window: int = 64,
    on_gap: OnGap = "release",
) -> Operator:
    """Put events into the order of their numbers, which begin with `first`.

    `key` is a key of the event itself, or a function of it. Events without a number pass
    at once, ahead of what is held. A number that came before is dropped.

    Holds back: at most `window` events that wait for one before them; where more would
    wait, or the source ends, the missing ones are given up: with `on_gap="release"` that
    is logged and the rest goes on, with `"fail"` the turn fails, and what is held is not
    sent. A turn that was stopped gives what is held.
    Raises (failing the turn): code `resequence.gap`; `resequence.number` for what is no
        int. CompositionError: parameters that cannot be.
    """
    label, number = finder(key, "resequence")
    at_least(1, window, "resequence: window")
    if first.__class__ is not int:
        raise CompositionError(f"resequence: first must be an int, not {first!r}")
    if on_gap not in ("release", "fail"):
        raise CompositionError(
            f'resequence: on_gap must be "release" or "fail", not {on_gap!r}'
        )

    def open_(turn: TurnContext) -> Stage:
        order = _Order(turn, label, number, first=first, window=window, on_gap=on_gap)
        return Stage(
            order.on_event, shape="flat_map", awaits=False, finish=order.finish
        )

    detail = {"kind": "resequence", "window": window}
    return Operator(label, open_, detail=detail, fixed=True)


class _Order:
    def __init__(
        self,
        turn: TurnContext,
        label: str,
        number: Callable[[Event], Any],
        *,
        first: int,
        window: int,
        on_gap: OnGap,
    ) -> None:
        self.turn = turn
        self.label = label
        self.number = number
        self.next = first
        self.window = window
        self.on_gap = on_gap
        self.held: dict[int, Event] = {}

    def on_event(self, event: Event) -> Sequence[Event]:
        number = self.number(event)
        if number is None:
            return (event,)
        if number.__class__ is not int:
            raise TurnError(
                f"{number!r} is no event's number: it must be an int, or None",
                code="resequence.number",
            )
        if number < self.next or number in self.held:
            return ()
        if number == self.next and not self.held:  # the usual case
            self.next += 1
            return (event,)
        self.held[number] = event
        out: list[Event] = []
        self._go_on(out)
        while len(self.held) > self.window:
            self._skip()
            self._go_on(out)
        return out

    def finish(self) -> Sequence[Event]:
        """Give what still waits."""
        out: list[Event] = []
        while self.held:
            self._skip()
            self._go_on(out)
        return out

    def _go_on(self, out: list[Event]) -> None:
        while self.next in self.held:
            out.append(self.held.pop(self.next))
            self.next += 1

    def _skip(self) -> None:
        """Give up what is missing before the first that waits."""
        found = min(self.held)
        last = found - 1
        missing = f"{self.next}" if last == self.next else f"{self.next} to {last}"
        ending = self.turn.ending
        if ending is None or ending.drained:  # else nobody waits for them any more
            if self.on_gap == "fail":
                raise TurnError(f"events {missing} never came", code="resequence.gap")
            self.turn.log(f"events {missing} never came", operator=self.label)
        self.next = found
