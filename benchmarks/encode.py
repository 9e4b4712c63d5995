"""The wire: our NDJSON, which is orjson, against json and msgspec.

Sizes are those of a whole line. `json` writes compact UTF-8, as the others do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from operators.event import delta, text_part
from pipeline.wire import encode, encode_many

from .measure import Case, Report, Settings, Table, main, measure

Event: TypeAlias = dict[str, Any]

SIZES = (60, 120, 500, 2_000, 10_000, 50_000)
BATCH = 16
BASE = "turnpipe"
_TEXTS = {"ascii": "the sea looks blue, ", "unicode": "das Meer, blau ☃ 海🌊, "}


def run(settings: Settings) -> Report:
    """Measure every size, singly and in batches."""
    single = Table("One event, one line: ns/event", ("event", *_rivals(), *_ratios()))
    batch = Table(
        f"{BATCH} events, one chunk: ns/event", ("event", *_rivals(), *_ratios())
    )
    for sort, text in _TEXTS.items():
        for size in SIZES:
            event = sized(size, text)
            row = f"{size:,} B, {sort}"
            single.rows.append((row, *_measured(_singly(event), settings, 1)))
            batch.rows.append((row, *_measured(_together(event), settings, BATCH)))
    return Report([single, batch])


def sized(size: int, text: str) -> Event:
    """Make a delta whose line has about `size` bytes."""
    if size < 100:  # the shortest there is: no room for a part with an id
        return {"type": "text", "data": {"delta": _cut(text, size - 38)}}
    return delta(text_part("t0"), _cut(text, size - 82))


def _cut(text: str, size: int) -> str:
    whole = text * (size // len(text.encode()) + 1)
    return whole.encode()[:size].decode(errors="ignore")


def _rivals() -> tuple[str, ...]:
    return (BASE, "msgspec", "json")


def _ratios() -> tuple[str, ...]:
    return tuple(f"{name} x" for name in _rivals()[1:])


def _singly(event: Event) -> dict[str, Case]:
    pack = msgspec.json.Encoder().encode
    dump = _dump()
    return {
        BASE: lambda: encode(event),
        "msgspec": lambda: pack(event) + b"\n",
        "json": lambda: dump(event).encode() + b"\n",
    }


def _together(event: Event) -> dict[str, Case]:
    events = [event] * BATCH
    pack = msgspec.json.Encoder().encode_lines
    dump = _dump()
    return {
        BASE: lambda: encode_many(events),
        "msgspec": lambda: pack(events),
        "json": lambda: ("\n".join(map(dump, events)) + "\n").encode(),
    }


def _dump() -> Callable[[Any], str]:
    return json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _measured(
    cases: dict[str, Case], settings: Settings, events: int
) -> tuple[float, ...]:
    found = measure(cases, settings)
    return (
        *[found.median(name) / events * 1e9 for name in cases],
        *[found.ratio(name, BASE) for name in cases if name != BASE],
    )


if __name__ == "__main__":
    sys.exit(main(run, __doc__))
