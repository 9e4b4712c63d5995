"""An operator alone in a test: feed it, drain it, cut its text in every way.

    from operators.testing import deltas, feed

    async def test_shouts():
        assert await feed(ops.map(shout), deltas("a", "b")) == deltas("A", "B")

Nothing here needs a test framework.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Iterable,
    Iterator,
    Sequence,
)
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, TypeVar

from .alone import alone
from .event import delta, text_part

if TYPE_CHECKING:
    from .event import Event
    from .operator import Composable
    from .turn import TurnContext

T = TypeVar("T")


async def feed(
    operator: Composable,
    events: Iterable[Event | list[Event]] | AsyncIterable[Event | list[Event]],
    *,
    turn: TurnContext | None = None,
) -> list[Event]:
    """Run an operator, or a chain, over `events`; return everything that came out.

    The whole life of a turn: opened, fed, finished, settled, closed. A list among the
    events is one read of the source. Pass a `turn` to look at what was left in it.

    Raises: what an operator or the source raises, unless a lifecycle is among them.
    """
    source = events if isinstance(events, AsyncIterable) else _given(events)
    return await drain(alone(operator.operators, source, turn))


async def drain(source: AsyncIterable[T]) -> list[T]:
    """Read a stream, an async generator or an `events()` to its end, and close it."""
    from aiostream import streamcontext

    read: list[T] = []
    async with streamcontext(source) as items:
        async for item in items:
            read.append(item)  # noqa: PERF401 - what was read before an error counts
    return read


async def _given(
    events: Iterable[Event | list[Event]],
) -> AsyncGenerator[Event | list[Event], None]:
    for event in events:
        yield event


def deltas(*texts: str, part_id: str = "p1") -> list[Event]:
    """Make the deltas of one text part, which they share."""
    part = text_part(part_id)
    return [delta(part, text) for text in texts]


def chop(text: str, sizes: Iterable[int]) -> list[str]:
    """Cut `text` into pieces of these sizes, over again until it is used up.

    Raises:
        ValueError: there is no size, or one below 1.
    """
    wanted = tuple(sizes)
    if not wanted or min(wanted) < 1:
        raise ValueError(f"sizes must be one or more numbers from 1 on, not {wanted}")
    sizes_again = cycle(wanted)
    pieces: list[str] = []
    at = 0
    while at < len(text):
        size = next(sizes_again)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def chunkings(text: str) -> Iterator[list[str]]:
    """Cut a short `text` in every possible way: 2 ** (len(text) - 1) of them."""
    gaps = max(len(text) - 1, 0)
    for chosen in range(2**gaps):
        cuts = [at for at in range(1, gaps + 1) if chosen >> (at - 1) & 1]
        yield _cut(text, [0, *cuts, len(text)])


def _cut(text: str, at: Sequence[int]) -> list[str]:
    return [text[a:b] for a, b in pairwise(at) if a < b]


class ManualClock:
    """A clock that stands still until it is told: pass it as `clock=`.

    Waits are the event loop's own and go on in real time; what a deadline then reads is
    this clock.
    """

    __slots__ = ("_now",)

    def __init__(self, now: float = 0.0) -> None:
        """Start at `now` seconds."""
        self._now = now

    def __call__(self) -> float:
        """Tell the time, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: `seconds` is negative: the clocks it stands for never go back.
        """
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds}")
        self._now += seconds
