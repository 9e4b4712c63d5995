"""One turn under a `meter`: what its stages call."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import TYPE_CHECKING, Any, cast

from .event import llm_call
from .ledger import LedgerRow
from .usage import total

if TYPE_CHECKING:
    from .booking import Ended
    from .event import Event
    from .metering import Metering
    from .terms import Terms
    from .turn import TurnContext, Usage


class Metered:
    """The usage of one turn, while it runs and at its end."""

    def __init__(self, turn: TurnContext, metering: Metering, terms: Terms) -> None:
        """Start with nothing used."""
        self.turn = turn
        self.metering = metering
        self.terms = terms
        self.usages: list[Usage] | None = None

    def on_event(self, event: Event) -> bool:
        """Take a report out, and let the turn know."""
        data: Any = event.get("data")
        if isinstance(data, Mapping):
            self.metering.report(cast("Mapping[str, Any]", data))
            self.turn.usage = self.metering.calls.usage
        return False

    def conclude(self) -> None:
        """Settle what was used, once."""
        if self.usages is not None:
            return
        turn, terms = self.turn, self.terms
        ending = turn.ending
        usages = self.metering.conclude(
            completed=ending is None or ending.status == "completed",
            estimate=lambda text: terms.tokens(turn, text),
            prompt=lambda: terms.input(turn),
        )
        calls = self.metering.calls.all
        self.usages = [
            terms.priced(turn, call, usage)
            for call, usage in zip(calls, usages, strict=True)
        ]
        turn.usage = total(self.usages)

    def finish(self) -> list[Event]:
        """Report all calls as one."""
        self.conclude()
        usages = self.usages
        return [llm_call(**self.metering.merged(usages))] if usages else []

    def row(self, ended: Ended) -> LedgerRow:
        """Make the ledger's row."""
        self.conclude()
        turn, calls = self.turn, self.metering.calls.all
        models = self.metering.models()
        if calls and not models and (fallback := self.terms.model(turn)):
            models = (fallback,)
        status, code = ended
        return LedgerRow(
            execution_id=turn.execution_id,
            identity=turn.identity,
            status=status,
            code=code,
            models=models,
            calls=len(calls),
            usage=total(self.usages or ()),
            started_at=turn.started_at,
            ended_at=time(),
        )
