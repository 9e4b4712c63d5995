"""`meter`: what a turn used and cost, right on every exit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from . import event as ev
from .booking import Booking
from .deadline import is_seconds
from .errors import CompositionError
from .ledger import Ledger, writer
from .metered import Metered
from .metering import Metering
from .operator import Chain, Operator, Stage
from .prices import prices_of
from .produced import TYPES
from .terms import Terms

if TYPE_CHECKING:
    from .estimate import Estimate
    from .price import PriceRow
    from .prices import Priced
    from .turn import TurnContext

_CALLS = frozenset({ev.LLM_CALL})


def meter(
    prices: Priced | Mapping[Any, PriceRow] | None = None,
    ledger: Ledger | None = None,
    *,
    estimate: Estimate | None = None,
    prompt: Callable[[TurnContext], object] | None = None,
    model: str | None = None,
    retries: int = 2,
    backoff: float = 0.1,
    on_error: Literal["log", "fail"] = "log",
) -> Chain:
    """Tell what the turn used and cost: one `llm_call`, `turn.usage`, a ledger row.

    The source's `llm_call` events are taken out and joined as `Calls` says. Where the
    reports do not tell, tokens are estimated, and `provenance` says `"estimated"`:

    * a turn that is cut (stopped, failed, its reader gone) in a call that had not
      reported yet: output from the text that came, input from the request;
    * cut after an intermediate report: what that said, and an estimate of the text that
      came since; of all of its text where that report came before any. Where that adds
      nothing the usage is `"cumulative"`;
    * a call that never tells its tokens. A turn that shows neither a report nor text
      has no usage at all (None): perhaps no model was called.

    `estimate(text)` tells a text's tokens; by default `estimated_tokens`, a rule of
    thumb. `prompt(turn)` gives what the model was sent; by default `turn.request`, read
    as `estimated_input` says. A source that adds to it makes the estimate a lower
    bound. `model` is what calls are priced by that did not name theirs; by default the
    `model` that the request names.

    `prices` are a `Prices`, a mapping for one, or an object like it. A model without a
    price makes the cost None, never 0, and is logged once per operator. Each call is
    priced by its own model; a call that reports its `cost` keeps it.

    `ledger` is `write(row)` or an object with it, sync or async, called with a
    LedgerRow however the turn ends: before the terminal event where the source was
    drained, else after it; again where something failed the turn in between. So make it
    an upsert by `row.idempotency_key`, see `MemoryLedger`. It is tried `1 + retries`
    times, `backoff` seconds apart, doubling, within `settle_timeout`; its failure is
    logged, or fails the turn with `on_error="fail"`, where it has not ended.

    Emits: what comes in, without `llm_call`; at the end, ahead of an error and of the
        terminal, one `llm_call` of all calls: `model` (the last; all different ones as
        `models`), `provider`, the tokens, `provenance`, `cost` (a decimal string) and
        `currency`, `calls`, `finishReason` of the last, `latencyMs` summed.
    Holds: the text that no report covers yet, O(text). After an `accumulate` nothing:
        then the text is what that has gathered.
    Raises: CompositionError: an argument is out of its range.
    Order: before `persist`. After `accumulate` it costs least, since it sees no delta.
        Before it, it counts what the source gave, whatever stands in between.
    """
    if retries.__class__ is not int or retries < 0:
        raise CompositionError(f"retries must be an int, 0 or more, not {retries!r}")
    if not is_seconds(backoff) and backoff != 0:
        raise CompositionError(
            f"backoff must be a number of seconds, 0 or more, not {backoff!r}"
        )
    if on_error not in ("log", "fail"):
        raise CompositionError(f'on_error must be "log" or "fail", not {on_error!r}')
    terms = Terms(
        prices=prices_of(prices), estimate=estimate, prompt=prompt, model=model
    )
    write = None if ledger is None else writer(ledger)
    opening: dict[TurnContext, Metered] = {}

    def open_text(turn: TurnContext) -> Stage:
        gathered = turn.text is not str  # by an accumulate that stands before
        metering = Metering(turn.parts if gathered else None)
        opening[turn] = Metered(turn, metering, terms)
        if gathered:
            return Stage()
        produced = metering.produced
        return Stage(produced.on_event, awaits=False, types=TYPES, fold=produced)

    def open_calls(turn: TurnContext) -> Stage:
        metered = opening.pop(turn)
        stage = Stage(
            metered.on_event,
            shape="filter",
            awaits=False,
            types=_CALLS,
            finish=metered.finish,
        )
        if write is not None:
            booking = Booking(
                turn,
                metered.row,
                write,
                retries=retries,
                backoff=backoff,
                fails=on_error == "fail",
            )
            stage.settle = booking.settle
            stage.close = booking.close
        else:
            stage.close = metered.conclude
        return stage

    detail = {
        "kind": "meter",
        "prices": prices is not None,
        "ledger": ledger is not None,
    }
    return Chain(
        (
            Operator(
                "meter.text",
                open_text,
                detail={"kind": "meter.text"},
                once=True,
                fixed=True,
            ),
            Operator("meter", open_calls, detail=detail, once=True, fixed=True),
        )
    )
