"""switch: a route for every type of event."""

import asyncio

import pytest

import operators as ops
from operators.errors import CompositionError
from operators.testing import feed
from pipeline import Pipeline, TurnIdentity

IDENTITY = TurnIdentity(session_id="s", turn_index=0)


def event(kind, n=0):
    return {"type": kind, "n": n}


def mark(name):
    return ops.map(lambda one: {**one, "by": [*one.get("by", ()), name]}, name=name)


def marks(events):
    return [(one["type"], *one.get("by", ())) for one in events]


def fed(operator, events):
    return asyncio.run(feed(operator, events))


class Held:
    """Hold everything back until the end."""

    shape = "flat_map"

    def __init__(self):
        self.held = []

    def on_event(self, one):
        self.held.append(one)
        return ()

    def finish(self):
        return self.held


def test_the_first_route_that_has_the_type_takes_it_and_order_is_kept():
    operator = ops.switch(
        {"a": mark("1") | mark("2"), ("b", "c.*"): mark("3"), "c.x": mark("never")},
        default=mark("rest"),
    )
    got = fed(operator, [event(kind) for kind in ("c.x", "a", "b", "z", "a")])
    assert marks(got) == [
        ("c.x", "3"),
        ("a", "1", "2"),
        ("b", "3"),
        ("z", "rest"),
        ("a", "1", "2"),
    ]


def test_what_has_no_route_passes_as_it_is():
    one = event("b")
    (got,) = fed(ops.switch({"a": mark("1")}), [one])
    assert got is one


def test_routes_hold_back_filter_and_multiply_as_elsewhere():
    operator = ops.switch(
        {
            "a": ops.operator(Held) | mark("late"),
            "b": ops.filter(lambda one: one["n"] > 1),
            "c": ops.flat_map(lambda one: (one, one)),
        }
    )
    events = [event("a"), event("b", 1), event("b", 2), event("c"), event("a")]
    assert marks(fed(operator, events)) == [
        ("b",),
        ("c",),
        ("c",),
        ("a", "late"),
        ("a", "late"),
    ]


async def outcome_of(chat, logs):
    run = chat.start(IDENTITY, log=lambda message, meta: logs.append((message, meta)))
    got = [one async for one in run.events()]
    return got, await run.outcome()


@pytest.mark.parametrize("listed", [False, True])
def test_an_operator_that_raises_in_a_route_fails_the_turn_by_its_name(listed):
    def bad(one):
        raise ValueError("no")

    async def later(one):
        await asyncio.sleep(0)
        bad(one)

    events = [event("b"), event("a"), event("b")]
    for function in (bad, later):
        logs = []
        chat = (
            Pipeline(lambda: [events] if listed else events)
            | ops.lifecycle(errors="message")
            | ops.switch({"a": ops.map(function, name="bad one"), "b": mark("b")})
        )
        got, outcome = asyncio.run(outcome_of(chat, logs))
        assert (outcome.status, outcome.code) == ("failed", "operator_failed")
        assert [one["type"] for one in got] == [
            "session.run.started",
            "b",
            "error",
            "session.run.failed",
        ]
        assert [(message, meta["operator"]) for message, meta in logs] == [
            ("turn failed", "switch")
        ]
        assert outcome.error.__notes__ == ["raised by bad one, in a route"]


def test_a_route_that_cannot_give_what_it_holds_fails_the_turn():
    class Held:
        def on_event(self, one): ...

        def finish(self):
            raise ValueError("lost")

    chat = Pipeline(lambda: [event("a")]) | ops.lifecycle()
    chat |= ops.switch({"a": ops.operator(Held)})
    _, outcome = asyncio.run(outcome_of(chat, []))
    assert outcome.status == "failed"
    assert outcome.error.__notes__ == ["raised by Held, in a route"]


