"""Run every benchmark, and set out the bars: what `make bench` runs.

Each in a process of its own: the interpreter specialises the code of one for what it
has seen, which is not what the next one measures.
"""

from __future__ import annotations

import multiprocessing
import sys

from .measure import Report, Settings, alone, main

NAMES = ("encode", "stage", "turn", "setup", "redact", "durable")
SHORTER = {"encode": 5, "stage": 3, "redact": 5}
"""How much shorter those are that promise nothing, and have many cases."""


def run(settings: Settings) -> Report:
    """Measure everything, one benchmark after the other."""
    spawn = multiprocessing.get_context("spawn")
    whole = Report()
    with spawn.Pool(1, maxtasksperchild=1) as pool:
        for name in NAMES:
            rounds = max(5, settings.rounds // SHORTER.get(name, 1))
            whole += pool.apply(alone, (name, Settings(rounds, settings.stretch_s)))
    return whole


if __name__ == "__main__":
    sys.exit(main(run, __doc__))
