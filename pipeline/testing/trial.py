"""One run of a pipeline in virtual time, disturbed as a `Case` says, and watched."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from operators.errors import TurnTimeout
from operators.operator import Chain
from operators.tap import tap

from ..pipeline import Pipeline
from ..run import TurnRun
from .case import (
    DETACH_S,
    IDENTITY,
    PATIENCE_S,
    SETTLE_S,
    Case,
    Factory,
    Seen,
)
from .clock import VirtualLoop, run_virtual
from .leaks import Watch
from .script import scripted
from .watching import watched


class Subject:
    """The pipeline under test, made anew for every run, perhaps without one operator."""

    def __init__(
        self, factory: Factory, events: tuple[Any, ...], *, without: int | None = None
    ) -> None:
        """Take the factory and the events of a normal run."""
        self.factory = factory
        self.events = events
        self.without = without
        self._normal: dict[Any, Seen] = {}

    def pipeline(self, seen: Seen) -> Pipeline:
        """Compose the pipeline around the script, every stage watched."""
        case = seen.case
        wrap = case.wrap
        made = self.factory(seen.script if wrap is None else wrap(seen.script))
        operators = list(made.operators)
        if self.without is not None:
            del operators[self.without]
        seen.names[:] = [one.name for one in operators]
        stages = [watched(k, one, seen) for k, one in enumerate(operators)]
        if case.insert is not None:
            stages.insert(*case.insert)
        stages.append(tap(seen.note, name="journal"))
        return Pipeline(made.source) | Chain(stages)

    def run(self, case: Case) -> Seen:
        """Run one case in a loop of its own."""
        seen = self.seen(case)
        run_virtual(_run(self, seen), limit=100 * PATIENCE_S)
        return seen

    def seen(self, case: Case) -> Seen:
        """Begin the notes of a run."""
        items = self.events if case.events is None else case.events
        settings: dict[str, Any] = {"steps": 2, "finally_steps": 1, **case.script}
        return Seen(case, scripted(items, **settings), [])

    def normal(self, events: tuple[Any, ...] | None = None) -> Seen:
        """Give an undisturbed run, with these events or the usual ones."""
        key = None if events is None else repr(events)
        if key not in self._normal:
            self._normal[key] = self.run(Case("the source ends", events=events))
        return self._normal[key]


async def _run(subject: Subject, seen: Seen) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.set_exception_handler(
        lambda _, context: seen.complaints.append(
            f"{context['message']} {context.get('exception', '')!r}"
        )
    )
    watch = Watch()
    watch.begin()
    await _turn(subject.pipeline(seen), seen, loop)
    watch.end()
    seen.left = await watch.left()


async def _turn(pipeline: Pipeline, seen: Seen, loop: VirtualLoop) -> None:
    """Read the turn and disturb it; ask for its outcome."""
    case = seen.case
    run = pipeline.start(
        IDENTITY,
        on_disconnect=case.mode,
        settle_timeout=SETTLE_S,
        detach_timeout=DETACH_S,
        clock=loop.time,
        log=lambda message, meta: seen.logs.append((message, dict(meta))),
    )
    tasks: list[asyncio.Task[Any]] = []
    if case.reading != "headless":
        body: Any = run.body() if case.reading == "body" else run.events()
        if case.reading == "unread":
            await body.aclose()
        else:
            reader = loop.create_task(_read(body, seen), name="the reader")
            tasks.append(reader)
            if case.action:
                _plan(seen, run, body, tasks)
        await _ended(tasks, seen)
        if not seen.stuck:
            await body.aclose()
    began = loop.time()
    asking = loop.create_task(run.outcome(), name="outcome()")
    await _ended([asking], seen)
    seen.took = loop.time() - began
    if asking.done() and not asking.cancelled() and asking.exception() is None:
        seen.outcome = asking.result()
    seen.source_open = seen.script.opened != seen.script.closed


def _plan(seen: Seen, run: TurnRun, body: Any, tasks: list[asyncio.Task[Any]]) -> None:
    """Set the disturbances at their steps."""
    case = seen.case
    (reader,) = tasks
    loop = cast("VirtualLoop", reader.get_loop())

    def act() -> None:
        if reader.done():
            return
        seen.acted = True
        match case.action:
            case "cancel":
                run.cancel("stop")
            case "task":
                reader.cancel()
            case "aclose":
                tasks.append(loop.create_task(body.aclose(), name="aclose()"))
            case "detach":
                run.detach()
            case _:
                if run.context.stopper is not None:
                    run.context.stop(TurnTimeout("total", 1.0))
                else:
                    seen.acted = False

    def again() -> None:
        if not reader.done():
            reader.cancel()
            seen.cancelled = True

    at = loop.turns + 1 + case.step
    loop.call_at_turn(at, act)
    if case.second is not None:
        loop.call_at_turn(at + case.second, again)


async def _read(body: Any, seen: Seen) -> None:
    async for item in body:
        seen.got.append(item)
    seen.read_all = True


async def _ended(tasks: list[asyncio.Task[Any]], seen: Seen) -> None:
    """Wait for tasks that may spawn further ones; note those that do not end."""
    done = 0
    while done < len(tasks) and not seen.stuck:
        task = tasks[done]
        done += 1
        await asyncio.wait({task}, timeout=PATIENCE_S)
        if not task.done():
            seen.stuck = f"{task.get_name()} did not end within {PATIENCE_S:g} s"
            task.cancel()
            await asyncio.wait({task}, timeout=PATIENCE_S)
        elif task.cancelled():
            seen.raised = asyncio.CancelledError()
        elif task.exception() is not None:
            seen.raised = task.exception()
