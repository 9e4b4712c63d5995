"""Only type-checked, never run: what a user writes, and what the checkers make of
it."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from functools import partial
from typing import assert_type

from aiostream import pipe, stream
from aiostream.core import Stream

import operators as ops
from operators import event as ev
from operators.testing import ManualClock, chop, chunkings, deltas, drain, feed


def look(event: ops.Event) -> None:
    raise NotImplementedError


async def look_later(event: ops.Event) -> None:
    raise NotImplementedError


def look_with_turn(event: ops.Event, turn: ops.TurnContext) -> None:
    raise NotImplementedError


def shorten(event: ops.Event) -> ops.Event:
    raise NotImplementedError


async def shorten_later(event: ops.Event) -> ops.Event:
    raise NotImplementedError


def wanted(event: ops.Event) -> bool:
    raise NotImplementedError


async def wanted_later(event: ops.Event) -> bool:
    raise NotImplementedError


def split(event: ops.Event) -> Iterable[ops.Event]:
    raise NotImplementedError


async def mask(text: str) -> str:
    raise NotImplementedError


async def save(record: ops.TurnRecord) -> None:
    raise NotImplementedError


def doubled(source: AsyncIterable[ops.Event]) -> AsyncIterator[ops.Event]:
    raise NotImplementedError


class Counting:
    def on_event(self, event: ops.Event) -> None:
        raise NotImplementedError


assert_type(ops.tap(look), ops.Operator)
assert_type(ops.tap(look_later, queue=3, on_error="disable"), ops.Operator)
assert_type(ops.tap(look_with_turn, types=(ev.ERROR,)), ops.Operator)
assert_type(ops.tap(print), ops.Operator)
assert_type(ops.tap(partial(look)), ops.Operator)
assert_type(ops.map(shorten) | ops.map(shorten_later), ops.Chain)
assert_type(ops.filter(wanted) | ops.filter(wanted_later), ops.Chain)
assert_type(ops.flat_map(split), ops.Operator)
assert_type(ops.coalesce(max_events=8, max_chars=100, max_delay=0.05), ops.Operator)
assert_type(
    ops.timeout(first_event=1, first_content=2.5, idle=3, total=4), ops.Operator
)
assert_type(ops.through(pipe.take(5)), ops.Operator)
assert_type(ops.through(doubled), ops.Operator)
assert_type(ops.operator(Counting, shape="tap"), ops.Operator)
assert_type(ops.accumulate() | ops.transform(str.strip), ops.Chain)
assert_type(ops.transform(mask) | ops.persist(save) | ops.complete(save), ops.Chain)
assert_type(ops.trace_flush(lambda: None), ops.Operator)
assert_type(ops.Chain([ops.tap(look)]) | ops.lifecycle(), ops.Chain)

xs = stream.iterate([ev.result("a")])
assert_type(xs | ops.tap(look), Stream[ops.Event])
assert_type(xs | (ops.tap(look) | ops.coalesce()), Stream[ops.Event])

ops.tap(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ops.tap(look, on_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ops.tap(look) | look  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]
ops.coalesce(8)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ops.timeout(idle="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ops.accumulate(source="deltas")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def in_a_test() -> None:
    assert_type(await feed(ops.tap(look), deltas("a", "b")), list[ops.Event])
    assert_type(
        await feed(ops.tap(look), [[ev.result("a")], ev.result("b")]), list[ops.Event]
    )
    assert_type(await drain(xs | ops.tap(look)), list[ops.Event])
    assert_type(chop("text", [1, 2]), list[str])
    assert_type(next(chunkings("text")), list[str])
    clock = ManualClock()
    turn = ops.TurnContext(
        identity=ops.TurnIdentity(session_id="s", turn_index=0), clock=clock
    )
    clock.advance(1.5)
    assert_type(turn.record(), ops.TurnRecord)
