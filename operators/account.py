"""What the calls of a turn have used of its budget, report by report."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any, Final

from .estimate import TWELFTHS
from .turn import Usage
from .usage import Call, Calls

if TYPE_CHECKING:
    from .terms import Terms
    from .turn import TurnContext

_MILLION: Final = 10**6
_A_MILLION: Final = Usage(output_tokens=_MILLION)
_NONE: Final = Usage()
_BOUNDLESS: Final = 2**62


class Account:
    """Sum up what was reported; until a call tells its input, that of the request."""

    __slots__ = (
        "_asked",
        "_calls",
        "_cost",
        "_counted",
        "_last",
        "_paid",
        "_terms",
        "_tokens",
        "_turn",
        "_used",
        "kind",
    )

    def __init__(
        self,
        turn: TurnContext,
        terms: Terms,
        *,
        tokens: int | None,
        cost: Decimal | None,
    ) -> None:
        """Begin with what the request uses."""
        self.kind = "tokens"
        self._turn = turn
        self._terms = terms
        self._tokens = tokens
        self._cost = cost
        self._calls = Calls()
        self._counted: dict[Call, Usage] = {}
        self._used = 0
        self._paid = Decimal(0)
        self._asked: Call | None = Call()
        self._asked.tokens["input_tokens"] = terms.input(turn)
        self._last = self._asked
        self._count(self._asked)

    def report(self, data: Mapping[str, Any]) -> bool:
        """Take the data of one `llm_call` event; False where it changes nothing."""
        call = self._calls.add(data)
        if call is None:
            return False
        asked = self._asked
        if asked is not None:
            asked.model = call.model
            if "input_tokens" in call.tokens:
                asked.tokens.clear()
                self._asked = None
            self._count(asked)
        self._count(call)
        self._last = call
        return True

    def _count(self, call: Call) -> None:
        usage = call.usage or _NONE
        if self._cost is not None:
            usage = self._terms.priced(self._turn, call, usage)
        before = self._counted.get(call, _NONE)
        self._counted[call] = usage
        self._used += usage.total_tokens - before.total_tokens
        self._paid += (usage.cost or 0) - (before.cost or 0)

    def room(self) -> int:
        """Tell how much text may still be written, in twelfths of an output token.

        It is that of the tightest limit, which `kind` then names; negative where a
        limit is passed.
        """
        rooms: dict[str, int] = {}
        if self._tokens is not None:
            rooms["tokens"] = (self._tokens - self._used) * TWELFTHS
        if self._cost is not None:
            rooms["cost"] = self._room_for(self._cost - self._paid)
        self.kind = min(rooms, key=rooms.__getitem__)
        return rooms[self.kind]

    def _room_for(self, left: Decimal) -> int:
        """Tell how much text `left` pays for at the price of the last call."""
        one = self._terms.priced(self._turn, self._last, _A_MILLION)
        if not one.cost:
            return _BOUNDLESS if left >= 0 else -1
        text = left * (_MILLION * TWELFTHS) / one.cost
        return int(text.to_integral_value(ROUND_FLOOR))
