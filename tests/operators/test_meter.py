"""meter: usage that is right however a turn ends, told once, and kept in a ledger."""

import asyncio
import json
import sqlite3
from contextlib import aclosing, closing
from decimal import Decimal
from pathlib import Path

import pytest

import operators as ops
from operators import TurnContext, TurnIdentity, Usage
from operators import event as ev
from operators.booking import Booking
from operators.errors import CompositionError, SourceIncomplete
from operators.ledger import LedgerRow, MemoryLedger
from operators.meter import meter
from operators.testing import deltas, feed
from pipeline import Pipeline
from pipeline.sources import recorded
from pipeline.sources.anthropic_events import AnthropicAssembler
from pipeline.sources.responses_events import ResponseAssembler

IDENTITY = TurnIdentity(session_id="s-1", turn_index=0)
DATA = Path(__file__).parents[1] / "data" / "transcripts"
PRICES = {
    "smollm2-*": {"input": "1", "output": "4", "cached_input": "0.1"},
    "m": {"input": "1", "output": "4"},
}
REPORTED = {  # input, output, cached: what the providers' own usage says
    "basic_usage.sse": (25, 86, 24),
    "emoji.sse": (24, 17, 3),
    "json.sse": (17, 25, 0),
    "n2_stop.sse": (16, 21, 3),
    "tools.sse": (469, 37, 468),
}
REQUEST = {"messages": [{"role": "user", "content": "Name three colours."}]}
STREAMS = {
    **{name: recorded(DATA / name) for name in REPORTED},
    "basic_usage.timed.jsonl": recorded(DATA / "basic_usage.timed.jsonl"),
}
REPORTED["basic_usage.timed.jsonl"] = REPORTED["basic_usage.sse"]


def scripted(*events):
    async def produce():
        for event in events:
            if isinstance(event, BaseException):
                raise event
            yield event

    return produce


def anthropic(text, *, reported):
    """Make the events of a call whose input is told first, and its output as it grows."""
    call = {"callId": "msg_1", "model": "m", "provider": "anthropic"}
    return [
        ev.llm_call(
            **call, merge="max", inputTokens=33, outputTokens=1, cachedInputTokens=32
        ),
        *deltas(*text),
        ev.llm_call(**call, merge="max", outputTokens=reported, finishReason="stop"),
    ]


ANTHROPIC = anthropic(
    ["Hello", " there", "!", " I", "'m", " here", " to", " help", " you", "."],
    reported=16,
)
STREAMS["anthropic"] = scripted(*ANTHROPIC)
REPORTED["anthropic"] = (33, 16, 32)


class Kept:
    """A turn with all that tells its usage: what was saved, booked, and sent."""

    def __init__(self, source, *, place="after", lifecycle=True, **terms):
        self.saved = []
        self.seen = []
        self.logged = []
        self.ledger = MemoryLedger()
        self.writes = []

        def write(row):
            self.writes.append(row)
            self.ledger.write(row)

        terms = {"prices": PRICES, "ledger": write, **terms}
        gathered = ops.accumulate()
        metered = meter(terms.pop("prices"), terms.pop("ledger"), **terms)
        both = gathered | metered if place == "after" else metered | gathered
        self.chat = Pipeline(source)
        if lifecycle:
            self.chat |= ops.lifecycle()
        self.chat |= both
        self.chat |= ops.tap(self.seen.append)
        self.chat |= ops.persist(self.saved.append, partial=True)

    def start(self, **options):
        return self.chat.start(
            IDENTITY,
            **{
                "request": REQUEST,
                "log": lambda message, meta: self.logged.append((message, meta)),
                **options,
            },
        )

    async def run(self, **options):
        run = self.start(**options)
        return await run.outcome()

    def calls(self):
        return [e["data"] for e in self.seen if e["type"] == ev.LLM_CALL]

    def agree(self, outcome):
        """Check that all who tell the usage say the same, once; return it."""
        usage = outcome.usage
        assert [record.usage for record in self.saved] == [usage]
        (row,) = self.ledger.rows
        assert row.usage == usage
        assert (row.status, row.code) == (outcome.status, outcome.code)
        told = self.calls()
        assert len(told) == (usage is not None)
        if usage is not None:
            assert told[0]["inputTokens"] == usage.input_tokens
            assert told[0]["outputTokens"] == usage.output_tokens
            assert told[0]["provenance"] == usage.provenance
            cost = told[0].get("cost")
            assert (None if cost is None else Decimal(cost)) == usage.cost
            assert (row.cost, row.currency) == (usage.cost, usage.currency)
            assert row.provenance == usage.provenance
        return usage


