"""What a turn costs before it does anything: starting, idling, importing.

An idle turn has given one event and waits in the next read, in a task of its reader's,
who keeps no chunk (orjson's take 4 KB): tracemalloc counts all that it holds, the task
included; RSS is what the system gave. Imports are timed with their bytecode cached.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncGenerator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from .measure import Bar, Case, Report, Settings, Table, main, measure

TURNS = 1_000
IMPORTS = 7
LAZY = ("aiostream", "httpx", "opentelemetry", "typer", "rich", "sqlite3")
ROOT = Path(__file__).parent.parent
_STATM = Path("/proc/self/statm")

_IMPORT = """
import sys
from time import process_time
{statement}
took = process_time()
print(took, *[name for name in {lazy!r} if name in sys.modules])
"""


def run(settings: Settings) -> Report:
    """Measure all of it."""
    return _fixed(settings) + _idle() + _imports()


def _fixed(settings: Settings) -> Report:
    from . import seven

    source = seven.singly(seven.tokens(1))
    chat = seven.compose(source)
    by_hand = seven.by_hand(source)
    ours = seven.ours(source)

    async def read_by_hand() -> None:
        async for _ in by_hand():
            pass

    async def read_ours() -> None:
        async for _ in ours():
            pass

    cases: dict[str, Case] = {
        "a turn of 1 event, by hand": read_by_hand,
        "a turn of 1 event": read_ours,
        "start()": lambda: chat.start(seven.IDENTITY),
        "composing the pipeline": lambda: seven.compose(source),
    }
    found = measure(cases, settings)
    table = Table("Fixed costs", ("what", "us"))
    table.rows += [(name, found.median(name) * 1e6) for name in cases]
    return Report([table])


def _idle() -> Report:
    table = Table(f"An idle turn, of {TURNS:,}: KB", ("turn", "tracemalloc", "RSS"))
    figures = {
        who: (_child("--idle", who), _child("--idle-rss", who))
        for who in ("turnpipe", "by hand", "a task that waits")
    }
    table.rows += [(who, *held) for who, held in figures.items()]
    held = figures["turnpipe"][0]
    return Report([table], [Bar("idle turn", held, 8.0, 6.0, "KB")])


def _child(option: str, who: str) -> float:
    """Measure in a fresh process: what another left would count as room to reuse."""
    command = [sys.executable, "-m", "benchmarks.setup", option, who]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    return float(done.stdout)


def idle(who: str, *, rss: bool) -> float:
    """Tell the KB of one idle turn."""
    return asyncio.run(_held(who, rss=rss))


async def _held(who: str, *, rss: bool) -> float:
    from . import seven

    (event,) = seven.tokens(1)
    forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def produce() -> AsyncGenerator[dict[str, Any], None]:
        yield event
        await forever

    runs = {"turnpipe": seven.ours(produce), "by hand": seven.by_hand(produce)}
    turn = runs.get(who)

    async def read() -> None:
        if turn is None:
            await forever
            return
        async for chunk in turn():
            del chunk

    async def idling(count: int) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(read()) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)
        return tasks

    tasks = await idling(TURNS // 10)  # what is made once is not a turn's
    gc.collect()
    if not rss:
        tracemalloc.start()
    before = _pages() if rss else tracemalloc.get_traced_memory()[0]
    tasks += await idling(TURNS)
    gc.collect()
    after = _pages() if rss else tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return (after - before) / TURNS / 1024


def _pages() -> int:
    """Tell the resident bytes, where the system says so; else 0."""
    if not _STATM.exists():
        return 0
    return int(_STATM.read_text(encoding="ascii").split()[1]) * 4096


def _imports() -> Report:
    with TemporaryDirectory() as cache:
        return _imported({**os.environ, "PYTHONPYCACHEPREFIX": cache})


def _imported(env: dict[str, str]) -> Report:
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    took, _ = _import("pass", env)
    table = Table("A fresh process, CPU ms", ("statement", "whole", "of it, importing"))
    table.rows.append(("(none)", took, None))
    bars: list[Bar] = []
    for statement in ("import operators", "import pipeline"):
        whole, loaded = _import(statement, env)
        table.rows.append((statement, whole, whole - took))
        if statement == "import pipeline":
            bars = [
                Bar("import pipeline, CPU", whole, 100.0, 60.0, "ms"),
                Bar("heavy modules imported with it", len(loaded), 0, 0, ""),
            ]
            table.rows += [
                (f"imports {name}: it shall not", None, None) for name in loaded
            ]
    return Report([table], bars)


def _import(statement: str, env: dict[str, str]) -> tuple[float, list[str]]:
    """Tell the CPU ms of a process from its start on, and what it must not load."""
    code = _IMPORT.format(statement=statement, lazy=LAZY)
    command = [sys.executable, "-c", code]
    outputs: list[list[str]] = []
    for _ in range(IMPORTS + 1):  # the first one writes what Python compiles
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, check=True, text=True
        )
        outputs.append(done.stdout.split())
    return median([float(one[0]) for one in outputs[1:]]) * 1e3, outputs[-1][1:]


if __name__ == "__main__":
    if sys.argv[1:2] in (["--idle"], ["--idle-rss"]):
        print(idle(sys.argv[2], rss=sys.argv[1] == "--idle-rss"))
        sys.exit()
    sys.exit(main(run, __doc__))
