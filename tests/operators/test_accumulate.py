import pytest

import operators as ops
from operators import event as ev
from operators.message import Message
from operators.testing import deltas, feed
from operators.turn import Ending, TurnIdentity
from pipeline import Pipeline


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
    assert tool["state"] == {"status": "running", "inputText": '{"a":1}'}
    bare = folded(ev.delta({"type": "tool", "id": "t"}, "{}"))
    assert bare.parts()[0]["state"] == {"inputText": "{}"}


def tool(status, part_id="t", **state):
    return ev.tool_part(part_id, tool="f", call_id="c", status=status, **state)


CALL = {"type": "tool", "id": "t", "tool": "f", "callID": "c"}


@pytest.mark.parametrize(
    ("events", "state"),
    [
        # A later state replaces the one before: what it does not repeat is gone,
        ([tool("error", error="no"), tool("running")], {"status": "running"}),
        # but not what the tool was called with,
        (
            [tool("running", input={"a": 1}), tool("completed", output=[2])],
            {"status": "completed", "output": [2], "input": {"a": 1}},
        ),
        # unless the later one says otherwise.
        (
            [tool("running", input={"a": 1}), tool("error", input={}, error="no")],
            {"status": "error", "input": {}, "error": "no"},
        ),
        # The raw input is kept until it is decoded,
        (
            [tool("pending"), ev.delta(CALL, '{"a"'), tool("running")],
            {"status": "running", "inputText": '{"a"'},
        ),
        (
            [ev.delta(CALL, '{"a":1}'), tool("running", input={"a": 1})],
            {"status": "running", "input": {"a": 1}},
        ),
        # for which an empty placeholder is not taken;
        (
            [
                tool("pending", input={}, inputText=""),
                ev.delta(CALL, '{"a"'),
                ev.delta(CALL, ":1}"),
            ],
            {"status": "pending", "input": {}, "inputText": '{"a":1}'},
        ),
        (
            [ev.delta(CALL, "{}"), tool("running", input={})],
            {"status": "running", "input": {}, "inputText": "{}"},
        ),
        # where it is shown beside the decoded one, it stays.
        (
            [
                ev.delta(CALL, "{}"),
                tool("running", input={"a": 1}, inputText='{"a":1}'),
                {
                    "type": ev.PART_UPDATED,
                    "data": {"part": {**CALL, "metadata": {"n": 1}}},
                },
            ],
            {"status": "running", "input": {"a": 1}, "inputText": '{"a":1}'},
        ),
        # A delta beside the whole of it is not added twice.
        (
            [ev.delta({**CALL, "state": {"inputText": text}}, text) for text in ("{",)],
            {"inputText": "{"},
        ),
        # A state that is no object is left as it is.
        ([ev.delta({**CALL, "state": "odd"}, "{}")], "odd"),
    ],
)
def test_a_tool_call_is_shown_in_its_last_state(events, state):
    (part,) = folded(*events).parts()
    assert part["state"] == state
    assert (part["tool"], part["callID"]) == ("f", "c")


def test_an_update_of_a_tool_names_only_what_is_new():
    named = {"part": {"type": "tool", "id": "t", "state": {"status": "completed"}}}
    unnamed = {"part": {"id": "t", "title": "Search"}}
    events = [{"type": ev.PART_UPDATED, "data": data} for data in (named, unnamed)]
    (part,) = folded(tool("running"), *events).parts()
    assert part == {**CALL, "state": {"status": "completed"}, "title": "Search"}


def test_a_tool_call_without_a_part_id_is_known_by_its_call_id():
    calls = [
        {"type": "tool", "callID": call_id, "state": {"status": status}}
        for call_id, status in (("a", "running"), ("b", "running"), ("a", "error"))
    ]
    message = folded(*[{"type": ev.PART_UPDATED, "data": {"part": c}} for c in calls])
    assert [part["state"]["status"] for part in message.parts()] == ["error", "running"]


