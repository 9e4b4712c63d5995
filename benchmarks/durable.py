"""Durable turns: what a hub adds to an event, and how stores take lines.

The turn is the seven-stage one, 16 events a read. "Added" is the process's CPU time,
its threads' too, beyond that of the same turn read directly. Latency is stamped at the
moment when an event was due, not when its source got to it. PostgreSQL is measured where
its wheel (`pgserver`) is installed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import shuffle
from typing import TYPE_CHECKING, Any

from operators.event import delta, text_part
from operators.turn import TurnIdentity
from pipeline.durable import TurnHub
from pipeline.stores import Lines, MemoryStore, NewRun, SqlStore

from . import seven
from .measure import Bar, Report, Settings, Table, main

if TYPE_CHECKING:
    from pipeline.pipeline import Pipeline
    from pipeline.stores import Store

EVENTS = 8_000
READ = 16
PART = b'{"type":"text","id":"t0"}'
LINE = b'{"type":"message.part.updated","data":{"part":%b,"delta":"sea "}}\n' % PART
TURNS = 100
PER_SECOND = 50
SECONDS = 3.0


def run(settings: Settings) -> Report:
    """Measure every store that is here."""
    warnings.simplefilter("ignore")  # a server's wheel about its folders
    report = Report()
    with stores() as made:
        rounds = max(3, settings.rounds // 20)
        report += asyncio.run(_added(made, rounds))
        report += asyncio.run(_appends(made, rounds))
        report += asyncio.run(_latency(made))
    return report


@contextmanager
def stores() -> Iterator[dict[str, Callable[[], Store]]]:
    """Name the stores; each call makes one on fresh data."""
    with tempfile.TemporaryDirectory(prefix="turnpipe-") as folder:
        made = 0

        def sqlite() -> Store:
            nonlocal made
            made += 1
            return SqlStore(f"sqlite:///{folder}/{made}.db")

        found: dict[str, Callable[[], Store]] = {
            "memory": MemoryStore,
            "SQLite": sqlite,
        }
        server: Any = None
        if importlib.util.find_spec("pgserver") is not None:
            import pgserver

            os.chmod(folder, 0o755)  # its server runs as a user of its own
            place = Path(folder, "postgres")
            place.mkdir()
            server = pgserver.get_server(place, cleanup_mode=None)
            where = server.get_uri().partition("host=")[2]

            def postgres() -> Store:
                nonlocal made
                made += 1
                server.psql(f"CREATE DATABASE turns_{made}")
                return SqlStore(f"postgresql://postgres@/turns_{made}?host={where}")

            found["PostgreSQL"] = postgres
        try:
            yield found
        finally:
            if server is not None:
                os.kill(server.get_pid(), signal.SIGQUIT)
                time.sleep(0.5)


class Counted:
    """A store whose groups are counted."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.groups = 0

    def __getattr__(self, name: str) -> Any:
        if name in {"append", "settle"}:
            self.groups += 1
        return getattr(self.store, name)


async def _added(made: dict[str, Callable[[], Store]], rounds: int) -> Report:
    reads = seven.in_reads(seven.tokens(EVENTS), READ)
    chat = seven.compose(reads)
    plain: list[float] = []
    added: dict[str, list[float]] = {name: [] for name in made}
    groups: dict[str, int] = {}
    for k in range(rounds + 1):
        order = list(made)
        shuffle(order)
        alone = await _directly(chat)
        for name in order:
            store = Counted(made[name]())
            took = await _through(chat, store)
            if k:  # the first is for what is compiled and imported
                plain.append(alone)
                added[name].append((took - alone) / EVENTS)
                groups[name] = store.groups
    title = f"What a hub adds to a turn of {EVENTS:,} events, {READ} a read"
    table = Table(title, ("store", "us/event", "events a transaction"))
    for name, found in added.items():
        middle = statistics.median(found) * 1e6
        table.rows.append((name, middle, EVENTS / groups[name]))
    low, _, high = statistics.quantiles([one * 1e6 for one in added["SQLite"]], n=4)
    bar = Bar(
        "hub with SQLite, CPU added an event",
        statistics.median(added["SQLite"]) * 1e6,
        15.0,
        10.0,
        "us",
        (low, high),
    )
    return Report([table], [bar])


