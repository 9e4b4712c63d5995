"""Usage and Calls: what reports of model calls add up to."""

from decimal import Decimal

import pytest

from operators import Usage
from operators.estimate import estimated_input, estimated_tokens
from operators.usage import MAX_TOKENS, Calls


def usage_of(*reports):
    return Calls(reports).usage


def test_nothing_reported_is_no_usage():
    assert usage_of() is None
    assert usage_of({"model": "m", "finishReason": "stop"}) is None


def test_events_without_a_call_id_are_calls_of_their_own():
    one = {"inputTokens": 3, "outputTokens": 4, "cachedInputTokens": 2}
    assert usage_of(one, one) == Usage(
        input_tokens=6, output_tokens=8, cached_input_tokens=4
    )


def test_every_term_has_its_field():
    assert usage_of(
        {
            "inputTokens": 5,
            "outputTokens": 4,
            "cachedInputTokens": 3,
            "cacheWriteInputTokens": 2,
            "reasoningTokens": 1,
        }
    ) == Usage(
        input_tokens=5,
        output_tokens=4,
        cached_input_tokens=3,
        cache_write_input_tokens=2,
        reasoning_tokens=1,
    )


@pytest.mark.parametrize(
    ("merge", "wrote"), [("last", 7), ("max", 9), ("sum", 18), ("other", 7), (3, 7)]
)
def test_reports_of_one_call_are_joined_as_they_declare(merge, wrote):
    reports = [
        {"callId": "c", "merge": merge, "inputTokens": 5, "outputTokens": 2},
        {"callId": "c", "merge": merge, "outputTokens": 9},
        {"callId": "c", "merge": merge, "outputTokens": 7, "finishReason": "stop"},
    ]
    assert usage_of(*reports) == Usage(input_tokens=5, output_tokens=wrote)


def test_a_report_without_merge_is_final_and_replaces():
    reports = [
        {"callId": "c", "merge": "sum", "outputTokens": 2},
        {"callId": "c", "outputTokens": 1},
    ]
    assert usage_of(*reports) == Usage(output_tokens=1)


def test_calls_with_different_ids_are_summed():
    reports = [
        {"callId": key, "merge": "last", "outputTokens": 2, "finishReason": "stop"}
        for key in ("a", "b", 1)
    ]
    assert usage_of(*reports) == Usage(output_tokens=6)


def test_an_empty_call_id_is_none():
    report = {"callId": "", "merge": "last", "outputTokens": 2}
    assert usage_of(report, report) == Usage(output_tokens=4)


@pytest.mark.parametrize("merge", ["last", "max"])
def test_a_repeated_report_changes_nothing(merge):
    report = {"callId": "c", "merge": merge, "outputTokens": 2}
    assert usage_of(*[report] * 5) == usage_of(report)
    final = {**report, "finishReason": "stop"}
    assert usage_of(report, *[final] * 3, report) == Usage(output_tokens=2)


def test_what_comes_after_the_final_report_is_late():
    final = {"callId": "c", "merge": "last", "outputTokens": 9, "finishReason": "stop"}
    late = {"callId": "c", "merge": "last", "outputTokens": 2}
    assert usage_of(final, late) == Usage(output_tokens=9)
    final["merge"] = late["merge"] = "sum"
    assert usage_of(final, late, final) == Usage(output_tokens=9)


def test_a_sum_leaves_out_the_report_ids_it_has_seen():
    first = {"callId": "c", "merge": "sum", "reportId": 1, "outputTokens": 2}
    second = {**first, "reportId": "2"}
    assert usage_of(first, second, first).output_tokens == 4
    first["reportId"] = second["reportId"] = []
    assert usage_of(first, second, first).output_tokens == 6


@pytest.mark.parametrize(
    "value",
    [-1, True, "7", 7.0, float("nan"), float("inf"), MAX_TOKENS + 1, None, [], {}],
)
def test_a_number_that_is_no_count_is_passed_over(value):
    reports = [
        {"callId": "c", "merge": "last", "inputTokens": 3, "outputTokens": 5},
        {"callId": "c", "merge": "last", "inputTokens": value, "finishReason": "x"},
    ]
    assert usage_of(*reports) == Usage(input_tokens=3, output_tokens=5)
    assert usage_of({"outputTokens": value}) is None


