"""Operators that each do one thing wrong, for the exit matrix to find."""

import asyncio
import contextlib

import operators as ops
from operators.event import TERMINALS, delta, text_part


async def _ticks(n):
    for _ in range(n):
        await asyncio.sleep(0)


def swallows_cancellation():
    """An async tap that takes every CancelledError for its own."""

    async def impatient(event):
        with contextlib.suppress(asyncio.CancelledError):
            await _ticks(3)

    return ops.tap(impatient, name="swallows_cancellation")


def ends_on_cancellation():
    """A stream that takes a cancellation for its end."""

    async def ends(source):
        try:
            async for event in source:
                await asyncio.sleep(0)
                yield event
        except asyncio.CancelledError:
            return

    return ops.through(ends, name="ends_on_cancellation")


def loses_its_rest():
    """One event behind, and no finish that gives the last one."""

    class Behind:
        shape = "flat_map"
        types = ("message.part.updated",)

        def __init__(self):
            self.held = []

        def on_event(self, event):
            out, self.held = self.held, [event]
            return out

    return ops.operator(Behind, name="loses_its_rest")


def loses_on_cancel():
    """Holds text back, and drops it where the turn is stopped."""

    class Behind:
        shape = "flat_map"
        types = ("message.part.updated",)

        def __init__(self, turn):
            self.turn = turn
            self.held = []

        def on_event(self, event):
            self.held.append(event)
            if len(self.held) < 3:
                return []
            out, self.held = self.held, []
            return out

        def finish(self):
            return [] if self.turn.ending.status == "cancelled" else self.held

    return ops.operator(Behind, name="loses_on_cancel")


def second_terminal():
    """Ends the turn itself, as well."""

    def doubled(event):
        return [event, event] if event["type"] in TERMINALS else [event]

    return ops.flat_map(doubled, name="second_terminal")


def after_the_terminal():
    """Says something more after the last word."""

    def more(event):
        if event["type"] in TERMINALS:
            return [event, {"type": "stats"}]
        return [event]

    return ops.flat_map(more, name="after_the_terminal")


def holds_the_terminal():
    """One event behind, the terminal included: that never comes."""

    class Behind:
        shape = "flat_map"

        def __init__(self):
            self.held = []

        def on_event(self, event):
            out, self.held = self.held, [event]
            return out

        def finish(self):
            out, self.held = self.held, []
            return out

    return ops.operator(Behind, name="holds_the_terminal")


def leaks_a_task():
    """Starts a task and forgets it."""

    class Beats:
        def __init__(self):
            self.task = None

        def on_event(self, event):
            if self.task is None:
                self.task = asyncio.ensure_future(self.beat())

        async def beat(self):
            while True:
                await asyncio.sleep(30)

    return ops.operator(Beats, name="leaks_a_task")


def leaks_a_timer():
    """Sets a timer and leaves it."""

    class Alarm:
        def __init__(self):
            self.set = False

        def on_event(self, event):
            if not self.set:
                self.set = True
                asyncio.get_running_loop().call_later(600, print)

    return ops.operator(Alarm, name="leaks_a_timer")


def leaks_a_generator():
    """Reads through a generator of its own, and does not close that."""

    async def inner(source):
        try:
            async for event in source:
                yield event
        finally:
            await asyncio.sleep(0)

    async def outer(source):
        async for event in inner(source):
            yield event

    return ops.through(outer, name="leaks_a_generator")


def repeats_on_cancel():
    """Gives its last event again where the turn was cancelled."""

    class Repeats:
        types = ("message.part.updated",)

        def __init__(self, turn):
            self.turn = turn
            self.last = None

        def on_event(self, event):
            self.last = event

        def finish(self):
            if self.turn.ending.status == "cancelled" and self.last is not None:
                return [self.last]

    return ops.operator(Repeats, name="repeats_on_cancel")


def shares_its_state():
    """Counts in a variable that all turns of the pipeline share."""
    count = 0

    def numbered(event):
        nonlocal count
        if event["type"] != "message.part.updated" or "delta" not in event["data"]:
            return event
        count += 1
        data = event["data"]
        return delta(data["part"], f"{count}{data['delta']}")

    return ops.map(numbered, name="shares_its_state")


def hangs_in_finish():
    """Waits in finish for what never comes."""

    class Waits:
        def on_event(self, event):
            pass

        async def finish(self):
            await asyncio.get_running_loop().create_future()

    return ops.operator(Waits, name="hangs_in_finish")


def yields_on_close():
    """Catches GeneratorExit and yields once more."""

    async def last_word(source):
        try:
            async for event in source:
                yield event
        except GeneratorExit:
            yield delta(text_part("p9"), "bye")

    return ops.through(last_word, name="yields_on_close")


def writes_into_events():
    """Marks the part that all deltas of a text share."""

    def marked(event):
        part = event["data"]["part"]
        part["seen"] = part.get("seen", 0) + 1
        return event

    return ops.map(marked, types=("message.part.updated",), name="writes_into_events")


def raises_from_close():
    """Fails in its cleanup."""

    class Breaks:
        def on_event(self, event):
            pass

        def close(self):
            raise OSError("cannot close")

    return ops.operator(Breaks, name="raises_from_close")


def fails_when_stopped():
    """Raises in finish where the turn was stopped early."""

    class Fails:
        def __init__(self, turn):
            self.turn = turn

        def on_event(self, event):
            pass

        def finish(self):
            if self.turn.ending.status == "cancelled":
                raise RuntimeError("not drained")

    return ops.operator(Fails, name="fails_when_stopped")


def outlives_cancellation():
    """Goes on waiting, whatever it is told."""

    async def stubborn(event):
        while True:
            try:
                await asyncio.sleep(50)
                return
            except asyncio.CancelledError:
                continue

    return ops.tap(stubborn, types=("note",), name="outlives_cancellation")


BROKEN = {
    swallows_cancellation: {"cancellation"},
    ends_on_cancellation: {"cancellation"},
    loses_its_rest: {"kept"},
    loses_on_cancel: {"kept"},
    second_terminal: {"terminal"},
    after_the_terminal: {"terminal"},
    holds_the_terminal: {"terminal"},
    leaks_a_task: {"leaks"},
    leaks_a_timer: {"leaks"},
    leaks_a_generator: {"leaks"},
    repeats_on_cancel: {"text"},
    shares_its_state: {"independent"},
    hangs_in_finish: {"ends"},
    yields_on_close: {"logs"},
    writes_into_events: {"mutation"},
    raises_from_close: {"logs"},
    fails_when_stopped: {"status"},
    outlives_cancellation: {"terminal"},
}
