"""Stages at work, one call at a time: settlement's path, and operators outside a turn.

The hot path of a turn is the plan that `pipeline` generates; what is here runs a
handful of times a turn (started, held-back events, terminals) and wherever an operator
is used alone, in an aiostream expression or a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from typing import TYPE_CHECKING, Any, cast

from .errors import CompositionError, InvalidEvent, TurnError
from .event import without_text
from .operator import Stage
from .turn import Ending, TurnContext, TurnIdentity

if TYPE_CHECKING:
    from aiostream.core import Stream

    from .event import Event
    from .operator import Operator
    from .turn import Status


class Hooks:
    """Which stages have what, by position: alike for all turns of fixed operators."""

    __slots__ = ("close", "envelope", "finish", "settle")

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Look the stages over.

        What a `through` holds is older than what any stage before it does: so these
        finish first, the last of them first.
        """
        numbered = list(enumerate(stages))
        held = [k for k, stage in numbered if stage.finish and stage.through]
        self.finish = (
            *reversed(held),
            *[k for k, stage in numbered if stage.finish and not stage.through],
        )
        self.settle = tuple([k for k, stage in numbered if stage.settle])
        self.close = tuple([k for k, stage in numbered if stage.close])
        self.envelope = -1
        for k, stage in numbered:
            if stage.envelope is not None:
                self.envelope = k


