"""Waiting, pausing and closing, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic

import pytest

from operators.errors import (
    SourceIncomplete,
    SourceStatus,
    SourceTimeout,
    SourceUnreachable,
)
from pipeline.sources.closing import carried_through
from pipeline.sources.patience import Patience, Waiting, retry_after


def test_pauses_double_to_their_limit_give_or_take_a_quarter() -> None:
    patience = Patience(attempts=100, backoff=1.0, backoff_max=8.0)
    error = SourceUnreachable("x")
    for attempt, middle in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (99, 8)]:
        pauses = [patience.pause(attempt, error) or 0.0 for _ in range(50)]
        assert min(pauses) >= 0.75 * middle
        assert max(pauses) <= 1.25 * middle
        assert len(set(pauses)) > 10


def test_a_pause_is_never_shorter_than_asked() -> None:
    busy = SourceStatus("x", status=429, retry_after=5.0)
    assert Patience(backoff=0.1).pause(1, busy) == 5.0
    assert Patience(backoff=8.0).pause(1, busy) != 5.0


def test_what_may_not_pass_is_not_tried_again() -> None:
    patience = Patience(attempts=2)
    assert patience.pause(2, SourceUnreachable("x")) is None
    assert patience.pause(1, SourceStatus("x", status=400)) is None
    assert patience.pause(1, SourceTimeout("idle", 1)) is None
    assert patience.pause(1, SourceIncomplete("x")) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("nan", None),
        ("inf", None),
        ("later", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),  # a date without a zone
    ],
)
def test_retry_after_is_seconds_or_a_date(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value) == seconds


def test_a_wait_that_swallows_its_interruption_has_timed_out_all_the_same() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "so what"
        return ""

    async def main() -> None:
        waiting = Waiting(Patience(first_event=0.05))
        with pytest.raises(SourceTimeout):
            await waiting.wait(stubborn)
        waiting.close()
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    asyncio.run(main())


def test_a_deadline_that_has_passed_begins_no_wait() -> None:
    async def main() -> None:
        waiting = Waiting(Patience(first_event=0.01))
        await asyncio.sleep(0.02)
        begun: list[Awaitable[None]] = []
        with pytest.raises(SourceTimeout):
            await waiting.wait(lambda: begun.append(asyncio.sleep(0)))  # type: ignore[arg-type,return-value]
        assert not begun

    asyncio.run(main())


def test_a_cancellation_from_outside_wins_over_the_deadline() -> None:
    async def main() -> None:
        async def waits() -> None:
            waiting = Waiting(Patience(first_event=0.02))
            try:
                await waiting.wait(lambda: asyncio.sleep(5))
            finally:
                waiting.close()

        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.02, task.cancel)
        ends = monotonic() + 0.02
        while monotonic() < ends + 0.005:  # so that both fall due in one turn
            pass
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(main())


def test_closing_is_carried_through_cancellations_which_are_then_raised() -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def closing() -> None:
            await asyncio.sleep(0.05)
            closed.set()

        task = asyncio.create_task(carried_through(closing()))
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert closed.is_set()

    asyncio.run(main())


def test_closing_that_hangs_is_given_up() -> None:
    async def main() -> None:
        closing = asyncio.create_task(asyncio.sleep(60))

        async def hangs() -> None:
            await closing

        await carried_through(hangs(), limit=0.02)
        assert closing.cancelled()

    asyncio.run(main())


def test_closing_that_fails_tells_it() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(carried_through(fails()))
