"""`recorded`: a turn's stream out of a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from itertools import groupby
from os import PathLike
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from operators import event as ev
from operators.deadline import is_seconds
from operators.errors import SourceError, SourceIncomplete, SourceProtocol

from .chat_chunks import ChatAssembler
from .chat_stream import ChatStream
from .decoding import decode_object, excerpt
from .refusal import error_from_body
from .source import Source

if TYPE_CHECKING:
    from operators.event import Event
    from operators.turn import TurnContext

Read: TypeAlias = "tuple[float, bytes]"
"""The bytes of one read, and the seconds from the request to it."""


def recorded(path: str | PathLike[str], *, speed: float | None = None) -> Source:
    """Replay a recording, once per turn; what it is, is seen from what it holds.

    * the server-sent events of a chat completion (`*.sse`), one record a read;
    * lines of `{"t_ms": 30.8, "line": "data: ..."}` (`*.timed.jsonl`): the same with
      the ms from the request to each line; lines of one time came in one read;
    * events, one a line (`*.ndjson`, `*.jsonl`), as `turnpipe run` prints them.

    `speed` 1.0 waits as the recording says, 2.0 half as long, None not at all; a
    recording without times never waits. A slow reader does not delay what comes later.

    Emits: as `openai_chat`; the events of an event recording as they are.
    Raises: SourceIncomplete: the recording is cut: no finish reason or `[DONE]`; half a
        line; `session.run.started` without its end.
        SourceStatus: an error's body was recorded instead of a stream.
        SourceProtocol: it is none of the three.
        SourceError: there is no such file (code `source.recording`).
        ValueError, at once: `speed` is not a positive number.
    """
    if speed is not None and not is_seconds(speed):
        raise ValueError(
            f"speed={speed!r}: give a positive number, or None for no wait"
        )
    file = Path(path)

    async def recorded(turn: TurnContext) -> AsyncGenerator[list[Event], None]:
        data = await asyncio.to_thread(_load, file)
        began = monotonic()
        for at, events in _replay(data, file.name):
            if speed is not None:
                await _until(began + at / speed)
            yield events

    return recorded


async def _until(at: float) -> None:
    left = at - monotonic()
    if left > 0:
        await asyncio.sleep(left)


def _load(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SourceError(
            f"the recording {file} cannot be read: {error.strerror}",
            code="source.recording",
        ) from error


def _replay(data: bytes, name: str) -> Iterator[tuple[float, list[Event]]]:
    """Tell which kind of recording it is, and replay it."""
    if not data.strip():
        raise SourceIncomplete(f"the recording {name} is empty")
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _chat(((0.0, record) for record in _records(data)), name)
    lines = _lines(data, name)
    first = next(lines)
    again = _lines(data, name)
    if "t_ms" in first and "line" in first:
        return _chat(_timed(again, name), name)
    if "error" in first and "type" not in first:
        raise error_from_body(
            first, data, status=_status(first), where=f"{name} holds an error"
        )
    return _events(again, name)


def _records(data: bytes) -> Iterator[bytes]:
    """Cut the bytes after each empty line, so that each read has one record."""
    end = b"\r\n\r\n" if b"\r\n" in data else b"\r\r" if b"\n" not in data else b"\n\n"
    begin = 0
    while begin < len(data):
        found = data.find(end, begin)
        stop = len(data) if found < 0 else found + len(end)
        yield data[begin:stop]
        begin = stop


def _timed(lines: Iterator[dict[str, Any]], name: str) -> Iterator[Read]:
    """Make the reads of a timed recording: the lines of one moment came in one."""
    rows: list[tuple[float, str]] = []
    for number, line in enumerate(lines, 1):
        at: Any = line.get("t_ms")
        text: Any = line.get("line")
        if not isinstance(at, (int, float)) or not isinstance(text, str):
            raise SourceProtocol(
                f"line {number} of {name} is not a timed line: it needs a number "
                f"`t_ms` and a text `line`"
            )
        rows.append((at / 1000, text))
    # recorders that pass over empty lines leave one record a line
    end = "\n" if any(not text for _, text in rows) else "\n\n"
    for at, group in groupby(rows, key=lambda row: row[0]):
        yield (
            at,
            "".join([text + end for _, text in group]).encode("utf-8", "surrogatepass"),
        )


def _chat(reads: Iterator[Read], name: str) -> Iterator[tuple[float, list[Event]]]:
    stream = ChatStream(ChatAssembler(), where=f"the recording {name}")
    at = 0.0
    events: list[Event] = []
    for at, chunk in reads:
        events = stream.feed(chunk)
        if stream.done or stream.failure is not None:
            break
        if events:
            yield at, events
            events = []
    if stream.failure is not None and events:
        yield at, events
        events = []
    yield at, events + stream.finish(latency_ms=round(at * 1000) if at else None)


def _events(
    lines: Iterator[dict[str, Any]], name: str
) -> Iterator[tuple[float, list[Event]]]:
    started = ended = False
    for number, event in enumerate(lines, 1):
        kind: Any = event.get("type")
        if not isinstance(kind, str):
            raise SourceProtocol(
                f"line {number} of {name} is not an event, it has no `type`: "
                f"{excerpt(json.dumps(event))}"
            )
        started = started or kind == ev.RUN_STARTED
        ended = ended or kind in ev.TERMINALS
        yield 0.0, [event]
    if started and not ended:
        raise SourceIncomplete(
            f"the recording {name} is cut: the turn in it has started, but not ended"
        )


def _lines(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """Decode the lines, empty ones passed over; integers of any size stay exact."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield decode_object(line, f"line {number} of {name}", exact=True)
        except SourceProtocol as error:
            if number < len(lines) or number == 1:
                raise
            raise SourceIncomplete(
                f"the recording {name} is cut in the middle of line {number}"
            ) from error


def _status(body: dict[str, Any]) -> int:
    """Guess the HTTP status that a recorded error came with: servers repeat it."""
    error: Any = body["error"]
    code: Any = (
        cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else 0
    )
    return code if type(code) is int and 400 <= code < 600 else 200
