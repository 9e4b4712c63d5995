import asyncio

from hypothesis import example, given
from hypothesis import strategies as st

import operators as ops
from operators import TurnContext, TurnIdentity
from operators import event as ev
from operators.message import Message
from operators.testing import chop, chunkings, deltas, feed
from operators.turn import interrupted
from pipeline import Pipeline

SIZES = st.lists(st.integers(1, 8), min_size=1)


@given(st.text(), SIZES)
def test_the_text_is_the_same_however_it_is_cut(text, sizes):
    turn = TurnContext(identity=TurnIdentity(session_id="s", turn_index=0))
    asyncio.run(feed(ops.accumulate(), deltas(*chop(text, sizes)), turn=turn))
    assert turn.final_text == turn.record().text == text


def test_the_text_is_the_same_for_every_way_of_cutting_it():
    for pieces in chunkings("ab\u2028\U0001f600 c\n"):
        message = Message()
        for event in deltas(*pieces):
            message.on_event(event)
        assert message.text() == "ab\u2028\U0001f600 c\n"


@given(st.lists(st.tuples(st.sampled_from(["p1", "p2", "p3"]), st.text(min_size=1))))
def test_each_part_has_its_own_text_in_the_order_of_first_appearance(pieces):
    message = Message()
    expected = {}
    for part_id, text in pieces:
        message.on_event(ev.delta(ev.text_part(part_id), text))
        expected[part_id] = expected.get(part_id, "") + text
    assert {part["id"]: part["text"] for part in message.parts()} == expected
    assert message.text() == "".join(expected.values())


IDENTITY = TurnIdentity(session_id="s", turn_index=0)
PARTS = [
    *[ev.text_part(name) for name in ("p1", "p2")],
    ev.reasoning_part("p1"),
    {"type": "text", "id": "p2", "metadata": {"n": 1}},
    {"type": "tool", "id": "t", "tool": "f", "callID": "c"},
    {"type": "tool", "id": "t", "state": {"status": "running", "inputText": "{"}},
    {"type": "tool", "id": "t", "state": {"status": "pending", "input": {"a": 1}}},
    {"type": "tool", "callID": "u", "state": {"status": "completed", "output": 1}},
    {"type": "file", "url": "data:,"},
    {"type": "text", "id": "p1", "text": "whole"},
]
PIECES = st.builds(
    lambda kind, part, text: {"type": kind, "data": {"part": part, "delta": text}},
    st.sampled_from([ev.PART_UPDATED] * 5 + [ev.RESULT, "custom"]),
    st.sampled_from(PARTS),  # shared: the plan appends to the part it is at
    st.sampled_from(["", "a", "b"]),
) | st.builds(ev.result, st.sampled_from(["", "final"]))


@given(st.lists(PIECES), st.sampled_from(["auto", "delta", "snapshot", "result"]))
def test_a_pipeline_gathers_what_the_fold_alone_does(events, source):
    message = Message(source)
    for event in events:
        message.on_event(event)

    async def singly():
        for event in events:
            yield event

    async def at_once():
        yield events

    saved = []
    for produce in (singly, at_once):
        chat = Pipeline(produce) | ops.accumulate(source=source)
        chat |= ops.persist(saved.append)
        asyncio.run(chat.start(IDENTITY).outcome())
    for record in saved:
        assert record.text == message.text()
        assert record.parts == interrupted(message.parts())
    states = [part["state"] for part in saved[0].parts if "state" in part]
    assert {state["status"] for state in states} <= {"completed", "interrupted"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
ODD = st.fixed_dictionaries(
    {"type": st.sampled_from([ev.PART_UPDATED, ev.RESULT, ev.LLM_CALL])},
    optional={
        "data": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "part": JSON
                | st.fixed_dictionaries(
                    {}, optional={"type": JSON, "id": JSON, "text": JSON, "state": JSON}
                ),
                "delta": JSON,
                "finalText": JSON,
                "inputTokens": JSON,
            },
        )
    },
)


@given(st.lists(ODD))
@example([{"type": ev.PART_UPDATED, "data": {"part": {"type": []}}}])
@example([{"type": ev.PART_UPDATED, "data": {"part": {"id": {}}, "delta": "a"}}])
def test_no_shape_of_an_event_breaks_it(events):
    message = Message()
    for event in events:
        message.on_event(event)
    assert isinstance(message.text(), str)
    assert all(isinstance(part, dict) for part in message.parts())
