"""A worker that is made to be killed: runs turns, takes over others', reads them.

    python -m tests.faults.worker_process URL FOLDER NAME LEASE TURNS EVENTS

What it was shown of a turn it writes to `FOLDER/acks` before it reads on, what it
stored to `FOLDER/saved`: unbuffered appends, so a kill loses none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import zlib
from pathlib import Path

import operators as ops
from operators.errors import DurableError
from pipeline import Pipeline, TurnIdentity
from pipeline.durable import TurnHub

PACE_S = 0.04
"""The most between two events."""

START_S = 0.2
"""The most between two turns that a worker starts."""


def store_of(url):
    from pipeline.stores import SqlStore

    url, _, log = url.partition("|")
    if not log:
        return SqlStore(url)
    from pipeline.stores import RedisLog

    return SqlStore(url, log=RedisLog(log))


def words(n, count):
    """Say what turn `n` says, always the same."""
    draw = random.Random(n)
    return [f"{draw.randrange(10_000)} " for _ in range(count)]


def identity(n):
    return TurnIdentity(session_id=f"session-{n}", turn_index=0)


def execution_id(n):
    return f"turn:{n}"


def note(path, line):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode() + b"\n")
    finally:
        os.close(file)


def chat_of(folder, count):
    async def produce(turn):
        n = turn.request["n"]
        note(folder / "runs", f"{n} {os.getpid()}")
        part = ops.event.text_part("t")
        for word in words(n, count):
            await asyncio.sleep(random.uniform(0, PACE_S))
            yield ops.event.delta(part, word)

    async def save(record):
        crc = zlib.crc32(record.text.encode())
        note(folder / "saved", f"{record.execution_id} {record.status} {crc}")
        await asyncio.sleep(random.uniform(0, 0.01))

    return (
        Pipeline(produce)
        | ops.lifecycle()
        | ops.accumulate()
        | ops.persist(save, partial=True)
    )


async def work(url, folder, name, *, lease, turns, count):
    chat = chat_of(folder, count)
    hub = TurnHub(store_of(url), worker_id=f"{name}:{os.getpid()}", lease=lease)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)

    async def starting():
        order = list(range(turns))
        random.shuffle(order)
        for n in order:
            with contextlib.suppress(DurableError):
                await hub.start(
                    chat, identity(n), {"n": n}, execution_id=execution_id(n)
                )
            await asyncio.sleep(random.uniform(0, START_S))

    async def recovering():
        while True:
            with contextlib.suppress(DurableError):
                await hub.recover({"produce": chat})
            await asyncio.sleep(0.1)

    async def reading():
        while True:
            n = random.randrange(turns)
            line = random.randrange(count + 2)
            with contextlib.suppress(DurableError):
                async for chunk in hub.attach(execution_id(n)).body(after=line):
                    shown = []
                    for data in chunk.splitlines():
                        line += 1
                        shown.append(f"{n} {line} {zlib.crc32(data)}")
                    note(folder / "acks", "\n".join(shown))
            await asyncio.sleep(0.01)

    async with hub:
        tasks = [
            asyncio.create_task(one())
            for one in (*(() if name == "w1" else (starting,)), recovering, reading)
        ]
        await stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def main():
    logging.disable(logging.CRITICAL)
    url, folder, name, lease, turns, count = sys.argv[1:]
    sizes = {"lease": float(lease), "turns": int(turns), "count": int(count)}
    asyncio.run(work(url, Path(folder), name, **sizes))


if __name__ == "__main__":
    main()