places = pytest.mark.parametrize("place", ["before", "after"])


@places
@pytest.mark.parametrize("name", STREAMS)
async def test_the_usage_of_a_recorded_stream_is_what_its_provider_reported(
    name, place
):
    kept = Kept(STREAMS[name], place=place)
    outcome = await kept.run()
    usage = kept.agree(outcome)
    read, wrote, cached = REPORTED[name]
    assert (usage.input_tokens, usage.output_tokens) == (read, wrote)
    assert usage.cached_input_tokens == cached
    assert usage.provenance == "reported"
    each = "1" if name == "anthropic" else "0.1"
    cost = (read - cached) + cached * Decimal(each) + 4 * wrote
    assert usage.cost == cost / 10**6
    assert usage.currency == "USD"
    assert len(kept.writes) == 1


@places
@pytest.mark.parametrize("way", ["cancel", "disconnect", "detach"])
@pytest.mark.parametrize("name", STREAMS)
async def test_the_usage_of_a_stream_cut_at_any_event_is_sane(name, way, place):
    read, wrote, _ = REPORTED[name]
    whole = Kept(STREAMS[name], place=place)
    events = [e async for e in whole.start().events()]
    before = 0
    for stop in range(1, len(events) - 1):
        kept = Kept(STREAMS[name], place=place)
        run = kept.start()
        async with aclosing(run.events()) as stream:
            count = 0
            async for _ in stream:
                count += 1
                if count == stop and way == "cancel":
                    run.cancel("enough")
                elif count == stop and way == "detach":
                    run.detach()
                if count == stop and way != "cancel":
                    break
        outcome = await run.outcome()
        usage = kept.agree(outcome)
        assert len(kept.writes) == 1
        if outcome.status == "completed":
            assert (usage.input_tokens, usage.output_tokens) == (read, wrote)
            assert usage.provenance == "reported"
            continue
        assert outcome.status == "cancelled"
        text = "".join(  # of all that passed, the rest of the read that was cut too
            [e["data"].get("delta", "") for e in kept.seen if "part" in e["data"]]
        )
        if name == "anthropic":
            begun = text or outcome.usage
            if not begun:
                continue
            assert usage.input_tokens == 33
            assert usage.provenance == ("estimated" if len(text) > 4 else "cumulative")
        elif not text:
            assert usage is None
            continue
        else:
            assert usage.provenance == "estimated"
            assert usage.input_tokens == 12  # of REQUEST
        assert before <= usage.output_tokens <= wrote + 25
        assert usage.output_tokens >= max(1, len(text) // 4)
        assert usage.cost is None or usage.cost > 0
        before = usage.output_tokens


@places
@pytest.mark.parametrize(
    "ending",
    [
        ValueError("broken"),
        SourceIncomplete("cut"),
        ev.event("error", {"message": "m"}),
    ],
    ids=["raised", "source error", "in-band"],
)
async def test_a_failed_turn_tells_what_it_used(ending, place):
    kept = Kept(scripted(*deltas("x" * 40), ending), place=place)
    outcome = await kept.run()
    usage = kept.agree(outcome)
    assert outcome.status == "failed"
    assert (usage.input_tokens, usage.output_tokens) == (12, 10)
    assert usage.provenance == "estimated"


async def test_without_a_lifecycle_the_usage_is_told_as_well():
    kept = Kept(scripted(*deltas("x" * 40), ValueError("broken")), lifecycle=False)
    run = kept.start()
    with pytest.raises(ValueError, match="broken"):
        [event async for event in run.events()]
    assert kept.agree(await run.outcome()).output_tokens == 10


async def test_a_timeout_tells_what_was_used():
    async def hangs():
        for event in deltas("x" * 40):
            yield event
        await asyncio.Event().wait()

    kept = Kept(hangs)
    chat = Pipeline(hangs) | ops.timeout(idle=0.01)
    chat |= ops.Chain(kept.chat.operators)
    outcome = await chat.start(IDENTITY, request=REQUEST).outcome()
    assert outcome.code == "timeout.idle"
    assert kept.agree(outcome) == kept.writes[0].usage
    assert outcome.usage.output_tokens == 10


async def test_usage_and_ledger_are_right_where_settling_takes_too_long():
    async def never(record):
        await asyncio.Event().wait()

    kept = Kept(scripted(*ANTHROPIC))
    chat = kept.chat | ops.persist(never)
    outcome = await chat.start(IDENTITY, settle_timeout=0.05).outcome()
    assert outcome.code == "settle_timeout"
    assert kept.agree(outcome).output_tokens == 16
    statuses = [(row.status, row.code) for row in kept.writes]
    assert statuses == [("completed", None), ("failed", "settle_timeout")]


async def test_usage_and_ledger_are_right_where_finishing_takes_too_long():
    class Never:
        async def finish(self):
            await asyncio.Event().wait()

    ledger = MemoryLedger()
    chat = (
        Pipeline(scripted(*deltas("x" * 40)))
        | ops.lifecycle()
        | ops.accumulate()
        | ops.operator(Never)
        | meter(ledger=ledger)
    )
    run = chat.start(IDENTITY, settle_timeout=0.05, log=lambda message, meta: None)
    outcome = await run.outcome()
    assert outcome.code == "settle_timeout"
    (row,) = ledger.rows
    assert row.usage == outcome.usage
    assert row.usage.output_tokens == 10


async def test_a_turn_that_was_never_read_used_nothing():
    kept = Kept(scripted(*ANTHROPIC))
    run = kept.start()
    run.cancel("before it began")
    outcome = await run.outcome()
    assert outcome.usage is None
    assert [row.usage for row in kept.writes] == [None]
    assert kept.ledger.rows[0].cost is None


async def test_a_turn_without_report_and_text_claims_nothing():
    kept = Kept(scripted({"type": "custom", "data": {}}))
    assert kept.agree(await kept.run()) is None


@places
async def test_repeated_deliveries_do_not_count_twice(place):
    once = anthropic(["Hello"], reported=16)
    again = [event for event in once for _ in range(3)]
    again = [e for k, e in enumerate(again) if "delta" not in e["data"] or k % 3 == 0]
    kept = Kept(scripted(*again, once[0], once[-1]), place=place)
    usage = kept.agree(await kept.run())
    assert (usage.input_tokens, usage.output_tokens) == (33, 16)
    assert usage.provenance == "reported"
    assert kept.calls()[0]["calls"] == 1


@places
async def test_calls_are_summed_and_each_is_priced_by_its_own_model(place):
    calls = [
        ev.llm_call(model="m", inputTokens=10, outputTokens=1, latencyMs=5),
        *deltas("abcd"),
        ev.llm_call(
            model="smollm2-x",
            inputTokens=100,
            outputTokens=2,
            latencyMs=7.5,
            finishReason="length",
        ),
    ]
    kept = Kept(scripted(*calls), place=place)
    usage = kept.agree(await kept.run())
    assert usage == Usage(
        input_tokens=110,
        output_tokens=3,
        cost=Decimal(10 + 4 + 100 + 8) / 10**6,
        currency="USD",
    )
    assert kept.calls() == [
        {
            "model": "smollm2-x",
            "models": ["m", "smollm2-x"],
            "inputTokens": 110,
            "outputTokens": 3,
            "provenance": "reported",
            "cost": "0.000122",
            "currency": "USD",
            "calls": 2,
            "finishReason": "length",
            "latencyMs": 12.5,
        }
    ]
    assert kept.ledger.rows[0].models == ("m", "smollm2-x")
    assert kept.ledger.rows[0].calls == 2


@places
async def test_a_turn_cut_in_its_second_call_is_the_first_reported_plus_an_estimate(
    place,
):
    first = [*deltas("abcd"), ev.llm_call(model="m", inputTokens=10, outputTokens=1)]
    second = deltas("x" * 40, part_id="p2")
    kept = Kept(scripted(*first, *second, ValueError("broken")), place=place)
    usage = kept.agree(await kept.run())
    assert (usage.input_tokens, usage.output_tokens) == (10 + 12, 1 + 10)
    assert usage.provenance == "estimated"
    assert kept.calls()[0]["calls"] == 2


async def test_a_final_report_delivered_again_covers_no_later_text():
    last = {"callId": "c", "merge": "last", "model": "m", "finishReason": "stop"}
    first = ev.llm_call(**last, inputTokens=10, outputTokens=1)
    second = deltas("x" * 40, part_id="p2")
    kept = Kept(scripted(*deltas("abcd"), first, *second, first, ValueError("broken")))
    usage = kept.agree(await kept.run())
    assert (usage.input_tokens, usage.output_tokens) == (10 + 12, 1 + 10)


async def test_a_call_cut_after_a_report_of_its_text_adds_what_came_since():
    call = {"callId": "c", "merge": "last", "model": "m"}
    events = [
        *deltas("x" * 40),
        ev.llm_call(**call, inputTokens=5, outputTokens=30),
        *deltas("y" * 8),
        ValueError("broken"),
    ]
    kept = Kept(scripted(*events))
    usage = kept.agree(await kept.run())
    assert (usage.input_tokens, usage.output_tokens) == (5, 32)
    assert usage.provenance == "estimated"


async def test_a_final_report_without_output_leaves_the_text_to_be_estimated():
    first, *text, last = anthropic(["x" * 40], reported=0)
    del last["data"]["outputTokens"]
    kept = Kept(scripted(first, *text, last))
    usage = kept.agree(await kept.run())
    assert (usage.input_tokens, usage.output_tokens) == (33, 10)
    assert usage.provenance == "estimated"


async def test_text_before_another_call_begins_is_that_of_the_call_before():
    first, second = ({"callId": key, "merge": "max", "model": "m"} for key in "ab")
    events = [
        ev.llm_call(**first, inputTokens=3, outputTokens=1),
        *deltas("x" * 40),
        ev.llm_call(**second, inputTokens=5, outputTokens=0),
        ValueError("broken"),
    ]
    kept = Kept(scripted(*events))
    usage = kept.agree(await kept.run())
    assert (usage.input_tokens, usage.output_tokens) == (8, 10)
    assert usage.provenance == "estimated"


@places
async def test_parts_of_two_types_may_have_one_id(place):
    snapshot = {"part": {"type": "text", "id": "0", "text": "x" * 40}}
    events = [
        ev.delta(ev.reasoning_part("0"), "x" * 40),
        {"type": ev.PART_UPDATED, "data": snapshot},
    ]
    kept = Kept(scripted(*events), place=place)
    assert kept.agree(await kept.run()).output_tokens == 20


async def test_a_call_cut_right_after_a_report_is_cumulative():
    call = {"callId": "c", "merge": "last", "model": "m"}
    events = [
        *deltas("x" * 40),
        ev.llm_call(**call, inputTokens=5, outputTokens=30),
        ValueError("broken"),
    ]
    kept = Kept(scripted(*events))
    usage = kept.agree(await kept.run())
    assert (usage.output_tokens, usage.provenance) == (30, "cumulative")


async def test_the_last_intermediate_report_of_a_completed_turn_is_its_usage():
    call = {"callId": "c", "merge": "last", "model": "m"}
    events = [*deltas("abcd"), ev.llm_call(**call, inputTokens=5, outputTokens=1)]
    kept = Kept(scripted(*events))
    usage = kept.agree(await kept.run())
    assert (usage.output_tokens, usage.provenance) == (1, "reported")


async def test_text_after_the_last_call_of_a_completed_turn_is_no_models():
    events = [
        *deltas("abcd"),
        ev.llm_call(model="m", inputTokens=5, outputTokens=1),
        *deltas("Sources: ...", part_id="p2"),
    ]
    kept = Kept(scripted(*events))
    usage = kept.agree(await kept.run())
    assert (usage.output_tokens, usage.provenance) == (1, "reported")


@places
async def test_a_call_that_never_tells_its_tokens_is_estimated(place):
    events = [*deltas("x" * 40), ev.llm_call(model="m", finishReason="stop")]
    kept = Kept(scripted(*events), place=place)
    usage = kept.agree(await kept.run())
    assert (usage.input_tokens, usage.output_tokens) == (12, 10)
    assert usage.provenance == "estimated"
    assert usage.cost == Decimal(12 + 40) / 10**6


async def test_a_recorded_stream_without_usage_is_estimated():
    kept = Kept(recorded(DATA / "llama_cpp_python.sse"))
    usage = kept.agree(await kept.run())
    assert usage.provenance == "estimated"
    assert usage.output_tokens == -(-len((await kept.run()).text.encode()) // 4)


async def test_a_recorded_stream_that_was_cut_is_estimated():
    kept = Kept(recorded(DATA / "truncated_server_killed.sse"))
    outcome = await kept.run()
    assert outcome.code == "source.incomplete"
    usage = kept.agree(outcome)
    assert usage.provenance == "estimated"
    assert usage.output_tokens == -(-len(outcome.text.encode()) // 4)


@places
async def test_reasoning_and_tool_input_count_as_output(place):
    part = {"type": "tool", "id": "t", "tool": "f", "callID": "c"}
    whole = {"status": "running", "input": {"a": "x" * 10}}
    events = [
        ev.delta(ev.reasoning_part("r"), "x" * 40),
        ev.delta(part, '{"a": 1}'),
        {"type": ev.PART_UPDATED, "data": {"part": {**part, "state": whole}}},
        ev.tool_part("t2", tool="g", call_id="c2", **whole),
        ev.tool_part("t2", tool="g", call_id="c2", **{**whole, "status": "completed"}),
        ValueError("broken"),
    ]
    kept = Kept(scripted(*events), place=place)
    outcome = await kept.run()
    usage = kept.agree(outcome)
    size = 40 + len('{"a": "xxxxxxxxxx"}')
    more = len('{"a": 1}') if place == "before" else len('{"a": "xxxxxxxxxx"}')
    assert usage.output_tokens == -(-(size + more) // 4)


async def test_a_source_that_sends_snapshots_is_not_counted_twice():
    def snapshot(text):
        return {
            "type": ev.PART_UPDATED,
            "data": {"part": {"type": "text", "id": "p", "text": text}},
        }

    events = [snapshot("x" * 20), snapshot("x" * 40), ev.result("x" * 40)]
    kept = Kept(scripted(*events, ValueError("broken")), place="before")
    assert kept.agree(await kept.run()).output_tokens == 10


async def test_a_result_alone_is_what_the_model_wrote():
    kept = Kept(scripted(ev.result("x" * 40)), place="before")
    assert kept.agree(await kept.run()).output_tokens == 10


async def test_estimates_are_the_callers_to_make():
    kept = Kept(
        scripted(*deltas("a b c"), ValueError("broken")),
        estimate=lambda text: len(text.split()),
        prompt=lambda turn: {"prompt": turn.request["q"]},
        model="m",
    )
    usage = kept.agree(await kept.run(request={"q": "one two"}))
    assert (usage.input_tokens, usage.output_tokens) == (2 + 4 + 3, 3)
    assert usage.cost == Decimal(9 + 12) / 10**6
    assert kept.ledger.rows[0].models == ("m",)


@pytest.mark.parametrize("tokens", [-1, 1.5, None, True, 10**12])
async def test_an_estimate_that_is_no_count_is_logged_and_replaced(tokens):
    kept = Kept(scripted(*deltas("x" * 40)), estimate=lambda text: tokens)
    assert kept.agree(await kept.run()).output_tokens == 10
    assert "estimate" in kept.logged[0][0]


async def test_estimates_that_raise_do_not_fail_the_turn():
    def broken(_):
        raise KeyError("no")

    kept = Kept(scripted(*deltas("x" * 40)), estimate=broken, prompt=broken)
    outcome = await kept.run()
    assert outcome.status == "completed"
    assert kept.agree(outcome).output_tokens == 10
    assert len(kept.logged) >= 2


async def test_the_model_of_the_request_prices_a_call_that_named_none():
    kept = Kept(scripted(*deltas("x" * 40), ValueError("broken")))
    usage = kept.agree(await kept.run(request={"model": "m", "prompt": "x"}))
    assert usage.cost == Decimal(8 + 40) / 10**6


async def test_a_model_without_a_price_costs_none_and_is_logged_once():
    kept = Kept(scripted(ev.llm_call(model="new", inputTokens=1, outputTokens=1)))
    for _ in range(3):
        outcome = await kept.run()
        assert outcome.usage.cost is None
    assert [meta for _, meta in kept.logged] == [{"model": "new"}]
    assert "cost" not in kept.calls()[0]


async def test_a_cost_that_a_call_reports_is_kept():
    call = {"model": "m", "inputTokens": 1, "outputTokens": 1}
    kept = Kept(scripted(ev.llm_call(**call, cost="0.5", currency="EUR")))
    usage = kept.agree(await kept.run())
    assert (usage.cost, usage.currency) == (Decimal("0.5"), "EUR")


async def test_a_reported_cost_without_a_currency_names_none():
    call = {"model": "m", "inputTokens": 1, "outputTokens": 1}
    kept = Kept(scripted(ev.llm_call(**call, cost="0.5")))
    usage = kept.agree(await kept.run())
    assert (usage.cost, usage.currency) == (Decimal("0.5"), None)
    assert "currency" not in kept.calls()[0]


@pytest.mark.parametrize("state", [None, "pending", {"input": {"x": {1}}}, {}])
async def test_tool_input_that_cannot_be_read_is_not_estimated(state):
    part = {"type": "tool", "id": "t", "tool": "f", "callID": "c", "state": state}
    tool = {"type": ev.PART_UPDATED, "data": {"part": part}}
    out = await feed(meter(PRICES), [tool, *deltas("x" * 40)])
    alone = await feed(meter(PRICES), deltas("x" * 40))
    assert out[-1] == alone[-1]


async def test_the_turn_knows_its_usage_while_it_runs():
    seen = []

    def look(event, turn):
        seen.append(turn.usage)

    chat = Pipeline(scripted(*ANTHROPIC)) | meter() | ops.tap(look)
    chat = chat | ops.accumulate()
    await chat.start(IDENTITY).outcome()
    assert seen[0] == Usage(
        input_tokens=33,
        output_tokens=1,
        cached_input_tokens=32,
        provenance="cumulative",
    )


async def test_malformed_reports_are_taken_out_and_change_nothing():
    bad = [{"type": ev.LLM_CALL}, {"type": ev.LLM_CALL, "data": ["x"]}]
    kept = Kept(scripted(*bad, *deltas("x" * 40)))
    assert kept.agree(await kept.run()).output_tokens == 10


async def test_alone_it_meters_any_stream():
    events = await feed(meter(PRICES), ANTHROPIC)
    assert [event["type"] for event in events[:-1]] == [ev.PART_UPDATED] * 10
    assert events[-1]["data"]["outputTokens"] == 16
    assert events[-1]["data"]["finishReason"] == "stop"


async def test_lists_of_one_read_are_metered_alike():
    async def batched():
        yield ANTHROPIC

    kept = Kept(batched, place="before")
    assert kept.agree(await kept.run()).output_tokens == 16


def folded(assembler, name):
    """Make the events of a recorded stream, read by the fold of its provider."""
    events = []
    for line in (DATA / name).read_text().splitlines():
        if line.startswith("data: {"):
            assembler.feed(json.loads(line.removeprefix("data: ")), events)
    return events + assembler.finish(latency_ms=5)


@places
@pytest.mark.parametrize(
    ("assembler", "name", "reported"),
    [
        (AnthropicAssembler, "anthropic_messages.sse", (33, 16, 32)),
        (ResponseAssembler, "responses_api.sse", (33, 16, 24)),
    ],
)
async def test_other_providers_are_metered_exactly_and_sanely_where_they_are_cut(
    assembler, name, reported, place
):
    events = folded(assembler(), name)
    begun = 33 if "inputTokens" in events[0]["data"] else 12
    before = 0
    for stop in range(1, len(events) + 1):
        whole = stop == len(events)
        end = () if whole else (ValueError("broken"),)
        kept = Kept(scripted(*events[:stop], *end), place=place)
        usage = kept.agree(await kept.run())
        if whole:
            told = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)
            assert (told, usage.provenance) == (reported, "reported")
            break
        assert usage.input_tokens == begun
        assert usage.provenance in ("cumulative", "estimated")
        estimated = usage.provenance == "estimated"
        assert (before if estimated else 0) <= usage.output_tokens <= 16 + 2
        before = usage.output_tokens


# -- the ledger


SCHEMA = """
CREATE TABLE usage (
    execution_id TEXT PRIMARY KEY, status TEXT, output INTEGER, cost TEXT,
    provenance TEXT
)"""
UPSERT = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?) ON CONFLICT (execution_id) DO UPDATE
SET status = excluded.status, output = excluded.output, cost = excluded.cost,
    provenance = excluded.provenance
WHERE excluded.provenance IS NOT NULL OR usage.provenance IS NULL"""


async def test_the_ledger_has_one_row_an_execution_id_after_retries_and_replays(
    tmp_path,
):
    with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
        db.execute(SCHEMA)
        failures = 0

        def save(row):
            nonlocal failures
            db.execute(
                UPSERT,
                (
                    row.idempotency_key,
                    row.status,
                    row.usage and row.usage.output_tokens,
                    row.cost and str(row.cost),
                    row.provenance,
                ),
            )
            db.commit()
            failures += 1
            if failures % 3:  # stored, but the answer was lost
                raise ConnectionError("lost")

        kept = Kept(scripted(*ANTHROPIC), ledger=save, backoff=0)
        for _ in range(100):
            outcome = await kept.run(execution_id="x-1")
            assert outcome.status == "completed"
        await kept.run(execution_id="x-2")
        assert failures == 303
        rows = db.execute("SELECT * FROM usage ORDER BY 1").fetchall()
        cost = str(Decimal(33 + 64) / 10**6)
        assert rows == [
            ("x-1", "completed", 16, cost, "reported"),
            ("x-2", "completed", 16, cost, "reported"),
        ]


async def test_a_ledger_row_says_whose_turn_it_was():
    kept = Kept(scripted(*ANTHROPIC))
    await kept.run(execution_id="x-1")
    (row,) = kept.ledger.rows
    assert row == kept.ledger.row("x-1")
    assert row.idempotency_key == row.execution_id == "x-1"
    assert row.identity is IDENTITY
    assert row.ended_at >= row.started_at > 0
    with pytest.raises(AttributeError):
        row.status = "failed"


async def test_a_row_is_booked_before_a_completed_turn_says_so():
    order = []
    chat = (
        Pipeline(scripted(*ANTHROPIC))
        | ops.lifecycle()
        | meter(ledger=lambda row: order.append("booked"))
        | ops.tap(lambda event: order.append(event["type"]))
    )
    await chat.start(IDENTITY).outcome()
    assert order[-3:] == [ev.LLM_CALL, "booked", ev.RUN_COMPLETED]


async def test_a_ledger_may_be_async_and_an_object():
    rows = []

    class Ledger:
        async def write(self, row):
            await asyncio.sleep(0)
            rows.append(row)

    kept = Kept(scripted(*ANTHROPIC), ledger=Ledger())
    await kept.run()
    assert len(rows) == 1
    assert isinstance(rows[0], LedgerRow)


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_ledger_that_fails_is_logged_and_does_not_fail_the_turn(retries):
    tries = []

    def broken(row):
        tries.append(row)
        raise ConnectionError("away")

    kept = Kept(scripted(*ANTHROPIC), ledger=broken, retries=retries, backoff=0)
    outcome = await kept.run()
    assert outcome.status == "completed"
    assert outcome.persisted
    assert len(tries) == len(kept.logged) == 1 + retries


async def test_a_ledger_that_must_not_fail_fails_the_turn():
    def broken(row):
        raise ConnectionError("away")

    kept = Kept(scripted(*ANTHROPIC), ledger=broken, retries=0, on_error="fail")
    outcome = await kept.run()
    assert outcome.status == "failed"
    assert isinstance(outcome.error, ConnectionError)
    assert outcome.usage.output_tokens == 16


async def test_a_ledger_whose_write_is_cancelled_by_itself_has_failed():
    async def broken(row):
        raise asyncio.CancelledError

    kept = Kept(scripted(*ANTHROPIC), ledger=broken, retries=0)
    outcome = await kept.run()
    assert outcome.status == "completed"
    assert "ledger" in kept.logged[0][0]


async def test_a_cancelled_write_is_cancelled():
    began = asyncio.Event()

    async def hangs(row):
        began.set()
        await asyncio.Event().wait()

    turn = TurnContext(IDENTITY)
    booking = Booking(
        turn, lambda ended: None, hangs, retries=1, backoff=0, fails=False
    )
    task = asyncio.create_task(booking.settle())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    again = booking.close()
    assert again is not None, "it is not known to be written"
    again.close()


async def test_a_slow_ledger_is_written_again_after_the_settlement_gave_up():
    rows = []

    async def slow(row):
        if not rows:
            rows.append(row)
            await asyncio.Event().wait()
        rows.append(row)

    kept = Kept(scripted(*ANTHROPIC), ledger=slow)
    outcome = await kept.run(settle_timeout=0.05)
    assert outcome.code == "settle_timeout"
    assert [row.code for row in rows] == [None, "settle_timeout"]


async def test_a_later_row_replaces_an_earlier_one_unless_it_knows_less():
    row = LedgerRow(
        execution_id="x",
        identity=IDENTITY,
        status="cancelled",
        code=None,
        models=(),
        calls=1,
        usage=Usage(output_tokens=1),
        started_at=1.0,
        ended_at=2.0,
    )
    ledger = MemoryLedger()
    unknown = {name: getattr(row, name) for name in row.__slots__} | {"usage": None}
    ledger.write(LedgerRow(**unknown))
    ledger.write(row)
    ledger.write(LedgerRow(**unknown))
    assert ledger.rows == (row,)
    more = LedgerRow(**(unknown | {"usage": Usage(output_tokens=2)}))
    ledger.write(more)
    assert ledger.rows == (more,)


# -- how it is composed


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"retries": -1}, "retries"),
        ({"retries": True}, "retries"),
        ({"backoff": -1}, "backoff"),
        ({"on_error": "ignore"}, "on_error"),
        ({"ledger": 3}, "no ledger"),
        ({"prices": {"m": {"input": 0.15, "output": 1}}}, "0.15"),
    ],
)
def test_wrong_arguments_are_refused_when_composed(terms, message):
    with pytest.raises(CompositionError, match=message):
        meter(**terms)


def test_a_turn_is_metered_once():
    with pytest.raises(CompositionError, match="twice"):
        meter() | meter()
