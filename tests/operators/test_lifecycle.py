import pytest

import operators as ops
from operators import event as ev
from operators.testing import deltas, feed

X = {"type": "x"}


def kinds(events):
    return [event["type"] for event in events]


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


async def failing(error):
    yield X
    raise error


async def test_started_comes_first_and_completed_last(turn):
    out = await feed(ops.lifecycle(), deltas("a"), turn=turn)
    assert out == [
        ev.started("s-1", "t-1", 3),
        *deltas("a"),
        ev.completed("s-1"),
    ]


async def test_operators_before_it_see_the_sources_events_alone():
    before, after = [], []
    chain = ops.tap(before.append) | ops.lifecycle() | ops.tap(after.append)
    await feed(chain, [X])
    assert kinds(before) == ["x"]
    assert kinds(after) == ["session.run.started", "x", "session.run.completed"]


async def test_a_masked_failure_shows_a_code_and_an_error_id_that_the_log_has(
    turn, logged
):
    out = await feed(ops.lifecycle(), failing(ValueError("secret")), turn=turn)
    assert kinds(out) == ["session.run.started", "x", "error", "session.run.failed"]
    error, failed = out[2]["data"], out[3]["data"]
    assert error["message"] == "The turn failed."
    assert error["code"] == "source_failed"
    assert failed == {"sessionId": "s-1", **error}
    assert "secret" not in str(out)
    assert logged[0][1]["error_id"] == error["errorId"]
    assert logged[0][1]["error"] == "secret"


async def test_a_public_error_passes_the_mask(turn):
    error = ops.PublicError("try later", code="busy")
    out = await feed(ops.lifecycle(), failing(error), turn=turn)
    assert out[2]["data"] == {"message": "try later", "code": "busy"}


async def test_with_messages_the_errors_own_text_is_shown(turn):
    lifecycle = ops.lifecycle(errors="message")
    out = await feed(lifecycle, failing(ValueError("why")), turn=turn)
    assert out[2]["data"] == {"message": "why"}
    turn.ending = None
    out = await feed(lifecycle, failing(ops.TurnTimeout("idle", 2)), turn=turn)
    assert out[2]["data"]["code"] == "timeout.idle"
    turn.ending = None
    out = await feed(lifecycle, failing(Unprintable()), turn=turn)
    assert out[2]["data"] == {"message": "Unprintable"}


async def test_terminals_of_the_source_are_absorbed_and_their_data_merged():
    out = await feed(
        ops.lifecycle(),
        [
            X,
            {"type": "error", "data": {"message": "quota", "sessionId": "theirs"}},
            {"type": "error", "data": {"message": "again"}},
            {"type": "session.run.failed", "data": {"code": 7}},
            ev.completed("theirs"),
        ],
    )
    assert kinds(out) == ["session.run.started", "x", "error", "session.run.failed"]
    assert out[2]["data"]["message"] == "quota"
    assert out[3]["data"] == {"message": "again", "sessionId": "stream", "code": 7}
    assert kinds(await feed(ops.lifecycle(), [ev.completed("theirs"), X])) == [
        "session.run.started",
        "x",
        "session.run.completed",
    ]


@pytest.mark.parametrize("extra", [{}, {"data": {"message": "m"}}, {"data": 7}])
async def test_a_failure_without_error_event_gets_one(extra):
    out = await feed(ops.lifecycle(), [{"type": "session.run.failed", **extra}])
    assert out[1] == {"type": "error", **extra}
    assert kinds(out)[2:] == ["session.run.failed"]


async def test_an_error_after_one_that_was_sent_in_band_is_not_sent_twice(turn):
    async def source():
        yield {"type": "error", "data": {"message": "first"}}
        raise ValueError("second")

    out = await feed(ops.lifecycle(), source(), turn=turn)
    assert kinds(out) == ["session.run.started", "error", "session.run.failed"]
    assert out[-1]["data"]["code"] == "source_failed"


@pytest.mark.parametrize(("reason", "shown"), [("stop", "stop"), (None, "cancelled")])
def test_a_cancelled_turn_says_why(turn, reason, shown):
    from operators.turn import Ending

    envelope = ops.lifecycle().open(turn).envelope
    ending = Ending("cancelled", drained=False, reason=reason)
    assert envelope.terminals(ending) == (ev.cancelled("s-1", shown),)


def test_an_unknown_mode_is_refused():
    with pytest.raises(
        ops.CompositionError,
        match='"masked" or "message", not "x"'.replace('"x"', "'x'"),
    ):
        ops.lifecycle(errors="x")
