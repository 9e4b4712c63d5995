"""`no_leaks`: nothing that a block started is left when it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from .clock import VirtualLoop, described

_FDS = Path("/proc/self/fd")


class LeakError(AssertionError):
    """Something was left behind; the message lists each."""


@asynccontextmanager
async def no_leaks(*, spans: bool = True, files: bool = True) -> AsyncGenerator[None]:
    """Fail where the block leaves a task, async generator, timer, span or file.

    A generator that was dropped without being closed counts: its cleanup runs late, in
    another task. Timers are seen in a `VirtualLoop` alone; spans where the current
    tracer provider is the OpenTelemetry SDK's; files and sockets where the system has
    /proc.

    Raises:
        LeakError: at the block's end, unless that raises something else.
    """
    watch = Watch()
    opened = open_files() if files else {}
    unended = _SpanWatch.of_provider() if spans else None
    before = set(unended.open) if unended is not None else set[Any]()
    watch.begin()
    try:
        yield
    finally:
        watch.end()
    gc.collect()
    left = await watch.left()
    if files:
        now = open_files()
        left += [f"file {fd}: {now[fd]}" for fd in now if now[fd] != opened.get(fd)]
    if unended is not None:
        left += [f"span {span.name!r} was not ended" for span in unended.open - before]
    if left:
        raise LeakError("left behind:" + "".join([f"\n  {one}" for one in left]))


class Watch:
    """The tasks and async generators that come up in the running loop."""

    def __init__(self) -> None:
        """Note what is there already."""
        self._tasks = set(asyncio.all_tasks())
        self._generators: list[weakref.ref[AsyncGenerator[Any, Any]]] = []
        self._dropped: list[str] = []
        loop = asyncio.get_running_loop()
        timers = loop.pending_timers() if isinstance(loop, VirtualLoop) else []
        self._timers = {id(timer) for timer in timers}

    def begin(self) -> None:
        """Watch the generators that are first iterated from now on."""
        # Not the pair itself: the collector does not look into that, and the loop whose
        # methods these are would stay for good.
        before, after = self._before, self._after = sys.get_asyncgen_hooks()
        names = self._dropped
        generators = self._generators

        def first(generator: AsyncGenerator[Any, Any]) -> None:
            generators.append(weakref.ref(generator))
            if before is not None:
                before(generator)

        def dropped(generator: AsyncGenerator[Any, Any]) -> None:
            names.append(_name(generator))
            if after is not None:
                after(generator)

        sys.set_asyncgen_hooks(first, dropped)

    def end(self) -> None:
        """Watch no further generators."""
        sys.set_asyncgen_hooks(self._before, self._after)

    async def left(self) -> list[str]:
        """List what is left once the loop has gone around a few times."""
        for _ in range(3):
            await asyncio.sleep(0)
        ours = asyncio.current_task()
        left = [
            described(task)
            for task in asyncio.all_tasks() - self._tasks
            if task is not ours
        ]
        left += [
            f"async generator {name} was dropped, not closed" for name in self._dropped
        ]
        alive = [ref() for ref in self._generators]
        left += [
            f"async generator {_name(one)} is still open"
            for one in alive
            if one is not None and cast("Any", one).ag_frame is not None
        ]
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            await asyncio.sleep(GRACE_S)
            left += [
                f"timer {timer!r}"
                for timer in loop.pending_timers()
                if id(timer) not in self._timers
            ]
        return left


GRACE_S = 0.05
"""Virtual seconds in which a timer may still find out that its turn is over."""


def open_files() -> dict[str, str]:
    """Map the open file descriptors to what they are; empty where there is no /proc."""
    found: dict[str, str] = {}
    if not _FDS.is_dir():
        return found
    for fd in _FDS.iterdir():
        try:
            found[fd.name] = os.readlink(fd)
        except OSError:  # the one that listed them
            continue
    return found


def _name(generator: object) -> str:
    return str(getattr(generator, "__qualname__", generator))


_watched: weakref.WeakKeyDictionary[Any, _SpanWatch] = weakref.WeakKeyDictionary()


class _SpanWatch:
    """A span processor that knows which spans have begun and not ended."""

    def __init__(self) -> None:
        self.open: set[Any] = set()

    @classmethod
    def of_provider(cls) -> _SpanWatch | None:
        """Watch the current tracer provider, if it is one that can be watched."""
        if "opentelemetry.sdk.trace" not in sys.modules:
            return None
        from opentelemetry import trace

        provider: Any = trace.get_tracer_provider()
        add: Callable[[Any], None] | None = getattr(
            provider, "add_span_processor", None
        )
        if add is None:
            return None
        if provider not in _watched:
            _watched[provider] = watch = cls()
            add(watch)
        return _watched[provider]

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.open.add(span)

    def _on_ending(self, span: Any) -> None:
        """Have nothing to do: the SDK calls it before a span ends."""

    def on_end(self, span: Any) -> None:
        # a read-only copy comes here: spans are the same where their context is
        self.open -= {one for one in self.open if one.context == span.context}

    def shutdown(self) -> None:
        self.open.clear()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True
