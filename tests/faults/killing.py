"""Kill workers at random, many times over, and look whether a promise was broken.

    python -m tests.faults.killing --store sqlite --kills 200

Each round starts a batch of turns on a few workers; as they run, one after another is
killed (SIGKILL, or stopped past its lease and woken) and another put in its place. Then
every turn is read and compared: with what it had to say, with every line that any
worker was ever shown, with every text that was stored.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from pathlib import Path

from .worker_process import execution_id, store_of, words

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 1.0
EVENTS = 60


class Cluster:
    """Some workers on one store."""

    def __init__(self, url, folder, turns, workers):
        self.url = url
        self.folder = Path(folder)
        self.turns = turns
        self.serial = 0
        self.workers = [self.spawn() for _ in range(workers)]
        self.takeovers = []

    def spawn(self):
        self.serial += 1
        command = [
            *(sys.executable, "-m", "tests.faults.worker_process"),
            *(self.url, str(self.folder), f"w{self.serial}"),
            *(str(LEASE_S), str(self.turns), str(EVENTS)),
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        process.worker = f"w{self.serial}:{process.pid}"
        return process

    def kill(self, victim):
        """Kill a worker, put another in its place; return the dead one's id."""
        self.workers.remove(victim)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.workers.append(self.spawn())
        return victim.worker

    async def busy(self, store):
        """Find a worker that has turns in mid-stream; None where none will have any.

        Not the first: a worker takes a while to be born, and who takes over must live.
        """
        while True:
            runs = await _asked(lambda: store.runs(limit=1000))
            owners = {run.owner for run in runs if run.lines and not run.closed}
            found = [one for one in self.workers[1:] if one.worker in owners]
            if found:
                return random.choice(found)
            if len(runs) == self.turns and all(run.closed for run in runs):
                return None
            await asyncio.sleep(0.01)

    def close(self):
        for process in self.workers:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.workers:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def round_of(url, *, turns, kills, workers=3, stop=False, disturb=None):
    """Run one round; return what it found out.

    Raises:
        AssertionError: a promise was broken; it names the seed.
    """
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(url, folder, turns, workers)
        store = store_of(url)
        try:
            await _begun(store, turns)
            done = 0
            while done < kills:
                await asyncio.sleep(random.uniform(0.02, 0.4))
                victim = await cluster.busy(store)
                if victim is None:
                    break
                done += 1
                if disturb is not None:
                    await disturb()
                elif stop:
                    victim.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(LEASE_S * 1.5)
                    victim.send_signal(signal.SIGCONT)
                else:
                    dead = cluster.kill(victim)
                    cluster.takeovers.append(
                        asyncio.create_task(_takeover(store, dead))
                    )
            assert done, "all turns ended before anybody was killed"
            await _ended(store, turns)
            takeovers = await asyncio.gather(*cluster.takeovers)
            await _checked(store, cluster.folder, turns)
        finally:
            cluster.close()
            for task in cluster.takeovers:
                task.cancel()
            await store.close()
        runs = (Path(folder) / "runs").read_text().count("\n")
        saves = (Path(folder) / "saved").read_text().count("\n")
        acks = (Path(folder) / "acks").read_text().count("\n")
        return {
            "turns": turns,
            "kills": done,
            "sources run": runs,
            "saves": saves,
            "lines shown": acks,
            "takeovers": [round(took, 2) for took in takeovers],
            "longest takeover": max(takeovers, default=0.0),
        }


async def _asked(ask, limit_s=30.0):
    """Ask a store that may be away for a while."""
    from operators.errors import StoreError

    gives_up = time.monotonic() + limit_s
    while True:
        try:
            return await ask()
        except StoreError:
            if time.monotonic() > gives_up:
                raise
            await asyncio.sleep(0.1)


async def _begun(store, turns):
    """Wait for the first turns, so that there is somebody to kill."""
    gives_up = time.monotonic() + 60
    while len(await _asked(store.runs)) < min(turns, 3):
        assert time.monotonic() < gives_up, "no worker began"
        await asyncio.sleep(0.05)


async def _takeover(store, dead):
    """Tell how long the turns of a dead worker were nobody's."""
    began = time.monotonic()
    while True:
        running = await _asked(lambda: store.runs(statuses=["running"], limit=1000))
        if not [run for run in running if run.owner == dead]:
            return time.monotonic() - began
        assert time.monotonic() - began < 60, f"nobody took over from {dead}"
        await asyncio.sleep(0.02)


async def _ended(store, turns):
    gives_up = time.monotonic() + 120
    while True:
        runs = await _asked(lambda: store.runs(limit=1000))
        if len(runs) == turns and all(run.closed for run in runs):
            return
        assert time.monotonic() < gives_up, [
            (run.id, run.status, run.lapsed_s, run.owner)
            for run in runs
            if not run.closed
        ]
        await asyncio.sleep(0.1)


async def _checked(store, folder, turns):
    from pipeline.durable.records import events_of

    shown = defaultdict(set)
    for line in (folder / "acks").read_text().splitlines():
        n, number, crc = map(int, line.split())
        shown[n, number].add(crc)
    stored = defaultdict(set)
    for line in (folder / "saved").read_text().splitlines():
        name, status, crc = line.split()
        stored[name].add((status, int(crc)))
    for n in range(turns):
        chunks, after = [], 0
        while True:
            page = await store.read(execution_id(n), after=after, limit_bytes=1_000)
            if not page.chunks:
                break
            for chunk in page.chunks:
                assert chunk.first == after + 1, f"a gap in turn {n} after {after}"
                after += chunk.count
            chunks.extend(page.chunks)
        assert page.closed
        assert after == page.lines
        events = events_of(chunks)
        kinds = [event["type"] for event in events]
        assert kinds[0] == "session.run.started", kinds
        assert kinds[1:-1] == ["message.part.updated"] * EVENTS, kinds
        assert kinds[-1] == "session.run.completed", kinds
        said = [event["data"]["delta"] for event in events[1:-1]]
        assert said == words(n, EVENTS), f"turn {n} says something else"
        crc = zlib.crc32("".join(said).encode())
        assert stored[execution_id(n)] == {("completed", crc)}, stored[execution_id(n)]
        data = b"".join(chunk.data for chunk in chunks).splitlines()
        for number, line in enumerate(data, 1):
            seen = shown.get((n, number), set())
            assert seen <= {zlib.crc32(line)}, f"line {number} of {n} was another"
        assert not [k for k in shown if k[0] == n and k[1] > len(data)], (
            "lines were lost"
        )


async def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--turns", type=int, default=40, help="in each round")
    parser.add_argument("--each", type=int, default=10, help="kills in each round")
    parser.add_argument("--stop", action="store_true", help="stop them instead")
    parser.add_argument("--server", action="store_true", help="kill the server instead")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}", flush=True)
    done = 0
    from .servers import serving

    with serving(options.store) as server:

        async def disturb():
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(random.uniform(0, 0.5))
            await asyncio.to_thread(server.start)
            await asyncio.sleep(random.uniform(0.5, 3))

        while done < options.kills:
            found = await round_of(
                server.fresh(),
                turns=options.turns,
                kills=options.each,
                stop=options.stop,
                disturb=disturb if options.server else None,
            )
            done += found["kills"]
            print(done, found, flush=True)
            if not (options.stop or options.server):
                assert found["longest takeover"] <= LEASE_S + 1.0, found


if __name__ == "__main__":
    asyncio.run(main())
