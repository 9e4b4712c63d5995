"""`assert_chunking_invariant`: what an operator gives must not depend on the cuts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, TypeAlias, cast

from operators import event as ev
from operators.operator import Composable
from operators.testing import chop, chunkings, feed
from operators.turn import TurnContext

from .case import IDENTITY
from .clock import loop_clock, run_virtual

Made: TypeAlias = "Composable | Callable[[], Composable]"

ALL_CUTS_CHARS = 10
"""Texts up to this length are cut in every way, 512 of them."""


class ChunkingError(AssertionError):
    """The output depends on how the text was cut; `cut` is the smallest cut found."""

    def __init__(self, message: str, cut: list[str]) -> None:
        """Keep the cut."""
        super().__init__(message)
        self.cut = cut


async def assert_chunking_invariant(
    operator: Made,
    text: str,
    *,
    kind: str = "text",
    at: Sequence[int] = (),
    samples: int = 100,
    seed: int = 0,
) -> int:
    """Feed `text` cut in many ways; fail where the output is not the same.

    A text of up to ten characters is cut in every way, a longer one in pieces of 1 to 7,
    in one piece, and `samples` times at random (by `seed`). Each cut comes as single
    events, and with several deltas in a read. Other events stand at the character
    positions `at`, and must stay there relative to the output. `kind` is the part's
    type, `"text"` or `"reasoning"`. An operator may be given by a function that makes
    it. Runs in virtual time, in another thread; returns the number of runs.

    Raises:
        ChunkingError: two cuts gave different outputs; it shows the smallest cut found
            that differs from the text in one piece.
        ValueError: `at` names a place outside of the text.
    """
    return await asyncio.to_thread(
        check_chunking_invariant,
        operator,
        text,
        kind=kind,
        at=at,
        samples=samples,
        seed=seed,
    )


def check_chunking_invariant(
    operator: Made,
    text: str,
    *,
    kind: str = "text",
    at: Sequence[int] = (),
    samples: int = 100,
    seed: int = 0,
) -> int:
    """Do as `assert_chunking_invariant`, for a test that is a plain function."""
    if any(not 0 <= place <= len(text) for place in at):
        raise ValueError(f"at={list(at)} must lie within the text, 0 to {len(text)}")
    made = _maker(operator)
    part = {"type": kind, "id": "p1"}
    places = sorted(at)

    def output(pieces: list[str], *, together: int = 1) -> tuple[Any, ...]:
        events = _events(pieces, places, part)
        reads: Iterable[Any] = events
        if together > 1:
            reads = [events[n : n + together] for n in range(0, len(events), together)]
        return _seen(run_virtual(_fed(made(), reads)), part)

    def differs(pieces: list[str], *, together: int) -> bool:
        return output(pieces, together=together) != expected

    expected = output([text] if text else [])
    runs = 1
    for pieces in _cuts(text, samples, seed):
        for together in (1, 2, len(pieces) + len(places) + 1):
            got = output(pieces, together=together)
            runs += 1
            if got != expected:
                cut = _smallest(pieces, partial(differs, together=together))
                raise ChunkingError(
                    f"the output depends on how the text is cut\n"
                    f"  in one piece: {_told(expected)}\n"
                    f"  cut as {cut!r}"
                    + (f", {together} events a read" if together > 1 else "")
                    + f": {_told(output(cut, together=together))}",
                    cut,
                )
    return runs


def _maker(operator: Made) -> Callable[[], Composable]:
    if isinstance(operator, Composable):
        return lambda: operator
    return operator


async def _fed(operator: Composable, reads: Iterable[Any]) -> list[Any]:
    turn = TurnContext(IDENTITY, clock=loop_clock)

    async def given() -> AsyncGenerator[Any, None]:
        for read in reads:
            yield read

    return await feed(operator, given(), turn=turn)


def _cuts(text: str, samples: int, seed: int) -> Iterator[list[str]]:
    if len(text) <= ALL_CUTS_CHARS:
        yield from chunkings(text)
        return
    for size in range(1, 8):
        yield chop(text, [size])
    rng = random.Random(seed)
    for _ in range(samples):
        count = rng.randint(1, min(len(text) - 1, 12))
        cuts = sorted(rng.sample(range(1, len(text)), count))
        yield [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _events(pieces: list[str], places: list[int], part: dict[str, Any]) -> list[Any]:
    """Make the deltas, with the other events at their places; a piece may be split."""
    events: list[Any] = []
    waiting = list(enumerate(places))
    begin = 0
    for piece, end in zip(pieces, accumulate(map(len, pieces)), strict=True):
        while waiting and waiting[0][1] < end:
            n, place = waiting.pop(0)
            if place > begin:
                events.append(ev.delta(part, piece[: place - begin]))
                piece = piece[place - begin :]
                begin = place
            events.append(ev.event("mark", {"n": n}))
        events.append(ev.delta(part, piece))
        begin = end
    events += [ev.event("mark", {"n": n}) for n, _ in waiting]
    return events


def _seen(events: list[Any], part: dict[str, Any]) -> tuple[Any, ...]:
    """Put an output into a form without cuts: texts joined, the rest in its place."""
    seen: list[Any] = []
    for event in events:
        data: Any = event.get("data")
        text: Any = None
        if event.get("type") == ev.PART_UPDATED and isinstance(data, dict):
            known = cast("dict[str, Any]", data)
            same: Any = known.get("part")
            if isinstance(same, dict) and same.get("id") == part["id"]:  # pyright: ignore[reportUnknownMemberType] - any JSON
                text = known.get("delta")
        if not isinstance(text, str):
            seen.append(event)
        elif seen and isinstance(seen[-1], str):
            seen[-1] += text
        elif text:
            seen.append(text)
    return tuple(seen)


def _smallest(pieces: list[str], fails: Callable[[list[str]], bool]) -> list[str]:
    """Join neighbours as long as it still fails."""
    joined = True
    while joined:
        joined = False
        for n in range(len(pieces) - 1):
            fewer = [*pieces[:n], pieces[n] + pieces[n + 1], *pieces[n + 2 :]]
            if fails(fewer):
                pieces, joined = fewer, True
                break
    return pieces


def _told(seen: tuple[Any, ...]) -> str:
    return ", ".join([repr(one) for one in seen]) or "nothing"
