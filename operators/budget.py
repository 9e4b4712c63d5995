"""`budget`: stop a turn as soon as it has used up what it may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from .errors import BudgetExceeded, CompositionError
from .event import ERROR, RUN_STARTED, TERMINALS
from .operator import Chain, Operator, Stage
from .prices import prices_of
from .produced import TYPES
from .spending import TYPES_REPORTED, Spending
from .terms import Terms

if TYPE_CHECKING:
    from .estimate import Estimate
    from .event import Event
    from .price import PriceRow
    from .prices import Priced
    from .turn import TurnContext

_ENVELOPE: Final = frozenset({RUN_STARTED, ERROR, *TERMINALS})


def budget(
    *,
    tokens: int | None = None,
    cost: Decimal | str | int | None = None,
    prices: Priced | Mapping[Any, PriceRow] | None = None,
    events: int | None = None,
    limit_bytes: int | None = None,
    estimate: Estimate | None = None,
    prompt: Callable[[TurnContext], object] | None = None,
    model: str | None = None,
) -> Chain:
    """Fail the turn, in its stream, at the event that passes a limit.

    `tokens` limits input and output together, of all calls; `cost` what they cost, in
    the currency of `prices`. Both count what the source reported and, as it comes, an
    estimate of the text that no report covers yet; until a call tells its input, that
    of the request. Each report puts the count right. `estimate`, `prompt` and `model`
    are as in `meter`; `estimate` is given each delta by itself. Text is counted at the
    price of output; while the price is not known, the cost has no limit, which is
    logged. `events` limits the source's events, its envelope and errors left out;
    `limit_bytes` the UTF-8 bytes of text, reasoning and tool input.

    The event that passes a limit is not delivered, nor is what the source would send
    after it: the source is closed, and what came before is kept as the partial. A
    report is always delivered: one that passes the limit ends the turn at the next text
    that the model writes, so that a finished answer is not taken back. A request whose
    own estimate passes the limit fails before the source is opened.

    Emits: what comes in.
    Raises: (failing the turn) BudgetExceeded, code `budget.tokens`, `.cost`, `.events`
        or `.bytes`. CompositionError: nothing is limited; a limit is not a positive
        number; a cost is a float, or has no prices.
    Order: right after the source, before or after `lifecycle`; before `meter`, which
        takes the reports out, and before `accumulate`, so that nothing is stored that
        was not delivered. Text that later operators hold back counts as delivered.
    """
    for name, limit in (
        ("tokens", tokens),
        ("events", events),
        ("limit_bytes", limit_bytes),
    ):
        if limit is not None and (limit.__class__ is not int or limit < 1):
            raise CompositionError(
                f"budget({name}={limit!r}): it must be a whole number, 1 or more; leave "
                f"it out for no limit"
            )
    amount = None if cost is None else _amount(cost)
    if amount is not None and prices is None:
        raise CompositionError("budget(cost=...) needs prices=..., to know the cost")
    limits = {
        "tokens": tokens,
        "cost": amount,
        "events": events,
        "bytes": limit_bytes,
    }
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if not given:
        raise CompositionError(
            "budget() limits nothing: give tokens, cost, events or limit_bytes"
        )
    terms = Terms(
        prices=prices_of(prices), estimate=estimate, prompt=prompt, model=model
    )
    detail = {
        "kind": "budget",
        **{name: str(limit) for name, limit in given.items()},
    }
    made: list[Operator] = []
    if events is not None:
        made.append(Operator("budget", _open_events(events), detail=detail, fixed=True))
    if given.keys() - {"events"}:

        def open_text(turn: TurnContext) -> Stage:
            spending = Spending(
                turn, terms, tokens=tokens, cost=amount, limit_bytes=limit_bytes
            )
            return Stage(
                spending.on_event,
                awaits=False,
                types=TYPES if tokens is None and amount is None else TYPES_REPORTED,
                fold=spending.produced,
            )

        made.append(Operator("budget", open_text, detail=detail, fixed=True))
    return Chain(made)


def _open_events(limit: int) -> Callable[[TurnContext], Stage]:
    def open_(turn: TurnContext) -> Stage:
        left = limit

        def on_event(event: Event) -> None:
            nonlocal left
            if event.get("type") in _ENVELOPE:
                return
            left -= 1
            if left < 0:
                raise BudgetExceeded("events", limit)

        return Stage(on_event, awaits=False)

    return open_


def _amount(cost: object) -> Decimal:
    if isinstance(cost, bool) or not isinstance(cost, (Decimal, str, int)):
        raise CompositionError(
            f'budget(cost={cost!r}): write it exactly, Decimal("{cost}") or "{cost}"'
        )
    try:
        amount = Decimal(cost)
    except ArithmeticError:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount <= 0:
        raise CompositionError(f"budget(cost={cost!r}): it must be more than 0")
    return amount
