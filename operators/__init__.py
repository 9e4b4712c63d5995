"""What happens to the events of a turn: the operators, and what they are made of.

    import operators as ops

    safety = ops.filter(wanted) | ops.tap(audit)      # a Chain is an operator too
    chat = Pipeline(produce) | ops.lifecycle() | safety | ops.accumulate() | ...
    xs | ops.map(shorten) | aiostream.pipe.take(5)    # and an aiostream pipe

* the seven of a turn: `lifecycle`, `tap`, `accumulate`, `transform`, `persist`
  (`complete`), `trace_flush`
* shaping: `map`, `filter`, `flat_map`, `coalesce`; limits: `timeout`
* anything else: `through` (an aiostream operator), `operator` (a class of yours)
* `operators.event`: the vocabulary; `operators.testing`: an operator alone in a test
"""

from . import event as event
from .accumulate import accumulate
from .coalesce import coalesce
from .complete import complete
from .errors import (
    CompositionError,
    InvalidEvent,
    PublicError,
    SettleTimeout,
    SourceError,
    TurnError,
    TurnMisuse,
    TurnTimeout,
)
from .event import Event, EventDict
from .heartbeat import heartbeat
from .lifecycle import lifecycle
from .mapping import filter, flat_map, map  # noqa: A004 - used as ops.map
from .operator import Chain, Operator, Stage, operator
from .persist import persist
from .tap import tap
from .through import through
from .timeout import timeout
from .trace_flush import trace_flush
from .transform import transform
from .turn import TurnContext, TurnIdentity, TurnOutcome, TurnRecord, Usage

__all__ = [
    "Chain",
    "CompositionError",
    "Event",
    "EventDict",
    "InvalidEvent",
    "Operator",
    "PublicError",
    "SettleTimeout",
    "SourceError",
    "Stage",
    "TurnContext",
    "TurnError",
    "TurnIdentity",
    "TurnMisuse",
    "TurnOutcome",
    "TurnRecord",
    "TurnTimeout",
    "Usage",
    "accumulate",
    "coalesce",
    "complete",
    "event",
    "filter",
    "flat_map",
    "heartbeat",
    "lifecycle",
    "map",
    "operator",
    "persist",
    "tap",
    "through",
    "timeout",
    "trace_flush",
    "transform",
]