def test_a_tap_of_a_route_is_logged_and_its_hooks_run_with_the_turn():
    order = []

    class Sink:
        def on_event(self, one):
            order.append(one["type"])
            raise ValueError

        async def settle(self):
            order.append("settle")

        def close(self):
            order.append("close")

    route = ops.tap(lambda one: 1 / 0, name="odd") | ops.operator(Sink)
    logs = []
    chat = Pipeline(lambda: [event("a")]) | ops.switch({"a": ops.tap(print, name="t")})
    asyncio.run(outcome_of(chat, logs))
    chat = Pipeline(lambda: [event("a")]) | ops.lifecycle() | ops.switch({"a": route})
    _, outcome = asyncio.run(outcome_of(chat, logs))
    assert order == ["a", "close"]  # it failed the turn, so nothing was drained
    assert outcome.code == "operator_failed"
    assert [message for message, _ in logs] == ["odd raised", "turn failed"]


def test_a_route_settles_only_on_the_ends_that_it_asks_for():
    order = []

    class Sink:
        def __init__(self, when):
            self.when = when

        def on_event(self, one): ...

        def settle(self):
            order.append(self.when)
            if self.when == "always":
                raise ValueError("full")

    route = ops.operator(lambda: Sink("drained"), name="d") | ops.operator(
        lambda: Sink("always"), name="always"
    )
    logs = []
    chat = Pipeline(list) | ops.lifecycle() | ops.switch({"a": route})
    _, outcome = asyncio.run(outcome_of(chat, logs))
    assert order == ["drained", "always"]
    assert outcome.status == "failed"
    assert [meta["operator"] for _, meta in logs] == ["switch"]
    assert outcome.error.__notes__ == ["raised by always, in a route"]


def test_a_route_that_guards_is_never_bypassed():
    stage = ops.Stage(lambda one: 1 / 0, shape="map")
    guard = ops.Operator("guard", lambda turn: stage, guards=True)
    switched = ops.switch({"session.run.failed": guard})
    assert switched.guards
    chat = Pipeline(lambda: 1 / 0) | ops.lifecycle(errors="message") | switched
    got, _ = asyncio.run(outcome_of(chat, []))
    assert got[-1]["data"]["message"] == ""


def test_an_operator_that_cannot_be_opened_fails_the_turn_in_order():
    turns = []

    def open_(turn):
        turns.append(turn)
        if len(turns) > 1:  # the first was only looked at
            raise ValueError("not today")
        return ops.Stage()

    broken = ops.Operator("broken", open_)
    chat = Pipeline(lambda: [event("a")]) | ops.lifecycle() | ops.switch({"a": broken})
    got, outcome = asyncio.run(outcome_of(chat, []))
    assert outcome.status == "failed"
    assert got[-1]["type"] == "session.run.failed"


def test_routes_that_cannot_be_are_refused_with_the_mend():
    for routes, mend in (
        ({}, "no routes"),
        ({"a": print}, r"ops.tap\(print\)"),
        ({"": mark("1")}, "non-empty"),
        ({(): mark("1")}, "needs event types"),
        ({"a": ops.lifecycle()}, "lifecycle cannot stand in a route"),
        ({"a": ops.accumulate()}, "accumulate cannot stand"),
        ({"a": mark("1") | ops.timeout(idle=1)}, "timeout cannot stand"),
    ):
        with pytest.raises(CompositionError, match=mend):
            ops.switch(routes)


def test_a_switch_describes_its_routes():
    operator = ops.switch({("b", "a", "c.*"): mark("1")})
    (described,) = (Pipeline(list) | operator).describe()["operators"]
    assert described["routes"] == {"a b c.*": ["1"]}


def test_of_two_failures_in_one_route_the_first_is_raised():
    class Fails:
        shape = "flat_map"

        def on_event(self, one):
            return ()

        def finish(self):
            raise ValueError("finish")

    route = ops.operator(Fails, name="one") | ops.operator(Fails, name="two")
    with pytest.raises(ValueError, match="finish") as raised:
        fed(ops.switch({"a": route}), [event("a")])
    assert raised.value.__notes__ == ["raised by one, in a route"]
