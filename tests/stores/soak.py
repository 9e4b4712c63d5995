"""Drive every store at random for long, each answer compared with the model.

python -m tests.stores.soak --steps 100000 [--store sqlite] [--seed 7]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time

from pipeline.testing.conformance import drive
from tests.faults.servers import serving

from . import places

STORES = ("memory", "sqlite", "postgres")
PIECE = 5_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--store", choices=STORES, action="append")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    for name in options.store or STORES:
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(serving(name)) if name == "postgres" else None
            for k, done in enumerate(range(0, options.steps, PIECE)):
                with tempfile.TemporaryDirectory() as folder:
                    if server is not None:
                        place = places.sql(server.fresh())
                    else:
                        place = getattr(places, name)(folder)
                    steps = min(PIECE, options.steps - done)
                    asyncio.run(_piece(place, steps, options.seed + k))
        took = time.monotonic() - began
        print(f"{name}: {options.steps} steps, no difference, {took:.0f} s", flush=True)


async def _piece(place, steps, seed):
    try:
        await drive(place, steps=steps, seed=seed)
    finally:
        await place.close()


if __name__ == "__main__":
    main()
