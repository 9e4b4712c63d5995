"""The exit matrix finds what is broken, and passes what is not."""

import asyncio
import inspect

import aiostream
import pytest

import operators as ops
from operators.event import delta, text_part
from pipeline import Pipeline
from pipeline.sources import events
from pipeline.testing import (
    ExitMatrixError,
    assert_exit_matrix,
    check_exit_matrix,
    loop_clock,
)

from .broken import BROKEN

PART = text_part("p1")
FEW = (delta(PART, "ab "), [delta(PART, "cd "), {"type": "note", "data": {}}])
"""Enough events for what is not about the events."""


async def gently(event):
    await asyncio.sleep(0)


async def gently_true(event):
    await asyncio.sleep(0)
    return True


async def same(event):
    await asyncio.sleep(0)
    return event


def around(*operators):
    """Compose a turn of these alone."""

    def compose(source):
        pipeline = Pipeline(source)
        for one in operators:
            pipeline |= one
        return pipeline

    return compose


def seven(source):
    return (
        Pipeline(source)
        | ops.lifecycle()
        | ops.tap(gently)
        | ops.accumulate()
        | ops.transform(str.upper)
        | ops.persist(gently, partial=True)
        | ops.complete(gently)
        | ops.trace_flush(lambda: None)
    )


STAGES = "lifecycle, tap, accumulate, transform, persist, complete, trace_flush"
OURS = {
    STAGES: lambda: seven,
    "coalesce": lambda: ops.coalesce(max_events=4),
    "coalesce with a delay": lambda: ops.coalesce(max_events=8, max_delay=60.0),
    "filter": lambda: ops.filter(gently_true),
    "flat_map": lambda: ops.flat_map(lambda event: [event]),
    "guard": lambda: ops.guard(lambda text: True),
    "heartbeat": lambda: ops.heartbeat(5.0),
    "map": lambda: ops.map(same),
    "persist with drafts": lambda: around(
        ops.lifecycle(), ops.accumulate(), ops.persist(gently, every=1.0)
    ),
    "queued tap": lambda: ops.tap(gently, queue=2),
    "through": lambda: ops.through(aiostream.pipe.map(lambda event: event)),
    "timeout": lambda: ops.timeout(first_event=60, idle=60, total=600),
    "no lifecycle": lambda: around(ops.tap(gently), ops.coalesce()),
    "budget": lambda: ops.budget(events=1000),
    "dedupe": lambda: ops.dedupe("n"),
    "drop": lambda: ops.drop("ping"),
    "meter": ops.meter,
    "only": lambda: ops.only("*"),
    "redact": lambda: ops.redact(*ops.detectors.DEFAULT),
    "resequence": lambda: ops.resequence("n", first=0),
    "restore": lambda: ops.restore({"[EMAIL]": "a@example.com"}),
    "scan": lambda: ops.scan(lambda n, event: (n + 1, event), 0),
    "share": lambda: ops.share(replay=2, slow="wait"),
    "smooth": lambda: ops.smooth("line"),
    "switch": lambda: ops.switch({"message.*": ops.map(same)}),
    "validate": ops.validate,
}
"""What stands in one pipeline, by its names, and how to compose it."""


NOT_OPERATORS = {"operator", "event"}


def test_every_public_operator_is_in_the_table():
    public = {
        name
        for name in ops.__all__
        if inspect.isfunction(getattr(ops, name)) and name not in NOT_OPERATORS
    }
    assert public <= {name for names in OURS for name in names.split(", ")}


@pytest.mark.parametrize("name", OURS)
def test_ours_keep_every_law(name):
    assert check_exit_matrix(OURS[name]()) > 500


def test_ours_keep_every_law_with_a_second_cancel_at_every_step():
    steps = check_exit_matrix(ops.map(same), events=FEW)
    assert check_exit_matrix(ops.map(same), events=FEW, thorough=True) > 2 * steps


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_each_planted_bug_is_found_and_named(make):
    with pytest.raises(ExitMatrixError) as caught:
        check_exit_matrix(make())
    assert {breach.law for breach in caught.value.breaches} >= BROKEN[make]
    told = str(caught.value)
    assert f"whose: operator 2, {make.__name__}" in told or (
        f"whose: {make.__name__}" in told
    )
    assert "when: " in told


async def test_it_runs_within_a_running_loop():
    assert await assert_exit_matrix(seven, events=FEW) > 300


async def test_a_cancelled_check_is_given_up():
    check = asyncio.ensure_future(assert_exit_matrix(seven))
    await asyncio.sleep(0)
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check


def test_a_source_that_is_not_closed_by_its_wrapper_is_found():
    def compose(source):
        kept = []

        def wrapped():
            stream = source()
            kept.append(stream)  # so that nobody else closes it either

            async def inner():
                async for event in stream:
                    yield event

            return inner()

        return Pipeline(wrapped) | ops.lifecycle()

    with pytest.raises(ExitMatrixError) as caught:
        check_exit_matrix(compose)
    assert "source" in {breach.law for breach in caught.value.breaches}
    assert "the source, what wraps it" in str(caught.value)


def test_a_law_that_is_broken_on_purpose_can_be_waived():
    def loud(event):
        text = event["data"].get("delta")
        if text is None:
            return event
        data = {**event["data"], "delta": text.upper()}
        return {**event, "data": data}

    def doubled(event):
        return [event, event]

    twice = ops.flat_map(doubled, types=("session.run.completed",))
    with pytest.raises(ExitMatrixError, match="terminal: exactly one"):
        check_exit_matrix(twice)
    check_exit_matrix(twice, waive=["terminal"], events=FEW)
    check_exit_matrix(ops.map(loud, types=("message.part.updated",)), events=FEW)
    with pytest.raises(ValueError, match="no law"):
        check_exit_matrix(twice, waive=["gravity"])


def test_a_pipeline_is_tested_around_another_source():
    pipeline = Pipeline(events([{"type": "x"}])) | ops.lifecycle() | ops.tap(gently)
    assert check_exit_matrix(pipeline, events=FEW) > 300


def test_a_pipeline_that_refuses_the_usual_events_asks_for_others():
    def picky(event):
        if event["type"] == "note":
            raise ValueError("no notes")
        return event

    with pytest.raises(ExitMatrixError, match="no notes"):
        check_exit_matrix(ops.map(picky))
    own = [{"type": "a"}, [{"type": "b"}, {"type": "c"}], {"type": "d"}]
    assert check_exit_matrix(ops.map(picky), events=own) > 300


def test_an_operator_that_waits_does_so_in_no_time():
    class Slow:
        async def on_event(self, event):
            began = loop_clock()
            await asyncio.sleep(0.5)
            assert loop_clock() >= began + 0.5

    assert check_exit_matrix(ops.operator(Slow), events=FEW) > 300
