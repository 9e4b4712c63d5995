"""What carries the operators: composing, running, and the outside world.

    from pipeline import Pipeline, TurnIdentity

    chat = Pipeline(produce) | ops.lifecycle() | ops.accumulate() | ops.persist(save)
    run = chat.start(TurnIdentity(session_id="thread-1", turn_index=0), request=body)
    async for chunk in run.body():          # application/x-ndjson
        await send(chunk)
    outcome = await run.outcome()

* `Pipeline`, `Chain`: composing; `describe`, `explain`, `graph`
* `TurnRun`: one turn; `events`, `body`, `outcome`, `cancel`, `detach`
* `handle_chat_turn`: a turn from hooks
* `pipeline.sources`, `pipeline.wire`: where events come from, and how they leave
* `pipeline.execution`: ids and hashes that do not depend on the machine
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from operators.operator import Chain
from operators.source import ChatTurnProducer
from operators.turn import TurnContext, TurnIdentity, TurnOutcome, TurnRecord, Usage

from .execution import derive_execution_id
from .pipeline import Pipeline
from .run import Body, TurnRun

if TYPE_CHECKING:
    from .chat_turn import ChatTurnHooks, ChatTurnResult, handle_chat_turn


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: who composes turns of his own does without.
    if name not in ("ChatTurnHooks", "ChatTurnResult", "handle_chat_turn"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".chat_turn", __name__), name)


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Body",
    "Chain",
    "ChatTurnHooks",
    "ChatTurnProducer",
    "ChatTurnResult",
    "Pipeline",
    "TurnContext",
    "TurnIdentity",
    "TurnOutcome",
    "TurnRecord",
    "TurnRun",
    "Usage",
    "derive_execution_id",
    "handle_chat_turn",
]
