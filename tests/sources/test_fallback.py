"""`fallback`: the next source in place of one that failed before its content."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from operators.errors import (
    CompositionError,
    SourceStatus,
    SourceTimeout,
    SourceUnreachable,
)
from operators.turn import Ending
from pipeline import ChatTurnProducer
from pipeline.sources import openai_chat
from pipeline.sources.fallback import fallback
from tests.pipeline.support import alone
from tests.sources.candidates import (
    EMPTY,
    USAGE,
    Logged,
    Scripted,
    failing,
    read,
    says,
)
from tests.sources.helpers import cancelled_at, flat, other_tasks, text_of
from tests.sources.server import DONE, chunk, chunked, finish, head, serving


def test_the_next_source_answers_in_place_of_one_that_failed() -> None:
    async def main() -> None:
        logged = Logged()
        first = Scripted([EMPTY, USAGE, SourceStatus("no", status=401)])
        second = Scripted([SourceTimeout("first_event", 1.0)])
        third = Scripted([EMPTY, [says("a"), says("b")]])
        reads = await read(fallback(first, second, third), logged.turn)
        assert reads == [[USAGE], EMPTY, [says("a"), says("b")]]
        assert [s.calls for s in (first, second, third)] == [1, 1, 1]
        assert len(logged.messages) == 2

    alone(main())


def test_one_that_answers_leaves_the_others_unasked() -> None:
    async def main() -> None:
        other = Scripted([says("b")])
        assert await read(fallback(Scripted([says("a")]), other)) == [says("a")]
        assert other.calls == 0

    alone(main())


def test_after_content_no_other_is_asked() -> None:
    async def main() -> None:
        other = Scripted([says("b")])
        cut = Scripted([says("a"), SourceUnreachable("x")])
        reads, error = await failing(fallback(cut, other))
        assert reads == [says("a")]
        assert isinstance(error, SourceUnreachable)
        assert other.calls == 0

    alone(main())


def test_where_all_fail_the_last_failure_notes_the_others() -> None:
    async def main() -> None:
        last = SourceUnreachable("two")
        sources = Scripted([SourceUnreachable("one")]), Scripted([last])
        _, error = await failing(fallback(*sources))
        assert error is last
        assert ["one" in note for note in error.__notes__] == [True]

    alone(main())


def test_a_mistake_in_the_code_is_not_hidden_by_another_source() -> None:
    async def main() -> None:
        other = Scripted([says("b")])
        _, error = await failing(fallback(Scripted([TypeError("mine")]), other))
        assert isinstance(error, TypeError)
        assert other.calls == 0
        meant = fallback(Scripted([TypeError("mine")]), other, on=TypeError)
        assert await read(meant) == [says("b")]

    alone(main())


def test_a_turn_that_is_asked_to_stop_asks_no_other() -> None:
    async def main() -> None:
        logged = Logged()
        logged.turn.ending = Ending("cancelled", drained=False)
        other = Scripted([says("b")])
        failing_one = Scripted([SourceUnreachable("x")])
        await failing(fallback(failing_one, other), logged.turn)
        assert other.calls == 0

    alone(main())


def test_the_final_text_is_that_of_the_source_that_answered() -> None:
    def first() -> ChatTurnProducer:
        async def events() -> Any:
            yield EMPTY
            raise SourceUnreachable("x")

        return ChatTurnProducer(events(), lambda: "first")

    def second() -> ChatTurnProducer:
        return ChatTurnProducer([says("a")], lambda: "second")

    async def main() -> None:
        made = fallback(first, second)(Logged().turn)
        assert await made.final_text() == ""
        assert [item async for item in made.stream] == [says("a")]  # type: ignore[union-attr]
        assert await made.final_text() == "second"

    alone(main())


def test_one_source_is_nothing_to_fall_back_on() -> None:
    with pytest.raises(CompositionError, match="two sources or more"):
        fallback(list)
    with pytest.raises(CompositionError, match="is not a source"):
        fallback(list, [])  # type: ignore[arg-type]  # that is the point


@pytest.mark.usefixtures("transport")
def test_on_a_socket_cancelled_at_any_step_it_leaves_nothing_open() -> None:
    busy = [head("503 Busy", "text/plain", "Content-Length: 4"), b"busy"]
    good = chunked(chunk(content="a"), finish() + DONE, b"")

    async def main() -> int:
        step = 0
        while True:
            step += 1
            async with serving(busy, good) as server:
                chat = openai_chat(base_url=server.url, model="m", attempts=1)
                before = asyncio.all_tasks()
                reads: list[Any] = []

                async def whole(reads: list[Any] = reads, chat: Any = chat) -> None:
                    reads += await read(fallback(chat, chat))

                cancelled, count = await cancelled_at(whole(), step)
                assert await server.all_closed(), step
                assert not await other_tasks(before, collect=count < step), step
            if count < step:
                assert not cancelled
                assert text_of(flat(reads)) == "a"
                return step

    assert asyncio.run(main()) > 8
