"""What the strategies make is what they say."""

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

import operators as ops
from operators.event import TERMINALS
from pipeline import Pipeline, TurnIdentity
from pipeline.testing import loop_clock, run_virtual, scripted, strategies

IDENTITY = TurnIdentity(session_id="s", turn_index=0)
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def turned(reads):
    async def main():
        pipeline = Pipeline(scripted(reads)) | ops.lifecycle() | ops.accumulate()
        run = pipeline.start(IDENTITY, clock=loop_clock)
        lines = [line async for line in run.body()]
        return lines, await run.outcome()

    return run_virtual(main())


@given(
    strategies.texts().flatmap(lambda t: st.tuples(st.just(t), strategies.chunkings(t)))
)
@FEW
def test_chunkings_join_to_their_text(pair):
    text, pieces = pair
    assert "".join(pieces) == text
    assert all(pieces)


@given(strategies.deltas_of("hello world", part_id="x", kind="reasoning"))
@FEW
def test_deltas_say_the_text(events):
    assert "".join(event["data"]["delta"] for event in events) == "hello world"
    assert {event["data"]["part"]["type"] for event in events} == {"reasoning"}


@given(strategies.valid_turns())
@FEW
def test_valid_turns_complete(reads):
    _, outcome = turned(reads)
    assert outcome.status == "completed", outcome.error


@given(strategies.almost_valid_turns())
@FEW
def test_almost_valid_turns_end_in_order_all_the_same(reads):
    lines, outcome = turned(reads)
    assert outcome.status in ("completed", "failed")
    last = b"".join(lines).splitlines()[-1]
    assert any(kind.encode() in last for kind in TERMINALS)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_almost_valid_turns_are_of_both_kinds(status):
    found = find(
        strategies.almost_valid_turns(),
        lambda reads: turned(reads)[1].status == status,
        settings=settings(deadline=None),
    )
    assert found
