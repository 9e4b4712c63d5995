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

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from . import event as event
from .accumulate import accumulate
from .complete import complete
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
from .lifecycle import lifecycle
from .mapping import filter, flat_map, map  # noqa: A004 - used as ops.map
from .operator import Chain, Operator, Stage, operator
from .persist import persist
from .tap import tap
from .trace_flush import trace_flush
from .transform import transform
from .turn import TurnContext, TurnIdentity, TurnOutcome, TurnRecord, Usage

if TYPE_CHECKING:
    from .budget import budget
    from .coalesce import coalesce
    from .dedupe import dedupe
    from .guard import guard
    from .heartbeat import heartbeat
    from .ledger import LedgerRow, MemoryLedger
    from .meter import meter
    from .only import drop, only
    from .price import Price
    from .prices import Prices
    from .redaction import Detector, RedactionOverflow, RedactionStats, Vault, detectors
    from .redaction.redact import redact
    from .redaction.restore import restore
    from .resequence import resequence
    from .scan import scan
    from .share import Share, share
    from .smooth import smooth
    from .switch import switch
    from .through import through
    from .timeout import timeout
    from .validate import validate
    from .verdict import Blocked

_LAZY: Final = {
    "Blocked": "verdict",
    "Detector": "redaction",
    "LedgerRow": "ledger",
    "MemoryLedger": "ledger",
    "Price": "price",
    "Prices": "prices",
    "RedactionOverflow": "redaction",
    "RedactionStats": "redaction",
    "Share": "share",
    "Vault": "redaction",
    "budget": "budget",
    "coalesce": "coalesce",
    "dedupe": "dedupe",
    "detectors": "redaction",
    "drop": "only",
    "guard": "guard",
    "heartbeat": "heartbeat",
    "meter": "meter",
    "only": "only",
    "redact": "redaction",
    "resequence": "resequence",
    "restore": "redaction",
    "scan": "scan",
    "share": "share",
    "smooth": "smooth",
    "switch": "switch",
    "through": "through",
    "timeout": "timeout",
    "validate": "validate",
}
"""What is loaded when first asked for, and whence: not every turn needs it."""


class _Operators(ModuleType):
    """This package, which keeps the operators where files are named like them.

    Importing `operators.meter` makes that module the attribute `meter` of its package,
    whoever does it and whenever: what is exported under the name stands there instead.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _LAZY.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Operators


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


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
