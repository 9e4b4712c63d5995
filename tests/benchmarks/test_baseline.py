"""The baseline of the benchmarks does what the pipeline does, to the byte."""

import asyncio
import dataclasses
import json
import logging

import pytest

import operators as ops
from benchmarks import hand, seven, stacked
from pipeline import Pipeline, TurnIdentity

PART = {"type": "text", "id": "t0"}
THOUGHT = {"type": "reasoning", "id": "r0"}
TEXT = "message.part.updated"


def delta(text, part=PART, **more):
    return {"type": TEXT, "data": {"part": part, "delta": text}, **more}


def tool(status, **state):
    part = {"type": "tool", "id": "c0", "tool": "find", "callID": "c0"}
    return {
        "type": TEXT,
        "data": {"part": {**part, "state": {"status": status, **state}}},
    }


def usage(**data):
    return {"type": "llm_call", "data": {"model": "m", **data}}


STREAMS = {
    "completed": [delta("the light "), delta("is "), delta("blue", traceId="x")],
    "empty": [],
    "its own terminals": [
        {"type": "session.run.started", "data": {"sessionId": "theirs"}},
        delta("a"),
        {"type": "session.run.completed", "data": {"sessionId": "theirs"}},
    ],
    "failed in-band": [
        delta("a light"),
        {"type": "error", "data": {"message": "no", "code": "E1"}, "extra": 1},
        {"type": "error", "data": {"message": "no, again"}},
        {
            "type": "session.run.failed",
            "data": {"sessionId": "theirs", "message": "over", "errorId": "7"},
        },
    ],
    "failed in-band, terminal only": [
        {"type": "session.run.failed", "data": {"message": "over"}, "extra": 1}
    ],
    "failed in-band, without data": [{"type": "session.run.failed"}, {"type": "error"}],
    "result": [
        delta("dra"),
        delta("ft"),
        {"type": "result", "data": {"finalText": "the light"}},
    ],
    "result alone": [{"type": "result", "data": {"finalText": "light"}}],
    "result of two texts, then more": [
        delta("one "),
        delta("two", {"type": "text", "id": "t1"}),
        {"type": "result", "data": {"finalText": "the light"}},
        delta(" after"),
    ],
    "tools": [
        delta("let me look", THOUGHT),
        tool("pending", inputText=""),
        delta('{"q":', {"type": "tool", "id": "c1", "callID": "c1", "state": {}}),
        tool("running", input={"q": 1}),
        delta("light "),
        tool("completed", input={"q": 1}, output="x"),
        delta("found"),
        usage(inputTokens=5, outputTokens=7),
        usage(inputTokens=1, outputTokens=2, cachedInputTokens=3, reasoningTokens=4),
    ],
    "snapshots": [
        delta("dra"),
        {"type": TEXT, "data": {"part": {**PART, "text": "light"}}},
        delta("s on"),
    ],
    "equal parts that are not one": [delta("a", dict(PART)), delta("b", dict(PART))],
    "unknown shapes": [
        {"type": "heartbeat"},
        {"no type": 1},
        {"type": TEXT, "data": None},
        {"type": TEXT, "data": {"delta": "no part "}},
        {"type": TEXT, "data": {"delta": "again"}},
        {"type": TEXT, "data": {"part": PART, "delta": ""}},
    ],
}  # fmt: skip


class Kept:
    """What the hooks of one turn saw."""

    def __init__(self, broken_tap=False):
        self.events = []
        self.records = []
        self.flushed = 0
        self.broken_tap = broken_tap

    def hooks(self):
        return {
            "on_event": self.on_event,
            "transform": seven.strip,
            "save": self.save,
            "flush": self.flush,
        }

    def on_event(self, event):
        self.events.append(event)
        if self.broken_tap:
            raise ValueError("tap")

    async def save(self, record):
        self.records.append(record)

    def flush(self):
        self.flushed += 1

    @property
    def record(self):
        (record,) = self.records
        return dataclasses.replace(record, started_at=0.0, ended_at=0.0)


