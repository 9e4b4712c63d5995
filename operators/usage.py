"""Usage put together from what model calls report: the pure part of metering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from .turn import PROVENANCES, Usage

if TYPE_CHECKING:
    from decimal import Decimal

    from .turn import Provenance

MAX_TOKENS: Final = 10**9
"""What more than this says it is, is no count of one call's tokens."""

TOKENS: Final = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cachedInputTokens": "cached_input_tokens",
    "cacheWriteInputTokens": "cache_write_input_tokens",
    "reasoningTokens": "reasoning_tokens",
}
"""What `llm_call` calls the fields of `Usage`."""


class Call:
    """One model call: its reports, joined.

    `tokens` holds what was reported, by the names of `Usage`; a field that no report
    had is not in it. `ended` tells that a final report came.
    """

    __slots__ = (
        "_seen",
        "cost",
        "currency",
        "ended",
        "finish_reason",
        "latency_ms",
        "model",
        "provenance",
        "provider",
        "tokens",
    )

    def __init__(self) -> None:
        """Begin a call of which nothing is known."""
        self.tokens: dict[str, int] = {}
        self.ended = False
        self.model: str | None = None
        self.provider: str | None = None
        self.finish_reason: str | None = None
        self.latency_ms: float | None = None
        self.provenance: Provenance | None = None
        self.cost: Decimal | None = None
        self.currency: str | None = None
        self._seen: set[Any] | None = None

    def report(self, data: Mapping[str, Any]) -> bool:
        """Join one more report of this call in; False where it changes nothing."""
        merge = data.get("merge")
        final = merge is None or data.get("finishReason") is not None
        if self.ended and (not final or merge == "sum"):
            return False  # delivered late, or again
        if merge == "sum" and self._repeats(data.get("reportId")):
            return False
        tokens = self.tokens
        before = {**tokens} if self.ended else None
        for key, field in TOKENS.items():
            value: Any = data.get(key)
            if not is_tokens(value):
                continue
            if merge == "sum":
                value += tokens.get(field, 0)
            elif merge == "max":
                value = max(value, tokens.get(field, 0))
            tokens[field] = value
        self.ended = self.ended or final
        self._describe(data)
        return tokens != before

    def _repeats(self, report_id: Any) -> bool:
        if not isinstance(report_id, (str, int)):
            return False
        seen = self._seen = self._seen or set()
        known = report_id in seen
        seen.add(report_id)
        return known

    def _describe(self, data: Mapping[str, Any]) -> None:
        self.model = _text(data.get("model")) or self.model
        self.provider = _text(data.get("provider")) or self.provider
        self.finish_reason = _text(data.get("finishReason")) or self.finish_reason
        latency: Any = data.get("latencyMs")
        if type(latency) in (int, float) and 0 <= latency < float("inf"):
            self.latency_ms = latency
        if data.get("provenance") in PROVENANCES:
            self.provenance = data["provenance"]
        if "cost" in data:
            self.cost = _decimal(data["cost"])
            self.currency = _text(data.get("currency"))

    @property
    def usage(self) -> Usage | None:
        """What it used as far as it was reported; None where no token count was."""
        if not self.tokens:
            return None
        return Usage(
            **self.tokens,
            provenance=self.provenance or ("reported" if self.ended else "cumulative"),
            cost=self.cost,
            currency=self.currency,
        )


class Calls:
    """Sum up what the model calls of a turn report in their `llm_call` events.

    An event without `callId` is a call of its own. Several with one `callId` are
    reports of one call, joined field by field by the `merge` that each declares:
    `"last"` (also any other word) replaces, `"max"` keeps the larger, `"sum"` adds.
    Across calls everything is summed.

    The terms are those of `Usage`, whatever the provider's: `inputTokens` is all input,
    with `cachedInputTokens` (read from a cache) and `cacheWriteInputTokens` (written to
    one) among it; `reasoningTokens` are among `outputTokens`. What is not a whole
    number from 0 to `MAX_TOKENS` is passed over: strings, floats, NaN, booleans,
    negative and absurd numbers. A field that a report leaves out stays as it was.

    A report is final, and its call has ended, when it has a `finishReason` or declares
    no `merge`. After that a report that is not final is a late one and changes nothing.
    So deliveries may be repeated: `"last"` and `"max"` join the same report again
    without effect, and a `"sum"` leaves out a `reportId` it has seen, and everything
    after the final report; where neither is there, each delivery is taken for a report.

    Provenance is that of the worst call: `"reported"` where every call ended,
    `"cumulative"` where one was cut after an intermediate report (a lower bound),
    `"estimated"` where an event said that it estimates. A call that reported no token
    count counts for nothing here.
    """

    __slots__ = ("_by_id", "_single", "all")

    def __init__(self, reports: Iterable[Mapping[str, Any]] = ()) -> None:
        """Start with nothing, or with these reports."""
        self.all: list[Call] = []
        self._by_id: dict[str | int, Call] = {}
        self._single: Usage | None = None  # the sum of those that nothing can follow
        for data in reports:
            self.add(data)

    def add(self, data: Mapping[str, Any]) -> Call | None:
        """Take the data of one `llm_call` event.

        Returns the call it belongs to; None for a report that changes nothing.
        """
        key: Any = data.get("callId")
        known = isinstance(key, (str, int)) and key != ""
        call = self._by_id.get(key) if known else None
        if call is None:
            call = Call()
            self.all.append(call)
            if known:
                self._by_id[key] = call
            else:
                call.report({name: data[name] for name in data if name != "merge"})
                self._single = total((self._single, call.usage))
                return call
        return call if call.report(data) else None

    @property
    def usage(self) -> Usage | None:
        """The sum over all calls; None where none reported a token count."""
        return total([self._single, *[call.usage for call in self._by_id.values()]])


def total(usages: Iterable[Usage | None]) -> Usage | None:
    """Add usages up; None for none at all."""
    found: Usage | None = None
    for usage in usages:
        if usage is not None:
            found = usage if found is None else found + usage
    return found


def is_tokens(value: object) -> bool:
    """Tell whether `value` can be a count of tokens."""
    return value.__class__ is int and 0 <= cast("int", value) <= MAX_TOKENS


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _decimal(value: object) -> Decimal | None:
    """Read a cost as `llm_call` spells it; None for anything else."""
    from decimal import Decimal, InvalidOperation

    try:
        found = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None
    return found if found is not None and found.is_finite() and found >= 0 else None
