"""only, drop, dedupe, validate: which events pass."""

import asyncio

import pytest

import operators as ops
from operators.errors import CompositionError, InvalidEvent
from operators.event import ENVELOPE, delta, llm_call, result, text_part, tool_part
from operators.kinds import Kinds
from operators.testing import deltas, feed
from pipeline import Pipeline, TurnIdentity

PART = text_part("p")
IDENTITY = TurnIdentity(session_id="s", turn_index=0)


def plain(*kinds):
    return [{"type": kind} for kind in kinds]


def kinds(events):
    return [event.get("type") for event in events]


def fed(operator, events):
    return asyncio.run(feed(operator, events))


def piped(operator, events):
    """Run it in a turn as well: the plan and the drive must agree."""

    async def main():
        chat = Pipeline(lambda: events) | ops.lifecycle(errors="message") | operator
        run = chat.start(IDENTITY, log=lambda message, meta: None)
        return [event async for event in run.events()]

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("operator", "left"),
    [
        (ops.only("a", "b.x"), ["a", "b.x", "error"]),
        (ops.only("b.*"), ["b.x", "b.y", "error"]),
        (ops.only("*"), ["a", "b.x", "b.y", "c", "error"]),
        (ops.drop("a"), ["b.x", "b.y", "c", "error", None]),
        (ops.drop("a", "b.*"), ["c", "error", None]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_events_pass_by_their_type(operator, left):
    events = [*plain("a", "b.x", "b.y", "c", "error"), {"data": 1}]
    assert kinds(fed(operator, events)) == left
    assert [kind for kind in kinds(piped(operator, events)) if kind not in RUN] == left


RUN = ("session.run.started", "session.run.failed")


def test_a_turn_keeps_its_envelope_whatever_only_leaves():
    got = piped(ops.only("nothing"), deltas("a"))
    assert kinds(got) == ["session.run.started", "session.run.completed"]


@pytest.mark.parametrize("kind", [*sorted(ENVELOPE), "session.*", "*"])
def test_drop_refuses_what_says_how_a_turn_goes(kind):
    with pytest.raises(CompositionError, match="exactly one terminal"):
        ops.drop(kind)


@pytest.mark.parametrize("bad", [(), ("",), (3,), ("a*b",)])
def test_types_that_cannot_be_are_refused(bad):
    for make in (ops.only, ops.drop):
        with pytest.raises(CompositionError):
            make(*bad)


def test_a_type_that_is_no_string_passes_neither_list_nor_prefix():
    odd = [{"type": ["x"]}, {"type": 3}]
    assert fed(ops.only("x*"), odd) == []
    assert fed(ops.drop("x*"), odd) == odd


def test_what_is_known_of_types_is_bounded():
    families = Kinds(["x*"])
    assert all(f"x{n}" in families and f"y{n}" not in families for n in range(2000))
    assert len(families._known) <= 1024


def test_what_came_twice_passes_once_within_the_window():
    def numbered(*ids):
        return [{"type": "x", "id": one} for one in ids]

    assert fed(ops.dedupe(), numbered(1, 1, 2, 1)) == numbered(1, 2)
    assert fed(ops.dedupe(window=1), numbered(1, 2, 1)) == numbered(1, 2, 1)
    by_type = ops.dedupe(lambda event: event["type"])
    assert fed(by_type, plain("a", "a", "b")) == plain("a", "b")


def test_what_has_no_key_and_the_envelope_always_pass():
    events = [{"type": "x"}, {"type": "x"}, *plain("error", "error")]
    assert fed(ops.dedupe(), events) == events
    errors = plain("error", "error")
    assert fed(ops.dedupe("type"), errors) == errors
    got = piped(ops.dedupe("type"), [{"type": "x"}, {"type": "x"}])
    assert kinds(got) == ["session.run.started", "x", "session.run.completed"]


def test_every_turn_has_its_own_memory():
    operator = ops.dedupe()
    one = [{"type": "x", "id": 1}]
    assert fed(operator, one) == fed(operator, one) == one


@pytest.mark.parametrize("bad", [{"window": 0}, {"window": True}, {"window": 1.5}])
def test_a_window_that_cannot_be_is_refused(bad):
    with pytest.raises(CompositionError, match="window"):
        ops.dedupe(**bad)


async def later(event): ...


@pytest.mark.parametrize("key", [3, None, later])
def test_a_key_that_cannot_be_is_refused(key):
    for make in (ops.dedupe, lambda one: ops.resequence(one, first=0)):
        with pytest.raises(CompositionError, match="plain function"):
            make(key)


GOOD = [
    {"type": "mine", "data": {1: 2}},
    {"no": "type"},
    {"type": "session.run.started", "data": {"sessionId": "s", "turnIndex": 0}},
    {"type": "error", "data": {"message": "m"}},
    delta(PART, "x"),
    tool_part("t", tool="f", call_id="c", status="running", inputText="{"),
    result("x"),
    llm_call(inputTokens=3),
    {"type": "message.part.updated", "data": {"part": {"type": "file", "url": "u"}}},
]


def test_known_events_of_the_right_shape_pass():
    assert fed(ops.validate(), GOOD) == GOOD


BAD = [
    ({"type": 3}, "type: must be a string, not int"),
    ({"type": "result"}, "data: is missing, it must be an object"),
    ({"type": "result", "data": {}}, "data.finalText: is missing"),
    ({"type": "error", "data": {"message": 3}}, "data.message: must be a string"),
    ({"type": "session.run.completed", "data": {}}, "data.sessionId: is missing"),
    (
        {"type": "session.run.started", "data": {"sessionId": "s", "turnIndex": "1"}},
        "data.turnIndex: must be an integer",
    ),
    (llm_call(outputTokens=-1), "data.outputTokens: must be an integer, 0 or more"),
    (llm_call(outputTokens=True), "data.outputTokens: must be an integer"),
    ({"type": "message.part.updated", "data": {}}, "data.part: is missing"),
    (delta({"id": "p"}, "x"), "data.part.type: is missing"),
    (delta({"type": "text"}, "x"), "data.part.id: is missing"),
    (delta(PART, 3), "data.delta: must be a string, not int"),
    (
        tool_part("t", tool="f", call_id="c", status="done"),
        "data.part.state.status: must be one of pending",
    ),
    (
        {"type": "message.part.updated", "data": {"part": {"type": "tool", "id": "t"}}},
        "data.part.state: is missing",
    ),
]


@pytest.mark.parametrize(("event", "problem"), BAD, ids=lambda value: str(value)[:50])
def test_what_is_wrong_is_named_with_its_place(event, problem):
    logs = []

    async def dropped(on_invalid):
        chat = Pipeline(lambda: [event]) | ops.validate(on_invalid=on_invalid)
        run = chat.start(IDENTITY, log=lambda message, meta: logs.append(message))
        return [one async for one in run.events()]

    with pytest.raises(InvalidEvent) as caught:
        fed(ops.validate(), [event])
    assert problem in str(caught.value)
    assert asyncio.run(dropped("drop")) == []
    assert asyncio.run(dropped("log")) == [event]
    assert [problem in message for message in logs] == [True, True]


def test_a_check_of_ones_own_says_what_is_wrong_in_any_way():
    def raises(event):
        raise ValueError("not mine")

    for check, said in (
        (raises, "not mine"),
        (lambda event: len(event["type"], 1), "takes exactly one argument"),
        (lambda event: False, "does not pass the check"),
        (lambda event: "too long", "too long"),
    ):
        with pytest.raises(InvalidEvent, match=said):
            fed(ops.validate(check), plain("x"))
        assert fed(ops.validate(check, types=["y"]), plain("x")) == plain("x")
    assert fed(ops.validate(lambda event: True), plain("x")) == plain("x")
    with pytest.raises(TypeError, match="a check gave int"):
        fed(ops.validate(lambda event: 3), plain("x"))
    got = piped(ops.validate(raises, types=["x"]), plain("x"))
    assert got[-1]["data"]["code"] == "invalid_event"


def test_checks_and_policies_that_cannot_be_are_refused():
    for make, mend in (
        (lambda: ops.validate(on_invalid="raise"), "on_invalid"),
        (lambda: ops.validate(later), "plain function"),
        (lambda: ops.validate(lambda event, turn: None), "plain function"),
        (lambda: ops.validate(3), "not callable"),
    ):
        with pytest.raises(CompositionError, match=mend):
            make()