class Opened:
    """The stages of one turn, and what has become of each."""

    __slots__ = (
        "broken",
        "bypassed",
        "closed",
        "ended",
        "envelope",
        "finished",
        "hooks",
        "operators",
        "stages",
        "turn",
    )

    def __init__(
        self,
        operators: tuple[Operator, ...],
        turn: TurnContext,
        hooks: Hooks | None = None,
    ) -> None:
        """Open every operator, in order; `hooks` are theirs, where they are known."""
        self.operators = operators
        self.turn = turn
        self.bypassed: set[int] | None = None
        self.broken: tuple[int, Exception] | None = None
        self.finished: set[int] | None = None
        self.closed = 0
        self.ended = False
        stages: list[Stage] = []
        for k, op in enumerate(operators):
            try:
                stage = op.open(turn)
            except Exception as exc:  # the turn fails in order, with its envelope
                stage = Stage()
                self.broken = self.broken or (k, exc)
            stages.append(stage)
        self.stages = tuple(stages)
        self.hooks = Hooks(stages) if hooks is None or self.broken else hooks
        self.envelope = self.hooks.envelope

    @property
    def status(self) -> Status:
        """Tell how a turn ends whose source ran to its end: as it reported, in-band."""
        envelope = self.stages[self.envelope].envelope if self.envelope >= 0 else None
        reported = envelope is not None and envelope.reported is not None
        return "failed" if reported else "completed"

    def fail(self, k: int, error: BaseException) -> None:
        """Take note that operator `k` raised: logged, disabled, or the turn fails."""
        stage = self.stages[k]
        operator = self.operators[k]
        if stage.on_error == "fail":
            self.turn_failed(error, k)
        else:
            self.turn.log(f"{operator.name} raised", error, operator=operator.name)
            if stage.on_error == "log":
                return
        if not operator.guards:
            if self.bypassed is None:
                self.bypassed = set()
            self.bypassed.add(k)

    def turn_failed(self, error: BaseException, k: int | None = None) -> None:
        """Turn the ending into a failure, or log where it is one already."""
        ending = self.turn.ending
        name = None if k is None else self.operators[k].name
        if ending is None:
            ending = self.turn.ending = Ending("failed", drained=False)
        elif self.ended or (ending.status == "failed" and ending.error is not None):
            self.turn.log("failed again while settling", error, operator=name)
            return
        ending.status = "failed"
        ending.error = error
        ending.code = code_of(error, None if k is None else self.operators[k])
        if self.envelope >= 0:  # else the reader gets the error itself
            ending.error_id = os.urandom(16).hex()
            self.turn.log(
                "turn failed",
                error,
                code=ending.code,
                error_id=ending.error_id,
                operator=name,
            )

    async def push(
        self, start: int, event: Event, out: list[Event], stop: int | None = None
    ) -> None:
        """Send `event` through the stages from `start` on; add what comes out."""
        stages = self.stages
        end = len(stages) if stop is None else stop
        for k in range(start, end):
            stage = stages[k]
            on_event = stage.on_event
            if (
                on_event is None
                or (self.bypassed and k in self.bypassed)
                or (stage.types is not None and event.get("type") not in stage.types)
            ):
                continue
            if stage.shape != "tap":
                start = k
                break
            try:
                value = on_event(event)
                if value is not None and (stage.awaits or inspect.isawaitable(value)):
                    await value
            except (Exception, asyncio.CancelledError) as exc:
                self.fail(k, failure_of(exc))
                if self.operators[k].guards:
                    event = without_text(event)
        else:
            out.append(event)
            return
        pending: Iterable[Event] = (event,)
        for k in range(start, end):
            stage = stages[k]
            if stage.on_event is None or (self.bypassed and k in self.bypassed):
                continue
            passed: list[Event] = []
            for one in pending:
                if stage.types is not None and one.get("type") not in stage.types:
                    passed.append(one)
                    continue
                try:
                    passed.extend(await act(stage, one))
                except (Exception, asyncio.CancelledError) as exc:
                    self.fail(k, failure_of(exc))
                    passed.append(
                        without_text(one) if self.operators[k].guards else one
                    )
            pending = passed
        out.extend(pending)

    async def finish(
        self, out: list[Event], start: int = 0, stop: int | None = None
    ) -> None:
        """Call every `finish` not yet called; what they held back goes on."""
        for k in self.hooks.finish:
            if k < start or (stop is not None and k >= stop):
                continue
            if self.ended:  # given up meanwhile: it took too long
                return
            finish = self.stages[k].finish
            if finish is None or (self.bypassed and k in self.bypassed):
                continue
            if self.finished is None:
                self.finished = set()
            elif k in self.finished:
                continue
            self.finished.add(k)
            try:
                held = await called(finish)
                for event in held or ():
                    if self._is_over():
                        return
                    await self.push(k + 1, checked(event), out, stop)
            except (Exception, asyncio.CancelledError) as exc:
                self.fail(k, failure_of(exc))

    def _is_over(self) -> bool:
        """Tell whether the terminals went out meanwhile, past a hook that was too slow."""
        return self.ended

    async def settle(self) -> None:
        """Call the `settle`s that this ending asks for; the first to raise ends it."""
        ending = self.turn.ending
        drained = ending is not None and ending.drained
        stages = self.stages
        always = [k for k in self.hooks.settle if stages[k].when == "always"]
        needed = always[-1] if always else -1
        for k in self.hooks.settle:
            if self.ended:
                return
            stage = stages[k]
            if stage.settle is None or not (
                drained
                or stage.when == "always"
                or (stage.when == "needed" and k < needed)
            ):
                continue
            try:
                value = stage.settle(self.turn) if stage.by_turn else stage.settle()
                if value is not None and inspect.isawaitable(value):
                    await resolved(value)
            except (Exception, asyncio.CancelledError) as exc:
                self.turn_failed(failure_of(exc), k)
                return

    async def terminals(self, out: list[Event]) -> None:
        """Send the events that end the turn through what stands after the lifecycle."""
        envelope = self.stages[self.envelope].envelope if self.envelope >= 0 else None
        ending = self.turn.ending
        if envelope is None or ending is None:
            return
        self.ended = True
        for event in envelope.terminals(ending):
            await self.push(self.envelope + 1, event, out)

    def close(self) -> Awaitable[object] | None:
        """Call every `close` not yet called, in order; what they raise is logged.

        Returns the first awaitable among what they give: await it through `closing`,
        then call again for the rest.
        """
        while self.closed < len(self.hooks.close):
            stage = self.stages[self.hooks.close[self.closed]]
            self.closed += 1
            hook = cast("Callable[..., object]", stage.close)  # it is among the hooks
            try:
                value = hook(self.turn) if stage.by_turn else hook()
            except (Exception, asyncio.CancelledError) as exc:
                self._close_raised(failure_of(exc), self.closed)
                continue
            if value is not None and inspect.isawaitable(value):
                return value
        return None

    async def closing(self, pending: Awaitable[object] | None) -> None:
        """Await `pending`, and close the rest."""
        while pending is not None:
            at = self.closed
            try:
                await resolved(pending)
            except Exception as exc:
                self._close_raised(exc, at)
            if self.closed != at:  # given up meanwhile: others close the rest
                return
            pending = self.close()

    def closer(self, closed: int) -> str:
        """Tell the name of the operator whose `close` was the `closed`th called."""
        return self.operators[self.hooks.close[closed - 1]].name

    def _close_raised(self, error: Exception, closed: int) -> None:
        name = self.closer(closed)
        self.turn.log(f"{name} raised", error, operator=name)


