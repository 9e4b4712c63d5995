"""Composing: a pipeline is a value."""

import asyncio
import contextvars

import pytest

import operators as ops
from operators.source import ChatTurnProducer
from pipeline import Pipeline

from .support import IDENTITY, A, B, Seen, delta, read, seven, short


async def produce():
    yield A


def test_a_pipeline_is_immutable_and_composing_makes_another():
    one = Pipeline(produce)
    two = one | ops.lifecycle()
    assert one.operators == ()
    assert [op.name for op in two.operators] == ["lifecycle"]
    for name in ("operators", "source", "other"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(two, name, ())


def test_a_fragment_is_named_and_reused():
    safety = ops.filter(bool, name="wanted") | ops.tap(print, name="audit")
    one = Pipeline(produce) | safety | ops.lifecycle()
    two = Pipeline(produce) | ops.lifecycle() | (safety | ops.accumulate())
    assert repr(one) == "Pipeline(produce) | wanted | audit | lifecycle"
    assert repr(two) == "Pipeline(produce) | lifecycle | wanted | audit | accumulate"


def test_describe_is_data():
    chat = Pipeline(produce) | ops.lifecycle() | ops.tap(print, name="look")
    described = chat.describe()
    assert described["source"] == "produce"
    assert [op["name"] for op in described["operators"]] == ["lifecycle", "look"]
    assert [op["position"] for op in described["operators"]] == [1, 2]
    assert described["operators"][0]["errors"] == "masked"
    assert described["operators"][1]["kind"] == "tap"


def test_explain_and_graph_tell_what_is_composed():
    chat = Pipeline(produce) | ops.lifecycle() | ops.timeout(idle=3)
    assert "timeout" in chat.explain()
    for format_ in ("mermaid", "dot", "svg", "ascii"):
        assert "lifecycle" in chat.graph(format_)
    with pytest.raises(ValueError, match="png"):
        chat.graph("png")


async def test_one_pipeline_runs_many_turns_at_once_each_with_its_own_state():
    async def echo(turn):
        for letter in turn.request:
            await asyncio.sleep(0)
            yield delta(letter)

    saved = []
    chat = (
        Pipeline(echo) | ops.lifecycle() | ops.accumulate() | ops.persist(saved.append)
    )
    words = ["abc", "defg", "h", ""]
    runs = [chat.start(IDENTITY, request=word) for word in words]
    bodies = await asyncio.gather(*[read(run.events()) for run in runs])
    assert ["".join(short(body[1:-1])) for body in bodies] == words
    assert sorted(record.text for record in saved) == sorted(words)
    assert [(await run.outcome()).text for run in runs] == words


@pytest.mark.parametrize("kind", ["function", "partial", "object", "method", "async"])
async def test_a_source_is_given_the_turn_where_it_wants_it(kind):
    got = []

    class Source:
        def __call__(self, turn):
            got.append(turn)
            return [A]

        def method(self, turn, more=None):
            got.append(turn)
            return [A]

    async def later(turn):
        got.append(turn)
        return [A]

    def function(turn, *, more=None):
        got.append(turn)
        return [A]

    import functools

    source = {
        "function": function,
        "partial": functools.partial(function, more=1),
        "object": Source(),
        "method": Source().method,
        "async": later,
    }[kind]
    run = Pipeline(source).start(IDENTITY, request="r", execution_id="x-1")
    assert await read(run.events()) == [A]
    assert got == [run.context]
    assert (run.context.request, run.context.execution_id) == ("r", "x-1")
    assert run.context.identity is IDENTITY


async def test_the_execution_id_is_derived_from_the_identity():
    one, two = Pipeline(produce).start(IDENTITY), Pipeline(produce).start(IDENTITY)
    assert one.context.execution_id == two.context.execution_id != ""


async def test_nothing_starts_before_the_first_read(seen):
    run = seven(seen, seen.source(A)).start(IDENTITY)
    body = run.body()
    await asyncio.sleep(0)
    assert (seen.opened, seen.events) == (0, [])
    await anext(body)
    assert seen.opened == 0  # started comes first
    await anext(body)
    assert seen.opened == 1
    await body.aclose()


async def test_a_producer_gives_stream_and_final_text(seen):
    def produce_():
        return ChatTurnProducer(stream=iter([A, B]), final_text=lambda: "whole")

    outcome = await seven(seen, produce_).start(IDENTITY).outcome()
    assert (outcome.text, outcome.final_text) == ("whole", "WHOLE")


async def test_the_callers_context_is_captured_at_start(seen):
    who = contextvars.ContextVar("who", default="nobody")
    found = []

    async def produce_():
        found.append(who.get())
        yield A

    who.set("caller")
    run = seven(seen, produce_).start(IDENTITY, on_disconnect="detach")
    who.set("later")
    await read(run.events())
    assert found == ["caller"]  # an owned turn pulls in a copy of it
    assert who.get() == "later"


async def test_options_of_start_pass_through_stream(seen):
    stream = seven(seen, seen.source(A)).stream(IDENTITY, log=seen.log, request=5)
    async with stream.stream() as events:
        assert short([event async for event in events]) == ["started", "a", "completed"]


async def test_aiostream_streams_are_sources(seen):
    import aiostream

    def produce_():
        return aiostream.stream.iterate([A, B]) | aiostream.pipe.take(1)

    for source in (produce_, lambda: produce_().stream()):
        run = Pipeline(source).start(IDENTITY)
        assert await read(run.events()) == [A]


def test_a_turn_needs_no_loop_until_it_is_read():
    seen = Seen()
    run = seven(seen, seen.source(A)).start(IDENTITY)
    run.cancel("early")
    assert asyncio.run(run.outcome()).reason == "early"
