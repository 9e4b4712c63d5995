"""Lines in chunks: what every log does with them."""

from __future__ import annotations

from collections.abc import Iterable

from .contract import Chunk, Lines


def following(
    chunks: Iterable[Chunk], after: int, limit_bytes: int
) -> tuple[Chunk, ...]:
    """Keep the lines after number `after`, about `limit_bytes` of them, one at least."""
    found: list[Chunk] = []
    room = limit_bytes
    for chunk in chunks:
        rest = sliced(chunk, after)
        if rest is None:
            continue
        if found and len(rest.data) > room:
            break
        found.append(rest)
        room -= len(rest.data)
    return tuple(found)


def sliced(chunk: Chunk, after: int) -> Chunk | None:
    """Cut off the lines up to number `after`; None where nothing is left."""
    cut = after - chunk.first + 1
    if cut <= 0:
        return chunk
    if cut >= chunk.count:
        return None
    at = 0
    for _ in range(cut):
        at = chunk.data.index(b"\n", at) + 1
    return Chunk(after + 1, chunk.count - cut, chunk.data[at:], chunk.event_id)


def gap(lines: Lines, end: int) -> None:
    """Refuse lines that would leave a gap behind line `end`, or have no number.

    Raises:
        ValueError: they would.
    """
    if lines.first < 1 or lines.count < 1:
        raise ValueError(
            f"lines are numbered from 1, and there is one at least: not {lines.count} "
            f"from {lines.first} on"
        )
    if lines.first > end + 1:
        raise ValueError(
            f"lines of {lines.run_id!r} begin at {lines.first}, and its log ends at "
            f"{end}: append what comes between first"
        )


def overlap(lines: Lines, end: int) -> None:
    """Refuse lines of which some, not all, are in a log that ends with line `end`.

    Raises:
        ValueError: some are.
    """
    if lines.first <= end < lines.first + lines.count - 1:
        raise ValueError(
            f"lines {lines.first} to {lines.first + lines.count - 1} of "
            f"{lines.run_id!r} overlap its log, which ends at {end}: append again what "
            f"was appended before, as it was"
        )
