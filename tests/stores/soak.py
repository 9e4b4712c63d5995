"""Drive every store at random for long, each answer compared with the model.

python -m tests.stores.soak --steps 100000 [--store sqlite] [--seed 7]

Then workers at once, a part of their calls cancelled, for a tenth of the steps. A piece
that fails names its own seed: --seed THAT --steps 5000 --store NAME makes it again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time

from pipeline.testing.conformance import drive, storm
from tests.faults.servers import serving

from . import places, valkey_server

STORES = ("memory", "sqlite", "postgres", "sqlite+valkey", "postgres+valkey")
PIECE = 5_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--store", choices=STORES, action="append")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    for name in options.store or STORES:
        with opening(name) as fresh:
            began = time.monotonic()
            for k, done in enumerate(range(0, options.steps, PIECE)):
                steps = min(PIECE, options.steps - done)
                seed = options.seed + k
                piece(fresh, name, drive, steps=steps, seed=seed)
                piece(fresh, name, storm, calls=steps // 10, seed=seed, cancels=0.1)
            took = time.monotonic() - began
        print(
            f"{name}: {options.steps} steps, no difference; {options.steps // 10} calls "
            f"at once, no rule broken; {took:.0f} s",
            flush=True,
        )


@contextlib.contextmanager
def opening(name):
    """Give what makes a fresh place of this kind, each time."""
    base, _, log = name.partition("+")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if base == "memory":
            yield lambda: places.memory(folder)
            return
        server = stack.enter_context(serving(base))
        if not log:
            yield lambda: places.sql(server.fresh())
            return
        valkey = stack.enter_context(valkey_server.serving())
        yield lambda: places.beside(
            server.fresh(), valkey, valkey_server.fresh_prefix(), archive_every=0.05
        )


def piece(fresh, name, work, *, seed, **size):
    place = fresh()

    async def run():
        try:
            await work(place, seed=seed, **size)
        finally:
            await place.close()

    try:
        asyncio.run(run())
    except BaseException:
        steps = size.get("steps", PIECE)
        print(f"again: --store {name} --seed {seed} --steps {steps}", flush=True)
        raise


if __name__ == "__main__":
    main()
