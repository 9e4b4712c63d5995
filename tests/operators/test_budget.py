"""budget: the turn ends in its stream, at the event that passes the limit."""

from decimal import Decimal
from pathlib import Path

import pytest

import operators as ops
from operators import TurnIdentity
from operators import event as ev
from operators.budget import budget
from operators.errors import BudgetExceeded, CompositionError
from operators.meter import meter
from operators.testing import deltas, feed
from pipeline import Pipeline
from pipeline.sources import recorded

IDENTITY = TurnIdentity(session_id="s-1", turn_index=0)
DATA = Path(__file__).parents[1] / "data" / "transcripts"
PRICES = {
    "m": {"input": "1", "output": "2"},
    "smollm2-*": {"input": "1", "output": "2"},
    "free": {"input": "0", "output": "0"},
}


class Source:
    """Give events, and know how many were pulled and that it was closed."""

    def __init__(self, *events):
        self.events = events
        self.pulled = 0
        self.closed = 0

    async def __call__(self):
        try:
            for event in self.events:
                self.pulled += 1
                yield event
        finally:
            self.closed += 1


class Ran:
    """A turn of a source under a budget."""

    def __init__(self, source, *, place="before", **limits):
        self.source = source
        self.saved = []
        self.sent = []
        self.logged = []
        envelope, limit = ops.lifecycle(), budget(**limits)
        head = limit | envelope if place == "before" else envelope | limit
        self.chat = (
            Pipeline(source)
            | head
            | ops.accumulate()
            | ops.tap(self.sent.append)
            | ops.persist(self.saved.append, partial=True)
        )

    async def run(self, request=None):
        run = self.chat.start(
            IDENTITY,
            request=request,
            log=lambda message, meta: self.logged.append((message, meta)),
        )
        self.outcome = await run.outcome()
        return self

    def check(self, code, text):
        """Check that the turn stopped with `code`, and kept what it had sent."""
        assert (self.outcome.status, self.outcome.code) == ("failed", code)
        assert isinstance(self.outcome.error, BudgetExceeded)
        assert self.outcome.text == text
        assert [record.text for record in self.saved] == [text]
        sent = [e["data"]["delta"] for e in self.sent if e["type"] == ev.PART_UPDATED]
        assert "".join(sent) == text
        assert [e["type"] for e in self.sent[-2:]] == [ev.ERROR, ev.RUN_FAILED]
        assert self.sent[-2]["data"]["code"] == code
        assert self.source.closed == 1


TEN = deltas(*["abcd"] * 10)
places = pytest.mark.parametrize("place", ["before", "after"])


@places
@pytest.mark.parametrize("limit", range(1, 10))
async def test_a_budget_of_tokens_ends_the_turn_in_its_stream(limit, place):
    source = Source(*TEN)
    ran = await Ran(source, tokens=limit, place=place).run()
    ran.check("budget.tokens", "abcd" * limit)
    assert source.pulled == limit + 1


async def test_a_budget_that_is_met_exactly_is_not_passed():
    ran = await Ran(Source(*TEN), tokens=10, events=10, limit_bytes=40).run()
    assert ran.outcome.status == "completed"


@places
async def test_a_recorded_stream_is_stopped_by_its_budget(place):
    chat = Pipeline(recorded(DATA / "basic_usage.sse"))
    limit, envelope = budget(tokens=40), ops.lifecycle()
    chat |= limit | envelope if place == "before" else envelope | limit
    chat |= ops.accumulate()
    outcome = await chat.start(IDENTITY).outcome()
    assert outcome.code == "budget.tokens"
    assert 155 <= len(outcome.text) <= 160


@places
@pytest.mark.parametrize("limit", range(1, 10))
async def test_a_budget_of_events_counts_the_sources_own(limit, place):
    source = Source(*TEN)
    ran = await Ran(source, events=limit, place=place).run()
    ran.check("budget.events", "abcd" * limit)


@places
async def test_the_envelope_is_free(place):
    ran = await Ran(Source(*TEN), events=10, place=place).run()
    assert ran.outcome.status == "completed"
    reported = Source(*TEN, ev.event("error", {"message": "m", "code": "x"}))
    ran = await Ran(reported, events=10, place=place).run()
    assert ran.outcome.code == "x"


@places
async def test_a_budget_of_bytes_counts_utf_8(place):
    source = Source(*deltas("ab", "é", "你", "🙂"))
    ran = await Ran(source, limit_bytes=7, place=place).run()
    ran.check("budget.bytes", "abé你")


