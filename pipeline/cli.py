"""The command `turnpipe`: run a turn, draw a pipeline, explain its plan."""

from __future__ import annotations

import importlib.util
import sys

_NEEDED = ("typer", "rich")


def main() -> None:
    """Run the command line.

    Exits with 0 when the turn completed, 1 when it failed, 2 for wrong usage, 130 when
    it was cancelled.
    """
    missing = [name for name in _NEEDED if not importlib.util.find_spec(name)]
    if missing:
        print(
            f"turnpipe: the command needs {' and '.join(missing)}: "
            "pip install 'turnpipe[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(1)
    from .cli_app import app

    app(prog_name="turnpipe")
