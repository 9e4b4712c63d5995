"""`retry`: nothing is delivered twice, nothing that was paid for is lost."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import pytest
from aiostream import stream
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.accumulate import accumulate
from operators.content import is_content
from operators.errors import (
    CompositionError,
    SourceError,
    SourceStatus,
    SourceUnreachable,
)
from operators.event import event
from operators.lifecycle import lifecycle
from operators.turn import Ending, TurnIdentity
from pipeline import ChatTurnProducer, Pipeline
from pipeline.sources import openai_chat
from pipeline.sources.retry import doubled, is_passing, retry
from tests.pipeline.support import alone
from tests.sources.candidates import (
    EMPTY,
    HEARTBEAT,
    PART,
    USAGE,
    Logged,
    Scripted,
    failing,
    read,
    says,
)
from tests.sources.helpers import cancelled_at, flat, other_tasks, text_of
from tests.sources.server import DONE, chunk, chunked, finish, serving

DOWN = SourceUnreachable("down")


def quick(source: Any, **more: Any) -> Any:
    return retry(source, **{"backoff": 0.001, **more})


def test_what_failed_before_its_content_is_asked_again_and_given_once() -> None:
    async def main() -> None:
        source = Scripted(
            [EMPTY, SourceUnreachable("1")], [EMPTY, [says("a")], says("b")]
        )
        assert await read(quick(source)) == [EMPTY, [says("a")], says("b")]
        assert (source.calls, source.open) == (2, 0)

    alone(main())


def test_after_content_a_failure_stands() -> None:
    async def main() -> None:
        source = Scripted([says("a"), DOWN], [says("b")])
        reads, error = await failing(quick(source))
        assert reads == [says("a")]
        assert error is DOWN
        assert source.calls == 1

    alone(main())


def test_before_the_first_event_even_one_without_content_makes_it_stand() -> None:
    async def main() -> None:
        source = Scripted([HEARTBEAT, EMPTY, DOWN], [says("b")])
        reads, error = await failing(quick(source, before="first_event"))
        assert reads == [HEARTBEAT, EMPTY]
        assert error is DOWN

    alone(main())


def test_the_usage_of_a_failed_attempt_is_delivered_and_all_else_of_it_dropped() -> (
    None
):
    async def main() -> None:
        source = Scripted([EMPTY, [EMPTY, USAGE], DOWN], [says("a")])
        assert await read(quick(source)) == [[USAGE], says("a")]
        source = Scripted([USAGE, SourceUnreachable("x")])
        reads, error = await failing(quick(source, attempts=2))
        assert reads == [[USAGE], [USAGE]]
        assert isinstance(error, SourceUnreachable)

    alone(main())


def test_each_attempt_is_closed_before_the_next_begins() -> None:
    opened: list[int] = []

    class Watched(Scripted):
        def __call__(self, turn: Any) -> Any:
            opened.append(self.open)
            return super().__call__(turn)

    async def main() -> None:
        await failing(quick(Watched([EMPTY, SourceUnreachable("x")])))

    alone(main())
    assert opened == [0, 0, 0]


def test_the_last_failure_is_raised_with_the_others_in_its_notes_and_the_log() -> None:
    async def main() -> None:
        logged = Logged()
        last = SourceUnreachable("three")
        source = Scripted(
            [SourceUnreachable("one")], [SourceUnreachable("two")], [last]
        )
        _, error = await failing(quick(source), logged.turn)
        assert error is last
        assert [note.split(": ")[-1] for note in error.__notes__] == ["one", "two"]
        assert len(logged.messages) == 2
        assert [meta["error"] for meta in logged.metas] == ["one", "two"]

    alone(main())


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    async def main() -> None:
        source = Scripted([SourceStatus("no", status=status)])
        await failing(quick(source))
        assert source.calls == 1

    alone(main())


def test_a_mistake_in_the_code_is_not_asked_again_unless_meant() -> None:
    async def main() -> None:
        source = Scripted([KeyError("x")])
        await failing(quick(source))
        assert source.calls == 1
        for on in (KeyError, (ValueError, KeyError), lambda e: isinstance(e, KeyError)):
            source = Scripted([KeyError("x")], [says("a")])
            assert await read(quick(source, on=on)) == [says("a")]

    alone(main())


def test_retry_after_is_waited_for_and_beyond_its_limit_the_failure_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)

    async def main(asked: float, backoff: float) -> int:
        busy = SourceStatus("busy", status=429, retry_after=asked)
        source = Scripted([busy], [says("a")])
        with suppress(SourceStatus):
            await read(retry(source, backoff=backoff, jitter=0.0))
        return source.calls

    assert asyncio.run(main(7.0, 0.5)) == 2
    assert asyncio.run(main(0.1, 0.5)) == 2
    assert asyncio.run(main(61.0, 0.5)) == 1
    assert pauses == [7.0, 0.5]


def test_pauses_double_up_to_their_limit() -> None:
    assert [doubled(n, 0.5, 3.0) for n in (1, 2, 3, 4, 5000)] == [0.5, 1, 2, 3, 3]


def test_a_turn_that_is_asked_to_stop_is_not_asked_again() -> None:
    async def main() -> None:
        logged = Logged()
        logged.turn.ending = Ending("cancelled", drained=False)
        source = Scripted([SourceUnreachable("x")])
        _, error = await failing(retry(source, backoff=60.0), logged.turn)
        assert isinstance(error, SourceUnreachable)
        assert source.calls == 1
        assert logged.messages == []

    alone(main())


def test_a_heartbeat_passes_at_once() -> None:
    async def main() -> None:
        source = Scripted([EMPTY, HEARTBEAT, "hang"])
        async with aclosing(quick(source)(Logged().turn).stream) as events:
            assert await anext(events) == HEARTBEAT
        assert source.open == 0

    alone(main())


def test_what_is_withheld_is_bounded() -> None:
    async def main() -> None:
        source = Scripted([EMPTY] * 1025 + [DOWN])
        reads, _ = await failing(quick(source))
        assert reads == [EMPTY] * 1025
        assert source.calls == 1

    alone(main())


def test_every_kind_of_source_is_taken() -> None:
    a = says("a")

    async def generator(turn: Any) -> Any:
        yield a

    async def made() -> list[Any]:
        return [a]

    async def producer() -> ChatTurnProducer:
        return ChatTurnProducer([a], lambda: "x")

    def plain() -> Any:
        yield a

    sources: list[Any] = [
        generator,
        made,
        producer,
        plain,
        lambda: [a],
        lambda turn: stream.iterate([a]),
        retry(made),
    ]

    async def main() -> None:
        for source in sources:
            assert await read(quick(source)) == [a]

    alone(main())


def test_the_final_text_of_a_producer_survives() -> None:
    async def later() -> str:
        return "whole"

    async def main() -> None:
        tried = []

        def produce() -> ChatTurnProducer:
            tried.append(1)
            if len(tried) == 1:
                raise SourceUnreachable("x")
            return ChatTurnProducer([says("part")], later)

        chat = Pipeline(quick(retry(quick(produce)))) | lifecycle() | accumulate()
        run = chat.start(TurnIdentity(session_id="s", turn_index=0))
        outcome = await run.outcome()
        assert (outcome.status, outcome.text) == ("completed", "whole")

    alone(main())


ITEMS = st.sampled_from(
    [EMPTY, says("a"), USAGE, event("custom", {"x": 1}), event("session.run.started")]
)


@settings(deadline=None)
@given(st.lists(st.one_of(ITEMS, st.lists(ITEMS, max_size=3)), max_size=8))
def test_a_source_that_does_not_fail_is_untouched(reads: list[Any]) -> None:
    assert asyncio.run(read(retry(lambda: reads))) == reads


@settings(deadline=None)
@given(
    st.lists(st.one_of(ITEMS, st.lists(ITEMS, max_size=3)), max_size=6),
    st.integers(0, 6),
)
def test_nothing_comes_twice_but_what_was_paid_for(reads: list[Any], cut: int) -> None:
    before = reads[:cut]
    events = [e for r in before for e in (r if isinstance(r, list) else [r])]
    paid = [
        [e for e in (r if isinstance(r, list) else [r]) if e == USAGE] for r in before
    ]
    source = Scripted([*before, SourceUnreachable("x")], reads)

    async def main() -> None:
        if any(map(is_content, events)):
            given, _ = await failing(quick(source))
            assert given == before
        else:
            assert await read(quick(source)) == [*filter(None, paid), *reads]

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": True},
        {"backoff": 0},
        {"backoff_max": float("inf")},
        {"retry_after_max": -1},
        {"jitter": 2},
        {"jitter": True},
        {"before": "never"},
        {"on": "all"},
        {"on": (KeyError, 3)},
        {"on": int},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_when_composed(wrong: Any) -> None:
    with pytest.raises(CompositionError, match=next(iter(wrong))):
        retry(list, **wrong)
    with pytest.raises(CompositionError, match="is not a source"):
        retry([PART])  # type: ignore[arg-type]  # that is the point


def test_it_tells_its_source_by_name() -> None:
    def mine() -> list[Any]:
        return []

    assert Pipeline(retry(mine)).describe()["source"] == "retry(mine)"


def test_what_passes() -> None:
    assert is_passing(SourceUnreachable("x"))
    assert is_passing(ConnectionResetError())
    assert not is_passing(SourceError("x", code="source.request"))


def test_cancelled_at_any_step_it_leaves_nothing_open() -> None:
    async def main(again: int | None) -> int:
        step = 0
        while True:
            step += 1
            source = Scripted([EMPTY, SourceUnreachable("x")], [EMPTY, says("a")])
            logged = Logged()
            before = asyncio.all_tasks()
            steps = (step,) if again is None else (step, step + again)
            cancelled, count = await cancelled_at(
                read(quick(source), logged.turn), *steps
            )
            assert source.open == 0, step
            assert not await other_tasks(before)
            if count < step:
                return step
            assert cancelled, step

    for again in (None, 1, 2):
        assert asyncio.run(main(again)) > 6


@pytest.mark.usefixtures("transport")
def test_on_a_socket_a_cut_answer_is_asked_for_again_and_its_connection_closed() -> (
    None
):
    async def main() -> None:
        good = chunked(chunk(content="a"), chunk(content="b"), finish() + DONE, b"")
        cut = chunked(chunk(role="assistant", content=""), b"")
        async with serving(cut, good) as server:
            chat = openai_chat(base_url=server.url, model="m", attempts=1)
            reads = await read(quick(chat))
            assert text_of(flat(reads)) == "ab"
            assert len(server.requests) == 2
            assert await server.all_closed()

    asyncio.run(main())
