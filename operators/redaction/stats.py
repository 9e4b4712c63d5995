"""`RedactionStats`: what redaction did in one turn, without any of the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactionStats:
    """Matches by detector; and after each delta, how many characters were held back."""

    matches: Mapping[str, int]
    deltas: int
    held_p50: int
    held_p99: int


def stats_of(matches: Mapping[str, int], held: Mapping[int, int]) -> RedactionStats:
    """Sum a turn up; `held[n]` deltas left n characters held back."""
    deltas = sum(held.values())
    return RedactionStats(
        matches=dict(matches),
        deltas=deltas,
        held_p50=_percentile(held, deltas, 50),
        held_p99=_percentile(held, deltas, 99),
    )


def _percentile(held: Mapping[int, int], deltas: int, percent: int) -> int:
    """Tell the smallest count that at least `percent` of the deltas do not exceed."""
    seen = 0
    for characters, count in sorted(held.items()):
        seen += count
        if seen * 100 >= deltas * percent:
            return characters
    return 0
