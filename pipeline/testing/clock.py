"""Virtual time: an event loop whose clock jumps to its next timer instead of waiting.

    def test_an_idle_source_fails_after_half_a_minute():
        run_virtual(scenario())               # takes no time at all

A turn reads a clock of its own: start it with `clock=loop_clock`, so that it agrees
with the timers.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LINKS = (CoroutineType, AsyncGeneratorType, GeneratorType)

LIMIT_S = 3600.0
"""Virtual seconds after which a run is given up, unless told otherwise."""


class Deadlock(AssertionError):
    """Nothing can happen any more in virtual time: no task is ready, no timer set."""


def run_virtual(
    main: Coroutine[Any, Any, T], *, limit: float = LIMIT_S, debug: bool | None = None
) -> T:
    """Run `main` in a loop of virtual time; return what it returns.

    Raises:
        Deadlock: nothing is ready and no timer set, or `limit` virtual seconds passed;
            the message lists the tasks and where each waits.
    """
    factory = partial(VirtualLoop, limit=limit)
    with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
        return runner.run(main)


def loop_clock() -> float:
    """Tell the running loop's time, in seconds: `start(..., clock=loop_clock)`."""
    return asyncio.get_running_loop().time()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time; also a `loop_factory` for a test framework.

    When nothing is ready it jumps to its next timer. While a thread works for it
    (`asyncio.to_thread`), time stands still. Sockets, pipes and subprocesses are
    refused: what they wait for does not happen in virtual time.
    """

    def __init__(self, *, limit: float = LIMIT_S) -> None:
        """Begin at 0 seconds."""
        self._now = 0.0
        self._limit = limit
        self._abroad = 0
        self._turns = 0
        self._at_turn: dict[int, list[Callable[[], object]]] = {}
        self._timers: dict[int, weakref.ref[asyncio.TimerHandle]] = {}
        selector = _Selector(self.idle)
        super().__init__(selector)
        selector.shut = True

    def time(self) -> float:
        """Tell the virtual time, in seconds from the loop's beginning."""
        return self._now

    @property
    def turns(self) -> int:
        """How many times the loop has gone around."""
        return self._turns

    def call_at_turn(self, turn: int, callback: Callable[[], object]) -> None:
        """Call `callback` when the loop goes around for the `turn`th time.

        Unlike a task that counts with `sleep(0)`, this keeps nothing awake: timers fire
        as they would without it.
        """
        self._at_turn.setdefault(turn, []).append(callback)

    def pending_timers(self) -> list[asyncio.TimerHandle]:
        """List the timers that are set and have neither fired nor been cancelled."""
        handles = [ref() for ref in self._timers.values()]
        return [
            handle
            for handle in handles
            if handle is not None
            and not handle.cancelled()
            and handle.when() > self._now
        ]

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer; `call_later` comes here too."""
        handle = super().call_at(when, callback, *args, context=context)
        key = id(handle)
        timers = self._timers
        timers[key] = weakref.ref(handle, lambda _: timers.pop(key, None) and None)
        return handle

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Ts], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """Run `func` in a thread; time stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._abroad += 1
        future.add_done_callback(self._home)
        return future

    def close(self) -> None:
        """Close the loop, and let go of what would keep it and its tasks alive."""
        super().close()
        self._at_turn.clear()

    async def shutdown_default_executor(self, *args: Any, **named: Any) -> None:
        """Let the threads end; time stands still until they have."""
        self._abroad += 1
        try:
            await super().shutdown_default_executor(*args, **named)
        finally:
            self._abroad -= 1

    def _home(self, _: object) -> None:
        self._abroad -= 1

    def idle(self, timeout: float | None) -> bool:
        """Let virtual time pass; True where the loop shall really wait for a thread.

        Raises:
            Deadlock: there is nothing to wait for.
        """
        self._turns += 1
        callbacks = self._at_turn.pop(self._turns, None)
        if callbacks is not None:
            for callback in callbacks:
                self.call_soon(callback)
            return False
        if timeout is not None and timeout <= 0:
            return False
        if self._abroad:
            return True
        if timeout is None:
            raise Deadlock(
                "nothing is ready and no timer is set: these tasks wait for what "
                "never comes" + self._waiting()
            )
        self._now = self._next(self._now + timeout)
        if self._now > self._limit:
            raise Deadlock(
                f"{self._limit:g} virtual seconds passed and the run goes on: raise "
                f"limit=, or see what keeps setting timers" + self._waiting()
            )
        return False

    def _next(self, about: float) -> float:
        """Tell when exactly the timer is due that was said to be due `about` then.

        A sum of floats may fall short of it, and a clock would be read before its time.
        """
        due = [handle.when() for handle in self.pending_timers()]
        return min([when for when in due if abs(when - about) < 1e-6], default=about)

    def _waiting(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        return "".join([f"\n  {described(task)}" for task in tasks])


class _Selector(selectors.DefaultSelector):
    """A selector that asks the loop what waiting shall mean."""

    def __init__(self, idle: Callable[[float | None], bool]) -> None:
        super().__init__()
        self.idle = idle
        self.shut = False

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        if self.shut:
            raise RuntimeError(
                "virtual time has no sockets, pipes or subprocesses: run this test in "
                "an ordinary loop, or give the turn a scripted source"
            )
        return super().register(fileobj, events, data)

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            timeout = 0
        if self.idle(timeout):
            return super().select(None)
        return ready


def described(task: asyncio.Task[Any]) -> str:
    """Tell a task's name, and the line at which it waits."""
    link: Any = task.get_coro()
    frame: Any = None
    name = getattr(link, "__qualname__", repr(link))
    while link is not None:
        if isinstance(link, CoroutineType):
            frame, link = link.cr_frame or frame, link.cr_await
        elif isinstance(link, AsyncGeneratorType):
            frame, link = link.ag_frame or frame, link.ag_await
        elif isinstance(link, GeneratorType):
            yielding = cast("Any", link)
            frame, link = yielding.gi_frame or frame, yielding.gi_yieldfrom
        elif isinstance(link, asyncio.Future):
            break
        else:  # the awaitable of an `__anext__`: what it refers to is not public
            refers: list[Any] = gc.get_referents(link)
            links: list[Any] = [one for one in refers if isinstance(one, _LINKS)]
            link = links[0] if links else None
    where = ""
    if frame is not None:
        code = frame.f_code
        where = f" at {code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
    return f"task {task.get_name()!r} ({name}){where}"
