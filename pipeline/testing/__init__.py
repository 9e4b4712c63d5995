"""Prove a pipeline in a test: scripted sources, virtual time, every way to end.

    from pipeline.testing import assert_exit_matrix

    async def test_my_turn():
        await assert_exit_matrix(
            lambda source: Pipeline(source) | ops.lifecycle() | mine | ops.accumulate()
        )

* `assert_exit_matrix` (`check_exit_matrix` in a plain function): every row of the table
  of endings, and a cancel at every step
* `scripted`: a source that does what the test says; `record`, `replayed`: a real one
* `assert_chunking_invariant`: the same text, however it is cut
* `chaos`: operators that misbehave; `strategies`: hypothesis strategies of streams
* `run_virtual`, `VirtualLoop`, `loop_clock`: hours in no time; `no_leaks`
* fixtures for pytest: see `pytest_turnpipe`

Nothing is imported before it is used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import chaos, strategies
    from .chunking import assert_chunking_invariant
    from .clock import Deadlock, VirtualLoop, loop_clock, run_virtual
    from .exit_matrix import ExitMatrixError, assert_exit_matrix, check_exit_matrix
    from .laws import LAWS
    from .leaks import LeakError, no_leaks
    from .recording import record, replayed
    from .script import Scripted, scripted

__all__ = [
    "LAWS",
    "Deadlock",
    "ExitMatrixError",
    "LeakError",
    "Scripted",
    "VirtualLoop",
    "assert_chunking_invariant",
    "assert_exit_matrix",
    "chaos",
    "check_exit_matrix",
    "loop_clock",
    "no_leaks",
    "record",
    "replayed",
    "run_virtual",
    "scripted",
    "strategies",
]

_HOMES = {
    "LAWS": "laws",
    "Deadlock": "clock",
    "ExitMatrixError": "exit_matrix",
    "LeakError": "leaks",
    "Scripted": "script",
    "VirtualLoop": "clock",
    "assert_chunking_invariant": "chunking",
    "assert_exit_matrix": "exit_matrix",
    "chaos": "",
    "check_exit_matrix": "exit_matrix",
    "loop_clock": "clock",
    "no_leaks": "leaks",
    "record": "recording",
    "replayed": "recording",
    "run_virtual": "clock",
    "scripted": "script",
    "strategies": "",
}


def __getattr__(name: str) -> object:
    """Import what is asked for."""
    from importlib import import_module

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not home:
        return import_module(f".{name}", __name__)
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