def shown(**part):
    return {"type": ev.PART_UPDATED, "data": {"part": part}}


def test_files_and_parts_of_unknown_types_are_kept_as_their_last_event_shows_them():
    message = folded(
        shown(type="file", id="f", url="data:,a", mediaType="text/plain"),
        shown(type="chart", id="c", rows=[1]),
        *deltas("x"),
        shown(type="file", id="f", url="data:,b"),
        shown(type="chart", id="c", rows=[1, 2], text="kept"),
    )
    assert message.parts() == (
        {"type": "file", "id": "f", "url": "data:,b"},
        {"type": "chart", "id": "c", "rows": [1, 2], "text": "kept"},
        {"type": "text", "id": "p1", "text": "x"},
    )
    assert message.text() == "x"


def test_files_without_an_id_are_files_of_their_own():
    first, second = shown(type="file", url="a"), shown(type="file", url="b")
    text = {"type": ev.PART_UPDATED, "data": {"delta": "t"}}
    message = folded(text, first, *deltas("p"), second, ev.result("r"), first)
    assert [part.get("url") for part in message.parts()] == [None, "a", "b", "a"]


def test_deltas_of_a_part_of_an_unknown_type_are_its_text():
    growing = {"type": "code", "id": "c", "language": "py"}
    message = folded(ev.delta(growing, "1 +"), ev.delta(growing, " 1"))
    assert message.parts() == ({**growing, "text": "1 + 1"},)
    message.on_event(shown(type="code", id="c", text="2"))
    message.on_event(ev.delta(growing, "!"))
    assert message.parts()[0]["text"] == "2!"
    assert message.text() == ""


def test_what_else_is_said_of_a_text_part_survives_its_updates():
    start = {"type": "text", "id": "p1", "metadata": {"n": 1}}
    more = {"type": "text", "id": "p1", "citations": ["x"]}
    message = folded(
        shown(**start),
        *deltas("a"),
        shown(**more),
        ev.delta({**start, "metadata": {"n": 2}}, "b"),
        *deltas("c"),
    )
    expected = {"type": "text", "id": "p1", "metadata": {"n": 2}, "citations": ["x"]}
    assert message.parts() == ({**expected, "text": "abc"},)
    message.on_event(shown(type="text", id="p1", text="new"))
    assert message.parts() == ({**expected, "text": "new"},)


def test_a_delta_beside_the_whole_text_is_taken_once():
    events = [
        ev.delta({"type": "text", "id": "p", "text": text}, piece)
        for text, piece in (("a", "a"), ("ab", "b"))
    ]
    for source in ("auto", "delta", "snapshot"):
        message = folded(*events, source=source)
        assert message.text() == "ab"
        assert message.parts() == ({"type": "text", "id": "p", "text": "ab"},)


def test_a_text_and_a_reasoning_of_one_id_are_two_parts():
    reasoning = ev.delta(ev.reasoning_part("0"), "why")
    message = folded(reasoning, *deltas("a", part_id="0"), reasoning)
    message.on_event(ev.delta({"id": "0"}, "?"))  # of the part that had the id first
    message.on_event(*deltas("b", part_id="0"))
    assert [part["text"] for part in message.parts()] == ["whywhy?", "ab"]
    assert message.text() == "ab"


def test_the_events_themselves_are_not_changed():
    part = {**CALL, "state": {"status": "running", "input": {"a": [1]}}}
    event = {"type": ev.PART_UPDATED, "data": {"part": part, "delta": "{}"}}
    message = folded(event, tool("completed"), shown(type="text", id="p", text="t"))
    for made in message.parts():
        made["mine"] = made.get("state", {})["mine"] = 1
    assert event["data"]["part"] == {
        **CALL,
        "state": {"status": "running", "input": {"a": [1]}},
    }
    assert all("mine" not in part for part in message.parts())


