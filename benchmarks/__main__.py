"""Run every benchmark, and set out the bars: what `make bench` runs."""

from __future__ import annotations

import sys

from . import encode, setup, stage, turn
from .measure import Report, Settings, main


def run(settings: Settings) -> Report:
    """Measure everything; the shortest of what is promised comes last."""
    return (
        encode.run(Settings(settings.rounds // 5, settings.stretch_s))
        + stage.run(Settings(settings.rounds // 3, settings.stretch_s))
        + turn.run(settings)
        + setup.run(settings)
    )


if __name__ == "__main__":
    sys.exit(main(run, __doc__))