async def _directly(chat: Pipeline) -> float:
    began = time.process_time()
    async for _ in chat.start(seven.IDENTITY).body():
        pass
    return time.process_time() - began


async def _through(chat: Pipeline, store: Any) -> float:
    await store.orphans()  # opens it
    async with TurnHub(store) as hub:
        began = time.process_time()
        turn = await hub.start(chat, seven.IDENTITY)
        async for _ in turn.body():
            pass
        await turn.outcome()
        return time.process_time() - began


async def _appends(made: dict[str, Callable[[], Store]], rounds: int) -> Report:
    sizes = (1, 10, 50, 200)
    table = Table(
        f"Lines appended a second, {READ} a turn in each transaction",
        ("store", *[f"{size} turns" for size in sizes], "one line alone"),
    )
    for name, make in made.items():
        store = make()
        await store.orphans()
        took = [
            await _append(store, f"{name} {size}", size, READ, rounds) for size in sizes
        ]
        lone = await _append(store, f"{name} lone", 1, 1, rounds)
        table.rows.append((name, *took, lone))
        await store.close()
    return Report([table])


async def _append(
    store: Store, prefix: str, turns: int, count: int, rounds: int
) -> float:
    fences = {}
    for k in range(turns):
        new = NewRun(id=f"{prefix} {k}", manifest_hash="h")
        fences[new.id] = (await store.claim(new, worker="w", lease=600)).fence
    groups = max(3 * rounds, 600 // turns)
    first = 1
    began = time.perf_counter()
    for _ in range(groups):
        batch = [
            Lines(i, fence, first, count, LINE * count) for i, fence in fences.items()
        ]
        await store.append(batch)
        first += count
    return groups * turns * count / (time.perf_counter() - began)


async def _latency(made: dict[str, Callable[[], Store]]) -> Report:
    table = Table(
        f"From due to read: {TURNS} turns at {PER_SECOND} events/s, ms",
        ("store", "p50", "p99", "worst", "late source p50", "CPU us/event"),
    )
    bars: list[Bar] = []
    for name, make in made.items():
        seen, source = await _paced(make())
        cpu = seen.pop()
        cuts = statistics.quantiles(seen, n=100)
        late = statistics.median(source)
        table.rows.append((name, cuts[49], cuts[98], max(seen), late, cpu))
        if name == "SQLite":
            added = cuts[49] - late
            bars.append(
                Bar(f"{TURNS} turns, p50 added latency", added, 10.0, 5.0, "ms")
            )
    return Report([table], bars)


async def _paced(store: Store) -> tuple[list[float], list[float]]:
    """Run turns whose events are due at fixed times; return how late each was, in ms."""
    loop = asyncio.get_running_loop()
    count = int(SECONDS * PER_SECOND)
    seen: list[float] = []
    source_late: list[float] = []

    def due(turn: int, k: int) -> float:
        return start + (k + turn / TURNS) / PER_SECOND

    async def produce(turn: Any) -> AsyncIterator[dict[str, Any]]:
        n = turn.request["n"]
        part = text_part("t0")
        for k in range(count):
            await asyncio.sleep(max(0.0, due(n, k) - loop.time()))
            source_late.append((loop.time() - due(n, k)) * 1e3)
            yield delta(part, "sea ")

    chat = seven.compose(produce)
    await store.orphans()
    async with TurnHub(store) as hub:
        start = loop.time() + 1.0

        async def read(n: int) -> None:
            identity = TurnIdentity(session_id=f"s-{n}", turn_index=0)
            turn = await hub.start(chat, identity, {"n": n})
            k = -1  # the first is the envelope's
            async for chunk in turn.body():
                now = loop.time()
                for _ in range(chunk.count(b"\n")):
                    if 0 <= k < count:
                        seen.append((now - due(n, k)) * 1e3)
                    k += 1

        began = time.process_time()
        await asyncio.gather(*[read(n) for n in range(TURNS)])
        cpu = (time.process_time() - began) / (TURNS * count) * 1e6
    return [*seen, cpu], source_late


if __name__ == "__main__":
    sys.exit(main(run, __doc__))