async def test_an_event_of_another_type_is_no_text_whatever_part_it_carries():
    part = ev.text_part("p1")
    others = [
        {"type": kind, "data": {"part": part, "delta": "no"}}
        for kind in (ev.RESULT, ev.LLM_CALL, "custom")
    ]
    events = [ev.delta(part, "a"), *others, ev.delta(part, "b")]
    assert folded(events[0], *others[:2], events[-1]).text() == "ab"

    async def source():
        for event in events:
            yield event

    async def lists():
        yield events

    for produce in (source, lists):
        run = (Pipeline(produce) | ops.accumulate()).start(
            TurnIdentity(session_id="s", turn_index=0)
        )
        assert (await run.outcome()).text == "ab"


# how a tool call ends that nobody finished


OPEN = [tool("pending", "t1"), tool("running", "t2", input={"a": 1})]
DONE = [tool("completed", "t3", output=1), tool("error", "t4", error="no")]


@pytest.mark.parametrize("how", ["drained", "reported", "fails", "cancelled", "left"])
async def test_a_tool_call_that_was_not_finished_is_stored_as_interrupted(how):
    saved = []
    during = []

    async def source():
        for event in [*OPEN, *DONE, ev.delta({"type": "tool", "id": "t5"}, "{")]:
            yield event
        if how == "reported":
            yield {"type": ev.ERROR, "data": {"message": "no"}}
        if how == "fails":
            raise ValueError("cut")
        yield {"type": "last"}
        if how in ("cancelled", "left"):
            raise AssertionError("it is not read on")

    chat = (
        Pipeline(source)
        | ops.lifecycle()
        | ops.accumulate()
        | ops.tap(lambda event, turn: during.append(turn.message), types=["last"])
        | ops.persist(saved.append, partial=True)
    )
    run = chat.start(TurnIdentity(session_id="s", turn_index=0), log=lambda *_: None)
    body = run.events()
    async for event in body:
        if event["type"] == "last":
            if how == "cancelled":
                run.cancel()
            elif how == "left":
                break
    await body.aclose()
    await run.outcome()
    (record,) = saved
    states = [part["state"] for part in record.parts]
    assert states == [
        {"status": "interrupted"},
        {"status": "interrupted", "input": {"a": 1}},
        {"status": "completed", "output": 1},
        {"status": "error", "error": "no"},
        {"status": "interrupted", "inputText": "{"},
    ]
    assert record.message == {"role": "assistant", "parts": list(record.parts)}
    assert run.context.message == record.message
    for message in during:
        statuses = [part["state"].get("status") for part in message["parts"]]
        assert statuses == ["pending", "running", "completed", "error", None]


def test_a_state_of_a_products_own_is_not_taken_for_a_cut_call(turn):
    ops.accumulate().open(turn).on_event(tool("awaiting_approval"))
    turn.ending = Ending("completed", drained=True)
    assert turn.message["parts"][0]["state"] == {"status": "awaiting_approval"}
    turn.parts = lambda: ({"type": "tool", "state": "odd"}, {"type": "tool"})
    assert turn.record().parts == (
        {"type": "tool", "state": "odd"},
        {"type": "tool", "state": {"status": "interrupted"}},
    )


async def test_usage_is_there_on_every_end_also_where_nothing_settles():
    async def source():
        yield ev.llm_call(inputTokens=3)
        raise ValueError("cut")

    chat = Pipeline(source) | ops.lifecycle() | ops.accumulate()
    run = chat.start(TurnIdentity(session_id="s", turn_index=0), log=lambda *_: None)
    assert (await run.outcome()).usage == ops.Usage(input_tokens=3)


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


def test_what_another_operator_knows_of_the_usage_wins(turn):
    stage = ops.accumulate().open(turn)
    assert turn.usage is None
    stage.on_event(ev.llm_call(inputTokens=3))
    assert turn.usage == ops.Usage(input_tokens=3)
    turn.usage = ops.Usage(input_tokens=5)
    assert turn.record().usage == ops.Usage(input_tokens=5)


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
