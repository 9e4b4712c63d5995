"""Stages at work, one call at a time.

The hot path of a turn is the plan that `pipeline` generates; what is here runs a
handful of times a turn (started, held-back events, terminals) and wherever an operator
is used alone, in an aiostream expression or a test.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from typing import TYPE_CHECKING, Any, cast

from .errors import InvalidEvent, TurnError
from .event import without_text
from .mutation import watched
from .operator import Stage
from .turn import Ending, TurnContext

if TYPE_CHECKING:
    from .event import Event
    from .operator import Operator
    from .turn import Status


class Hooks:
    """Which stages have what, by position: alike for all turns of fixed operators."""

    __slots__ = ("close", "envelope", "finish", "kept", "opening", "settle")

    def __init__(self, operators: Sequence[Operator], stages: Sequence[Stage]) -> None:
        """Look the stages over, and which of them every turn opens anew.

        What a `through` holds is older than what any stage before it does: so these
        finish first, the last of them first.
        """
        self.kept = [op.stage for op in operators]
        self.opening = tuple(
            [(k, op.open) for k, op in enumerate(operators) if op.stage is None]
        )
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
        *,
        debug: bool = False,
    ) -> None:
        """Open every operator, in order; `hooks` are theirs, where they are known.

        In `debug` mode a tap that changes an event is reported.
        """
        self.operators = operators
        self.turn = turn
        self.bypassed: set[int] | None = None
        self.broken: tuple[int, Exception] | None = None
        self.finished: set[int] | None = None
        self.closed = 0
        self.ended = False
        stages: list[Any]
        opening: Iterable[tuple[int, Callable[[TurnContext], Stage]]]
        if hooks is None:
            stages = [None] * len(operators)
            opening = enumerate([op.open for op in operators])
        else:
            stages = [*hooks.kept]
            opening = hooks.opening
        for k, open_ in opening:
            try:
                stages[k] = open_(turn)
            except Exception as exc:  # the turn fails in order, with its envelope
                self.broken = self.broken or (k, exc)
                stages[k] = Stage()
        if debug:
            opened = zip(operators, stages, strict=True)
            stages = [watched(op, stage, turn) for op, stage in opened]
        self.stages: tuple[Stage, ...] = tuple(stages)
        if hooks is None or self.broken is not None:
            hooks = Hooks(operators, self.stages)
        self.hooks = hooks
        self.envelope = hooks.envelope

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
            except BaseException as exc:
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
                except BaseException as exc:
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
            except BaseException as exc:
                self.fail(k, failure_of(exc))

    def _is_over(self) -> bool:
        """Tell whether the terminals went out meanwhile, past a hook that was too slow."""
        return self.ended

    async def settle(self) -> None:
        """Call the `settle`s that this ending asks for; the first to raise ends it."""
        ending = self.turn.ending
        drained = ending is not None and ending.drained
        stages = self.stages
        needed = -1
        if not drained:
            for k in self.hooks.settle:
                if stages[k].when == "always":
                    needed = k
        for k in self.hooks.settle:
            if self.ended:
                return
            stage = stages[k]
            if not (
                drained
                or stage.when == "always"
                or (stage.when == "needed" and k < needed)
            ):
                continue
            hook: Any = stage.settle  # it has one: it is among the hooks
            try:
                value = hook(self.turn) if stage.by_turn else hook()
                if value is not None and inspect.isawaitable(value):
                    await resolved(value)
            except BaseException as exc:
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
            hook: Any = stage.close  # it has one: it is among the hooks
            try:
                value = hook(self.turn) if stage.by_turn else hook()
            except BaseException as exc:
                self._close_raised(failure_of(exc), self.closed)
                continue
            if value is not None and inspect.isawaitable(value):
                return value
        logging = self.turn.logging
        if logging:
            self.turn.logging = ()
            return asyncio.gather(*logging, return_exceptions=True)
        return None

    async def closing(self, pending: Awaitable[object] | None) -> None:
        """Await `pending`, and close the rest."""
        while pending is not None:
            at = self.closed
            try:
                await resolved(pending)
            except BaseException as exc:
                self._close_raised(failure_of(exc), at)
            if self.closed != at:  # given up meanwhile: others close the rest
                return
            pending = self.close()

    def closer(self, closed: int) -> str:
        """Tell the name of the operator whose `close` was the `closed`th called."""
        return self.operators[self.hooks.close[closed - 1]].name if closed else "log"

    def _close_raised(self, error: BaseException, closed: int) -> None:
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
    except BaseException as exc:
        failure = failure_of(exc)
    raise failure


def failure_of(error: BaseException) -> BaseException:
    """Tell what a hook's error means for its turn.

    A cancellation that somebody asked for is raised again; what a hook raises of itself
    is its failure, of whatever class. The process's own end (KeyboardInterrupt,
    SystemExit) fails the turn, which ends in order, and goes on in the event loop.
    """
    if isinstance(error, asyncio.CancelledError):
        if cancelling():
            raise error
    elif isinstance(error, GeneratorExit):
        asyncio.get_running_loop()  # raises where the task is torn down after its loop
    elif isinstance(error, (KeyboardInterrupt, SystemExit)):
        asyncio.get_running_loop().call_soon(_raise, error)
    else:
        return error
    failure = RuntimeError(f"a hook raised {type(error).__name__} of itself")
    failure.__cause__ = error
    return failure


def _raise(error: BaseException) -> None:
    raise error


def cancelling() -> bool:
    """Tell whether somebody has asked for the cancellation of the current task."""
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
            return (event,) if passes(value) else ()
        case "filter_map":
            return () if value is None else (checked(value),)
        case _:  # flat_map
            return [checked(one) for one in value]


def passes(value: object, by: str = "the filter") -> bool:
    """Tell whether a filter's answer lets an event pass.

    Raises:
        TypeError: it is an awaitable, which would let everything pass.
    """
    if not inspect.isawaitable(value):
        return bool(value)
    if inspect.iscoroutine(value):
        value.close()
    raise TypeError(
        f"{by} gave an awaitable: declare the function with `async def`, so that it is "
        f"awaited"
    )


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
