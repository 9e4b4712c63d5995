"""What is wrong is said clearly, with the mend; nothing produced before is lost."""

import asyncio
import json
import math
from enum import Enum

import pytest

import operators as ops
from operators.source import ChatTurnProducer
from pipeline import Pipeline, TurnIdentity

from .support import IDENTITY, A, B, lines, read, seven, short


async def never():
    raise AssertionError


class Loop(dict):
    pass


def circular():
    event = {"type": "x", "data": {}}
    event["data"]["self"] = event
    return event


def deep(levels):
    event = {"type": "x"}
    inner = event
    for _ in range(levels):
        inner["d"] = {}
        inner = inner["d"]
    return event


NO_DICT = {
    "an int": (5, "int as an event: it must be a dict"),
    "None": (None, "None as an event"),
    "a str": ("text", "str as an event: it must be a dict"),
    "a tuple": ((A, B), "tuple as an event: it must be a dict"),
    "bytes": (b"{}", "bytes as an event"),
}
NO_JSON = {
    "a set": ({"type": "x", "data": {"parts": [1, {"x": {1}}]}}, r"data.parts\[1\].x"),
    "an object": ({"type": "x", "data": object()}, "data: object is not JSON"),
    "bytes": ({"type": "x", "data": b"raw"}, "data: bytes is not JSON"),
    "a key that is no string": ({"type": "x", "data": {1: 2}}, "keys are strings"),
    "a circle": (circular(), "circular"),
    "depth 300": (deep(300), "nested deeper than"),
}


@pytest.mark.parametrize("mode", ["cancel", "detach"])
@pytest.mark.parametrize("wire", ["events", "body"])
@pytest.mark.parametrize("name", [*NO_DICT, "a coroutine"])
async def test_what_is_no_dict_fails_the_turn_after_what_came_before(
    name, wire, mode, seen
):
    bad, message = NO_DICT.get(name) or (never(), "declare the function with")
    run = seven(seen, seen.source(A, bad, B)).start(
        IDENTITY, log=seen.log, on_disconnect=mode
    )
    got = await read(getattr(run, wire)())
    assert short(lines(got) if wire == "body" else got) == [
        "started",
        "a",
        "error",
        "failed",
    ]
    assert message in seen.events[-1]["data"]["message"]
    assert "the source" in seen.events[-1]["data"]["message"]
    outcome = await run.outcome()
    assert (outcome.code, outcome.text) == ("invalid_event", "a")


@pytest.mark.parametrize("mode", ["cancel", "detach"])
@pytest.mark.parametrize("name", NO_JSON)
async def test_what_is_not_json_fails_the_turn_naming_the_path(name, mode, seen):
    bad, message = NO_JSON[name]
    for items in ((A, bad, B), ([A, bad, B],)):
        seen.__init__()
        run = seven(seen, seen.source(*items)).start(
            IDENTITY, log=seen.log, on_disconnect=mode
        )
        got = lines(await read(run.body()))
        assert short(got) == ["started", "a", "error", "failed"]
        outcome = await run.outcome()
        assert outcome.code == "invalid_event"
        with pytest.raises(ops.InvalidEvent, match=message):
            raise outcome.error


@pytest.mark.parametrize("together", [False, True], ids=["singly", "as a list"])
async def test_odd_values_that_are_json_pass(together, seen):
    class Colour(Enum):
        RED = "red"

    odd = [
        {"type": "x", "data": [math.nan, math.inf, -math.inf]},
        {"type": "x", "data": 2**70},
        {"type": "x", "data": "a\ud83db"},
        {"type": "x", "data": Colour.RED},
        {"type": "x", "data": "\u2028\u0085\x0c"},
        {"data": "no type"},
        {"type": None},
        {},
        deep(200),
        {"type": "big", "data": "x" * 10_000_000},
    ]
    items = [odd] if together else odd
    run = seven(seen, seen.source(*items)).start(IDENTITY, log=seen.log)
    got = lines(await read(run.body()))[1:-1]
    assert got[0]["data"] == [None, None, None]
    assert got[1]["data"] == 2**70
    assert got[2]["data"] == "a\ud83db"
    assert got[3]["data"] == "red"
    assert got[4]["data"] == "\u2028\u0085\x0c"
    assert got[5:8] == [{"data": "no type"}, {"type": None}, {}]
    assert len(got[9]["data"]) == 10_000_000
    outcome = await run.outcome()
    assert (outcome.status, outcome.events) == ("completed", 10)


async def test_a_dict_subclass_is_an_event(seen):
    run = seven(seen, seen.source(Loop(A))).start(IDENTITY, log=seen.log)
    assert short(lines(await read(run.body()))) == ["started", "a", "completed"]


async def test_a_type_that_cannot_be_compared_fails_the_turn(seen):
    for items in (({"type": ["x"]},), ([A, {"type": {}}],)):
        seen.__init__()
        run = seven(seen, seen.source(*items)).start(IDENTITY, log=seen.log)
        got = lines(await read(run.body()))
        assert short(got)[-2:] == ["error", "failed"]
        assert "type must be a string" in got[-1]["data"]["message"]
        assert (await run.outcome()).code == "invalid_event"


