"""What the tests of turns share: a recorded seven-stage turn, and the check for leaks.

`Seen` notes what a turn did; `seven(...)` composes the seven stages around it;
`alone(...)` runs a test in a loop of its own and fails it if a task or an async generator
is left behind.
"""

import asyncio
import gc
import json
import logging
from types import AsyncGeneratorType

import operators as ops
from pipeline import Pipeline, TurnIdentity

IDENTITY = TurnIdentity(tenant_id="ws-1", session_id="s-1", user_id="u-1", turn_index=0)
PART = {"type": "text", "id": "p1"}
HANG_S = 20  # a guard against hangs, not a claim about time


def delta(text):
    return {"type": "message.part.updated", "data": {"part": PART, "delta": text}}


A, B, C = delta("a"), delta("b"), delta("c")
TERMINALS = {"session.run.completed", "session.run.failed", "session.run.cancelled"}


class Seen:
    """What one turn did."""

    def __init__(self):
        self.events = []  # as a tap behind the lifecycle saw them
        self.saved = []
        self.completed = []
        self.flushed = 0
        self.logs = []
        self.opened = 0
        self.closed = 0
        self.order = []

    def tap(self, event):
        self.events.append(event)

    def save(self, record):
        self.order.append("persist")
        self.saved.append(record)

    def complete(self, record):
        self.order.append("complete")
        self.completed.append(record)

    def flush(self):
        self.order.append("flush")
        self.flushed += 1

    def log(self, message, meta):
        self.logs.append((message, dict(meta)))

    @property
    def kinds(self):
        return kinds(self.events)

    @property
    def messages(self):
        return [message for message, _ in self.logs]

    def source(self, *items, error=None, hang=False):
        """Make a source function that notes when it is opened and closed."""

        async def produce():
            self.opened += 1
            try:
                for item in items:
                    await asyncio.sleep(0)
                    yield item
                if error is not None:
                    raise error
                if hang:
                    await asyncio.get_running_loop().create_future()
            finally:
                self.closed += 1
                self.order.append("closed")

        return produce

    def one_terminal(self):
        """Assert that there is exactly one terminal event, and that it is the last."""
        found = [kind for kind in self.kinds if kind in TERMINALS]
        assert len(found) == 1, self.kinds
        assert self.kinds[-1] in TERMINALS, self.kinds
        return found[0]


def seven(
    seen,
    source,
    *,
    partial=False,
    tap=None,
    transform=str.upper,
    save=None,
    complete=None,
    flush=None,
    errors="message",
    after=None,
    first=None,
):
    """Compose the seven stages around `seen`."""
    chat = Pipeline(source)
    if first is not None:
        chat |= first
    chat |= ops.lifecycle(errors=errors)
    if after is not None:
        chat |= after
    return (
        chat
        | ops.tap(tap or seen.tap)
        | ops.accumulate()
        | ops.transform(transform, name="transform")
        | ops.persist(save or seen.save, partial=partial)
        | ops.complete(complete or seen.complete)
        | ops.trace_flush(flush or seen.flush)
    )


def kinds(events):
    return [event.get("type") for event in events]


def short(events):
    """Name events briefly: a delta by its text, an envelope event by its last word."""
    return [
        event["data"]["delta"]
        if event["type"] == "message.part.updated"
        else event["type"].rpartition(".")[2]
        for event in events
    ]


def lines(chunks):
    """Read NDJSON chunks back."""
    return [json.loads(line) for line in b"".join(chunks).split(b"\n") if line]


async def read(body):
    """Read a body to its end."""
    return [item async for item in body]


async def ticks(n):
    for _ in range(n):
        await asyncio.sleep(0)


def unfinished():
    """List the async generators that are alive and have not ended (see conftest)."""
    gc.collect()
    return [
        one
        for one in gc.get_objects()
        if type(one) is AsyncGeneratorType and one.ag_frame is not None
    ]


async def guarded(test):
    """Run a test; fail it where it hangs, leaves a task, a generator or an error."""
    loop = asyncio.get_running_loop()
    complaints = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    ours = asyncio.current_task()
    async with asyncio.timeout(HANG_S):
        await test
    await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not ours]
    assert not left, f"tasks left behind: {left}"
    opened = unfinished()
    assert not opened, f"generators left behind: {opened}"
    assert not complaints, f"the loop complains: {complaints}"


def alone(test, *, debug=False):
    """Run a test in a loop of its own."""
    if debug:  # its warning about slow callbacks would be a claim about time
        logging.getLogger("asyncio").setLevel(logging.ERROR)
    asyncio.run(guarded(test), debug=debug)
