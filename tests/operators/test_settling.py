"""transform, persist, complete, trace_flush: what happens when the stream is over."""

import asyncio

import pytest

import operators as ops
from operators import event as ev
from operators.testing import deltas, feed


async def settled(turn, *operators, events=None):
    chain = ops.Chain((ops.accumulate(), *operators))
    return await feed(
        chain, deltas(" a", "b ") if events is None else events, turn=turn
    )


def boom(*_):
    raise ValueError("boom")


# transform


async def test_transforms_apply_in_order_and_leave_the_live_stream_alone(turn):
    async def awaited(text):
        return f"<{text}>"

    def with_turn(text, turn):
        return text + turn.execution_id

    saved = []
    out = await settled(
        turn,
        ops.transform(str.strip),
        ops.transform(awaited),
        ops.transform(with_turn),
        ops.persist(saved.append),
    )
    assert out == deltas(" a", "b ")
    assert saved[0].text == "<ab>x-1"
    assert saved[0].parts[0]["text"] == "<ab>x-1"
    assert turn.text() == " ab "


async def test_each_text_part_is_transformed_and_parts_without_text_are_left(turn):
    tool = ev.tool_part("t", tool="f", call_id="c", status="running")
    events = [*deltas("a"), tool, *deltas("b", part_id="p2")]
    await settled(turn, ops.transform(str.upper), events=events)
    parts = turn.parts()
    assert [part.get("text") for part in parts] == ["A", None, "B"]
    assert turn.final_text == "AB"


async def test_without_accumulate_there_is_no_text_to_transform(turn):
    await feed(ops.transform(lambda text: text + "!"), [], turn=turn)
    assert turn.final_text == "!"


async def test_a_transform_that_raises_or_gives_no_text_stores_nothing(turn):
    saved = []
    with pytest.raises(ValueError, match="boom"):
        await settled(turn, ops.transform(boom), ops.persist(saved.append))
    assert turn.ending.code == "transform_failed"
    turn.ending = None
    with pytest.raises(TypeError, match=r"transform\(len\) gave int"):
        await settled(turn, ops.transform(len), ops.persist(saved.append))
    assert saved == []


# persist


async def test_save_gets_the_record_once_and_may_want_the_turn(turn):
    saved = []

    async def save(record, turn):
        saved.append((record, turn))

    await settled(turn, ops.persist(save))
    ((record, its_turn),) = saved
    assert its_turn is turn
    assert turn.persisted
    assert (record.text, record.status) == (" ab ", "completed")
    assert (record.identity, record.execution_id) == (turn.identity, "x-1")
    assert record.started_at <= record.ended_at


@pytest.mark.parametrize("partial", [False, True])
async def test_only_partial_saves_what_was_cut_short(turn, partial):
    saved = []

    async def cut():
        for event in deltas("a"):
            yield event
        raise ValueError("cut")

    with pytest.raises(ValueError, match="cut"):
        await settled(turn, ops.persist(saved.append, partial=partial), events=cut())
    assert [(record.text, record.status) for record in saved] == (
        [("a", "failed")] if partial else []
    )


async def test_save_is_tried_again_and_the_last_error_fails_the_turn(turn, logged):
    tries = []

    async def save(record):
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError(f"try {len(tries)}")

    await settled(turn, ops.persist(save, retries=2, backoff=0))
    assert (len(tries), turn.persisted) == (3, True)
    assert logged[0] == (
        "persist(save) raised, trying again",
        {"error": "try 1", "operator": "persist(save)"},
    )

    turn.persisted, saved = False, []
    await settled(turn, ops.persist(saved.append, retries=2))
    assert (len(saved), turn.persisted) == (1, True)

    turn.persisted, later = False, []
    with pytest.raises(ValueError, match="boom"):
        await settled(
            turn, ops.persist(boom, retries=1, backoff=0), ops.complete(later.append)
        )
    assert (turn.persisted, later) == (False, [])
    assert turn.ending.code == "persist_failed"


async def test_each_try_has_its_own_deadline(turn):
    async def stuck(record):
        await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        await settled(turn, ops.persist(stuck, timeout=0.001, retries=1, backoff=0))

    async def quick(record):
        return None

    turn.ending = None
    await settled(turn, ops.persist(quick, timeout=1000))
    assert turn.persisted


def test_bad_sinks_are_refused():
    with pytest.raises(
        ops.CompositionError, match="retries must be an int, 0 or more, not -1"
    ):
        ops.persist(print, retries=-1)

    def gen(record):
        yield record

    for make in (ops.persist, ops.complete, ops.transform):
        with pytest.raises(ops.CompositionError, match="its body would never run"):
            make(gen)
    assert ops.persist(print, partial=True).detail["partial"] is True


# complete


async def test_complete_comes_after_persist_and_its_errors_are_only_logged(
    turn, logged
):
    steps = []

    async def done(record, turn):
        steps.append((record.text, turn.persisted))

    await settled(turn, ops.persist(lambda record: None), ops.complete(done))
    assert steps == [(" ab ", True)]
    await settled(
        turn, ops.complete(boom), ops.complete(lambda r: steps.append(r.text))
    )
    assert steps[1:] == [" ab "]
    assert logged == [
        ("complete(boom) raised", {"error": "boom", "operator": "complete(boom)"})
    ]


# trace_flush


async def test_flush_runs_after_everything_on_every_end(turn):
    steps = []

    async def awaited():
        steps.append("flush")

    chain = ops.trace_flush(awaited) | ops.tap(lambda e: steps.append(e["type"]))
    await feed(ops.lifecycle() | chain, [], turn=turn)
    assert steps == ["session.run.started", "session.run.completed", "flush"]
    with pytest.raises(ValueError, match="boom"):
        await feed(chain | ops.map(boom), [{"type": "x"}])
    assert steps[-1] == "flush"


async def test_flush_may_want_the_turn_and_its_errors_are_logged(turn, logged):
    got = []
    await feed(ops.trace_flush(lambda turn: got.append(turn)), [], turn=turn)
    assert got == [turn]
    await feed(ops.trace_flush(boom, name="flush"), [], turn=turn)
    assert logged == [("flush raised", {"error": "boom", "operator": "flush"})]


async def test_an_async_flush_is_handed_to_wait_until(turn, logged):
    handed = []
    turn.wait_until = handed.append
    release = asyncio.Event()

    async def flush():
        await release.wait()
        raise ValueError("late")

    await feed(ops.trace_flush(flush), [], turn=turn)
    (task,) = handed
    assert not task.done()
    release.set()
    await task
    assert logged[0][1]["error"] == "late"
