"""`record` and `replayed`: a turn's stream into a file, read by read with its times."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from operators.deadline import is_seconds
from operators.errors import SourceError, SourceIncomplete, SourceProtocol
from operators.operator import Operator, Stage

from ..sources.recorded import recorded
from .clock import loop_clock

if TYPE_CHECKING:
    from operators.turn import TurnContext

    from ..sources.source import Source


def record(path: str | PathLike[str]) -> Operator:
    """Write what passes to a file, for `replayed`: each read, and when it came.

    A line is `{"t_ms": 30.8, "read": [...]}`, ms from the first pull; a single event
    is a dict instead of a list. The last line is `{"t_ms": ..., "end": "drained"}`, or
    `"cut"` where the stream was not read to its end. A turn overwrites the recording
    of the one before.

    Order: right after the source, whose reads it keeps together. A boundary: not fused.
    """
    file = Path(path)

    def open_(turn: TurnContext) -> Stage:
        def through(source: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
            return _written(source, file)

        return Stage(through=through, lists=True)

    return Operator("record", open_, detail={"kind": "record", "path": str(file)})


async def _written(source: AsyncIterable[Any], file: Path) -> AsyncGenerator[Any, None]:
    began = loop_clock()
    end = "cut"
    lines = await asyncio.to_thread(file.open, "w", encoding="utf-8")
    try:
        async for read in source:
            _write(lines, began, "read", read)
            yield read
        end = "drained"
    finally:
        _write(lines, began, "end", end)
        lines.close()
        close: Any = getattr(source, "aclose", None)
        if close is not None:
            await close()


def _write(lines: IO[str], began: float, key: str, value: object) -> None:
    at = round((loop_clock() - began) * 1000, 3)
    lines.write(json.dumps({"t_ms": at, key: value}, separators=(",", ":")) + "\n")


def replayed(path: str | PathLike[str], *, speed: float | None = None) -> Source:
    """Replay what `record` wrote, once per turn; or any recording that `recorded` reads.

    `speed` 1.0 waits as the recording says, 2.0 half as long, None not at all; times
    are the loop's, so a `VirtualLoop` takes none for them.

    Raises: SourceIncomplete: the recorded stream was cut. SourceProtocol: a line is not
        one of a recording. SourceError: there is no such file (`source.recording`).
        ValueError, at once: `speed` is not a positive number.
    """
    if speed is not None and not is_seconds(speed):
        raise ValueError(
            f"speed={speed!r}: give a positive number, or None for no wait"
        )
    file = Path(path)
    other = recorded(file, speed=speed)

    async def replayed(turn: TurnContext) -> AsyncGenerator[Any, None]:
        lines = await asyncio.to_thread(_lines, file)
        if not _is_ours(lines):
            stream: Any = other(turn)
            try:
                async for read in stream:
                    yield read
            finally:
                await stream.aclose()
            return
        began = loop_clock()
        for number, line in enumerate(lines, 1):
            at, read = _decoded(line, number, file)
            if speed is not None:
                left = began + at / 1000 / speed - loop_clock()
                if left > 0:
                    await asyncio.sleep(left)
            if read is None:
                return
            yield read
        raise SourceIncomplete(f"the recording {file.name} has no last line")

    return replayed


def _lines(file: Path) -> list[str]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SourceError(
            f"the recording {file} cannot be read: {error.strerror}",
            code="source.recording",
        ) from error
    text = data.decode("utf-8", "surrogatepass")
    return [line for line in text.split("\n") if line.strip()]


def _is_ours(lines: list[str]) -> bool:
    try:
        first: Any = json.loads(lines[0])
    except (ValueError, IndexError):
        return False
    return (
        isinstance(first, dict)
        and "t_ms" in first
        and not {"read", "end"}.isdisjoint(cast("dict[str, Any]", first))
    )


def _decoded(line: str, number: int, file: Path) -> tuple[float, Any]:
    """Decode one line: its ms, and the read; None at the end.

    Raises:
        SourceIncomplete: the stream that was recorded was cut here.
        SourceProtocol: it is not a line of a recording.
    """
    try:
        known: Any = json.loads(line)
        at = float(known["t_ms"])
        end = known.get("end")
        read = known["read"] if end is None else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceProtocol(
            f"line {number} of {file.name} is not one of a recording: it needs `t_ms` "
            f"and `read`"
        ) from error
    if end not in (None, "drained"):
        raise SourceIncomplete(f"the recording {file.name} is of a stream that was cut")
    return at, read
