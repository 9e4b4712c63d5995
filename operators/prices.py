"""What tokens cost: a table of prices, exact to the last digit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from .errors import CompositionError
from .price import Price, PriceRow

if TYPE_CHECKING:
    from os import PathLike

_DATED: Final = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})$")


class Priced(Protocol):
    """What `meter` and `budget` ask for prices: a `Prices`, or anything alike."""

    @property
    def currency(self) -> str | None:
        """The one currency of all its prices."""
        ...

    def price(self, model: str | None, provider: str | None) -> Price | None:
        """Tell a model's price, None where it is not known."""
        ...


class Prices:
    """A table of prices, in one currency: the first that fits a model, best fit first.

        Prices({
            "gpt-4o-mini": {"input": "0.15", "output": "0.60", "cached_input": "0.075"},
            ("azure", "gpt-4o-*"): {"input": "2.75", "output": "11"},
        })

    A model is looked for by its exact name; by its name without a date at its end
    (`-2024-07-18`, `@20240718`); then by the patterns with `*`, the longest first. At
    each step a row of the model's provider goes before one of any provider. A name
    without `*` is no prefix: `gpt-4o` is not the price of `gpt-4o-audio`.

    Amounts are Decimal, text or int; a float is refused, it is not what was written.
    """

    __slots__ = ("_exact", "_patterns", "currency")

    def __init__(
        self, table: Mapping[Any, PriceRow], *, currency: str | None = "USD"
    ) -> None:
        """Check and keep the rows; keys are a model or `(provider, model)`.

        Raises: CompositionError: as `Price.of`; a key that names no model.
        """
        self.currency = currency
        self._exact: dict[tuple[str | None, str], Price] = {}
        for key, row in table.items():
            provider, model = _names(key)
            where = f"the price of {model!r}"
            self._exact[provider, model] = Price.of(row, where=where)
        self._patterns = sorted(
            [key for key in self._exact if "*" in key[1]],
            key=lambda key: (key[0] is None, -len(key[1])),
        )

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Prices:
        """Read a JSON file; its numbers are taken digit by digit, as they are written.

        `{"currency": "USD", "prices": [{"model": "gpt-4o-mini", "provider": "openai",
        "input": 0.15, "output": 0.60}, ...]}`; `currency` and `provider` may be left
        out.

        Raises: CompositionError: the file has another shape, or a wrong price.
            OSError: it cannot be read.
        """
        with open(path, encoding="utf-8") as file:
            text = file.read()
        try:
            read: Any = json.loads(text, parse_float=Decimal)
        except ValueError as error:
            raise CompositionError(f"{path} is not JSON: {error}") from error
        known = cast("dict[str, Any]", read) if isinstance(read, dict) else {}
        rows: Any = known.get("prices")
        if not isinstance(rows, list):
            raise CompositionError(
                f'{path} has no list of prices: write {{"prices": [{{"model": ...}}]}}'
            )
        table: dict[Any, PriceRow] = {}
        for row in cast("list[Any]", rows):
            if not isinstance(row, dict):
                raise CompositionError(f"{path}: {row!r} is no price, but no object")
            price = cast("dict[str, Any]", row)
            model = price.pop("model", None)
            provider = price.pop("provider", None)
            table[model if provider is None else (provider, model)] = price
        return cls(table, currency=known.get("currency", "USD"))

    def price(self, model: str | None, provider: str | None = None) -> Price | None:
        """Tell the price of a model, None where none fits."""
        if model is None:
            return None
        names = (model, _DATED.sub("", model))
        for name in names:
            for key in ((provider, name), (None, name)):
                found = self._exact.get(key)
                if found is not None:
                    return found
        for key in self._patterns:
            if key[0] in (None, provider) and fnmatchcase(model, key[1]):
                return self._exact[key]
        return None


def prices_of(prices: Priced | Mapping[Any, PriceRow] | None) -> Priced | None:
    """Take a table as a mapping, too."""
    return Prices(prices) if isinstance(prices, Mapping) else prices


def _names(key: Any) -> tuple[str | None, str]:
    provider: Any = None
    model: Any = key
    if isinstance(key, tuple):
        provider, model = cast("tuple[Any, Any]", key) if len(key) == 2 else ("", "")  # pyright: ignore[reportUnknownArgumentType] - any tuple
    if not (isinstance(model, str) and model) or not (
        provider is None or (isinstance(provider, str) and provider)
    ):
        raise CompositionError(
            f"{key!r} names no model: write 'model' or ('provider', 'model')"
        )
    return provider, model
