"""`merge`: several sources as one, each whole, in order, and closed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.errors import CompositionError, SourceUnreachable
from operators.event import delta, event, text_part
from pipeline import ChatTurnProducer, Pipeline
from pipeline.sources.merge import merge, with_part_ids
from tests.pipeline.support import alone
from tests.sources.candidates import (
    USAGE,
    Logged,
    Scripted,
    failing,
    read,
    says,
)
from tests.sources.helpers import cancelled_at, other_tasks


def test_events_come_in_the_order_of_their_arrival() -> None:
    async def main() -> None:
        a_said, b_said = asyncio.Event(), asyncio.Event()
        a = Scripted([says("a1"), b_said, says("a2")])
        b = Scripted([a_said, says("b1"), says("b2")])
        order = []
        async with aclosing(merge(a, b)(Logged().turn).stream) as events:  # type: ignore[type-var]
            async for item in events:
                order.append(item["data"]["delta"])
                if order[-1] == "a1":
                    a_said.set()
                if order[-1] == "b2":
                    b_said.set()
        assert order == ["a1", "b1", "b2", "a2"]
        assert (a.open, b.open) == (0, 0)

    alone(main())


@settings(deadline=None)
@given(
    st.lists(
        st.lists(
            st.one_of(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=3)),
            max_size=6,
        ),
        min_size=1,
        max_size=4,
    ),
    st.one_of(st.none(), st.integers(1, 4)),
)
def test_nothing_is_lost_doubled_reordered_or_torn(
    scripts: list[list[Any]], limit: int | None
) -> None:
    def marked(n: int, step: Any) -> Any:
        if isinstance(step, list):
            return [{"type": "x", "from": n, "n": one} for one in step]
        return {"type": "x", "from": n, "n": step}

    wanted = [[marked(n, s) for s in script] for n, script in enumerate(scripts)]
    sources = [Scripted(script) for script in wanted]
    reads = asyncio.run(read(merge(*sources, limit=limit)))
    assert sum(map(len, wanted)) == len(reads)
    for n, script in enumerate(wanted):
        of_n = [read_ for read_ in reads if sender(read_) == n]
        assert of_n == [step for step in script if step]


def sender(item: Any) -> Any:
    first = item[:1] if isinstance(item, list) else [item]
    return first[0]["from"] if first else None


def test_the_parts_of_a_named_source_are_told_apart() -> None:
    async def main() -> None:
        source = Scripted([[says("x"), USAGE]])
        reads = await read(merge(a=source, b=source))
        parts = [read_[0]["data"]["part"]["id"] for read_ in reads]
        assert sorted(parts) == ["a/t", "b/t"]
        assert says("x")["data"]["part"]["id"] == "t"  # the shared part is untouched
        assert [read_[1] for read_ in reads] == [USAGE, USAGE]

    alone(main())


@pytest.mark.parametrize(
    "item",
    [
        3,
        event("custom", {"part": {"id": "t"}}),
        event("message.part.updated"),
        event("message.part.updated", {"part": None}),
        event("message.part.updated", {"part": {"id": 3}}),
    ],
    ids=repr,
)
def test_what_has_no_part_id_stays_as_it_is(item: Any) -> None:
    assert with_part_ids(item, "a") is item


def test_a_failure_fails_the_whole_and_closes_the_others() -> None:
    async def main() -> None:
        a, b = Scripted([says("a"), "hang"]), Scripted([SourceUnreachable("b")])
        reads, error = await failing(merge(a, b))
        assert str(error) == "b"
        assert (a.open, b.open) == (0, 0)
        assert len(reads) <= 1

    alone(main())


def test_a_logged_failure_leaves_the_others_going() -> None:
    async def main() -> None:
        logged = Logged()
        a, b = Scripted([says("a"), says("c")]), Scripted([SourceUnreachable("b")])
        reads = await read(merge(a, b, on_error="log"), logged.turn)
        assert reads == [says("a"), says("c")]
        assert [meta["error"] for meta in logged.metas] == ["b"]

    alone(main())


def test_where_all_fail_the_first_failure_notes_the_others() -> None:
    async def main() -> None:
        one = SourceUnreachable("one")
        a, b = Scripted([one]), Scripted([SourceUnreachable("two")])
        _, error = await failing(merge(a, b, on_error="log"))
        assert error is one
        assert ["two" in note for note in error.__notes__] == [True]

    alone(main())


def test_at_most_limit_sources_are_read_at_a_time() -> None:
    most = 0

    class Watched(Scripted):
        async def __call__(self, turn: Any) -> Any:
            nonlocal most
            async with aclosing(super().__call__(turn)) as events:
                async for item in events:
                    most = max(most, sum(s.open for s in sources))
                    yield item

    sources = [Watched([says("a")] * 3) for _ in range(5)]
    assert len(asyncio.run(read(merge(*sources, limit=2)))) == 15
    assert most == 2


def test_at_most_one_read_of_each_is_pulled_ahead() -> None:
    async def main() -> None:
        sources = [Scripted([says("x")] * 20) for _ in range(3)]
        async with aclosing(merge(*sources)(Logged().turn).stream) as events:  # type: ignore[type-var]
            for taken in range(1, 6):
                await anext(events)
                for _ in range(10):
                    await asyncio.sleep(0)
                assert sum(s.pulled for s in sources) <= taken + len(sources)
        assert [s.open for s in sources] == [0, 0, 0]

    alone(main())


def test_final_texts_are_joined_only_where_every_source_has_one() -> None:
    def producer(text: str) -> Any:
        return lambda: ChatTurnProducer([says(text)], lambda: text)

    async def final_text(*sources: Any) -> str:
        made = merge(*sources)(Logged().turn)
        async with aclosing(made.stream) as events:  # type: ignore[type-var]
            async for _ in events:
                pass
        return str(await made.final_text())

    async def main() -> None:
        assert await final_text(producer("a"), producer("b")) == "a\n\nb"
        assert await final_text(producer("a"), producer("")) == ""
        assert await final_text(producer("a"), Scripted([says("b")])) == ""

    alone(main())


@pytest.mark.parametrize("again", [None, 1, 2], ids=["once", "twice", "twice, later"])
def test_cancelled_at_any_step_it_leaves_nothing_open(again: int | None) -> None:
    async def main() -> int:
        step = 0
        while True:
            step += 1
            sources = [Scripted([says("a"), says("b")]) for _ in range(3)]
            before = asyncio.all_tasks()
            steps = (step,) if again is None else (step, step + again)
            cancelled, count = await cancelled_at(read(merge(*sources)), *steps)
            assert [s.open for s in sources] == [0, 0, 0], step
            assert not await other_tasks(before), step
            if count < step:
                assert not cancelled
                return step
            assert cancelled, step

    assert asyncio.run(main()) > 3


def test_what_cannot_be_is_refused_when_composed() -> None:
    with pytest.raises(CompositionError, match="no source"):
        merge()
    for limit in (0, True, 1.5):
        with pytest.raises(CompositionError, match="limit"):
            merge(list, limit=limit)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(CompositionError, match="on_error"):
        merge(list, on_error="ignore")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(CompositionError, match="is not a source"):
        merge(list, a=[])  # type: ignore[arg-type]  # that is the point


def test_it_tells_its_sources_by_name() -> None:
    def one() -> list[Any]:
        return [delta(text_part("t"), "x")]

    assert Pipeline(merge(one, b=one)).describe()["source"] == "merge(one, one)"
