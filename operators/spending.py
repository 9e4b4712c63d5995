"""What a turn spends of its budget, text by text: the hot part of `budget`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from .account import Account
from .errors import BudgetExceeded
from .estimate import TWELFTHS, weight
from .event import LLM_CALL
from .produced import TYPES, Produced
from .usage import is_tokens

if TYPE_CHECKING:
    from decimal import Decimal

    from .event import Event
    from .terms import Terms
    from .turn import TurnContext

TYPES_REPORTED: Final = TYPES | {LLM_CALL}


class Spending:
    """Count down what is left, in twelfths of an output token; `produced` is its fold.

    The limits of tokens and cost come down to one number, the tighter, so that a delta
    costs one subtraction. It is made anew at every report.
    """

    __slots__ = (
        "_account",
        "_bytes_left",
        "_left",
        "_limits",
        "_room",
        "_terms",
        "_turn",
        "produced",
    )

    def __init__(
        self,
        turn: TurnContext,
        terms: Terms,
        *,
        tokens: int | None,
        cost: Decimal | None,
        limit_bytes: int | None,
    ) -> None:
        """Begin with what the request uses.

        Raises:
            BudgetExceeded: that is too much by itself.
        """
        self._turn = turn
        self._terms = terms
        self._limits = {"tokens": tokens, "cost": cost, "bytes": limit_bytes}
        self._bytes_left = limit_bytes or 0
        self._account: Account | None = None
        self._left = self._room = 0
        spend: Callable[[str], object] = self._spend_bytes
        if tokens is not None or cost is not None:
            self._account = Account(turn, terms, tokens=tokens, cost=cost)
            self._left = self._room = self._account.room()
            if self._left < 0:
                self._over(self._account.kind)
            spend = self._spend if not terms.estimates else self._spend_estimated
            if limit_bytes is not None:
                spend = _both(self._spend_bytes, spend)
        self.produced = Produced(spend)

    def on_event(self, event: Event) -> None:
        """Count one event; a report never raises."""
        if event["type"] != LLM_CALL:
            self.produced.on_event(event)
            return
        data: Any = event.get("data")
        if self._account is None or not isinstance(data, Mapping):
            return
        report = cast("Mapping[str, Any]", data)
        if self._account.report(report):
            covered = is_tokens(report.get("outputTokens"))
            written = 0 if covered else self._room - self._left
            self._room = self._account.room()
            self._left = self._room - written

    def _spend(self, text: str) -> None:
        left = self._left - (3 * len(text) if text.isascii() else weight(text))
        self._left = left
        if left < 0:
            self._over()

    def _spend_estimated(self, text: str) -> None:
        self._left -= TWELFTHS * self._terms.tokens(self._turn, text)
        if self._left < 0:
            self._over()

    def _spend_bytes(self, text: str) -> None:
        self._bytes_left -= (
            len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        )
        if self._bytes_left < 0:
            self._over("bytes")

    def _over(self, kind: str | None = None) -> None:
        if kind is None:
            assert self._account is not None, "only what it counts ends up here"
            kind = self._account.kind
        raise BudgetExceeded(kind, self._limits[kind])


def _both(
    one: Callable[[str], object], other: Callable[[str], object]
) -> Callable[[str], object]:
    def spend(text: str) -> None:
        one(text)
        other(text)

    return spend
