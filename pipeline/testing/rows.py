"""The rows of the exit matrix: every way in which a turn may end, as cases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from operators import event as ev
from operators.mapping import map as map_
from operators.source import ChatTurnProducer
from operators.timeout import timeout

from ..run import OnDisconnect
from .case import Action, Case, Injected, Reading, Seen
from .script import Scripted

_TEXT = ev.text_part("p1")
EVENTS: tuple[Any, ...] = (
    ev.delta(_TEXT, "Alpha "),
    [ev.delta(_TEXT, "beta "), ev.event("note", {"n": 1})],
    ev.delta(ev.reasoning_part("r1"), "Why not? "),
    ev.delta(_TEXT, "gamma "),
    ev.tool_part("t1", tool="look", call_id="c1", status="running", input={"q": "x"}),
    ev.tool_part("t1", tool="look", call_id="c1", status="completed", output="y"),
    [ev.delta(_TEXT, "delta "), ev.delta(_TEXT, "omega.")],
)
"""What the source says unless told otherwise: texts, a tool, an event of no known type."""

_ENVELOPE = ev.TERMINALS | {ev.RUN_STARTED, ev.ERROR}

FAILED = frozenset({"failed"})
CANCELLED = frozenset({"cancelled"})
STOPPED = frozenset({"cancelled", "completed"})
COMPLETED = frozenset({"completed"})


def rows(events: tuple[Any, ...], normal: Seen) -> Iterator[Case]:
    """Give every row that is not about a moment, each as it is read in all ways."""
    ways: tuple[tuple[Reading, OnDisconnect], ...] = (
        ("events", "cancel"),
        ("body", "cancel"),
        ("events", "detach"),
        ("body", "detach"),
        ("headless", "cancel"),
    )
    for reading, mode in ways:
        yield from _sources(events, reading, mode)
        yield from _limits(reading, mode)
        yield from _operators(normal, reading, mode)
    for mode in ("cancel", "detach"):
        yield Case("closed before its first read", "unread", mode, expect=CANCELLED)


def _sources(
    events: tuple[Any, ...], reading: Reading, mode: OnDisconnect
) -> Iterator[Case]:
    """What the source may do."""

    def case(row: str, **more: Any) -> Case:
        return Case(row, reading, mode, **more)

    count = len(events)
    yield case("the source ends", drained=True)
    yield case("the source gives nothing", events=())
    yield case("empty reads", events=([], *events, []), drained=True)
    for kind in (ev.ERROR, ev.RUN_FAILED):
        report = {"type": kind, "data": {"message": "no", "code": "in_band"}}
        yield case(
            f"in-band {kind}",
            events=(*events, report),
            expect=FAILED,
            code="in_band",
            drained=True,
        )
    yield case(
        "in-band started and completed",
        events=(
            ev.started("theirs", None, 7),
            *events,
            ev.completed("theirs"),
        ),
        drained=True,
    )
    yield case("produce raises", wrap=_raising, expect=FAILED, faulty=True)
    for at in sorted({0, count // 2, count}):
        yield case(
            f"the source raises before event {at}",
            script={"errors": {at: Injected("source")}},
            expect=FAILED,
            faulty=True,
        )
    yield case(
        "the source raises CancelledError of itself",
        script={"errors": {count // 2: asyncio.CancelledError()}},
        expect=FAILED,
        faulty=True,
    )
    yield case("final_text() gives text", wrap=_producer, drained=True)
    yield case("final_text() raises", wrap=_bad_producer, expect=FAILED, faulty=True)
    yield case(
        "an invalid event",
        events=(*events[:2], 42, *events[2:]),
        expect=FAILED,
        code="invalid_event",
        faulty=True,
    )


def _limits(reading: Reading, mode: OnDisconnect) -> Iterator[Case]:
    """Time limits, and sources that do not do as they are told."""
    for phase, at in (("first_event", 0), ("idle", 2), ("total", 2)):
        yield Case(
            f"timeout.{phase}",
            reading,
            mode,
            script={"hang": at},
            insert=(0, timeout(**{phase: 5.0})),
            expect=FAILED,
            code=f"timeout.{phase}",
            faulty=True,
        )
    yield Case(
        "the source's cleanup hangs",
        reading,
        mode,
        script={"finally_hangs": True, "errors": {2: Injected("source")}, "hang": 2},
        insert=(0, timeout(idle=5.0)),
        expect=FAILED,
        code=None,
        faulty=True,
    )


def _operators(normal: Seen, reading: Reading, mode: OnDisconnect) -> Iterator[Case]:
    """An operator that raises or hangs: one more at every place, and each of the given."""
    for at in range(len(normal.names) + 1):
        yield Case(
            f"an operator put before operator {at + 1} raises",
            reading,
            mode,
            insert=(at, map_(_raises, name="raises")),
            expect=FAILED,
            faulty=True,
        )
    for k, stage in normal.stages.items():
        name = f"operator {k + 1}, {normal.names[k]}"
        own = COMPLETED if stage.on_error != "fail" else FAILED
        if stage.on_event is not None:
            yield Case(
                f"{name}, raises in on_event",
                reading,
                mode,
                inject=(k, "on_event"),
                expect=own,
                faulty=True,
            )
        for part, expect in (
            ("finish", own),
            ("settle", FAILED),
            ("close", COMPLETED),
        ):
            if getattr(stage, part) is None:
                continue
            yield Case(
                f"{name}, raises in {part}",
                reading,
                mode,
                inject=(k, part),
                expect=expect,
                faulty=True,
            )
            yield Case(
                f"{name}, hangs in {part}",
                reading,
                mode,
                inject=(k, part),
                hangs=True,
                expect=COMPLETED if part == "close" else FAILED,
                code="settle_timeout",
                faulty=True,
            )


def steps(
    action: Action, reading: Reading, mode: OnDisconnect, second: int | None = None
) -> Iterator[Case]:
    """Give one disturbance at every step, without end."""
    row = {
        "cancel": "run.cancel",
        "task": "the reader's task is cancelled",
        "aclose": "the reader closes",
        "detach": "run.detach",
        "stop": "an operator's timer stops the turn",
    }[action]
    expect = STOPPED
    code = None
    if action == "detach":
        expect = COMPLETED
    elif action == "stop":
        expect, code = FAILED | COMPLETED, "timeout.total"
    step = 0
    while True:
        yield Case(
            row if second is None else f"{row}, then the reader's task is cancelled",
            reading,
            mode,
            action=action,
            step=step,
            second=second,
            expect=expect if second is None else expect | CANCELLED,
            code=code,
            drained=action == "detach" and second is None,
            faulty=action == "stop",
        )
        step += 1


def _raising(_: Scripted) -> Callable[..., Any]:
    def produce() -> Any:
        raise Injected("produce")

    return produce


def _producer(script: Scripted) -> Callable[..., Any]:
    return lambda: ChatTurnProducer(script(), lambda: "all of it")


def _bad_producer(script: Scripted) -> Callable[..., Any]:
    def final_text() -> str:
        raise Injected("final_text")

    return lambda: ChatTurnProducer(script(), final_text)


def _raises(event: Any) -> Any:
    """Raise on the first event of the source: once the turn is running."""
    if event.get("type") in _ENVELOPE:
        return event
    raise Injected("an operator")