def code_of(error: BaseException, operator: Operator | None) -> str:
    """Tell the stable code of a failure: the error's own, or where it happened."""
    if isinstance(error, TurnError):
        return error.code
    if operator is None:
        return "source_failed"
    kind = operator.detail.get("kind")
    return f"{kind}_failed" if kind in ("persist", "transform") else "operator_failed"


async def called(function: Callable[[], Any]) -> Any:
    """Call a hook, sync or async."""
    value = function()
    return await resolved(value) if inspect.isawaitable(value) else value


async def resolved(pending: Awaitable[Any]) -> Any:
    """Await what a hook gave.

    A CancelledError that it raises of itself, not asked for by anyone, is a failure.
    """
    try:
        return await pending
    except asyncio.CancelledError as exc:
        failure = failure_of(exc)
    raise failure


def failure_of(error: BaseException) -> Exception:
    """Return a hook's error; raise a cancellation that somebody asked for."""
    if isinstance(error, Exception):
        return error
    if _cancelling():
        raise error
    failure = RuntimeError("a hook raised CancelledError of itself")
    failure.__cause__ = error
    return failure


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def act(stage: Stage, event: Event) -> Iterable[Event]:
    """Let one stage act on one event."""
    function = stage.on_event
    assert function is not None
    value = function(event)
    if stage.awaits or (stage.shape == "tap" and inspect.isawaitable(value)):
        value = await value
    match stage.shape:
        case "tap":
            return (event,)
        case "map":
            return (checked(value),)
        case "filter":
            return (event,) if value else ()
        case "filter_map":
            return () if value is None else (checked(value),)
        case _:  # flat_map
            return [checked(one) for one in value]


def checked(value: object, by: str | None = None) -> Event:
    """Return `value` if it can be an event.

    Raises:
        InvalidEvent: it is not a dict.
    """
    if isinstance(value, dict):
        return cast("Event", value)
    who = f"{by} gave " if by else ""
    if value is None:
        raise InvalidEvent(
            f"{who}None as an event: return the event, or use ops.filter to drop it"
        )
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise InvalidEvent(
            f"{who}an awaitable as an event: declare the function with `async def`"
        )
    raise InvalidEvent(f"{who}{type(value).__name__} as an event: it must be a dict")


def stream_through(
    operators: tuple[Operator, ...], source: AsyncIterable[Any]
) -> Stream[Event]:
    """Make the aiostream Stream of `source` gone through `operators`."""
    from aiostream.core import Stream

    if not hasattr(source, "__aiter__"):
        raise CompositionError(
            f"{type(source).__name__} is not an async iterable: "
            f"start with aiostream.stream.iterate(...)"
        )
    return Stream(lambda: alone(operators, source))


