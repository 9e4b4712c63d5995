"""What happens to the events of a turn: the operators, and what they are made of.

    import operators as ops

    safety = ops.filter(wanted) | ops.tap(audit)      # a Chain is an operator too
    chat = Pipeline(produce) | ops.lifecycle() | safety | ops.accumulate() | ...
    xs | ops.map(shorten) | aiostream.pipe.take(5)    # and an aiostream pipe

* the seven of a turn: `lifecycle`, `tap`, `accumulate`, `transform`, `persist`
  (`complete`), `trace_flush`
* safety: `redact` and `restore`, `detectors`, `guard`, `validate`
* metering: `meter` with `Prices` and a ledger; limits: `timeout`, `budget`
* shaping: `map`, `filter`, `flat_map`, `scan`, `only`, `drop`, `switch`, `dedupe`,
  `resequence`, `coalesce`, `smooth`
* readers: `share`, for many; `heartbeat`, on the wire
* anything else: `through` (an aiostream operator), `operator` (a class of yours)
* `operators.event`: the vocabulary; `operators.testing`: an operator alone in a test
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from . import event as event
from .accumulate import accumulate
from .budget import budget
from .coalesce import coalesce
from .complete import complete
from .dedupe import dedupe
from .errors import (
    BudgetExceeded,
    CompositionError,
    InvalidEvent,
    PublicError,
    SettleTimeout,
    SlowReader,
    SourceError,
    TurnBlocked,
    TurnError,
    TurnMisuse,
    TurnTimeout,
)
from .event import Event, EventDict
from .guard import guard
from .heartbeat import heartbeat
from .ledger import LedgerRow, MemoryLedger
from .lifecycle import lifecycle
from .mapping import filter, flat_map, map  # noqa: A004 - used as ops.map
from .meter import meter
from .only import drop, only
from .operator import Chain, Operator, Stage, operator
from .persist import persist
from .price import Price
from .prices import Prices
from .resequence import resequence
from .scan import scan
from .share import Share, share
from .smooth import smooth
from .switch import switch
from .tap import tap
from .through import through
from .timeout import timeout
from .trace_flush import trace_flush
from .transform import transform
from .turn import TurnContext, TurnIdentity, TurnOutcome, TurnRecord, Usage
from .validate import validate
from .verdict import Blocked

if TYPE_CHECKING:
    from .redaction import Detector, RedactionOverflow, RedactionStats, Vault, detectors
    from .redaction.redact import redact
    from .redaction.restore import restore

_REDACTION: Final = (
    "Detector",
    "RedactionOverflow",
    "RedactionStats",
    "Vault",
    "detectors",
    "redact",
    "restore",
)
"""Loaded when first asked for: not every turn needs it, and it costs time to import."""


def __getattr__(name: str) -> Any:
    if name not in _REDACTION:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".redaction", __name__), name)


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Blocked",
    "BudgetExceeded",
    "Chain",
    "CompositionError",
    "Detector",
    "Event",
    "EventDict",
    "InvalidEvent",
    "LedgerRow",
    "MemoryLedger",
    "Operator",
    "Price",
    "Prices",
    "PublicError",
    "RedactionOverflow",
    "RedactionStats",
    "SettleTimeout",
    "Share",
    "SlowReader",
    "SourceError",
    "Stage",
    "TurnBlocked",
    "TurnContext",
    "TurnError",
    "TurnIdentity",
    "TurnMisuse",
    "TurnOutcome",
    "TurnRecord",
    "TurnTimeout",
    "Usage",
    "Vault",
    "accumulate",
    "budget",
    "coalesce",
    "complete",
    "dedupe",
    "detectors",
    "drop",
    "event",
    "filter",
    "flat_map",
    "guard",
    "heartbeat",
    "lifecycle",
    "map",
    "meter",
    "only",
    "operator",
    "persist",
    "redact",
    "resequence",
    "restore",
    "scan",
    "share",
    "smooth",
    "switch",
    "tap",
    "through",
    "timeout",
    "trace_flush",
    "transform",
    "validate",
]
