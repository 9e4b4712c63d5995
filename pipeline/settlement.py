"""The second half of a turn: settlement, once, in a task of its own.

`_settle` begins it, `_settlement` is its straight course: close the source, finish,
settle, one terminal event; then `_close`. What takes longer than it may is left behind:
a new generation goes on without it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextvars import Context, copy_context
from functools import partial
from types import AsyncGeneratorType, coroutine
from typing import TYPE_CHECKING, Any, Final, cast

from operators.drive import Opened, called, code_of, failure_of
from operators.errors import InvalidEvent, SettleTimeout, TurnError
from operators.turn import Ending, TurnContext, TurnOutcome

from .plan import EVENT, Plan, Recipe

if TYPE_CHECKING:
    from operators.event import Event

NEW: Final = 0
READING: Final = 1
SETTLING: Final = 2
SETTLED: Final = 3
CLOSED: Final = 4
"""The states of a turn, in order."""

_EAGER = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class Settlement:
    """What a turn keeps, and how it ends."""

    # Defaults live on the class: a turn sets only what differs, which is most of what it
    # costs to make one.
    events_sent: int = 0
    _closer: asyncio.Handle | None = None
    _closing_plan = False
    _closing_source = False
    _encode: tuple[Any, Any] = (None, None)
    _ends_at = 0
    _final_text: Callable[[], object] | None = None
    _finishing: asyncio.Task[list[Event]] | None = None
    _finishing_index = 0
    _first_event: float | None = None
    _generation = 0
    _held: tuple[tuple[int, Event], ...] = ()
    _iterators: list[Any]
    _journal: Callable[[list[Event]], Awaitable[None]] | None = None
    _lines: deque[Any]
    _loop: asyncio.AbstractEventLoop
    _opened: Opened
    _out: list[Event]
    _outcome: TurnOutcome | None = None
    _plan: Plan
    _reading: AsyncGeneratorType[Any, None]
    _settled_at = 0.0
    _settler: asyncio.Task[None] | None = None
    _started_at = 0.0
    _state = NEW
    _timer: asyncio.TimerHandle | None = None
    _leaving: asyncio.TimerHandle | None = None
    _left_behind = False
    _waiters: list[asyncio.Future[None]] | None = None

    def __init__(
        self, recipe: Recipe, context: TurnContext, *, settle_timeout: float
    ) -> None:
        """Prepare a turn, in a copy of the caller's context variables."""
        self._recipe = recipe
        self.context = context
        self._settle_timeout = settle_timeout
        context.settle_timeout = settle_timeout
        self._context: Context = copy_context()

    def held(self, index: int, batch: Iterable[Event]) -> None:
        """Keep what an inner segment had ready when it failed: it steps over `through`."""
        start = self._plan.boundaries[index] + 1
        self._held += tuple([(start, event) for event in batch])

    def settled_now(self) -> deque[Any] | None:
        """Return the last lines where they are there already."""
        return self._lines if self._state >= SETTLED else None

    def closed_now(self) -> bool:
        """Close, and tell whether that was all."""
        self._close()
        return self._state == CLOSED

    async def settled(self) -> deque[Any]:
        """Wait for the last lines.

        Raises:
            CancelledError: the reader was cancelled meanwhile; the turn is closed.
        """
        if await self._wait(SETTLED):
            await self._wait(CLOSED)
            raise asyncio.CancelledError
        return self._lines

    async def closed(self) -> None:
        """Close, and wait until the last `close` has run; raises as `settled`."""
        self._close()
        if await self._wait(CLOSED):
            raise asyncio.CancelledError

    def raise_failure(self) -> None:
        """Raise the turn's failure where there is no lifecycle to report it."""
        ending = self.context.ending
        if self._opened.envelope < 0 and ending is not None and ending.error:
            raise ending.error

    def _settle(self, ending: Ending) -> None:
        """Begin the settlement: at most once."""
        self._state = SETTLING
        turn = self.context
        error = ending.error
        if error is not None and turn.ending is not ending:
            turn.ending = None
            self._failed(error)
            ending, before = cast("Ending", turn.ending), ending
            ending.gone = before.gone
        turn.ending = ending
        envelope = self._opened.envelope
        if envelope >= 0 and ending.drained:
            lifecycle: Any = self._opened.stages[envelope].envelope
            reported = lifecycle.reported
            if reported is not None:
                ending.status = "failed"
                code = reported.get("code")
                ending.code = code if isinstance(code, str) else "reported"
                ending.reason = None
        self._settler = self._spawn(self._settlement(self._generation))
        if self._state == SETTLING and (
            self._left_behind or not self._reading.ag_running
        ):
            self._arm(self._expired)  # else the read under way arms it, if it must wait
            self._settler.add_done_callback(self._begin_again)

    def _begin_again(self, settler: asyncio.Task[None] | None) -> None:
        """Spawn the settlement anew where it was cancelled before its first step."""
        if settler is self._settler and settler is not None and settler.cancelled():
            self._settler = self._spawn(self._settlement(self._generation))
            self._settler.add_done_callback(self._begin_again)

    def _failed(self, error: BaseException) -> None:
        owner = self._plan.owner(error.__traceback__)
        if isinstance(error, asyncio.CancelledError):
            cause = error
            error = TurnError(
                "the source or an operator raised CancelledError of itself",
                code=code_of(
                    RuntimeError(),
                    self._recipe.operators[owner] if owner >= 0 else None,
                ),
            )
            error.__cause__ = cause
        opened = self._opened
        broken = opened.broken
        if broken is not None and broken[1] is error:
            opened.turn_failed(error, broken[0])
        elif owner >= 0:
            opened.fail(owner, error)
            if self.context.ending is None:  # a tap's own CancelledError
                opened.turn_failed(error, owner)
        elif owner == EVENT and isinstance(error, TypeError):
            bad = InvalidEvent("an event's type must be a string", path="type")
            bad.__cause__ = error
            opened.turn_failed(bad)
        else:
            opened.turn_failed(error)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        return asyncio.Task(
            work,
            loop=self._loop,
            context=self._context.copy(),
            name="turnpipe settlement",
            **_EAGER,
        )

    def _arm(self, expired: Callable[[], None]) -> None:
        self._timer = self._loop.call_later(self._settle_timeout, expired)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _settlement(self, generation: int) -> None:
        out = self._out
        try:
            if not self._left_behind and self._is_open():
                self._closing_source = True
                try:
                    await self._close_source()
                finally:
                    if generation == self._generation:
                        self._closing_source = False
                if generation != self._generation:
                    return
            if self._finishing is not None:
                self.held(self._finishing_index, await self._finishing)
            for start, event in self._held:
                if generation != self._generation:
                    return
                await self._opened.push(start, event, out)
            if self._opened.hooks.finish:
                await self._opened.finish(out)
            if self._journal is not None:
                await self._journal(out)
                if generation != self._generation:
                    return
            if self._final_text is not None:
                await self._settle_stages()
            else:
                await self._opened.settle()
        except asyncio.CancelledError:
            if generation != self._generation:
                return
            _see_it_through()
            self._opened.turn_failed(
                TurnError("settlement was cancelled", code="settle_cancelled")
            )
        except BaseException as exc:
            self._opened.turn_failed(failure_of(exc))
        if generation == self._generation:
            await self._end(out, generation)

    def _is_open(self) -> bool:
        """Tell whether the plan waits at a yield, or an iterator may not have ended."""
        reading = self._reading
        if not reading.ag_running and reading.ag_frame is not None:
            return True
        for iterator in self._iterators:
            if getattr(iterator, "ag_frame", self) is not None:
                return True
        return False

    async def _settle_stages(self) -> None:
        turn = self.context
        ending = cast("Ending", turn.ending)
        if ending.drained and self._final_text is not None:
            try:
                text = await called(self._final_text)
                if text is not None and not isinstance(text, str):
                    raise TypeError(
                        f"final_text() gave {type(text).__name__}: it returns text"
                    )
                turn.produced = text
            except BaseException as exc:
                error = failure_of(exc)
                ending.drained = False
                self._opened.turn_failed(error)
        await self._opened.settle()

    async def _end(
        self, out: list[Event], generation: int, *, push: bool = True
    ) -> None:
        """Send the terminals, let the reader have them, close."""
        if push:
            self._ends_at = len(out)
            try:
                await self._opened.terminals(out)
            except asyncio.CancelledError:
                if generation != self._generation:
                    return
                _see_it_through()
                push = False
        if not push:  # the reader gets them, whatever a tap does
            del out[self._ends_at :]
            stage = self._opened.stages[self._opened.envelope]
            out.extend(cast("Any", stage.envelope).terminals(self.context.ending))
        if generation != self._generation:
            return
        self._disarm()
        ending = self.context.ending
        if ending is None or not ending.gone:
            self._lines.extend(self._encoded(out))
        self._settled_at = self.context.clock()
        self._advance(SETTLED)
        # The reader takes the last lines first; one that does not come is not waited for.
        self._closer = self._loop.call_soon(self._close, context=self._context)

    def _encoded(self, out: list[Event]) -> Iterable[Any]:
        encode = self._encode[0]
        if encode is None:
            return out
        lines: list[bytes] = []
        for event in out:
            try:
                lines.append(encode(event))
            except InvalidEvent as exc:
                self.context.log("an event could not be encoded", exc)
        return lines

    def _close(self) -> None:
        """Call the `close` hooks, at most once; async ones in a task."""
        if self._state != SETTLED or self._closer is None:
            return
        self._closer.cancel()
        self._closer = None
        self._close_rest()

    def _close_rest(self) -> None:
        pending = self._context.copy().run(self._opened.close)
        if pending is None:
            self._advance(CLOSED)
            return
        closing = partial(self._close_stages, pending, self._generation)
        self._settler = self._spawn(closing())
        if self._state < CLOSED:
            self._arm(self._close_expired)
            self._settler.add_done_callback(partial(self._close_again, closing))

    def _close_again(
        self, closing: Callable[[], Awaitable[None]], settler: asyncio.Task[None]
    ) -> None:
        """Spawn the closing anew where it was cancelled before its first step."""
        if settler is self._settler and settler.cancelled():
            self._settler = self._spawn(closing())
            self._settler.add_done_callback(partial(self._close_again, closing))

    async def _close_stages(
        self, pending: Awaitable[object] | None, generation: int
    ) -> None:
        while pending is not None:
            try:
                await self._opened.closing(pending)
                pending = None
            except asyncio.CancelledError:
                if generation != self._generation:
                    return
                _see_it_through()
                pending = self._opened.close()
        if generation == self._generation:
            self._disarm()
            self._advance(CLOSED)

    def _expired(self) -> None:
        """Stop waiting for the settlement: fail the turn, and go on in another task."""
        settler = self._settler
        assert settler is not None
        opened = self._opened
        self._generation += 1
        if self._closing_source:  # no hook's fault: what there is of it is settled
            self._closing_source = False
            self._left_behind = True
            opened.turn_failed(self._stuck())
            self._settler = self._spawn(self._settlement(self._generation))
        else:
            opened.turn_failed(
                SettleTimeout(f"settling took longer than {self._settle_timeout:g} s")
            )
            push = not opened.ended  # else taps saw the terminal, and one hangs on it
            opened.ended = True  # a hook that ignores its cancellation is the last
            self._out = list(self._out)
            self._settler = self._spawn(
                self._end(self._out, self._generation, push=push)
            )
        settler.cancel()
        if self._state == SETTLING:
            self._arm(self._expired)

    def _stuck(self) -> SettleTimeout:
        return SettleTimeout(
            f"the source did not close within {self._settle_timeout:g} s: it was left "
            f"behind; let its cleanup have a deadline of its own"
        )

    def _close_expired(self) -> None:
        settler = self._settler
        assert settler is not None
        name = self._opened.closer(self._opened.closed)
        self.context.log(
            f"{name} did not close within {self._settle_timeout:g} s", operator=name
        )
        self._generation += 1
        settler.cancel()
        self._close_rest()

    async def _close_source(self) -> None:
        """Close the plan, if it waits at a yield, and every iterator, outermost first."""
        if not self._reading.ag_running and self._reading.ag_frame is not None:
            self._closing_plan = True
            try:
                await self._reading.aclose()
            finally:
                self._closing_plan = False
        for iterator in self._iterators:
            close = getattr(iterator, "aclose", None)
            if close is None or getattr(iterator, "ag_frame", self) is None:
                continue
            if getattr(iterator, "ag_running", False):  # the read that was left behind
                continue
            try:
                await close()
            except BaseException as exc:
                self.context.log("closing the source raised", failure_of(exc))

    # -- waiting

    def _advance(self, state: int) -> None:
        self._state = state
        if state == CLOSED:
            if self._leaving is not None:
                self._leaving.cancel()
            self.context.stopper = None  # else turn and run keep each other alive
            if self._left_behind:  # what still comes of the source changes nothing
                self._outcome = self._make_outcome()
        if self._waiters:
            waiters, self._waiters = self._waiters, None
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def _wait(self, state: int) -> bool:
        """Wait for a state; tell whether the waiting task was cancelled meanwhile."""
        cancelled = False
        if self._state < state:
            # Settlement's task runs before this one's next step: mostly that is all.
            try:
                await _next_step()
            except asyncio.CancelledError:
                cancelled = True
            if self._state == SETTLING and self._timer is None:
                self._arm(self._expired)
                self._begin_again(self._settler)
        while self._state < state:
            try:
                await self._waiter()
            except asyncio.CancelledError:
                cancelled = True
        return cancelled

    def _waiter(self) -> asyncio.Future[None]:
        """Make a future that the next change of state resolves."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        return waiter

    def _make_outcome(self) -> TurnOutcome:
        turn = self.context
        ending = turn.ending or Ending("cancelled", drained=False)
        first = self._first_event
        return TurnOutcome(
            status=ending.status,
            code=ending.code,
            reason=ending.reason,
            error=ending.error,
            error_id=ending.error_id,
            text=turn.text(),
            final_text=turn.final_text,
            usage=turn.usage,
            persisted=turn.persisted,
            events=self.events_sent,
            first_event_s=None if first is None else first - self._started_at,
            duration_s=self._settled_at - self._started_at,
        )


@coroutine
def _next_step() -> Generator[None, None, None]:
    """Let others have a turn of the loop: as `asyncio.sleep(0)`, in one call less."""
    yield


def _see_it_through() -> None:
    """Take back a cancellation of settlement from outside: the loop is shutting down."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