@pytest.mark.parametrize(
    ("limits", "code", "events"),
    [
        ({"tokens": 3, "limit_bytes": 100}, "tokens", 3),
        ({"tokens": 100, "limit_bytes": 12}, "bytes", 3),
        ({"tokens": 100, "limit_bytes": 100, "events": 3}, "events", 3),
        ({"tokens": 3, "limit_bytes": 100, "events": 100}, "tokens", 3),
        ({"tokens": 3, "limit_bytes": 100, "estimate": len}, "tokens", 0),
        ({"tokens": 12, "estimate": len}, "tokens", 3),
    ],
)
async def test_of_several_limits_the_first_to_be_passed_counts(limits, code, events):
    ran = await Ran(Source(*TEN), **limits).run()
    ran.check(f"budget.{code}", "abcd" * events)


async def test_a_budget_of_cost_counts_at_the_price_of_output():
    limits = {"cost": "0.000006", "prices": PRICES, "model": "m"}
    ran = await Ran(Source(*TEN), **limits).run()
    ran.check("budget.cost", "abcd" * 3)
    assert ran.outcome.error.limit == Decimal("0.000006")


async def test_the_request_names_the_model_and_is_paid_for():
    request = {"model": "m", "prompt": "abcd"}  # 8 tokens of input
    limits = {"cost": Decimal("0.000014"), "prices": PRICES}
    ran = await Ran(Source(*TEN), **limits).run(request)
    ran.check("budget.cost", "abcd" * 3)


async def test_the_tightest_of_tokens_and_cost_counts():
    limits = {"cost": "0.000006", "prices": PRICES, "model": "m"}
    ran = await Ran(Source(*TEN), tokens=2, **limits).run()
    ran.check("budget.tokens", "abcd" * 2)
    ran = await Ran(Source(*TEN), tokens=5, **limits).run()
    ran.check("budget.cost", "abcd" * 3)


async def test_a_cost_without_a_price_has_no_limit_until_a_report_names_the_model():
    first = ev.llm_call(model="m", inputTokens=1, outputTokens=1)
    limits = {"cost": "0.000009", "prices": PRICES}
    ran = await Ran(Source(*TEN, first, *TEN), **limits).run()
    ran.check("budget.cost", "abcd" * 13)
    assert [meta for _, meta in ran.logged][:1] == [{"model": None}]


async def test_a_report_that_only_names_the_model_prices_the_request():
    named = ev.llm_call(callId="c", merge="max", model="m")
    limits = {"cost": "0.000014", "prices": PRICES}
    ran = await Ran(Source(named, *TEN), **limits).run({"prompt": "abcd"})
    ran.check("budget.cost", "abcd" * 3)


async def test_text_is_counted_at_the_price_of_the_call_before_it():
    calls = [
        ev.llm_call(model=name, inputTokens=1, outputTokens=0) for name in ("free", "m")
    ]
    limits = {"cost": "0.000007", "prices": PRICES}
    ran = await Ran(Source(*calls, *TEN), **limits).run()
    ran.check("budget.cost", "abcd" * 3)


async def test_reports_of_one_call_cost_once():
    call = {"callId": "c", "merge": "max", "model": "m", "outputTokens": 0}
    begun = [ev.llm_call(**call, inputTokens=tokens) for tokens in (1, 2, 3)]
    limits = {"cost": "0.000009", "prices": PRICES}
    ran = await Ran(Source(*begun, *TEN), **limits).run()
    ran.check("budget.cost", "abcd" * 3)


async def test_a_free_model_pays_no_debts():
    calls = [
        ev.llm_call(model="m", inputTokens=9, outputTokens=0),
        ev.llm_call(model="free", inputTokens=1, outputTokens=0),
    ]
    limits = {"cost": "0.000008", "prices": PRICES}
    ran = await Ran(Source(*calls, *TEN), **limits).run()
    ran.check("budget.cost", "")


async def test_a_free_model_has_no_limit():
    limits = {"cost": "0.000001", "prices": PRICES, "model": "free"}
    ran = await Ran(Source(*TEN), **limits).run()
    assert ran.outcome.status == "completed"


async def test_a_report_puts_the_estimate_right():
    less = ev.llm_call(inputTokens=0, outputTokens=1)  # not the 5 that were estimated
    ran = await Ran(Source(*TEN[:5], less, *TEN), tokens=6).run()
    ran.check("budget.tokens", "abcd" * 10)


async def test_a_report_of_the_input_alone_keeps_the_text_that_was_counted():
    call = {"callId": "c", "merge": "max"}
    begun = ev.llm_call(**call, inputTokens=2)
    ran = await Ran(Source(*TEN[:2], begun, begun, *TEN), tokens=6).run()
    ran.check("budget.tokens", "abcd" * 4)


