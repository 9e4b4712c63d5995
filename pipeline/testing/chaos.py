"""Operators that misbehave on purpose, the same way every time.

    Pipeline(source) | chaos.kill(at=3, error=ConnectionError()) | ops.lifecycle() | ...

Events are counted from 0, in each turn anew.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from operators import event as ev
from operators.errors import CompositionError
from operators.operator import Operator, Shape, Stage

if TYPE_CHECKING:
    from operators.event import Event
    from operators.turn import TurnContext


def stall(*, at: int, seconds: float) -> Operator:
    """Wait so many seconds of the loop's clock before the event `at`."""
    place = _place("stall", at)

    def open_(turn: TurnContext) -> Stage:
        number = _counter()

        async def wait(event: Event) -> None:
            if number() == place:
                await asyncio.sleep(seconds)

        return Stage(wait, shape="tap")

    return Operator(f"stall(at={at})", open_, detail={"kind": "chaos"})


def dup(*, at: int) -> Operator:
    """Give the event `at` twice, as a provider that resends does."""
    place = _place("dup", at)
    return _flat(
        f"dup(at={at})", lambda n, event: [event, event] if n == place else [event]
    )


def kill(*, at: int, error: BaseException | None = None) -> Operator:
    """Raise instead of the event `at`: a ConnectionResetError unless told otherwise."""
    place = _place("kill", at)

    def kills(number: int, event: Event) -> list[Event]:
        if number == place:
            raise error or ConnectionResetError(f"chaos.kill(at={at})")
        return [event]

    return _flat(f"kill(at={at})", kills)


def drop(*, at: int) -> Operator:
    """Leave the event `at` out."""
    place = _place("drop", at)
    return _flat(f"drop(at={at})", lambda n, event: [] if n == place else [event])


def split(*, at: int | None = None, every: int | None = None) -> Operator:
    """Cut the text of deltas: after character `at`, or every so many characters."""
    if (at is None) == (every is None):
        raise CompositionError("split() takes at= or every=, one of them")
    size = _place("split", at if at is not None else every, least=1)

    def cut(_: int, event: Event) -> list[Event]:
        data = event.get("data")
        known = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
        text = known.get("delta")
        if event.get("type") != ev.PART_UPDATED or not isinstance(text, str):
            return [event]
        if every is None:
            pieces = [text[:size], text[size:]]
        else:
            pieces = [text[n : n + size] for n in range(0, len(text), size)]
        return [
            {**event, "data": {**known, "delta": piece}}
            for piece in pieces
            if piece or not text
        ] or [event]

    return _flat("split", cut)


def shuffle(*, window: int, seed: int = 0) -> Operator:
    """Give the events out of order, none more than `window` places late."""
    size = _place("shuffle", window, least=2)

    def open_(turn: TurnContext) -> Stage:
        rng = random.Random(seed)
        held: list[Event] = []

        def take() -> list[Event]:
            out = held.copy()
            rng.shuffle(out)
            held.clear()
            return out

        def on_event(event: Event) -> list[Event]:
            held.append(event)
            return take() if len(held) == size else []

        return Stage(on_event, shape="flat_map", finish=take)

    return Operator(
        f"shuffle(window={window})", open_, detail={"kind": "chaos", "seed": seed}
    )


def _flat(name: str, function: Callable[[int, Event], list[Event]]) -> Operator:
    shape: Shape = "flat_map"

    def open_(turn: TurnContext) -> Stage:
        number = _counter()

        def on_event(event: Event) -> list[Event]:
            return function(number(), event)

        return Stage(on_event, shape=shape, awaits=False)

    return Operator(name, open_, detail={"kind": "chaos"})


def _counter() -> Callable[[], int]:
    count = -1

    def number() -> int:
        nonlocal count
        count += 1
        return count

    return number


def _place(name: str, value: object, *, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CompositionError(
            f"chaos.{name} takes a whole number from {least} on, not {value!r}"
        )
    return value
