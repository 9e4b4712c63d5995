"""What holds of usage for any reports, in any order, however often delivered."""

import asyncio
import random
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

import operators as ops
from operators import TurnIdentity, Usage
from operators import event as ev
from operators.budget import budget
from operators.errors import BudgetExceeded
from operators.estimate import estimated_tokens, weight
from operators.meter import meter
from operators.metering import Metering
from operators.testing import chop, deltas, feed
from operators.turn import TurnContext
from operators.usage import MAX_TOKENS, TOKENS, Calls
from pipeline import Pipeline

IDENTITY = TurnIdentity(session_id="s", turn_index=0)

TOKEN = st.integers(0, MAX_TOKENS)
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=1),
)
MERGES = st.sampled_from(["last", "max", "sum"])
USAGES = st.builds(
    Usage,
    input_tokens=st.integers(1, 99),
    output_tokens=st.integers(0, 99),
    cached_input_tokens=st.integers(0, 99),
    provenance=st.sampled_from(["reported", "cumulative", "estimated"]),
    cost=st.none() | st.integers(0, 10**9).map(lambda n: Decimal(n) / 10**9),
)


def reports(merges=MERGES, tokens=TOKEN, calls=("a", "b", "c")):
    return st.fixed_dictionaries(
        {"callId": st.sampled_from(calls), "merge": merges},
        optional={
            **dict.fromkeys(TOKENS, tokens),
            "finishReason": st.just("stop"),
        },
    )


def fields(usage):
    return [0] * 5 if usage is None else [getattr(usage, f) for f in TOKENS.values()]


@given(st.lists(reports(merges=st.just("max"))), st.randoms(use_true_random=False))
def test_the_order_of_max_reports_does_not_matter(some, rnd):
    kept = [{k: v for k, v in one.items() if k != "finishReason"} for one in some]
    mixed = kept * 2
    rnd.shuffle(mixed)
    assert Calls(mixed).usage == Calls(kept).usage


@given(st.lists(reports(merges=st.sampled_from(["last", "max"])), max_size=8))
def test_a_report_delivered_again_at_once_changes_nothing(some):
    twice = [one for one in some for _ in range(2)]
    assert Calls(twice).usage == Calls(some).usage


@given(st.lists(reports(merges=st.just("sum"))))
def test_numbered_sums_may_be_replayed_whole(some):
    numbered = [{**one, "reportId": k} for k, one in enumerate(some)]
    assert Calls(numbered * 2).usage == Calls(numbered).usage


@given(st.lists(reports(merges=st.sampled_from(["max", "sum"]))))
def test_max_and_sum_never_go_down(some):
    calls = Calls()
    before = fields(None)
    for one in some:
        calls.add(one)
        now = fields(calls.usage)
        assert all(a <= b for a, b in zip(before, now, strict=True))
        before = now


@given(st.lists(st.dictionaries(st.sampled_from(list(TOKENS)), TOKEN)))
def test_across_calls_everything_is_summed(some):
    expected = [sum(one.get(key, 0) for one in some) for key in TOKENS]
    assert fields(Calls(some).usage) == expected


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                [
                    *TOKENS,
                    "callId",
                    "merge",
                    "finishReason",
                    "model",
                    "provenance",
                    "cost",
                    "latencyMs",
                    "reportId",
                ]
            ),
            JUNK,
        )
    )
)
def test_no_report_breaks_the_fold_or_makes_it_negative(some):
    calls = Calls()
    metering = Metering()
    for one in some:
        calls.add(one)
        metering.report(one)
    assert all(n >= 0 for n in fields(calls.usage))
    usages = metering.conclude(
        completed=False, estimate=estimated_tokens, prompt=lambda: 0
    )
    assert [min(fields(usage)) >= 0 for usage in usages].count(False) == 0
    if usages:
        assert metering.merged(usages)["calls"] == len(usages)


@given(USAGES, USAGES, USAGES)
def test_usage_adds_up_in_any_order(a, b, c):
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Usage() == a


@given(st.text(), st.lists(st.integers(1, 8), min_size=1))
def test_weight_is_the_same_however_a_text_is_cut(text, sizes):
    assert sum(map(weight, chop(text, sizes))) == weight(text)


@given(
    st.lists(st.text(min_size=1, max_size=9), min_size=1),
    st.lists(st.integers(1, 8), min_size=1),
)
def test_the_estimate_of_a_turn_is_the_same_however_its_text_is_cut(texts, sizes):
    whole = "".join(texts)
    found = []
    for pieces in (texts, chop(whole, sizes), [whole]):
        for chain in (meter(), ops.accumulate() | meter(), meter() | ops.accumulate()):
            turn = TurnContext(IDENTITY)
            asyncio.run(feed(chain, deltas(*pieces), turn=turn))
            found.append(turn.usage)
    assert (
        found
        == [Usage(output_tokens=estimated_tokens(whole), provenance="estimated")] * 9
    )


@given(st.lists(st.text(min_size=1, max_size=9)), st.integers(1, 20))
def test_a_budget_lets_through_what_fits_and_no_more(texts, limit):
    sent = []

    async def produce():
        for event in deltas(*texts):
            yield event

    async def run():
        chat = Pipeline(produce) | budget(tokens=limit) | ops.tap(sent.append)
        return [event async for event in chat.start(IDENTITY).events()]

    try:
        assert asyncio.run(run()) == sent
    except BudgetExceeded:
        assert len(sent) < len(texts)
        assert weight("".join(texts[: len(sent) + 1])) > 12 * limit
    else:
        assert len(sent) == len(texts)
    assert weight("".join(e["data"]["delta"] for e in sent)) <= 12 * limit


@given(st.lists(reports(merges=st.just("max")), min_size=1), st.integers(0, 2**32))
def test_reports_between_deltas_add_up_to_the_same(some, seed):
    final = [
        {"callId": key, "merge": "max", "inputTokens": 0, "outputTokens": 0}
        for key in dict.fromkeys([one["callId"] for one in some])
    ]
    open_ = [{k: v for k, v in one.items() if k != "finishReason"} for one in some]
    events = [ev.llm_call(**one) for one in [*final, *open_]]
    events += [ev.llm_call(**one, finishReason="stop") for one in final]
    rnd = random.Random(seed)
    for delta in deltas(*"some text between"):
        events.insert(rnd.randrange(len(events)), delta)
    turn = TurnContext(IDENTITY)
    asyncio.run(feed(meter(), events, turn=turn))
    data = [event["data"] for event in events if event["type"] == ev.LLM_CALL]
    assert turn.usage == Calls(data).usage
