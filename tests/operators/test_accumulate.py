import pytest

import operators as ops
from operators import event as ev
from operators.accumulate import Message
from operators.testing import deltas, feed


def whole(part_id, text, kind="text"):
    part = {"type": kind, "id": part_id, "text": text}
    return {"type": ev.PART_UPDATED, "data": {"part": part}}


def folded(*events, source="auto"):
    message = Message(source)
    for event in events:
        message.on_event(event)
    return message


def test_deltas_append_to_their_part_and_parts_keep_their_order():
    message = folded(
        *deltas("a"),
        *deltas("x", part_id="p2"),
        *deltas("b"),
        *deltas("y", part_id="p2"),
    )
    assert message.text() == "abxy"
    assert [part["text"] for part in message.parts()] == ["ab", "xy"]
    assert message.text() == "abxy"


def test_a_text_part_without_delta_replaces_that_parts_text():
    message = folded(*deltas("a", "b"), whole("p1", "new"), *deltas("!"))
    assert message.text() == "new!"


def test_a_result_replaces_all_text_in_place_of_the_first_part():
    tool = ev.tool_part("t", tool="f", call_id="c", status="running")
    message = folded(*deltas("a"), tool, *deltas("b", part_id="p2"), ev.result("done"))
    assert [part["type"] for part in message.parts()] == ["text", "tool"]
    assert message.text() == "done"
    assert folded(ev.result("alone")).text() == "alone"
    same = folded(*deltas("a"), *deltas("b", part_id="p2"), ev.result("ab"))
    assert len(same.parts()) == 2
    after = folded(*deltas("a"), ev.result("done"), *deltas("b"))
    assert after.text() == "doneb"


@pytest.mark.parametrize(
    ("source", "text"),
    [("auto", "R"), ("delta", "ab"), ("snapshot", "S"), ("result", "R")],
)
def test_source_limits_it_to_one_kind(source, text):
    events = [*deltas("a"), whole("p1", "S"), ev.result("R")]
    if source == "delta":
        events[2:] = deltas("b")
    assert folded(*events, source=source).text() == text


def test_reasoning_and_tools_are_parts_but_not_text():
    part = {"type": "tool", "id": "t", "tool": "f", "callID": "c"}
    message = folded(
        ev.delta(ev.reasoning_part("r"), "hm"),
        whole("r", "hmm", "reasoning"),
        ev.tool_part("t", tool="f", call_id="c", status="pending"),
        ev.delta({**part, "state": {"status": "running"}}, '{"a":'),
        ev.delta(part, "1}"),
        *deltas("text"),
    )
    assert message.text() == "text"
    reasoning, tool, _ = message.parts()
    assert reasoning["text"] == "hmm"
    assert tool["state"] == {"status": "pending", "inputText": '{"a":1}'}
    done = ev.tool_part("t", tool="f", call_id="c", status="completed", output=1)
    message.on_event(done)
    assert message.parts()[1] == done["data"]["part"]
    bare = folded(ev.delta({"type": "tool", "id": "t"}, "{}"))
    assert bare.parts()[0]["state"] == {"inputText": "{}"}


def test_usage_of_several_calls_is_summed():
    message = folded(
        ev.llm_call(inputTokens=3, outputTokens=2, cachedInputTokens=1),
        ev.llm_call(inputTokens=4, reasoningTokens=5, outputTokens="7"),
        ev.llm_call(inputTokens=-4),
    )
    assert message.usage == ops.Usage(
        input_tokens=7, output_tokens=2, cached_input_tokens=1, reasoning_tokens=5
    )


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"delta": 7},
        {"part": None, "delta": ""},
        {"part": {"type": "text", "id": "p", "text": 7}},
        {"finalText": 7},
    ],
)
def test_shapes_it_does_not_know_are_passed_over(data):
    for kind in (ev.PART_UPDATED, ev.RESULT, ev.LLM_CALL):
        assert folded({"type": kind, "data": data}).text() == ""
        assert folded({"type": kind}).text() == ""


def test_parts_without_an_id_or_with_a_strange_one_are_told_apart_by_what_there_is():
    bare = {"type": ev.PART_UPDATED, "data": {"delta": "a"}}
    assert folded(bare, bare).text() == "aa"
    strange = [ev.delta({"type": "text", "id": [n]}, "x") for n in (1, 2, 1)]
    assert [part["text"] for part in folded(*strange).parts()] == ["xx", "x"]


async def test_the_turn_can_read_along_and_has_all_of_it_at_the_end(turn):
    seen = []
    chain = ops.accumulate() | ops.tap(lambda event, turn: seen.append(turn.text()))
    usage = ev.llm_call(inputTokens=1)
    await feed(chain, [*deltas("a", "b"), usage], turn=turn)
    assert seen == ["a", "ab", "ab"]
    assert turn.final_text == "ab"
    assert turn.parts() == ({**ev.text_part("p1"), "text": "ab"},)
    assert turn.usage == ops.Usage(input_tokens=1)


async def test_the_producers_own_final_text_wins(turn):
    turn.produced = "produced"
    await feed(ops.accumulate(), deltas("a"), turn=turn)
    assert turn.record().text == turn.text() == "produced"


def test_an_unknown_source_is_refused_with_what_there_is():
    with pytest.raises(ops.CompositionError, match="auto, delta, snapshot, result"):
        ops.accumulate(source="deltas")
