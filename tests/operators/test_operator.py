import asyncio
import functools

import pytest
from aiostream import pipe, stream

import operators as ops
from operators.operator import Composable, Envelope, check_order
from operators.testing import deltas, drain, feed

X = {"type": "x"}


def keep(event):
    return True


class Doubling:
    shape = "flat_map"

    def on_event(self, event):
        return [event, event]


def test_a_chain_is_its_operators_in_order_and_flat():
    a, b, c = ops.tap(print), ops.map(dict), ops.filter(keep)
    chain = a | (b | c)
    assert chain.operators == ((a | b) | c).operators == (a, b, c)
    assert (list(chain), len(chain)) == ([a, b, c], 3)
    assert repr(chain) == "tap(print) | map(dict) | filter(keep)"
    assert repr(ops.Chain()) == "Chain()"
    assert repr(a) == "<operator tap(print)>"
    assert isinstance(chain, Composable)


def test_an_operator_is_immutable_and_says_so():
    with pytest.raises(AttributeError, match="immutable; make another operator"):
        ops.tap(print).name = "other"


def generator():
    yield X


@pytest.mark.parametrize(
    ("thing", "mend"),
    [
        (Doubling, r"Doubling is not an operator: ops\.operator\(Doubling\)"),
        (keep, r"ops\.tap\(keep\), ops\.map\(keep\).*ops\.through\(keep\)"),
        (pipe.take(1), r"ops\.through\("),
        (generator(), "only operators and chains"),
        (7, "7 is not an operator: only operators and chains"),
        (None, "None is not an operator"),
        ([ops.tap(print)], "only operators and chains"),
    ],
)
def test_what_is_no_operator_is_refused_right_of_the_bar_with_the_mend(thing, mend):
    for left in (ops.tap(print), ops.tap(print) | ops.tap(print)):
        with pytest.raises(ops.CompositionError, match=mend):
            left | thing


def test_two_of_what_stands_once_are_refused():
    for once in (ops.lifecycle, ops.accumulate):
        with pytest.raises(ops.CompositionError, match="stands twice, at 1 and 3"):
            once() | ops.tap(print) | once()
        with pytest.raises(ops.CompositionError, match="remove one of the two"):
            once() | once()


def test_a_missing_need_is_found_when_the_pipeline_is_whole():
    for operator in (ops.persist(print), ops.transform(str.strip)):
        fragment = ops.tap(print) | operator
        check_order(fragment.operators, whole=False)
        with pytest.raises(ops.CompositionError, match=r"\| ops\.accumulate\(\)"):
            check_order(fragment.operators, whole=True)
        check_order((ops.accumulate() | fragment).operators, whole=True)
        with pytest.raises(ops.CompositionError, match="needs accumulate before it"):
            check_order((fragment | ops.accumulate()).operators, whole=True)


async def test_an_operator_without_open_names_the_mend(turn):
    with pytest.raises(ops.CompositionError, match=r"'bare' has no open\(turn\)"):
        ops.Operator("bare").open(turn)

    class Mine(ops.Operator):
        def open(self, turn):
            return ops.Stage(
                lambda event: {**event, "by": turn.execution_id}, shape="map"
            )

    assert await feed(Mine("mine"), [X], turn=turn) == [{**X, "by": "x-1"}]


async def test_a_class_lives_for_one_turn():
    class Numbered:
        shape = "map"
        types = ("x",)

        def __init__(self):
            self.n = 0

        def on_event(self, event):
            self.n += 1
            return {**event, "n": self.n}

    numbered = ops.operator(Numbered)
    assert numbered.name == "Numbered"
    for _ in range(2):
        made = await feed(numbered, [X, {"type": "y"}, X])
        assert [event.get("n") for event in made] == [1, None, 2]
    assert await feed(ops.operator(Doubling), [X]) == [X, X]
    assert await feed(ops.operator(Doubling, types=["y"]), [X]) == [X]


async def test_a_class_may_have_every_part_and_want_the_turn(turn):
    steps = []

    class Whole:
        when = "always"

        def __init__(self, turn):
            self.turn = turn

        async def on_event(self, event):
            steps.append(event["type"])

        async def finish(self):
            steps.append("finish")
            return [{"type": "held"}]

        def settle(self):
            steps.append(f"settle {self.turn.execution_id}")

        def close(self):
            steps.append("close")

    assert await feed(ops.operator(Whole), [X], turn=turn) == [X, {"type": "held"}]
    assert steps == ["x", "finish", "settle x-1", "close"]


async def test_a_factory_may_give_a_stage_or_an_object_with_through():
    class Taking:
        def through(self, source):
            return pipe.take(1)(source)

    assert await feed(ops.operator(Taking, name="one"), [X, X]) == [X]
    dropping = ops.operator(lambda: ops.Stage(keep, shape="filter"), guards=True)
    assert (await feed(dropping, [X]), dropping.guards) == ([X], True)
    shaped = ops.operator(
        lambda: type("F", (), {"on_event": lambda s, e: 0})(), shape="filter"
    )
    assert await feed(shaped, [X]) == []


