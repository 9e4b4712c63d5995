"""A process that reads a supervised run into a file, and may be killed at any time.

    python -m tests.sources.sandbox_worker URL FILE

The file has a line for each handle and each event, in the order in which a store would
have them: it is all that the next process knows.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import aclosing
from io import FileIO
from pathlib import Path
from typing import Any

from operators.turn import TurnContext, TurnIdentity
from pipeline.sources.sandbox_prompt import sandbox_prompt


def stored(file: Path) -> tuple[Any, list[tuple[str, Any]]]:
    """Read the last handle, and the events that are there; half a line is not."""
    handle: Any = None
    events: list[tuple[str, Any]] = []
    lines = file.read_bytes().split(b"\n") if file.exists() else [b""]
    for line in lines[:-1]:
        row = json.loads(line)
        if "handle" in row:
            handle = row["handle"]
        elif row["id"] not in [one for one, _ in events]:
            events.append((row["id"], row["payload"]))
    return handle, events


def log_of(file: Path) -> FileIO:
    """Open the file to append to it; what was torn is taken off."""
    log = FileIO(file, "a+")
    log.truncate(file.read_bytes().rfind(b"\n") + 1)
    return log


async def main(url: str, file: Path) -> None:
    """Begin the run, or go on with it, until it has ended."""
    identity = TurnIdentity(session_id="s", turn_index=0)
    turn = TurnContext(identity, request="hi", execution_id="p:s:0")
    adapter = sandbox_prompt(url, backoff=0.01).adapter(turn)
    handle, events = stored(file)
    if handle is None:
        stream = adapter.start()
    else:
        stream = adapter.attach(handle, events[-1][0] if events else None)
    with log_of(file) as log:
        async with aclosing(stream) as supervised:
            async for event in supervised:
                if event.handle is not None:
                    log.write(json.dumps({"handle": event.handle}).encode() + b"\n")
                row = {"id": event.event_id, "payload": event.payload}
                log.write(json.dumps(row).encode() + b"\n")
                os.fsync(log.fileno())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
