"""Stores: where turns and runs are kept.

* `MemoryStore()`: in this process, gone with it
* `SqlStore("sqlite:///turns.db")`: one file, embedded (extra `sql`)
* `SqlStore("postgresql://...")`: the same across machines (extra `postgres`)
* `SqlStore(url, log=RedisLog("redis://..."))`: the lines of turns that run go through
  Redis or Valkey (extra `redis`)

`contract` says what each of them promises; `pipeline.testing.conformance` proves it, also
for a store of your own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .contract import (
    Appended,
    Chunk,
    Claim,
    DeliveryLog,
    Lines,
    NewRun,
    Page,
    Renewal,
    Run,
    Signal,
    Step,
    Store,
)
from .memory import MemoryStore

if TYPE_CHECKING:
    from .redis_log import RedisLog
    from .sql import SqlStore

__all__ = [
    "Appended",
    "Chunk",
    "Claim",
    "DeliveryLog",
    "Lines",
    "MemoryStore",
    "NewRun",
    "Page",
    "RedisLog",
    "Renewal",
    "Run",
    "Signal",
    "SqlStore",
    "Step",
    "Store",
]


def __getattr__(name: str) -> Any:
    """Import what needs an extra when it is asked for."""
    if name == "SqlStore":
        from .sql import SqlStore

        return SqlStore
    if name == "RedisLog":
        from .redis_log import RedisLog

        return RedisLog
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