def by_pipeline(kept, source, identity):
    chat = (
        Pipeline(source)
        | ops.lifecycle()
        | ops.tap(kept.on_event)
        | ops.accumulate()
        | ops.transform(seven.strip)
        | ops.persist(kept.save)
        | ops.trace_flush(kept.flush)
    )
    return chat.start(identity).body()


def by(turn):
    return lambda kept, source, identity: turn(identity, source, **kept.hooks())


def read(run, source, *, identity=seven.IDENTITY, broken_tap=False):
    kept = Kept(broken_tap)

    async def whole():
        return [chunk async for chunk in run(kept, source, identity)]

    return asyncio.run(whole()), kept


@pytest.mark.parametrize("events", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize(
    "rival",
    [hand.hand_turn, stacked.stacked_turn, stacked.aiostream_turn, stacked.map_turn],
)
def test_every_rival_does_what_the_pipeline_does(rival, events):
    chunks, kept = read(by(rival), seven.singly(events))
    wanted, ours = read(by_pipeline, seven.singly(events))
    assert chunks == wanted
    assert kept.record == ours.record
    assert kept.events == ours.events
    assert kept.flushed == ours.flushed == 1


@pytest.mark.parametrize("size", [1, 2, 16])
@pytest.mark.parametrize("events", STREAMS.values(), ids=STREAMS)
def test_the_baseline_for_lists_sends_the_same_chunks(events, size):
    source = seven.in_reads(events, size)
    chunks, kept = read(by(hand.hand_turn_of_lists), source)
    wanted, ours = read(by_pipeline, source)
    assert chunks == wanted
    assert kept.record == ours.record
    assert kept.events == ours.events


def test_the_measured_turn_is_a_whole_one():
    chunks, kept = read(by(hand.hand_turn), seven.singly(seven.tokens(5)))
    assert [json.loads(chunk)["type"] for chunk in chunks] == [
        "session.run.started",
        *["message.part.updated"] * 5,
        "session.run.completed",
    ]
    assert kept.record.text == "the sea looks blue because "


def test_ids_are_encoded_and_a_missing_tenant_is_left_out():
    identity = TurnIdentity(session_id="a:b", turn_index=3)
    source = seven.singly([])
    chunks, kept = read(by(hand.hand_turn), source, identity=identity)
    wanted, ours = read(by_pipeline, source, identity=identity)
    assert chunks == wanted
    assert kept.record == ours.record


@pytest.mark.parametrize("turn", [hand.hand_turn, hand.hand_turn_of_lists])
def test_a_tap_that_raises_is_logged_once_per_event(turn, caplog):
    source = seven.singly if turn is hand.hand_turn else lambda e: seven.in_reads(e, 2)
    with caplog.at_level(logging.CRITICAL + 1):
        chunks, kept = read(by(turn), source(STREAMS["completed"]), broken_tap=True)
        wanted, _ = read(by_pipeline, source(STREAMS["completed"]), broken_tap=True)
    assert chunks == wanted
    assert len(kept.events) == 5


@pytest.mark.parametrize(
    ("error", "in_band"),
    [
        (ValueError("secret"), False),
        (ops.PublicError("shown", code="quota"), False),
        (ops.SourceError("cut"), True),
    ],
)
@pytest.mark.parametrize("turn", [hand.hand_turn, hand.hand_turn_of_lists])
def test_what_raises_ends_in_the_same_lines_but_for_their_error_id(
    turn, error, in_band, caplog
):
    def items():
        yield delta("a")
        if in_band:
            yield {"type": "error", "data": {"message": "first"}}
        raise error

    async def produce():
        for event in items():
            yield event if turn is hand.hand_turn else [event]

    def without_id(chunks):
        lines = [json.loads(line) for line in b"".join(chunks).splitlines()]
        for line in lines:
            line.get("data", {}).pop("errorId", None)
        return lines

    with caplog.at_level(logging.CRITICAL + 1):
        chunks, kept = read(by(turn), produce)
        wanted, ours = read(by_pipeline, produce)
    assert without_id(chunks) == without_id(wanted)
    assert kept.records == ours.records == []
    assert kept.flushed == 1
