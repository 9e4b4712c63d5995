"""`tap`: look at every event without changing it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .drive import failure_of
from .errors import CompositionError
from .operator import (
    OnError,
    Operator,
    Stage,
    bind_turn,
    is_async,
    name_of,
    only_types,
)

if TYPE_CHECKING:
    from .event import Event
    from .turn import TurnContext


def tap(
    function: Callable[..., object],
    /,
    *,
    types: Iterable[str] | None = None,
    on_error: OnError = "log",
    queue: int | None = None,
    name: str | None = None,
) -> Operator:
    """Call `function(event)` for every event; the events go on unchanged.

    A function with a second required positional parameter also gets the turn. A
    coroutine function is awaited in place; with `queue=N` it runs in a task of its own
    behind at most N waiting events (then the stream waits), drained before settling.

    `types` limits it to events of those types. On an error of the function, `"log"`
    reports it, once per event, and goes on; `"fail"` fails the turn; `"disable"`
    reports it and calls the function no more.

    Order: after `lifecycle` it sees the envelope too.
    """
    if on_error not in ("log", "fail", "disable"):
        raise CompositionError(
            f'on_error must be "log", "fail" or "disable", not {on_error!r}'
        )
    if queue is not None and (queue.__class__ is not int or queue < 1):
        raise CompositionError(f"queue must be an int, at least 1, not {queue!r}")
    bind = bind_turn(function)
    awaits = is_async(function)
    wanted = only_types(types)
    label = name or f"tap({name_of(function)})"
    detail = {"kind": "tap", "on_error": on_error, "queue": queue}

    if queue is not None:
        limit = queue

        def open_queued(turn: TurnContext) -> Stage:
            queued = _Queued(
                function if bind is None else bind(turn), limit, on_error, turn, label
            )
            return Stage(
                queued.on_event,
                awaits=True,
                types=wanted,
                finish=queued.finish,
                close=queued.close,
                on_error=on_error,
            )

        return Operator(label, open_queued, detail=detail, fixed=True)

    if bind is None:
        stage = Stage(function, awaits=awaits, types=wanted, on_error=on_error)
        return Operator(label, stage=stage, detail=detail)
    bound = bind

    def open_(turn: TurnContext) -> Stage:
        return Stage(bound(turn), awaits=awaits, types=wanted, on_error=on_error)

    return Operator(label, open_, detail=detail, fixed=True)


class _Queued:
    """A tap in a task of its own, at most `limit` events behind."""

    def __init__(
        self,
        function: Callable[..., Any],
        limit: int,
        on_error: OnError,
        turn: TurnContext,
        label: str,
    ) -> None:
        self.function = function
        self.limit = limit
        self.on_error = on_error
        self.turn = turn
        self.label = label
        self.waiting: deque[Event] = deque()
        self.task: asyncio.Task[None] | None = None
        self.moved = asyncio.Event()
        self.error: BaseException | None = None
        self.disabled = False

    async def on_event(self, event: Event) -> None:
        if self._over():
            return
        while len(self.waiting) >= self.limit:
            self._run()
            self.moved.clear()
            await self.moved.wait()
            if self._over():
                return
        self.waiting.append(event)
        self._run()

    def _run(self) -> None:
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._work(), name=self.label)
            self.task.add_done_callback(lambda _: self.moved.set())

    def _over(self) -> bool:
        """Raise the function's error, once; tell whether it is called no more."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.disabled

    async def _work(self) -> None:
        while self.waiting:
            event = self.waiting[0]
            try:
                value = self.function(event)
                if hasattr(value, "__await__"):
                    await value
            except BaseException as exc:
                error = failure_of(exc)
                if self.on_error == "fail":
                    self.error = error
                    self.waiting.clear()
                    self.disabled = True
                    self.moved.set()
                    return
                self.turn.log(f"{self.label} raised", error, operator=self.label)
                if self.on_error == "disable":
                    self.disabled = True
                    self.waiting.clear()
                    self.moved.set()
                    return
            self.waiting.popleft()
            self.moved.set()

    async def finish(self) -> None:
        """Wait until what was queued has been seen."""
        if self.task is not None:
            await self.task
        self._over()

    async def close(self) -> None:
        """See what came after `finish`: the terminals."""
        if self.task is None:
            return
        try:
            await self.task
        finally:
            self.task.cancel()
        self._over()