async def test_a_terminal_that_cannot_be_encoded_still_ends_the_turn(seen):
    error = {"type": "error", "data": {"message": "m", "detail": {1}}}
    run = seven(seen, seen.source(A, error)).start(IDENTITY, log=seen.log)
    got = lines(await read(run.body()))
    assert got[-1]["type"] == "session.run.failed"
    assert (await run.outcome()).status == "failed"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (5, "the source returned int"),
        (None, "the source returned NoneType"),
        ("text", "the source returned str"),
        ({"type": "x"}, "the source returned dict"),
    ],
    ids=repr,
)
async def test_a_source_that_returns_no_iterable_says_so(made, message, seen):
    for source in (lambda: made, lambda: ChatTurnProducer(made, str)):
        run = seven(seen, source).start(IDENTITY, log=seen.log)
        got = await read(run.events())
        assert message in got[-1]["data"]["message"]


async def test_any_iterable_is_a_source(seen):
    closed = []

    def generator():
        try:
            yield A
            yield B
        finally:
            closed.append(1)

    async def later():
        return [A, B]

    for source in (lambda: [A, B], generator, later, lambda turn: iter([A, B])):
        run = Pipeline(source).start(IDENTITY)
        assert await read(run.events()) == [A, B]
    body = Pipeline(generator).start(IDENTITY).events()
    await anext(body)
    await body.aclose()
    assert closed == [1, 1]


# -- composition


async def produce():
    yield A


async def make():
    return [A]


def test_a_generator_in_place_of_its_function_is_refused():
    def plain():
        yield A

    for made in (produce(), plain()):
        with pytest.raises(
            ops.CompositionError, match=r"pass the\s+function, Pipeline"
        ):
            Pipeline(made)
    with pytest.raises(ops.CompositionError, match=r"make.. was called: pass the func"):
        Pipeline(make())


@pytest.mark.parametrize("source", [None, 5, [A], "text"], ids=repr)
def test_what_is_no_source_is_refused(source):
    with pytest.raises(ops.CompositionError, match="is not a source: pass a function"):
        Pipeline(source)


def test_a_source_that_wants_more_than_the_turn_is_refused():
    with pytest.raises(ops.CompositionError, match="2 required parameters"):
        Pipeline(lambda turn, more: [])


def test_wrong_composition_names_the_operators_and_the_mend():
    pipeline = Pipeline(produce)
    with pytest.raises(
        ops.CompositionError, match="lifecycle stands twice, at 1 and 2"
    ):
        pipeline | ops.lifecycle() | ops.lifecycle()
    with pytest.raises(ops.CompositionError, match=r"put\s+.\| ops.accumulate\(\)"):
        pipeline | ops.persist(print)
    with pytest.raises(ops.CompositionError, match="needs accumulate before it"):
        pipeline | ops.transform(str.upper) | ops.accumulate()
    with pytest.raises(ops.CompositionError, match="accumulate stands twice"):
        pipeline | ops.accumulate() | (ops.accumulate() | ops.persist(print))
    with pytest.raises(ops.CompositionError, match="second source"):
        pipeline | Pipeline(produce)
    with pytest.raises(ops.CompositionError, match=r"ops\.tap\(print\)"):
        pipeline | print
    with pytest.raises(ops.CompositionError, match="None is not an operator"):
        pipeline | None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"turn_index": -1}, ValueError),
        ({"turn_index": 2**53}, ValueError),
        ({"turn_index": True}, TypeError),
        ({"turn_index": 1.0}, TypeError),
        ({"session_id": ""}, TypeError),
        ({"session_id": None}, TypeError),
        ({"tenant_id": " "}, TypeError),
        ({"user_id": 5}, TypeError),
    ],
    ids=str,
)
def test_an_identity_is_checked_where_it_is_made(wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        TurnIdentity(**{"session_id": "s", "turn_index": 0, **wrong})


def test_start_checks_what_it_is_given():
    pipeline = Pipeline(produce)
    with pytest.raises(TypeError, match="must be a TurnIdentity"):
        pipeline.start({"session_id": "s"})
    with pytest.raises(ValueError, match="on_disconnect"):
        pipeline.start(IDENTITY, on_disconnect="ignore")
    for name in ("settle_timeout", "detach_timeout"):
        for value in (0, -1, math.nan):
            with pytest.raises(ValueError, match="must be positive"):
                pipeline.start(IDENTITY, **{name: value})


async def test_a_turn_is_read_once():
    run = Pipeline(produce).start(IDENTITY)
    with pytest.raises(ValueError, match="no wire is named 'morse'"):
        run.body("morse")
    body = run.events()  # a wrong wire read nothing
    for again in (run.events, run.body):
        with pytest.raises(ops.TurnMisuse, match=r"start\s+another turn"):
            again()
    assert await read(body) == [A]
    assert await read(body) == []


async def test_a_second_reader_of_one_body_is_told(seen):
    run = seven(seen, seen.source(A, hang=True)).start(IDENTITY)
    body = run.events()
    await anext(body)
    await anext(body)
    first = asyncio.ensure_future(anext(body))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already running"):
        await anext(body)
    run.cancel()
    assert (await first)["type"] == "session.run.cancelled"
    await body.aclose()


async def test_a_user_error_in_an_async_source_keeps_its_traceback(seen):
    run = seven(seen, seen.source(A, error=ZeroDivisionError("no"))).start(
        IDENTITY, log=seen.log
    )
    await read(run.events())
    error = (await run.outcome()).error
    assert isinstance(error, ZeroDivisionError)
    assert error.__traceback__ is not None
    assert json.dumps(seen.events[-1])