def test_a_call_that_was_cut_is_cumulative_and_the_worst_counts():
    cut = {"callId": "c", "merge": "max", "outputTokens": 1}
    whole = {"outputTokens": 1}
    guess = {"outputTokens": 1, "provenance": "estimated"}
    assert usage_of(whole).provenance == "reported"
    assert usage_of(whole, cut).provenance == "cumulative"
    assert usage_of(guess, whole, cut).provenance == "estimated"
    assert usage_of({**whole, "provenance": "sure"}).provenance == "reported"


def test_what_a_meter_has_told_is_read_back():
    data = {
        "inputTokens": 3,
        "outputTokens": 4,
        "provenance": "estimated",
        "cost": "0.000001",
        "currency": "EUR",
        "calls": 2,
    }
    assert usage_of(data) == Usage(
        input_tokens=3,
        output_tokens=4,
        provenance="estimated",
        cost=Decimal("0.000001"),
        currency="EUR",
    )


@pytest.mark.parametrize("cost", ["x", "NaN", "-1", 0.1, 1, None, "Infinity"])
def test_a_cost_that_is_none_is_unknown(cost):
    assert usage_of({"outputTokens": 1, "cost": cost}).cost is None


def test_what_a_call_says_of_itself_is_kept():
    calls = Calls()
    first = {"callId": "c", "merge": "last", "model": "m", "provider": "p"}
    call = calls.add(first)
    calls.add({"callId": "c", "model": "", "finishReason": "stop", "latencyMs": 7})
    assert (call.model, call.provider) == ("m", "p")
    assert (call.finish_reason, call.latency_ms, call.ended) == ("stop", 7, True)
    assert calls.all == [call]
    calls.add({"callId": "c", "latencyMs": float("nan")})
    assert call.latency_ms == 7


def test_usage_adds_up():
    a = Usage(input_tokens=1, output_tokens=2, cost=Decimal("0.1"), currency="USD")
    b = Usage(input_tokens=3, output_tokens=4, cost=Decimal("0.2"), currency="USD")
    both = a + b
    assert (both.input_tokens, both.output_tokens, both.total_tokens) == (4, 6, 10)
    assert (both.cost, both.currency) == (Decimal("0.3"), "USD")
    with pytest.raises(TypeError):
        a + 1


def test_a_cost_is_unknown_where_a_part_of_it_is():
    known = Usage(output_tokens=1, cost=Decimal(1), currency="USD")
    for other in (
        Usage(output_tokens=1),
        Usage(output_tokens=1, cost=Decimal(1), currency="EUR"),
    ):
        assert (known + other).cost is (other + known).cost is None
        assert (known + other).currency is None
    assert known + Usage() == Usage() + known == known


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("abcd", 1),
        ("abcde", 2),
        ("你好", 2),
        ("🙂", 2),
        ("\ud800", 1),
    ],
)
def test_an_estimate_takes_the_script_into_account(text, tokens):
    assert estimated_tokens(text) == tokens


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        (None, 0),
        (object(), 0),
        ("", 0),
        ("abcd", 1 + 4 + 3),
        ({"prompt": "abcd"}, 8),
        ({"messages": [{"role": "user", "content": "abcd"}]}, 8),
        ([{"role": "user", "content": [{"type": "text", "text": "abcd"}]}], 8),
        ({"system": "abcd", "input": "abcd"}, 13),
        ({"messages": [{"content": [{"image_url": {"url": "data:abc"}}]}]}, 0),
        ({"model": "m", "temperature": 1}, 0),
        ({"tools": [1, 2, 3, 4], "prompt": "abcd"}, 8 + 3),
    ],
)
def test_an_estimate_of_the_input_reads_what_chat_requests_look_like(request_, tokens):
    assert estimated_input(request_) == tokens


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (["You are a helpful assistant.", "Name three primary colours."], 25),
        (["Pick a colour and number as JSON."], 17),
        (["Tell me a fact about rivers."], 16),
        (["Repeat exactly: 🙂🙃 héllo 你好"], 24),
    ],
)
def test_the_estimate_of_the_input_is_near_what_was_reported(content, reported):
    request = {"messages": [{"role": "user", "content": text} for text in content]}
    assert 0.75 * reported <= estimated_input(request) <= 1.25 * reported


def test_a_request_that_holds_itself_is_read_to_a_depth():
    message = {"content": []}
    message["content"].append(message)
    message["content"].append("abcd")
    assert estimated_input({"messages": [message]}) > 0
