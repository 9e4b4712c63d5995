"""What all turns of one `meter` share: how to estimate, and what tokens cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from .estimate import Estimate, estimated_input, estimated_tokens
from .usage import is_tokens

if TYPE_CHECKING:
    from .prices import Priced
    from .turn import TurnContext, Usage
    from .usage import Call

_NAMED: Final = 1000


class Terms:
    """Estimate and price; what is wrong with a caller's function is only logged."""

    def __init__(
        self,
        *,
        prices: Priced | None = None,
        estimate: Estimate | None = None,
        prompt: Callable[[TurnContext], object] | None = None,
        model: str | None = None,
    ) -> None:
        """Keep the arguments of `meter`."""
        self.prices = prices
        self._estimate = estimate
        self._prompt = prompt
        self._model = model
        self._unpriced: set[str | None] = set()

    @property
    def estimates(self) -> bool:
        """Whether the caller has an estimate of its own."""
        return self._estimate is not None

    def model(self, turn: TurnContext) -> str | None:
        """Tell the model that calls are priced by which do not name theirs."""
        request: Any = turn.request
        if self._model is None and isinstance(request, Mapping):
            named = cast("Mapping[str, Any]", request).get("model")
            return named if isinstance(named, str) and named else None
        return self._model

    def tokens(self, turn: TurnContext, text: str) -> int:
        """Tell about how many tokens a text has."""
        if self._estimate is None:
            return estimated_tokens(text)
        try:
            tokens = self._estimate(text)
            if is_tokens(tokens):
                return tokens
            raise TypeError(f"estimate gave {tokens!r}, which is no count of tokens")
        except Exception as error:
            turn.log("the estimate of a text's tokens failed", error)
            return estimated_tokens(text)

    def input(self, turn: TurnContext) -> int:
        """Tell about how many tokens the turn put into a model."""
        request = turn.request
        try:
            if self._prompt is not None:
                request = self._prompt(turn)
            return estimated_input(request, lambda text: self.tokens(turn, text))
        except Exception as error:
            turn.log("the estimate of the input's tokens failed", error)
            return 0

    def priced(self, turn: TurnContext, call: Call, usage: Usage) -> Usage:
        """Put the cost to the usage of a call; one that is there stays."""
        if self.prices is None or usage.cost is not None:
            return usage
        name = call.model or self.model(turn)
        price = self.prices.price(name, call.provider)
        if price is None:
            self.unpriced(turn, name)
            return usage
        return replace(usage, cost=price.cost(usage), currency=self.prices.currency)

    def unpriced(self, turn: TurnContext, model: str | None) -> None:
        """Log that a model has no price, once, of the first thousand."""
        if model not in self._unpriced and len(self._unpriced) < _NAMED:
            self._unpriced.add(model)
            turn.log("a model has no price: what it costs is not known", model=model)
