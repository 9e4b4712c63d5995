"""One turn from open to settled: reading, stopping, settling.

The reader iterates the plan's generator directly; everything that is not per event is
here. `stopped` alone decides how a turn ends, `_settlement` alone settles it, once, in a
task of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextvars import Context, copy_context
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast

import orjson

from operators.drive import Opened, called, checked, code_of
from operators.errors import (
    InvalidEvent,
    SettleTimeout,
    TurnError,
    TurnMisuse,
)
from operators.turn import Ending, TurnContext, TurnOutcome

from .mailbox import Mailbox
from .plan import EVENT, READER, Mode, Plan, Recipe
from .reading import reading_task
from .source import ChatTurnProducer, iterator_of
from .wire import wire_named

if TYPE_CHECKING:
    from operators.event import Event

OnDisconnect: TypeAlias = Literal["cancel", "detach"]
Item = TypeVar("Item")

_NEW, _READING, _SETTLING, _SETTLED, _CLOSED = range(5)
_EAGER = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_POLL_S = 0.01
DISCONNECTED = "disconnected"


class _StopAsked(Exception):
    """The turn was stopped before its source was opened."""


class Body(Generic[Item]):
    """What a reader iterates: the events of a turn, or its bytes.

    Closing it, or dropping it, is a disconnect; `aclose()` returns when the turn has
    settled (at once where it is detached).
    """

    # `__anext__` is a slot that holds the generator's own bound method: a read costs no
    # Python frame of ours, and who is read can change between two reads.
    __slots__ = ("__anext__", "__weakref__", "_run")

    def __init__(self, run: TurnRun) -> None:
        """Read `run`, from its first read on."""
        self._run = run
        self.__anext__: Callable[[], Awaitable[Item]] = run._first_read

    def __aiter__(self) -> AsyncIterator[Item]:
        """Return itself."""
        return cast("AsyncIterator[Item]", self)

    async def aclose(self) -> None:
        """Leave the turn, and wait until it has settled where it ends with its reader."""
        await self._run._leave()

    def __del__(self) -> None:
        """Take a dropped body for a closed one."""
        self._run._dropped()


class TurnRun:
    """One turn. Read it once, through `events()` or `body()`; then ask its `outcome()`.

    Nothing starts before the first read. `cancel` and `detach` are not thread-safe.
    """

    # Defaults live on the class: a turn sets only what differs, which is most of what it
    # costs to make one.
    events_sent = 0
    _asked: Ending | None = None
    _body: weakref.ref[Body[Any]] | None = None
    _closer: asyncio.Handle | None = None
    _closing_plan = False
    _encode: tuple[Any, Any] = (None, None)
    _final_text: Callable[[], object] | None = None
    _finishing: asyncio.Task[list[Event]] | None = None
    _finishing_index = 0
    _first_event: float | None = None
    _generation = 0
    _held: tuple[tuple[int, Event], ...] = ()
    _interrupted: asyncio.Task[Any] | None = None
    _lines: deque[Any]
    _loop: asyncio.AbstractEventLoop
    _mailbox: Mailbox | None = None
    _mode: Mode | None = None
    _opened: Opened
    _out: list[Event]
    _outcome: TurnOutcome | None = None
    _plan: Plan
    _pump: asyncio.Task[None] | None = None
    _settled_at = 0.0
    _settler: asyncio.Task[None] | None = None
    _started_at = 0.0
    _state = _NEW
    _timer: asyncio.TimerHandle | None = None
    _waiters: list[asyncio.Future[None]] | None = None

    def __init__(
        self,
        recipe: Recipe,
        context: TurnContext,
        *,
        on_disconnect: OnDisconnect,
        detach_timeout: float,
        settle_timeout: float,
    ) -> None:
        """Prepare the turn; `Pipeline.start` is what makes one."""
        self._recipe = recipe
        self.context = context
        self._on_disconnect: OnDisconnect = on_disconnect
        self._detach_timeout = detach_timeout
        self._settle_timeout = settle_timeout
        self._context: Context = copy_context()

    # -- what a user calls

    def events(self) -> Body[Event]:
        """Read the turn as events, single ones also where the source yields lists.

        Raises:
            TurnMisuse: it is read already.
        """
        return self._open_body("events")

    def body(self, wire: str = "ndjson") -> Body[bytes]:
        """Read the turn as bytes, one chunk per read of the source.

        Raises:
            TurnMisuse: it is read already.
            ValueError: there is no such wire.
        """
        encoder = wire_named(wire)
        body: Body[bytes] = self._open_body("ndjson" if wire == "ndjson" else "wire")
        self._encode = (encoder.encode, encoder.encode_many)
        return body

    async def outcome(self) -> TurnOutcome:
        """Wait until the turn is over and closed; read it headless if nobody does."""
        if self._mode is None:
            self._mode = "events"
            if self._state == _NEW:
                self._take_over(read=False)
        elif self._state == _NEW and self._alive() is None:
            self._never_read()
        while self._state < _CLOSED:
            await self._waiter()
        if self._outcome is None:
            self._outcome = self._make_outcome()
        return self._outcome

    def cancel(self, reason: str = "cancelled") -> None:
        """Stop the turn: it settles as cancelled. A second call changes nothing."""
        self._ask(Ending("cancelled", drained=False, reason=reason))

    def detach(self) -> None:
        """Let the turn run on without its reader, from the next event boundary on."""
        self._on_disconnect = "detach"
        if self._state != _READING or self._pump is not None:
            return
        self._redirect(self._read_mailbox)
        self._at_boundary()

    # -- reading

    def _open_body(self, mode: Mode) -> Body[Any]:
        if self._mode is not None:
            raise TurnMisuse(
                "this turn is read already: events() or body(), one of them, once; "
                "start another turn, or share its events with a tap"
            )
        self._mode = mode
        body: Body[Any] = Body(self)
        self._body = weakref.ref(body)
        return body

    def _open(self) -> None:
        """Open the stages and make the plan's generator."""
        turn = self.context
        self._loop = asyncio.get_running_loop()
        self._state = _READING
        self._started_at = turn.clock()
        turn.stopper = self._stop
        recipe = self._recipe
        opened = self._opened = Opened(recipe.operators, turn)
        self._iterators: list[Any] = []
        self._out: list[Event] = []
        self._lines: deque[Any] = deque()
        plan = self._plan = recipe.plan(
            opened.stages, self._mode or "events", broken=opened.broken is not None
        )
        encode, encode_many = self._encode
        self._reading = plan.segments[-1].function(
            self,
            opened.stages,
            checked,
            inspect.isawaitable,
            orjson.dumps,
            encode,
            encode_many,
        )

    def _first_read(self) -> Awaitable[Any]:
        body = self._alive()
        if self._state != _NEW:  # closed or cancelled before it was read
            reader = self._tail().__anext__
        elif self._on_disconnect == "detach":
            self._take_over(read=True)
            reader = self._read_mailbox().__anext__
        else:
            self._open()
            reader = self._reading.__anext__
        if body is not None:
            body.__anext__ = reader
        return cast("Awaitable[Any]", reader())

    def _redirect(self, reader: Callable[[], AsyncIterator[Any]]) -> None:
        """Let the next read of the body go elsewhere."""
        body = self._alive()
        if body is not None:
            body.__anext__ = reader().__anext__

    def _alive(self) -> Body[Any] | None:
        """Return the body, if somebody still holds it."""
        return None if self._body is None else self._body()

    def _take_over(self, *, read: bool) -> None:
        """Let a task of the turn's own pull, into a mailbox if somebody reads that."""
        if self._state == _NEW:
            self._open()
        self._mailbox = Mailbox(open_=read)
        self._pump = asyncio.Task(
            self._pumped(self._mailbox),
            loop=self._loop,
            context=self._context.copy(),
            name="turnpipe turn",
        )

    async def _pumped(self, mailbox: Mailbox) -> None:
        try:
            async for chunk in self._reading:
                await mailbox.put(chunk)
                if self._asked is not None and self._state == _READING:
                    break  # the source outlived its cancellation
            async for chunk in self._tail():
                await mailbox.put(chunk)
        except asyncio.CancelledError:
            # Only the loop's shutdown gets here: what ends the turn is caught inside.
            self._leave_reading(DISCONNECTED)
            raise
        except BaseException as exc:
            mailbox.close(exc)
            if isinstance(exc, (KeyboardInterrupt, SystemExit)):
                raise
        finally:
            mailbox.close(None)

    async def _read_mailbox(self) -> AsyncIterator[Any]:
        if self._mailbox is None:
            self._take_over(read=True)
        mailbox = self._mailbox
        assert mailbox is not None
        try:
            while True:
                if not mailbox.items and not await mailbox.wait():
                    break
                yield mailbox.get()
        finally:
            self._reader_left()

    def _reader_left(self) -> None:
        """Go on without a reader, for a while."""
        mailbox = self._mailbox
        if mailbox is None or mailbox.abandoned:
            return
        mailbox.abandon()
        if self._state == _READING:
            self._loop.call_later(self._detach_timeout, self.cancel, "detach_timeout")

    def _at_boundary(self) -> None:
        """Take an inline turn over as soon as no read is in flight."""
        if self._state != _READING or self._pump is not None:
            return
        if self._reading.ag_running:
            self._loop.call_later(_POLL_S, self._at_boundary)
        else:
            self._take_over(read=True)
            if self._alive() is None:
                self._reader_left()

    async def _tail(self) -> AsyncIterator[Any]:
        """Give what settlement left, whoever began it."""
        if self._state == _NEW:
            self._open()
        if self._state == _READING:
            task = asyncio.current_task()
            if task is not None and task is self._interrupted:
                task.uncancel()
            self._settle(self._asked or Ending("cancelled", drained=False))
        lines = await self.settled()
        try:
            while lines:
                yield lines.popleft()
        finally:
            await self.closed()
        self.raise_failure()

    # -- leaving and stopping

    async def _leave(self) -> None:
        """Close the body."""
        body = self._alive()
        reader = None
        if body is not None:
            reader = getattr(body.__anext__, "__self__", None)
            body.__anext__ = _exhausted
        self._body = None
        if self._pump is not None:
            self._reader_left()
            await _closed(reader)
            return
        if self._state == _NEW:
            self._never_read()
        elif self._state == _READING:
            if self._on_disconnect == "detach":
                self._at_boundary()
                return
            self._leave_reading(DISCONNECTED)
        elif self._state != _CLOSED:
            self._lines.clear()
        cancelled = await self._wait(_CLOSED)
        await _closed(reader)
        await _closed(self._reading)
        if cancelled:
            raise asyncio.CancelledError

    def _leave_reading(self, reason: str) -> None:
        self._ask(Ending("cancelled", drained=False, reason=reason, gone=True))

    def _never_read(self) -> None:
        """Settle a turn whose body is gone before its first read, as cancelled."""
        self._leave_reading(DISCONNECTED)
        self._take_over(read=False)

    def _dropped(self) -> None:
        """Take note that the body was collected; may run in any thread, at any time."""
        if self._state == _NEW:
            if not self._waiters:
                return
            loop = self._waiters[0].get_loop()
        elif self._state == _READING or self._reading.ag_frame is not None:
            loop = self._loop
        else:
            return
        try:
            loop.call_soon_threadsafe(self._dropped_soon)
        except RuntimeError:  # the loop is closed: there is nothing to settle in
            return

    def _dropped_soon(self) -> None:
        if self._state == _NEW:
            self._never_read()
        elif self._state > _READING:
            if self._pump is None and self._reading.ag_frame is not None:
                self._spawn(self._leave())
        elif self._pump is not None:
            self._reader_left()
        elif self._on_disconnect == "detach":
            self._at_boundary()
        elif self._reading.ag_running:  # the last read is still under way
            self._loop.call_later(_POLL_S, self._dropped_soon)
        else:
            self._leave_reading(DISCONNECTED)

    def _stop(self, error: BaseException) -> None:
        self._ask(Ending("failed", drained=False, error=error))

    def _ask(self, ending: Ending) -> None:
        """Stop with `ending` as soon as can be; the first to ask wins."""
        if self._asked is not None or self._state > _READING:
            return
        self._asked = ending
        if self._state == _NEW:
            return
        if self._pump is None:
            self._redirect(self._tail)
        # Soon: perhaps the plan is our caller, or a read of it is on its way in a task.
        self._loop.call_soon(self._interrupt)

    def _interrupt(self) -> None:
        if self._state != _READING or self._asked is None:
            return
        if not self._reading.ag_running:
            self._settle(self._asked)
            return
        task = self._pump or reading_task(self._reading, self._loop)
        if task is not None:
            self._interrupted = task
            task.cancel()

    # -- what the plan calls

    def started(self) -> Iterable[Event]:
        """Make the event that opens the turn."""
        envelope = self._opened.stages[self._opened.envelope].envelope
        assert envelope is not None
        return (envelope.started(),)

    async def started_over(self, stop: int) -> list[Event]:
        """Make it where the lifecycle stands before a `through`, which it steps over."""
        out: list[Event] = []
        (event,) = self.started()
        await self._opened.push(self._opened.envelope + 1, event, out, stop)
        ending = self.context.ending
        if ending is not None and ending.error is not None:
            raise ending.error
        return out

    async def source(self, index: int) -> AsyncIterator[Any]:
        """Open the source of a segment: the turn's own, or a `through` over the last."""
        segment = None
        if index:
            k = self._plan.boundaries[index - 1]
            segment = self._plan.segments[index - 1].function(
                self, self._opened.stages, checked, inspect.isawaitable
            )
            function = self._opened.stages[k].through
            assert function is not None
            made: Any = function(segment)
        else:
            if self._asked is not None:
                raise _StopAsked
            if self._opened.broken is not None:
                raise self._opened.broken[1]
            made = self._recipe.call_source(self.context)
            if inspect.isawaitable(made) and not hasattr(made, "__aiter__"):
                made = await made
            if isinstance(made, ChatTurnProducer):
                self._final_text = made.final_text
                made = made.stream
        iterator = iterator_of(made)
        enter: Any = getattr(iterator, "__aenter__", None)
        if enter is not None:  # an aiostream Streamer
            await enter()
        self._iterators.append(iterator)
        if segment is not None:
            self._iterators.append(segment)
        return iterator

    def first(self) -> None:
        """Stamp the first event."""
        self._first_event = self.context.clock()

    def tap_failed(self, k: int, error: Exception) -> Callable[..., Any]:
        """Log what a tap raised; return the function to call from now on."""
        self._opened.fail(k, error)
        stage = self._opened.stages[k]
        if stage.on_error == "disable":
            return _nothing_async if stage.awaits else _nothing
        assert stage.on_event is not None
        return stage.on_event

    def held(self, index: int, batch: Iterable[Event]) -> None:
        """Keep what an inner segment had ready when it failed: it steps over `through`."""
        start = self._plan.boundaries[index] + 1
        self._held += tuple([(start, event) for event in batch])

    def _hold(self, batch: Iterable[Event], error: BaseException | None) -> None:
        """Keep what had passed all operators when the turn was stopped."""
        encode = self._encode[0]
        broken = isinstance(error, InvalidEvent)
        for event in batch:
            if broken and encode is not None:  # what precedes the bad event is sent
                try:
                    encode(event)
                except InvalidEvent:
                    break
            self._held += ((len(self._recipe.operators), event),)
            self.events_sent += 1

    async def finish_segment(self, index: int) -> list[Event]:
        """Finish the operators of an inner segment; what they held goes on in order.

        In a task of its own: a reader that is cancelled meanwhile loses nothing, the
        settlement takes over what comes of it.
        """
        start, stop = self._plan.spans[index]
        stages = self._opened.stages
        if all([stages[k].finish is None for k in range(start, stop)]):
            return []

        async def finish() -> list[Event]:
            out: list[Event] = []
            await self._opened.finish(out, start, stop)
            return out

        self._finishing_index = index
        task = self._finishing = asyncio.Task(
            finish(), loop=self._loop, context=self._context.copy()
        )
        out = await asyncio.shield(task)
        self._finishing = None
        ending = self.context.ending
        if ending is not None and ending.error is not None:
            self.held(index, out)
            raise ending.error
        return out

    def stopped(
        self, error: BaseException | None, events: int, batch: Iterable[Event]
    ) -> bool:
        """Decide how the turn ends, and begin its settlement.

        Returns True where the reader is gone: then `error` goes on to it once the turn
        has settled.
        """
        self.events_sent += events
        if self._state != _READING:
            return True  # stopped between two reads: the settlement closes the plan
        self._hold(batch, error)
        cancelled = isinstance(error, asyncio.CancelledError)
        task = asyncio.current_task()
        interrupted = task is not None and task is self._interrupted
        if interrupted:
            assert task is not None
            gone = task.uncancel() > 0
            self._interrupted = None
        else:
            gone = cancelled and task is not None and task.cancelling() > 0
        if self._asked is not None and self._pump is None:
            self._redirect(lambda: self._reading)  # the plan goes on, to its terminal
        ending: Ending
        if self._asked is not None and (interrupted or error is not None):
            ending = self._asked
            gone = gone or isinstance(error, GeneratorExit)
        elif error is None:
            ending = Ending("completed", drained=True)
        elif self.context.ending is not None and error is self.context.ending.error:
            ending = self.context.ending  # a finish of an inner segment failed
        else:
            outer = self._plan.outer(error.__traceback__)
            if (
                gone
                or outer == READER
                or not (cancelled or isinstance(error, (Exception, GeneratorExit)))
            ):
                gone = True
                ending = Ending("cancelled", drained=False, reason=DISCONNECTED)
            else:
                ending = Ending("failed", drained=False, error=error)
        ending.gone = ending.gone or gone
        self._settle(ending)
        return gone

    async def left(self) -> None:
        """Wait for the settlement of a reader that is gone."""
        if not self._closing_plan:
            await self._wait(_CLOSED)

    async def settled(self) -> deque[Any]:
        """Wait for the last lines.

        Raises:
            CancelledError: the reader was cancelled meanwhile; the turn is closed.
        """
        if await self._wait(_SETTLED):
            await self._wait(_CLOSED)
            raise asyncio.CancelledError
        return self._lines

    async def closed(self) -> None:
        """Close, and wait until the last `close` has run; raises as `settled`."""
        self._close()
        if await self._wait(_CLOSED):
            raise asyncio.CancelledError

    def raise_failure(self) -> None:
        """Raise the turn's failure where there is no lifecycle to report it."""
        ending = self.context.ending
        if self._opened.envelope < 0 and ending is not None and ending.error:
            raise ending.error

    # -- settlement

    def _settle(self, ending: Ending) -> None:
        """Begin the settlement: at most once."""
        self._state = _SETTLING
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
            reported = cast("Any", self._opened.stages[envelope].envelope).reported
            if reported is not None:
                ending.status = "failed"
                code = reported.get("code")
                ending.code = code if isinstance(code, str) else "reported"
                ending.reason = None
        self._settler = self._spawn(self._settlement(self._generation))
        if self._state == _SETTLING and not self._reading.ag_running:
            self._arm(self._expired)  # else the read under way arms it, if it must wait

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
            await self._close_source()
            if self._finishing is not None:
                self.held(self._finishing_index, await self._finishing)
            for start, event in self._held:
                if generation != self._generation:
                    return
                await self._opened.push(start, event, out)
            await self._opened.finish(out)
            await self._settle_stages()
        except asyncio.CancelledError:
            if generation != self._generation:
                return
            _see_it_through()
            self._opened.turn_failed(
                TurnError("settlement was cancelled", code="settle_cancelled")
            )
        except Exception as exc:
            self._opened.turn_failed(exc)
        if generation == self._generation:
            await self._end(out, generation)

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
            except Exception as exc:
                ending.drained = False
                self._opened.turn_failed(exc)
        await self._opened.settle()

    async def _end(
        self, out: list[Event], generation: int, *, push: bool = True
    ) -> None:
        """Send the terminals, let the reader have them, close."""
        if push:
            try:
                await self._opened.terminals(out)
            except asyncio.CancelledError:
                if generation != self._generation:
                    return
                _see_it_through()
        else:
            envelope = self._opened.envelope
            if envelope >= 0:
                stage = self._opened.stages[envelope]
                out.extend(cast("Any", stage.envelope).terminals(self.context.ending))
        if generation != self._generation:
            return
        self._disarm()
        ending = self.context.ending
        if ending is None or not ending.gone:
            self._lines.extend(self._encoded(out))
        self._settled_at = self.context.clock()
        self._advance(_SETTLED)
        # The reader takes the last lines first; one that does not come is not waited for.
        self._closer = self._loop.call_soon(self._close)

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
        if self._state != _SETTLED or self._closer is None:
            return
        self._closer.cancel()
        self._closer = None
        self._close_rest()

    def _close_rest(self) -> None:
        pending = self._context.copy().run(self._opened.close)
        if pending is None:
            self._advance(_CLOSED)
            return
        self._settler = self._spawn(self._close_stages(pending, self._generation))
        if self._state < _CLOSED:
            self._arm(self._close_expired)

    async def _close_stages(self, pending: Awaitable[object], generation: int) -> None:
        try:
            await self._opened.closing(pending)
        except asyncio.CancelledError:
            if generation != self._generation:
                return
            _see_it_through()
            await self._opened.closing(self._opened.close())
        if generation == self._generation:
            self._disarm()
            self._advance(_CLOSED)

    def _expired(self) -> None:
        """Stop waiting for the settlement: fail the turn, and go on in another task."""
        settler = self._settler
        if settler is None or self._state >= _SETTLED:
            return
        opened = self._opened
        opened.turn_failed(
            SettleTimeout(f"settling took longer than {self._settle_timeout:g} s")
        )
        push = not opened.ended  # else taps have seen the terminal, and one hangs on it
        opened.ended = True  # a hook that ignores its cancellation is the last
        self._out = list(self._out)
        self._generation += 1
        settler.cancel()
        self._settler = self._spawn(self._end(self._out, self._generation, push=push))
        if self._state == _SETTLING:
            self._arm(self._expired)

    def _close_expired(self) -> None:
        settler = self._settler
        if settler is None or self._state >= _CLOSED:
            return
        k = self._opened.closed - 1
        name = self._recipe.operators[k].name if k >= 0 else "close"
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
            try:
                await close()
            except Exception as exc:
                self.context.log("closing the source raised", exc)

    # -- waiting

    def _advance(self, state: int) -> None:
        self._state = state
        if state == _CLOSED:
            self.context.stopper = None  # else turn and run keep each other alive
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
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                cancelled = True
            if self._state == _SETTLING and self._timer is None:
                self._arm(self._expired)
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


def _see_it_through() -> None:
    """Take back a cancellation of settlement from outside: the loop is shutting down."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        task.uncancel()


async def _closed(reader: object) -> None:
    """Close the generator that a body read, where it waits at a yield."""
    if (
        isinstance(reader, AsyncGeneratorType)
        and not reader.ag_running
        and reader.ag_frame is not None
    ):
        await cast("AsyncGeneratorType[Any, Any]", reader).aclose()


async def _exhausted() -> Any:
    """Stand in for a closed body's reads."""
    raise StopAsyncIteration


def _nothing(event: Event) -> None:
    """Stand in for a disabled tap."""


async def _nothing_async(event: Event) -> None:
    """Stand in for a disabled async tap."""
