"""`hedge`: the first to give content wins, the other leaves nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import pytest

from operators.accumulate import accumulate
from operators.errors import CompositionError, SourceUnreachable
from operators.event import llm_call
from operators.lifecycle import lifecycle
from operators.turn import Ending, TurnIdentity
from pipeline import ChatTurnProducer, Pipeline
from pipeline.sources import openai_chat
from pipeline.sources.hedge import hedge
from tests.pipeline.support import alone
from tests.sources.candidates import (
    EMPTY,
    HEARTBEAT,
    USAGE,
    Logged,
    Scripted,
    failing,
    read,
    says,
)
from tests.sources.helpers import cancelled_at, flat, other_tasks, text_of
from tests.sources.server import DONE, chunk, chunked, finish, head, serving

SOON = 0.001
NEVER = 60.0
CUT = [llm_call(hedged=True, finishReason="cancelled", provenance="estimated")]


def test_a_source_that_answers_in_time_is_alone() -> None:
    async def main() -> None:
        source = Scripted([EMPTY, [says("a"), says("b")], says("c")])
        other = Scripted([says("x")])
        reads = await read(hedge(source, other, after=NEVER))
        assert reads == [EMPTY, [says("a"), says("b")], says("c")]
        assert (source.open, other.calls) == (0, 0)

    alone(main())


def test_the_other_answers_where_the_source_hangs_and_the_loser_is_closed() -> None:
    async def main() -> None:
        source = Scripted([EMPTY, "hang"])
        other = Scripted([EMPTY, says("a"), says("b")])
        reads = await read(hedge(source, other, after=SOON))
        assert reads == [EMPTY, says("a"), CUT, says("b")]
        assert (source.calls, source.open, other.open) == (1, 0, 0)

    alone(main())


def test_without_another_the_same_source_is_asked_again() -> None:
    async def main() -> None:
        source = Scripted(["hang"], [says("a")])
        assert await read(hedge(source, after=SOON)) == [says("a"), CUT]
        assert (source.calls, source.open) == (2, 0)

    alone(main())


def test_the_source_wins_where_it_answers_first_after_all() -> None:
    async def main() -> None:
        asked = asyncio.Event()

        class Other(Scripted):
            def __call__(self, turn: Any) -> Any:
                asked.set()
                return super().__call__(turn)

        source, other = Scripted([asked, says("a")]), Other([USAGE, EMPTY, "hang"])
        reads = await read(hedge(source, other, after=SOON))
        assert reads[0] == says("a")
        assert reads[1:] in ([[USAGE]], [CUT])  # as far as it came
        assert (source.open, other.open) == (0, 0)

    alone(main())


def test_the_usage_that_a_loser_reported_is_kept_and_nothing_estimated() -> None:
    async def main() -> None:
        source = Scripted([EMPTY, USAGE, "hang"])
        other = Scripted([says("a")])
        reads = await read(hedge(source, other, after=SOON))
        assert reads == [says("a"), [USAGE]]

    alone(main())


def test_a_failure_before_content_asks_the_other_at_once() -> None:
    async def main() -> None:
        logged = Logged()
        source = Scripted([USAGE, SourceUnreachable("x")])
        other = Scripted([says("a")])
        reads = await read(hedge(source, other, after=NEVER), logged.turn)
        assert reads == [[USAGE], says("a")]
        assert logged.metas[0]["error"] == "x"

    alone(main())


def test_a_failure_of_the_other_leaves_the_source_going() -> None:
    async def main() -> None:
        failed = asyncio.Event()
        logged = Logged()

        class Other(Scripted):
            async def __call__(self, turn: Any) -> Any:
                failed.set()
                raise SourceUnreachable("other")
                yield

        source = Scripted([failed, HEARTBEAT, HEARTBEAT, HEARTBEAT, says("a")])
        reads = await read(hedge(source, Other([]), after=SOON), logged.turn)
        assert reads == [HEARTBEAT] * 3 + [says("a")]
        assert logged.metas[0]["error"] == "other"

    alone(main())


def test_where_both_fail_the_first_failure_notes_the_other() -> None:
    async def main() -> None:
        one = SourceUnreachable("one")
        sources = Scripted([one]), Scripted([SourceUnreachable("two")])
        _, error = await failing(hedge(*sources, after=NEVER))
        assert error is one
        assert ["two" in note for note in error.__notes__] == [True]

    alone(main())


def test_a_failure_after_content_is_the_turns() -> None:
    async def main() -> None:
        source = Scripted([says("a"), SourceUnreachable("late")])
        other = Scripted([says("x")])
        reads, error = await failing(hedge(source, other, after=NEVER))
        assert reads == [says("a")]
        assert str(error) == "late"
        assert other.calls == 0

    alone(main())


def test_a_source_that_ends_without_content_has_answered() -> None:
    async def main() -> None:
        other = Scripted([says("x")])
        assert await read(hedge(Scripted([EMPTY]), other, after=NEVER)) == [EMPTY]
        assert other.calls == 0

    alone(main())


def test_heartbeats_pass_while_both_are_waited_for() -> None:
    async def main() -> None:
        source = Scripted([HEARTBEAT, "hang"])
        other = Scripted([HEARTBEAT, HEARTBEAT, says("a")])
        reads = await read(hedge(source, other, after=SOON))
        assert reads == [HEARTBEAT] * 3 + [says("a"), CUT]

    alone(main())


def test_at_most_one_read_is_pulled_ahead() -> None:
    async def main() -> None:
        source = Scripted([says(str(n)) for n in range(20)])
        async with aclosing(hedge(source, after=NEVER)(Logged().turn).stream) as events:  # type: ignore[type-var]
            for n in range(5):
                assert await anext(events) == says(str(n))
                for _ in range(10):
                    await asyncio.sleep(0)
                assert source.pulled <= n + 2
        assert source.open == 0

    alone(main())


def test_a_loser_that_fails_to_close_is_logged() -> None:
    async def main() -> None:
        logged = Logged()
        source = Scripted(["hang"])
        source.closing_error = RuntimeError("stuck")
        reads = await read(
            hedge(source, Scripted([says("a")]), after=SOON), logged.turn
        )
        assert reads == [says("a"), CUT]
        assert [meta["error"] for meta in logged.metas] == ["stuck"]

    alone(main())


def test_a_loser_that_swallows_its_cancellation_is_closed_all_the_same() -> None:
    closed = []

    async def stubborn() -> Any:
        try:
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                yield EMPTY
        finally:
            closed.append(True)

    async def main() -> None:
        assert await read(hedge(stubborn, Scripted([says("a")]), after=SOON)) == [
            says("a"),
            CUT,
        ]
        assert closed == [True]

    alone(main())


def slow_to_close(closed: asyncio.Event, turns: int) -> Any:
    async def source() -> Any:
        try:
            yield EMPTY
            await asyncio.Event().wait()
        finally:
            for _ in range(turns):
                await asyncio.sleep(0)
            closed.set()

    return source


def test_the_loser_closes_while_the_winner_goes_on() -> None:
    async def main() -> None:
        closed = asyncio.Event()
        winner = Scripted([says("a"), closed, says("b")])
        reads = await read(hedge(slow_to_close(closed, 1), winner, after=SOON))
        assert reads == [says("a"), CUT, says("b")]

    alone(main())


def test_the_end_of_the_winner_does_not_interrupt_the_closing_of_the_loser() -> None:
    async def main() -> None:
        closed = asyncio.Event()
        loser = slow_to_close(closed, 50)
        await read(hedge(loser, Scripted([says("a")]), after=SOON))
        assert closed.is_set()

    alone(main())


def test_a_cleanup_that_hangs_is_reached_by_the_second_cancellation() -> None:
    async def main() -> None:
        opened, closing = asyncio.Event(), asyncio.Event()

        async def source() -> Any:
            try:
                opened.set()
                await asyncio.Event().wait()
                yield EMPTY
            finally:
                closing.set()
                await asyncio.Event().wait()

        reader = asyncio.create_task(read(hedge(source, after=NEVER)))
        await opened.wait()
        reader.cancel()
        await closing.wait()
        reader.cancel()
        done, _ = await asyncio.wait({reader}, timeout=2)
        assert done
        assert reader.cancelled()

    alone(main())


def test_a_cleanup_that_hangs_is_cancelled_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.sources.pulling.CLOSE_TIMEOUT", 0.01)

    async def source() -> Any:
        try:
            await asyncio.Event().wait()
            yield EMPTY
        finally:
            await asyncio.Event().wait()

    async def main() -> None:
        reads = await read(hedge(source, Scripted([says("a")]), after=SOON))
        assert reads == [says("a"), CUT]

    alone(main())


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_a_turn_that_is_left_closes_both(how: str) -> None:
    async def main() -> None:
        source, other = Scripted([HEARTBEAT, "hang"]), Scripted([HEARTBEAT, "hang"])
        chat = Pipeline(hedge(source, other, after=SOON)) | lifecycle() | accumulate()
        run = chat.start(TurnIdentity(session_id="s", turn_index=0))
        async with aclosing(run.events()) as events:
            for _ in range(3):  # started, and a heartbeat of each
                await anext(events)
            assert (source.open, other.open) == (1, 1)
            if how == "cancel":
                run.cancel("enough")
                assert (await anext(events))["type"] == "session.run.cancelled"
        assert (await run.outcome()).status == "cancelled"
        assert (source.open, other.open) == (0, 0)

    alone(main())


def test_a_cancellation_that_a_source_raises_of_itself_is_its_failure() -> None:
    async def main() -> None:
        source = Scripted([asyncio.CancelledError()])
        reads = await read(hedge(source, Scripted([says("a")]), after=NEVER))
        assert reads == [says("a")]

    alone(main())


def test_a_turn_that_is_asked_to_stop_asks_no_other() -> None:
    async def main() -> None:
        logged = Logged()
        logged.turn.ending = Ending("cancelled", drained=False)
        other = Scripted([says("b")])
        source = Scripted([SourceUnreachable("x")])
        await failing(hedge(source, other, after=NEVER), logged.turn)
        assert other.calls == 0

    alone(main())


def test_in_a_turn_the_winners_final_text_and_usage_count() -> None:
    def other() -> ChatTurnProducer:
        return ChatTurnProducer([says("part"), USAGE], lambda: "whole")

    async def main() -> None:
        source = Scripted([USAGE, "hang"])
        chat = Pipeline(hedge(source, other, after=SOON)) | lifecycle() | accumulate()
        run = chat.start(TurnIdentity(session_id="s", turn_index=0))
        outcome = await run.outcome()
        assert (outcome.status, outcome.text) == ("completed", "whole")
        assert outcome.usage is not None
        assert outcome.usage.input_tokens == 14

    alone(main())


@pytest.mark.parametrize("after", [0, -1, float("nan"), True, None])
def test_what_cannot_be_is_refused_when_composed(after: Any) -> None:
    with pytest.raises(CompositionError, match="after"):
        hedge(list, after=after)
    with pytest.raises(CompositionError, match="is not a source"):
        hedge(list, [])  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("again", [None, 1, 2], ids=["once", "twice", "twice, later"])
def test_cancelled_at_any_step_it_leaves_nothing_open(again: int | None) -> None:
    async def main() -> int:
        step = 0
        while True:
            step += 1
            source = Scripted([EMPTY, "hang"])
            other = Scripted([EMPTY, says("a"), says("b")])
            before = asyncio.all_tasks()
            steps = (step,) if again is None else (step, step + again)
            cancelled, count = await cancelled_at(
                read(hedge(source, other, after=SOON)), *steps
            )
            assert (source.open, other.open) == (0, 0), step
            assert not await other_tasks(before), step
            if count < step:
                assert not cancelled
                return step
            assert cancelled, step

    assert asyncio.run(main()) > 4


@pytest.mark.usefixtures("transport")
def test_on_a_socket_the_losers_connection_is_closed() -> None:
    good = chunked(chunk(content="a"), chunk(content="b"), finish() + DONE, b"")

    async def main() -> None:
        for hanging in (["hang"], [head(), chunk(content=""), "hang"]):
            async with serving(hanging, good) as server:  # type: ignore[arg-type]
                chat = openai_chat(base_url=server.url, model="m", attempts=1)
                reads = await read(hedge(chat, after=0.05))
                assert text_of(flat([r for r in reads if isinstance(r, list)])) == "ab"
                assert await server.all_closed()
                assert len(server.requests) == 2

    asyncio.run(main())