async def test_what_is_no_factory_is_refused_with_the_mend(turn):
    with pytest.raises(ops.CompositionError, match="pass its class or a factory"):
        ops.operator(Doubling())
    with pytest.raises(ops.CompositionError, match="'zap' is not one of tap, map"):
        ops.operator(Doubling, shape="zap")
    with pytest.raises(ops.CompositionError, match="letter by letter"):
        ops.operator(Doubling, types="x")
    with pytest.raises(ops.CompositionError, match=r"none of on_event.*plain function"):
        ops.operator(lambda turn: keep).open(turn)
    wrong = type("Wrong", (), {"shape": "tapp", "on_event": keep})
    with pytest.raises(ops.CompositionError, match="Wrong: shape 'tapp'"):
        ops.operator(wrong).open(turn)


def test_an_envelope_is_only_a_shape():
    with pytest.raises(NotImplementedError):
        Envelope().started()
    with pytest.raises(NotImplementedError):
        Envelope().terminals(None)
    with pytest.raises(NotImplementedError):
        Composable().operators  # noqa: B018 - reading it is the point


def test_names_come_from_what_the_callable_is():
    class Sink:
        def __call__(self, event):
            return None

    assert ops.tap(functools.partial(functools.partial(keep), 1)).name == "tap(keep)"
    assert ops.tap(Sink()).name == "tap(Sink)"
    assert ops.tap(lambda event: None).name == "tap(lambda)"
    assert ops.tap(print, name="audit").name == "audit"


def test_a_function_that_wants_more_than_the_turn_is_refused():
    def three(event, turn, more):
        return None

    with pytest.raises(ops.CompositionError, match="three has 3 required parameters"):
        ops.tap(three)
    with pytest.raises(ops.CompositionError, match="not callable: pass a function"):
        ops.map("text")


# In a plain aiostream expression


class Source:
    def __init__(self, *items):
        self.items = items
        self.closed = 0

    async def __aiter__(self):
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                yield item
            if not self.items:
                await asyncio.get_running_loop().create_future()
        finally:
            self.closed += 1


async def asking(event, turn):
    return {**event, "session": turn.identity.session_id}


EVERY = {
    "tap": lambda: ops.tap(keep),
    "queued": lambda: ops.tap(keep, queue=2),
    "map": lambda: ops.map(dict),
    "async": lambda: ops.map(asking),
    "filter": lambda: ops.filter(keep),
    "flat_map": lambda: ops.flat_map(lambda event: (event,)),
    "accumulate": ops.accumulate,
    "transform": lambda: ops.accumulate() | ops.transform(str.strip),
    "persist": lambda: ops.accumulate() | ops.persist(keep, partial=True),
    "complete": lambda: ops.complete(keep),
    "flush": lambda: ops.trace_flush(lambda: None),
    "coalesce": ops.coalesce,
    "delayed": lambda: ops.coalesce(max_delay=1000),
    "timeout": lambda: ops.timeout(idle=1000),
    "through": lambda: ops.through(pipe.skip(0)),
    "nested": lambda: ops.through(ops.tap(keep) | ops.timeout(idle=1000)),
    "class": lambda: ops.operator(Doubling),
    "chain": lambda: (
        ops.tap(keep) | ops.coalesce(max_delay=1) | ops.timeout(total=1000)
    ),
    "empty": ops.Chain,
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())
async def test_every_operator_is_an_aiostream_pipe_that_closes_its_source(make):
    events = [*deltas("a", "b"), X, *deltas("c", "d", "e"), X]
    whole = Source(*events)
    made = await drain(stream.iterate(whole) | make() | pipe.map(dict))
    assert whole.closed == 1
    assert len(made) >= 5

    taken = Source(*events)
    assert len(await drain(stream.iterate(taken) | make() | pipe.take(2))) == 2
    assert taken.closed == 1

    left = Source(*events)
    async with (stream.iterate(left) | make()).stream() as streamer:
        async for _ in streamer:
            break
    assert left.closed == 1

    failing = Source(*events, ValueError("boom"))
    with pytest.raises(ValueError, match="boom"):
        await drain(stream.iterate(failing) | make())
    assert failing.closed == 1

    broken = Source(*events)

    def broke(event):
        raise LookupError("downstream")

    with pytest.raises(LookupError, match="downstream"):
        await drain(stream.iterate(broken) | make() | pipe.map(broke))
    assert broken.closed == 1

    hanging = Source()
    reader = asyncio.create_task(drain(stream.iterate(hanging) | make()))
    for _ in range(10):
        await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert hanging.closed == 1


async def test_a_stream_through_an_operator_can_be_read_again():
    ys = stream.iterate([X, X]) | ops.operator(Doubling)
    assert len(await drain(ys)) == len(await drain(ys)) == 4


def test_what_is_no_stream_is_refused_with_the_mend():
    with pytest.raises(ops.CompositionError, match=r"aiostream\.stream\.iterate"):
        ops.tap(print)([X])
