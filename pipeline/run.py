"""One turn from open to settled, as its user sees it: read, cancel, detach, outcome.

The reader iterates the plan's generator directly; what is not per event is here.
`stopped` alone decides how a turn ends.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast

import orjson

from operators.drive import Opened, checked, failure_of, passes
from operators.errors import TurnMisuse
from operators.turn import Ending, TurnContext, TurnOutcome

from .flow import Flow
from .mailbox import LIMIT, Mailbox
from .plan import READER, Mode, Recipe
from .reading import is_within, reading_task
from .settlement import CLOSED, NEW, READING
from .wire import wire_named
from .wire.ndjson import encode_dicts

if TYPE_CHECKING:
    from operators.event import Event

OnDisconnect: TypeAlias = Literal["cancel", "detach"]
Item = TypeVar("Item")

_POLL_S = 0.01
DISCONNECTED = "disconnected"


class Body(Generic[Item]):
    """What a reader iterates: the events of a turn, or its bytes.

    Closing it, or dropping it, is a disconnect; `aclose()` returns when the turn has
    settled (at once where it is detached).
    """

    # `__anext__` is a slot that holds the generator's own bound method: a read costs no
    # Python frame of ours, and who is read can change between two reads.
    __slots__ = ("__anext__", "__weakref__", "_run")

    if TYPE_CHECKING:

        async def __anext__(self) -> Item: ...

    def __init__(self, run: TurnRun) -> None:
        """Read `run`, from its first read on."""
        self._run = run
        self.read_by(run._first_read)

    def read_by(self, reader: Callable[[], Awaitable[Any]]) -> None:
        """Let the next read call `reader`: for the turn alone."""
        object.__setattr__(self, "__anext__", reader)

    def __aiter__(self) -> AsyncIterator[Item]:
        """Return itself."""
        itself: Any = self  # `__anext__` is a slot, so no type checker finds it
        reader: AsyncIterator[Item] = itself
        return reader

    async def aclose(self) -> None:
        """Leave the turn, and wait until it has settled where it ends with its reader."""
        await self._run._leave()

    def __del__(self) -> None:
        """Take a dropped body for a closed one."""
        self._run._dropped()


class TurnRun(Flow):
    """One turn. Read it once, through `events()` or `body()`; then ask its `outcome()`.

    Nothing starts before the first read. `cancel` and `detach` are not thread-safe.
    """

    _cancelled_too = False
    _body: weakref.ref[Body[Any]] | None = None
    _beat: tuple[bytes, float, bool] | None = None
    _first_reader: asyncio.Task[Any] | None = None
    _gives_up_at = 0.0
    _had = 0
    _interrupted: asyncio.Task[Any] | None = None
    _interrupts = 0
    _mailbox: Mailbox | None = None
    _mode: Mode | None = None
    _pump: asyncio.Task[None] | None = None

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
        super().__init__(recipe, context, settle_timeout=settle_timeout)
        self._on_disconnect: OnDisconnect = on_disconnect
        self._detach_timeout = detach_timeout

    # -- what a user calls

    def events(self) -> Body[Event]:
        """Read the turn as events, single ones also where the source yields lists.

        Raises:
            TurnMisuse: it is read already.
        """
        return self._open_body("events")

    def body(self, wire: str = "ndjson", *, heartbeat: bool = True) -> Body[bytes]:
        """Read the turn as bytes, one chunk per read of the source.

        `heartbeat=False` leaves the pipeline's heartbeats out: a log wants none.

        Raises:
            TurnMisuse: it is read already.
            ValueError: there is no such wire.
        """
        encoder = wire_named(wire)
        if wire == "ndjson":
            body: Body[bytes] = self._open_body("ndjson")
            self._encode = (encoder.encode, encode_dicts)
        else:
            body = self._open_body("wire")
            self._encode = (encoder.encode, encoder.encode_many)
        beat = self._recipe.heartbeat
        if beat is not None and heartbeat:
            chunk = encoder.heartbeat(beat.pad)
            self._beat = (chunk, beat.every, beat.until == "end")
        return body

    async def outcome(self) -> TurnOutcome:
        """Wait until the turn is over and closed; read it headless if nobody does.

        Raises:
            TurnMisuse: an operator of the turn asks, which would wait for itself.
        """
        if self._state == READING and is_within(self._reading):
            raise TurnMisuse(
                "an operator cannot await the outcome of its own turn: use ops.complete, "
                "or a task of its own"
            )
        if self._mode is None:
            self._mode = "events"
            self._take_over(read=False)
        elif self._state == NEW and self._alive() is None:
            self._never_read()
        while self._state < CLOSED:
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
        if self._state != READING or self._pump is not None or self._asked is not None:
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
        self._state = READING
        self._started_at = turn.clock()
        turn.stopper = self._stop
        recipe = self._recipe
        debug = self._loop.get_debug()
        opened = self._opened = Opened(
            recipe.operators, turn, recipe.hooks, debug=debug
        )
        self._iterators: list[Any] = []
        self._out: list[Event] = []
        self._lines: deque[Any] = deque()
        plan = self._plan = recipe.plan(opened, self._mode or "events", debug=debug)
        encode, encode_many = self._encode
        self._reading = plan.segments[-1].function(
            self,
            opened.stages,
            checked,
            passes,
            inspect.isawaitable,
            orjson.dumps,
            encode,
            encode_many,
        )

    def _first_read(self) -> Awaitable[Any]:
        body = self._alive()
        if self._state != NEW:  # somebody kept `body.__anext__`, and calls it again
            now: Any = self._reading if body is None else body
            reader: Callable[[], Any] = now.__anext__
        elif self._on_disconnect == "detach" or self._beat is not None:
            self._take_over(read=True)
            reader = self._read_mailbox().__anext__
        else:
            self._open()
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # swallowed before our time
                self._first_reader = task
                self._had = task.cancelling()
            reader = self._reading.__anext__
        if body is not None:
            body.read_by(reader)
        read: Awaitable[Any] = reader()
        return read

    def _redirect(self, reader: Callable[[], AsyncIterator[Any]]) -> None:
        """Let the next read of the body go elsewhere."""
        body = self._alive()
        if body is not None:
            body.read_by(reader().__anext__)

    def _alive(self) -> Body[Any] | None:
        """Return the body, if somebody still holds it."""
        return None if self._body is None else self._body()

    def _take_over(self, *, read: bool) -> None:
        """Let a task of the turn's own pull, into a mailbox if somebody reads that."""
        if self._state == NEW:
            self._open()
        ahead = 1 if self._beat is not None else LIMIT
        self._mailbox = Mailbox(open_=read, limit=ahead)
        self._pump = self._pump_task(self._mailbox, whole=True)
        self._pump.add_done_callback(self._pump_done)

    def _pump_task(self, mailbox: Mailbox, *, whole: bool) -> asyncio.Task[None]:
        return asyncio.Task(
            self._pumped(mailbox, whole=whole),
            loop=self._loop,
            context=self._context.copy(),
            name="turnpipe turn",
        )

    def _pump_done(self, pump: asyncio.Task[None]) -> None:
        """Settle the turn where its task was cancelled before its first step."""
        if pump.cancelled() and self._state == READING:
            self._leave_reading(DISCONNECTED)
            assert self._mailbox is not None
            self._mailbox.close(None)

    async def _pumped(self, mailbox: Mailbox, *, whole: bool) -> None:
        """Put the turn into the mailbox; all of it, or its end alone."""
        try:
            if whole and await self._pumped_events(mailbox):
                return
            async for chunk in self._tail():
                await mailbox.put(chunk)
        except asyncio.CancelledError:
            # Only the loop's shutdown gets here: what ends the turn is caught inside.
            self._leave_reading(DISCONNECTED)
            await self._wait(CLOSED)
            raise
        except BaseException as exc:
            if self._pump is asyncio.current_task():
                mailbox.close(exc)
            if isinstance(exc, (KeyboardInterrupt, SystemExit)):
                raise
        finally:
            if self._pump is asyncio.current_task():
                mailbox.close(None)

    async def _pumped_events(self, mailbox: Mailbox) -> bool:
        """Put what the plan gives; tell whether another task took over meanwhile."""
        put = 0
        pump = asyncio.current_task()
        async for chunk in self._reading:
            if self._pump is not pump:
                await self._close_left()
                return True
            await mailbox.put(chunk)
            if self._asked is not None and self._state == READING:
                break  # the source outlived its cancellation
            put += 1
            if put % LIMIT == 0:  # a source that never waits lets others have a turn
                await asyncio.sleep(0)
        return self._pump is not pump

    async def _read_mailbox(self) -> AsyncIterator[Any]:
        if self._mailbox is None:
            self._take_over(read=True)
        mailbox = self._mailbox
        assert mailbox is not None
        try:
            if self._beat is None:
                while mailbox.items or await mailbox.wait():
                    yield mailbox.get()
            else:
                beat, every, to_the_end = self._beat
                while True:
                    beats = to_the_end or self._first_event is None
                    if mailbox.items or (
                        arrived := await mailbox.wait(every if beats else None)
                    ):
                        yield mailbox.get()
                    elif arrived is None:
                        yield beat
                    else:
                        break
        finally:
            self._reader_left()
            if self._on_disconnect == "cancel" and await self._wait(CLOSED):
                raise asyncio.CancelledError

    def _reader_left(self) -> None:
        """Go on without a reader, for a while, where the turn does not end with it."""
        mailbox = self._mailbox
        if mailbox is None or mailbox.abandoned:
            return
        mailbox.abandon()
        if self._on_disconnect == "cancel":
            self._leave_reading(DISCONNECTED)
        elif self._state == READING:
            self._bound_detached()

    def _bound_detached(self) -> None:
        if self._leaving is None:
            self._leaving = self._loop.call_later(
                self._detach_timeout, self.cancel, "detach_timeout"
            )

    def _at_boundary(self) -> None:
        """Take an inline turn over as soon as no read is in flight."""
        if self._state != READING or self._pump is not None:
            return
        if self._reading.ag_running:
            self._loop.call_later(_POLL_S, self._at_boundary)
        else:
            self._take_over(read=True)
            if self._alive() is None:
                self._reader_left()

    async def _tail(self) -> AsyncIterator[Any]:
        """Give what settlement left, whoever began it."""
        if (
            self._interrupted is not None
            and self._interrupted is asyncio.current_task()
        ):
            self._uncancelled()  # the source outlived it
        if self._state == READING:
            self._settle(self._asked or Ending("cancelled", drained=False))
        lines = await self.settled()
        try:
            while lines:
                yield lines.popleft()
        finally:
            await self.closed()
            if self._left_behind:
                self._settler = self._spawn(self._close_left())
        self.raise_failure()

    async def _close_left(self) -> None:
        """Close what was left behind, where it came back with an event."""
        for generator in (self._reading, *self._iterators):
            try:
                await _closed(generator)
            except BaseException as exc:
                self.context.log("closing the source raised", failure_of(exc))

    # -- leaving and stopping

    async def _leave(self) -> None:
        """Close the body."""
        body = self._alive()
        reader = None
        if body is not None:
            reader = getattr(body.__anext__, "__self__", None)
            body.read_by(_exhausted)
        self._body = None
        if self._pump is not None:
            self._reader_left()
            if self._on_disconnect == "detach":
                await _closed(reader)
                return
        if self._state == NEW:
            self._never_read()
        elif self._state == READING:
            if self._on_disconnect == "detach":
                self._bound_detached()
                self._at_boundary()
                return
            self._leave_reading(DISCONNECTED)
            if is_within(self._reading):  # one of our own operators: it would wait
                return  # for itself
        elif self._state != CLOSED:
            self._lines.clear()
        cancelled = await self._wait(CLOSED)
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
        if self._state == NEW:
            if not self._waiters:
                return
            loop = self._waiters[0].get_loop()
        elif self._state == READING or self._reading.ag_frame is not None:
            loop = self._loop
        else:
            return
        try:
            loop.call_soon_threadsafe(self._dropped_soon)
        except RuntimeError:  # the loop is closed: there is nothing to settle in
            return

    def _dropped_soon(self) -> None:
        if self._state == NEW:
            self._never_read()
        elif self._state > READING:
            if self._pump is None and self._reading.ag_frame is not None:
                self._spawn(self._leave())
        elif self._pump is not None:
            self._reader_left()
        elif self._on_disconnect == "detach":
            self._bound_detached()
            self._at_boundary()
        elif self._reading.ag_running:  # the last read is still under way
            self._loop.call_later(_POLL_S, self._dropped_soon)
        else:
            self._leave_reading(DISCONNECTED)

    def _stop(self, error: BaseException) -> bool:
        """End the turn as failed; tells that a read under way will be interrupted."""
        self._ask(Ending("failed", drained=False, error=error))
        return True

    def _ask(self, ending: Ending) -> None:
        """Stop with `ending` as soon as can be; the first to ask wins."""
        if self._asked is not None or self._state > READING:
            return
        self._asked = ending
        if self._state == NEW:
            return
        if self._pump is None:
            self._redirect(self._tail)
        # Soon: perhaps the plan is our caller, or a read of it is on its way in a task.
        self._loop.call_soon(self._interrupt)

    def _interrupt(self) -> None:
        if self._state != READING or self._asked is None:
            return
        if not self._reading.ag_running:
            self._settle(self._asked)
            return
        self._cancel_read()
        self._watch()

    def _cancel_read(self) -> None:
        task: asyncio.Task[Any] | None = self._pump
        if task is None:
            task = reading_task(self._reading, self._loop)
        if task is not None:
            self._interrupted = task
            self._interrupts += 1
            task.cancel()

    def _uncancelled(self) -> int:
        """Take our cancellations of the reading task back; tell how many are others'."""
        task, self._interrupted = self._interrupted, None
        assert task is not None
        left = 0
        while self._interrupts:
            self._interrupts -= 1
            left = task.uncancel()
        return left - self._had if task is self._first_reader else left

    def _watch(self) -> None:
        """See to it that a read under way ends, within `settle_timeout`."""
        self._gives_up_at = self._loop.time() + self._settle_timeout
        self._loop.call_later(min(_POLL_S, self._settle_timeout), self._look_again)

    def _look_again(self) -> None:
        if self._state != READING:
            if self._left_behind and self._interrupted is not None:
                if not self._reading.ag_running:
                    self._uncancelled()
                elif not self._interrupted.done():
                    self._loop.call_later(_POLL_S, self._look_again)
            return
        if not self._reading.ag_running:  # the source outlived it, and gave an event
            if self._interrupted is not None:
                self._uncancelled()
            self._settle(self._asked or Ending("cancelled", drained=False))
        elif self._loop.time() < self._gives_up_at:
            self._loop.call_later(_POLL_S, self._look_again)
        else:
            self._leave_source()

    def _leave_source(self) -> None:
        """Settle without the read under way: its source does not stop."""
        self._left_behind = True
        ending = self._asked
        assert ending is not None
        error = self._stuck()
        if ending.error is None:
            ending.status = "failed"
            ending.error = error
        else:
            self.context.log("the source was left behind", error)
        self._settle(ending)
        self._cancel_read()  # once more: most cleanups end at a second one
        self._loop.call_later(_POLL_S, self._look_again)
        if self._mailbox is not None:
            self._pump = self._pump_task(self._mailbox, whole=False)

    # -- how the plan tells the end

    def stopped(
        self, error: BaseException | None, events: int, batch: Iterable[Event]
    ) -> bool:
        """Decide how the turn ends, and begin its settlement.

        Returns True where the reader is gone: then `error` goes on to it once the turn
        has settled.
        """
        self.events_sent += events
        if self._left_behind:
            return self._came_back(error)
        if self._mode == "events":
            if isinstance(error, GeneratorExit):  # it waited for its reader
                self._hold_rest(batch)
            batch = ()
        if self._state != READING:
            return error is not None  # stopped between two reads: it is being closed
        if error is None and self._asked is None:
            self._settle(Ending("completed", drained=True))
            return False
        if batch:
            self._hold(batch, error)
        cancelled = isinstance(error, asyncio.CancelledError)
        task = asyncio.current_task()
        interrupted = task is not None and task is self._interrupted
        if interrupted:
            gone = self._uncancelled() > 0
            self._cancelled_too = gone and not cancelled
        else:
            gone = cancelled and task is not None and task.cancelling() > 0
        if self._asked is not None and self._pump is None:
            self._redirect(lambda: self._reading)  # the plan goes on, to its terminal
        ending: Ending
        if self._asked is not None and (interrupted or error is not None):
            ending = self._asked
            gone = gone or (
                isinstance(error, GeneratorExit)
                and self._plan.outer(error.__traceback__) == READER
            )
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

    def _came_back(self, error: BaseException | None) -> bool:
        """Tell as `stopped`: a read that was left behind has ended after all."""
        if self._interrupted is None or (
            isinstance(error, GeneratorExit)
            and self._plan.outer(error.__traceback__) == READER
        ):
            return True
        left = self._uncancelled()
        if self._pump is not None:  # another task gives the end of the turn
            return error is not None
        self._redirect(lambda: self._reading)
        self._cancelled_too = left > 0 and not isinstance(error, asyncio.CancelledError)
        return left > 0

    async def left(self) -> None:
        """Wait for the settlement of a reader that is gone."""
        if not self._closing_plan:
            await self._wait(CLOSED)
            if self._cancelled_too:
                raise asyncio.CancelledError


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
