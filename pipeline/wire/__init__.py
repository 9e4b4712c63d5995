"""Wires: how the events of a turn become the bytes of its body.

A `Wire` has a `content_type`, `encode(event)` and `encode_many(events)`. `NDJSON` is
one line an event; `wire_named("ndjson")` finds a wire by the name `run.body` takes.
Reading back: `Lines` cuts chunks into lines, `decode` turns a line into its event.
"""

from __future__ import annotations

from typing import Final

from .contract import Wire
from .ndjson import NDJSON, Lines, decode, encode, encode_many, encode_slow

WIRES: Final[dict[str, Wire]] = {"ndjson": NDJSON}


def wire_named(name: str, /) -> Wire:
    """Find a wire by its name.

    Raises:
        ValueError: no wire has that name.
    """
    wire = WIRES.get(name)
    if wire is None:
        known = ", ".join(sorted(WIRES))
        raise ValueError(f"no wire is named {name!r}; there are: {known}")
    return wire


__all__ = [
    "NDJSON",
    "WIRES",
    "Lines",
    "Wire",
    "decode",
    "encode",
    "encode_many",
    "encode_slow",
    "wire_named",
]
