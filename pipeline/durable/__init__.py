"""Durable turns and runs: what outlives its reader, and its process.

    async with TurnHub(SqlStore("sqlite:///turns.db")) as hub:
        turn = await hub.start(chat, identity, request)
        async for chunk in turn.body():       # again from any line: body(after=N)
            await send(chunk)

* `TurnHub`: owns turns; `start`, `attach`, `cancel`, `status`, `recover`
* `HubTurn`: a turn as its readers see it; `events`, `body`, `outcome`
"""

from .hub import TurnHub
from .hub_turn import HubTurn
from .status import TurnStatus

__all__ = ["HubTurn", "TurnHub", "TurnStatus"]
