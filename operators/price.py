"""The price of one model, and what usage costs at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final, TypeAlias

from .errors import CompositionError

if TYPE_CHECKING:
    from .turn import Usage

PriceRow: TypeAlias = "Mapping[str, Decimal | str | int] | Price"

_EXACT: Final = Context(prec=100)  # far more than any product of these needs
_PLACES: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a million tokens of a model cost, by their kind.

    Left out, cached and cache-written input cost what `input` does, and reasoning what
    `output` does.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write_input: Decimal | None = None
    reasoning: Decimal | None = None

    @classmethod
    def of(cls, row: PriceRow, *, where: str = "the price") -> Price:
        """Make a price of a row such as `{"input": "0.15", "output": "0.60"}`.

        Raises: CompositionError: a float, a negative number, one of more than 12
            decimal places, a field that is missing or not known.
        """
        if isinstance(row, Price):
            row = {
                field.name: value
                for field in fields(row)
                if (value := getattr(row, field.name)) is not None
            }
        known = {field.name for field in fields(cls)}
        given = dict(row)
        for name in given.keys() - known:
            raise CompositionError(
                f"{where} has {name!r}: it takes {', '.join(sorted(known))}"
            )
        for name in ("input", "output"):
            if name not in given:
                raise CompositionError(f"{where} has no {name!r} price")
        return cls(**{key: _amount(given[key], key, where) for key in given})

    def cost(self, usage: Usage) -> Decimal:
        """Tell what `usage` costs: exact, nothing is rounded.

        A price of 12 decimal places gives a cost of at most 18; round it where it is
        shown or charged, once, over the sum. Cached and written tokens are taken out of
        the input, and reasoning out of the output; never more than there is.
        """
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        written = min(usage.cache_write_input_tokens, usage.input_tokens - cached)
        reasoning = min(usage.reasoning_tokens, usage.output_tokens)
        spent = Decimal(0)
        for tokens, price in (
            (usage.input_tokens - cached - written, self.input),
            (cached, self.cached_input),
            (written, self.cache_write_input),
            (usage.output_tokens - reasoning, self.output),
            (reasoning, self.output if self.reasoning is None else self.reasoning),
        ):
            each = self.input if price is None else price
            spent = _EXACT.add(spent, _EXACT.multiply(Decimal(tokens), each))
        return _plain(_EXACT.scaleb(spent, -6))


def _amount(value: object, name: str, where: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (Decimal, str, int)):
        raise CompositionError(
            f"{where} has {value!r} as its {name!r}: write it exactly, "
            f'Decimal("{value}") or "{value}"'
        )
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0 or amount > 10**9:
        raise CompositionError(
            f"{where} has {value!r} as its {name!r}: it is the price of a million "
            f"tokens, 0 or more"
        )
    amount = _plain(amount)
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > _PLACES:
        raise CompositionError(
            f"{where} has more than {_PLACES} decimal places as its {name!r}: {value}"
        )
    return amount


def _plain(amount: Decimal) -> Decimal:
    """Write it without an exponent, and without zeros at its end."""
    return Decimal(format(_EXACT.normalize(amount), "f"))