async def test_a_report_that_passes_the_limit_ends_the_turn_at_the_next_text():
    much = ev.llm_call(inputTokens=100, outputTokens=100)
    source = Source(TEN[0], much, ev.event("custom"), TEN[1])
    ran = await Ran(source, tokens=50).run()
    ran.check("budget.tokens", "abcd")
    assert [e["type"] for e in ran.sent][2:4] == [ev.LLM_CALL, "custom"]


async def test_a_finished_answer_is_not_taken_back():
    much = ev.llm_call(inputTokens=100, outputTokens=100)
    ran = await Ran(Source(TEN[0], much), tokens=50).run()
    assert ran.outcome.status == "completed"


async def test_a_request_that_is_too_much_by_itself_never_reaches_the_source():
    source = Source(*TEN)
    ran = await Ran(source, tokens=50).run({"prompt": "x" * 400})
    assert ran.outcome.code == "budget.tokens"
    assert source.pulled == 0
    assert [record.text for record in ran.saved] == [""]


async def test_a_report_delivered_again_counts_once():
    last = {"callId": "c", "merge": "last", "finishReason": "stop"}
    first = ev.llm_call(**last, inputTokens=1, outputTokens=1)
    late = ev.llm_call(callId="c", merge="last", outputTokens=50)
    ran = await Ran(Source(first, *TEN[:2], first, late, *TEN), tokens=6).run()
    ran.check("budget.tokens", "abcd" * 4)


async def test_reported_input_takes_the_place_of_the_estimate():
    begun = ev.llm_call(callId="c", merge="max", inputTokens=1, outputTokens=0)
    ran = await Ran(Source(begun, *TEN), tokens=9).run({"prompt": "abcd"})
    ran.check("budget.tokens", "abcd" * 8)


async def test_reasoning_and_tool_input_count():
    part = {"type": "tool", "id": "t", "tool": "f", "callID": "c"}
    source = Source(
        ev.delta(ev.reasoning_part("r"), "abcd"),
        ev.delta(part, "abcd"),
        ev.tool_part("t2", tool="g", call_id="c2", status="running", inputText="abcd"),
        ev.delta(ev.text_part("p"), "abcd"),
    )
    ran = await Ran(source, tokens=3).run()
    assert ran.outcome.code == "budget.tokens"
    assert (source.pulled, ran.outcome.text) == (4, "")


async def test_malformed_events_and_reports_pass():
    odd = [
        {"type": ev.LLM_CALL},
        {"type": ev.PART_UPDATED},
        {"type": ev.PART_UPDATED, "data": {"part": 3, "delta": 4}},
        {"type": ev.RESULT, "data": {"finalText": 3}},
        ev.llm_call(inputTokens="many", outputTokens=-1),
    ]
    for limits in ({"tokens": 1}, {"limit_bytes": 1}, {"tokens": 1, "limit_bytes": 1}):
        ran = await Ran(Source(*odd), **limits).run()
        assert ran.outcome.status == "completed"


async def test_what_precedes_in_the_same_read_is_delivered():
    source = Source(TEN)
    ran = await Ran(source, tokens=3).run()
    assert ran.outcome.code == "budget.tokens"
    assert ran.outcome.text == "abcd" * 3


async def test_a_stopped_turn_is_metered():
    source = Source(*TEN)
    chat = Pipeline(source) | ops.lifecycle() | budget(tokens=4) | meter(PRICES)
    outcome = await chat.start(IDENTITY, request={"model": "m"}).outcome()
    assert outcome.usage.output_tokens == 4
    assert outcome.usage.cost == Decimal("0.000008")


async def test_turns_share_nothing():
    ran = Ran(Source(*TEN), tokens=10, events=10)
    for _ in range(3):
        assert (await ran.run()).outcome.status == "completed"


async def test_alone_it_raises_to_the_reader():
    with pytest.raises(BudgetExceeded, match="budget of 3 tokens") as raised:
        await feed(budget(tokens=3), TEN)
    assert (raised.value.kind, raised.value.limit) == ("tokens", 3)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "limits nothing"),
        ({"tokens": 0}, "tokens"),
        ({"tokens": 1.5}, "tokens"),
        ({"tokens": True}, "tokens"),
        ({"events": -1}, "events"),
        ({"limit_bytes": "9"}, "limit_bytes"),
        ({"cost": "1"}, "prices"),
        ({"cost": 0.5, "prices": PRICES}, '"0.5"'),
        ({"cost": "0", "prices": PRICES}, "more than 0"),
        ({"cost": "x", "prices": PRICES}, "more than 0"),
        ({"cost": "NaN", "prices": PRICES}, "more than 0"),
        ({"cost": True, "prices": PRICES}, "exactly"),
    ],
)
def test_wrong_limits_are_refused_when_composed(limits, message):
    with pytest.raises(CompositionError, match=message):
        budget(**limits)