async def alone(
    operators: tuple[Operator, ...],
    source: AsyncIterable[Any],
    turn: TurnContext | None = None,
) -> AsyncGenerator[Event, None]:
    """Run operators outside of a pipeline, in a turn of their own.

    Emits: what the operators let out, and the envelope where a lifecycle is among them.
    Raises: what the source or an operator raises, unless there is a lifecycle.
    """
    if turn is None:
        turn = TurnContext(TurnIdentity(session_id="stream", turn_index=0))
    opened = Opened(operators, turn)
    asked: list[BaseException] = []
    turn.stopper = asked.append
    out: list[Event] = []
    settled = False
    try:
        if opened.envelope >= 0:
            envelope = opened.stages[opened.envelope].envelope
            assert envelope is not None
            await opened.push(opened.envelope + 1, envelope.started(), out)
            for event in out:
                yield event
            out.clear()
        async with contextlib.aclosing(_segments(opened, source)) as events:
            while True:
                try:
                    if opened.broken is not None:
                        raise opened.broken[1]
                    event = await anext(events)
                    if asked:
                        raise asked[0]
                except StopAsyncIteration:
                    if turn.ending is None:
                        turn.ending = Ending(opened.status, drained=True)
                    if asked:
                        opened.turn_failed(asked[0])
                    break
                except (Exception, asyncio.CancelledError) as exc:
                    if isinstance(exc, asyncio.CancelledError) and _cancelling():
                        raise
                    if turn.ending is None:
                        opened.turn_failed(exc)
                    break
                yield event
        settled = True
        await _settle(opened, out)
        for event in out:
            yield event
    finally:
        if not settled:  # the reader is gone
            turn.ending = Ending("cancelled", drained=False, reason="disconnected")
            await _settle(opened, out)
        await opened.closing(opened.close())
    if opened.envelope < 0 and turn.ending is not None and turn.ending.error:
        raise turn.ending.error


async def _settle(opened: Opened, out: list[Event]) -> None:
    await opened.finish(out)
    await opened.settle()
    await opened.terminals(out)


async def _segments(
    opened: Opened, source: AsyncIterable[Any]
) -> AsyncGenerator[Event, None]:
    """Join the stretches between `through` operators."""
    from aiostream import streamcontext

    lo = 0
    stages = opened.stages
    async with contextlib.AsyncExitStack() as stack:
        flow: AsyncIterable[Any] = await stack.enter_async_context(
            streamcontext(source)
        )
        for k, stage in enumerate(stages):
            if stage.through is None:
                continue
            segment = await stack.enter_async_context(
                contextlib.aclosing(_segment(opened, lo, k, flow))
            )
            flow = await stack.enter_async_context(
                streamcontext(stage.through(segment))
            )
            lo = k + 1
        last = contextlib.aclosing(_segment(opened, lo, len(stages), flow))
        async for event in await stack.enter_async_context(last):
            yield event


async def _segment(
    opened: Opened, start: int, stop: int, source: AsyncIterable[Any]
) -> AsyncGenerator[Event, None]:
    out: list[Event] = []
    failure: Exception | None = None
    async for item in source:
        for event in cast("list[object]", item) if isinstance(item, list) else (item,):
            sent = len(out)
            try:
                await _strictly(opened, start, checked(event, "the source"), out, stop)
            except Exception as exc:
                failure = exc
                del out[sent:]
                break
        for event in out:  # what came before a bad event of the same read is sent
            yield event
        out.clear()
        if failure is not None:
            raise failure
    if stop < len(opened.stages):
        await opened.finish(out, start, stop)
        for event in out:
            yield event


async def _strictly(
    opened: Opened, start: int, event: Event, out: list[Event], stop: int
) -> None:
    """Push; a failure that is not the operator's own affair is raised."""
    await opened.push(start, event, out, stop)
    ending = opened.turn.ending
    if ending is not None and ending.error is not None:
        raise ending.error
