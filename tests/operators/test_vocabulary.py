"""event, errors, turn: what depends on nothing."""

import logging

import pytest

import operators as ops
from operators import errors
from operators import event as ev
from operators.turn import MAX_TURN_INDEX, Ending, error_text


def test_constructors_make_the_wire_shapes():
    assert ev.event("x") == {"type": "x"}
    assert ev.event("x", {"a": 1}) == {"type": "x", "data": {"a": 1}}
    assert ev.started("s", None, 0)["data"] == {"sessionId": "s", "turnIndex": 0}
    assert ev.started("s", "t", 0)["data"]["tenantId"] == "t"
    assert ev.cancelled("s", "why")["data"] == {"sessionId": "s", "reason": "why"}
    assert ev.delta(ev.text_part("p"), "a") == {
        "type": "message.part.updated",
        "data": {"part": {"type": "text", "id": "p"}, "delta": "a"},
    }
    assert ev.reasoning_part("r")["type"] == "reasoning"
    state = {"status": "completed", "input": {}, "output": 1}
    tool = ev.tool_part("t", tool="f", call_id="c", **state)
    assert tool["data"]["part"]["state"] == state
    assert ev.result("all")["data"] == {"finalText": "all"}
    assert ev.llm_call(model="m")["data"] == {"model": "m"}
    assert ev.completed("s")["type"] in ev.TERMINALS


def test_without_text_keeps_structure_alone():
    event = {
        "type": "t",
        "note": "secret",
        "data": {
            "id": "keep",
            "status": {"text": "secret"},
            "code": ["secret"],
            "items": [1, None, "secret", ("secret",)],
        },
    }
    assert ev.without_text(event) == {
        "type": "t",
        "note": "",
        "data": {
            "id": "keep",
            "status": {"text": ""},
            "code": [""],
            "items": [1, None, "", [""]],
        },
    }
    assert "secret" in str(event)


def test_every_error_is_a_turn_error_with_a_code_of_its_own():
    made = [
        errors.TurnError("m"),
        errors.PublicError("m"),
        errors.CompositionError("m"),
        errors.TurnMisuse("m"),
        errors.InvalidEvent("m"),
        errors.TurnTimeout("total", 1.5),
        errors.SettleTimeout("m"),
        errors.SourceError("m"),
        errors.SourceUnreachable("m"),
        errors.SourceStatus("m", status=429, retry_after=2.0, body="b"),
        errors.SourceProtocol("m"),
        errors.SourceIncomplete("m"),
        errors.SourceTimeout("idle", 2),
    ]
    codes = [error.code for error in made]
    assert len(set(codes)) == len(codes)
    assert all(isinstance(error, errors.TurnError) for error in made)
    assert isinstance(made[2], TypeError)
    assert errors.TurnError("m", code="mine").code == "mine"
    assert (made[9].status, made[9].retry_after, made[9].body) == (429, 2.0, "b")


def test_messages_say_where_and_how_long():
    assert str(errors.InvalidEvent("set", path="data.x")) == "data.x: set"
    assert errors.InvalidEvent("set").path == ""
    assert str(errors.TurnTimeout("total", 1.5)) == "no end within 1.5 s"
    late = errors.SourceTimeout("first_event", 2)
    assert str(late) == "the source gave no first event within 2 s"
    assert late.code == "source.timeout.first_event"


def test_an_identity_is_checked_field_by_field():
    ops.TurnIdentity(session_id="s", turn_index=MAX_TURN_INDEX, tenant_id="t")
    for bad in (
        {"session_id": " "},
        {"session_id": None},
        {"tenant_id": ""},
        {"user_id": 7},
        {"turn_index": True},
        {"turn_index": "1"},
    ):
        with pytest.raises(TypeError, match=next(iter(bad))):
            ops.TurnIdentity(**{"session_id": "s", "turn_index": 0, **bad})
    for index in (-1, MAX_TURN_INDEX + 1):
        with pytest.raises(ValueError, match="safe integer"):
            ops.TurnIdentity(session_id="s", turn_index=index)


def test_a_log_that_raises_is_survived(turn, caplog):
    def broken(message, meta):
        raise ValueError("log")

    turn.log_to = broken
    turn.log("hello", ValueError("x"))
    assert "the turn's log raised while logging 'hello'" in caplog.text


def test_without_a_log_of_its_own_a_turn_logs_with_the_traceback(turn, caplog):
    turn.log_to = None
    error = ValueError("boom")
    with caplog.at_level(logging.WARNING, "turnpipe"):
        turn.log("tap raised", error, operator="tap")
    (record,) = caplog.records
    assert record.exc_info[1] is error
    assert "operator" in record.getMessage()


def test_a_log_of_ones_own_gets_message_and_meta(turn, logged):
    turn.log("hello", count=3)
    turn.log("oops", ValueError("why"))
    assert logged == [("hello", {"count": 3}), ("oops", {"error": "why"})]


def test_a_record_tells_the_turn_as_it_stands(turn):
    assert (turn.record().text, turn.record().status) == ("", "streaming")
    turn.ending = Ending("failed", drained=False)
    turn.final_text = "t"
    assert (turn.record().text, turn.record().status) == ("t", "failed")
    assert error_text(ValueError("why")) == "why"
    assert ops.TurnOutcome(status="completed").events == 0
