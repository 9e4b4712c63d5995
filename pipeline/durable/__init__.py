"""Durable turns and runs: what outlives its reader, and its process.

    async with TurnHub(SqlStore("sqlite:///turns.db")) as hub:
        turn = await hub.start(chat, identity, request)
        async for chunk in turn.body():       # again from any line: body(after=N)
            await send(chunk)

* `TurnHub`: owns turns; `start`, `attach`, `cancel`, `status`, `recover`
* `HubTurn`: a turn as its readers see it; `events`, `body`, `outcome`
* `run_durable`: a task of steps, each done once; its `DurableContext`
* `run_durable_turn`, `run_supervised_turn`: one turn under a lease, without a hub
* `SessionSupervisor`: finds the runs of dead workers, and has them resolved
* `pipeline.durable.dbos`: the same tasks on DBOS (extra `dbos`)
"""

from .context import DurableContext
from .hub import TurnHub
from .hub_turn import HubTurn
from .runs import DurableResult, run_durable
from .status import TurnStatus
from .supervised import run_supervised_turn
from .supervisor import SessionSupervisor
from .turn import DurableTurn, run_durable_turn

__all__ = [
    "DurableContext",
    "DurableResult",
    "DurableTurn",
    "HubTurn",
    "SessionSupervisor",
    "TurnHub",
    "TurnStatus",
    "run_durable",
    "run_durable_turn",
    "run_supervised_turn",
]
