"""A seven-stage turn: the pipeline against the same work by other means.

The baseline is `hand.py`, one async generator with everything in its loop, that yields
every event singly. The save hook is async, the tap, the transform and the flush sync.
One more stage is measured as eight more, and divided.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import AsyncGenerator, Callable

from . import seven
from .measure import (
    Bar,
    Case,
    Measured,
    Report,
    Settings,
    Table,
    by_version,
    main,
    measure,
)
from .seven import Event, Run

TOKENS = 200
READ = 16
MORE = 8


def run(settings: Settings) -> Report:
    """Measure all of it."""
    return _whole(settings) + _short(settings) + _one_more(settings)


def reading(turn: Run) -> Case:
    """Read turns to their end."""

    async def read() -> None:
        async for _ in turn():
            pass

    return read


def _whole(settings: Settings) -> Report:
    events = seven.tokens(TOKENS)
    source = seven.singly(events)
    reads = seven.in_reads(events, READ)
    cases = {
        "by hand": seven.by_hand(source),
        "turnpipe": seven.ours(source),
        f"turnpipe, {READ} a read": seven.ours(reads),
        f"by hand, {READ} a read": seven.by_hand_of_lists(reads),
    }
    found = measure({name: reading(case) for name, case in cases.items()}, settings)
    # Not among those above: what takes ten times as long leaves them cold caches.
    others = {
        "by hand": seven.by_hand(source),
        "five async generators": seven.stacked(source),
        "aiostream, streamcontext": seven.by_aiostream(source),
        "aiostream, map and action": seven.by_map(source),
    }
    slower = measure({name: reading(case) for name, case in others.items()}, settings)
    title = f"A turn of seven stages and {TOKENS} tokens"
    return Report(
        [
            _table(title, found, TOKENS),
            _table("The same, not fused", slower, TOKENS),
        ],
        [
            _bar(
                "seven-stage turn, events singly",
                found,
                "turnpipe",
                by_version(1.35, 1.3),
                1.15,
            ),
            _bar(
                f"the same, {READ} events a read",
                found,
                f"turnpipe, {READ} a read",
                by_version(0.95, 0.75),
                by_version(0.75, 0.55),
            ),
        ],
    )


def _short(settings: Settings) -> Report:
    source = seven.singly(seven.tokens(5))
    cases = {"by hand": seven.by_hand(source), "turnpipe": seven.ours(source)}
    found = measure({name: reading(case) for name, case in cases.items()}, settings)
    bar = _bar(
        "turn of 5 events",
        found,
        "turnpipe",
        by_version(4.5, 3.0),
        by_version(3.5, 2.2),
    )
    return Report([_table("A turn of 5 tokens: the fixed cost", found, 5)], [bar])


def _one_more(settings: Settings) -> Report:
    source = seven.singly(seven.tokens(TOKENS))
    cases = {
        "turnpipe": seven.ours(source),
        "turnpipe, more": seven.ours(source, MORE),
        "by hand": seven.by_hand(source),
        "by hand, more": seven.by_hand(_wrapped(source)),
    }
    found = measure({name: reading(case) for name, case in cases.items()}, settings)
    seconds = found.seconds
    rounds = [
        (a - b) / (c - d)
        for a, b, c, d in zip(
            seconds["turnpipe, more"],
            seconds["turnpipe"],
            seconds["by hand, more"],
            seconds["by hand"],
            strict=True,
        )
    ]
    tap = found.added("turnpipe, more", "turnpipe") / MORE / TOKENS * 1e9
    stage = found.added("by hand, more", "by hand") / MORE / TOKENS * 1e9
    low, _, high = statistics.quantiles(rounds, n=4)
    table = Table("One more stage that does nothing", ("stage", "ns/event", "ratio"))
    table.rows += [
        ("an async generator", stage, 1.0),
        ("a sync tap, fused", tap, tap / stage),
    ]
    bar = Bar(
        "one more sync tap / async generator",
        statistics.median(rounds),
        0.45,
        0.25,
        spread=(low, high),
    )
    return Report([table], [bar])


def _wrapped(
    source: Callable[[], AsyncGenerator[Event, None]],
) -> Callable[[], AsyncGenerator[Event, None]]:
    def produce() -> AsyncGenerator[Event, None]:
        events = source()
        for _ in range(MORE):
            events = seven.one_more(events)
        return events

    return produce


def _table(title: str, found: Measured, events: int) -> Table:
    table = Table(title, ("turn", "us/turn", "ns/event", "ratio", "quartiles"))
    for name in found.seconds:
        took = found.median(name)
        low, high = found.spread(name, "by hand")
        table.rows.append(
            (
                name,
                took * 1e6,
                took / events * 1e9,
                found.ratio(name, "by hand"),
                f"{low:.2f}-{high:.2f}",
            )
        )
    return table


def _bar(name: str, found: Measured, case: str, limit: float, stretch: float) -> Bar:
    ratio = found.ratio(case, "by hand")
    spread = found.spread(case, "by hand")
    return Bar(name, ratio, limit, stretch, "x hand", spread)


if __name__ == "__main__":
    sys.exit(main(run, __doc__))
