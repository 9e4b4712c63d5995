"""`run_durable_turn`: one turn of a model as one step, replayed without the model."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, cast

from operators.drive import called, checked, failure_of
from operators.message import Message
from operators.source import ChatTurnProducer, iterator_of
from operators.turn import logger

from ..execution import canonical_hash
from ..stores.memory import diverged
from .lease import Lease, check_lease, taken
from .patience import patiently
from .runs import forgotten, new_run

if TYPE_CHECKING:
    from operators.event import Event

    from ..stores.contract import NewRun, Run, Step, Store

T = TypeVar("T")

Mode: TypeAlias = Literal["fresh", "resumed", "replayed"]

END: Final = object()


class Standing:
    """What is known of a turn so far; apart from its stream, which may be dropped."""

    __slots__ = ("mode", "record", "text")

    def __init__(self) -> None:
        """Know nothing yet."""
        self.mode: Mode | None = None
        self.record: Run | None = None
        self.text: str | None = None


class DurableTurn:
    """A turn that is kept: read `stream`, once; nothing happens before its first event.

    `stream` may be closed, or dropped, at any event: its lease is given back then.
    """

    __slots__ = ("_standing", "stream")

    def __init__(self, standing: Standing, stream: AsyncGenerator[Event]) -> None:
        """Offer `stream`, which writes what it knows into `standing`."""
        self._standing = standing
        self.stream: Final = stream

    @property
    def mode(self) -> Mode | None:
        """How the turn runs; None before the first event."""
        return self._standing.mode

    @property
    def replayed(self) -> bool:
        """Whether it had ended before, and is only told again."""
        return self._standing.mode == "replayed"

    @property
    def final_text(self) -> str | None:
        """The whole text; None before the end."""
        return self._standing.text

    @property
    def record(self) -> Run | None:
        """The run in the store, as it was claimed, and then as it ended."""
        return self._standing.record


def run_durable_turn(
    *,
    store: Store,
    run_id: str,
    manifest: Mapping[str, Any],
    produce: Callable[[], Any],
    replay_event: Callable[[str], Event],
    accumulate: Callable[[Event], str | None] | None = None,
    worker_id: str | None = None,
    lease: float = 60.0,
    intent: str = "turn",
    session: str | None = None,
) -> DurableTurn:
    """Produce a turn once: completed, it is one `replay_event(text)` from then on.

    `produce` returns, or is a coroutine that returns, an async iterable of events or a
    ChatTurnProducer, whose text wins unless it is empty. `accumulate` tells the text that
    an event adds; by default the text parts are put together as `ops.accumulate()` does.
    A turn that failed, or whose process died, is produced again from its start.
    `session` is kept with the run, for `SessionSupervisor.active`.

    Raises, at the stream's first event: InputMismatch, LeaseHeld, StepDivergence,
    DurableError (`forgotten`, `cancelled`), StoreError; later LeaseLost, and what
    `produce` and its events raise, after the run has ended as failed.
    """
    check_lease(lease)
    new = new_run(run_id, manifest, "turn", session)
    input_hash = canonical_hash(manifest.get("input"))
    standing = Standing()

    async def told(owned: Lease) -> AsyncGenerator[Event]:
        step = await first_step(store, owned)
        if step is not None and step.status == "completed":
            diverged(run_id, step, intent, input_hash)
            standing.mode = "replayed"
            whole = str(step.result["finalText"])
            await _settled(owned, intent, whole)
            standing.text = whole
            yield replay_event(whole)
            return
        if owned.run.status == "completed":
            raise forgotten(owned.run)
        standing.mode = "fresh"
        await begun(store, owned, intent, input_hash)
        source = _Source(owned, produce, Text(accumulate))
        try:
            while (events := await source.read()) is not None:
                for event in events:
                    yield event
            whole = await source.whole()
        finally:
            await source.close()
        await ended(store, owned, {"finalText": whole})
        await _settled(owned, intent, whole)
        standing.text = whole

    stream = owned_stream(
        store, new=new, standing=standing, told=told, worker=worker_id, lease=lease
    )
    return DurableTurn(standing, stream)


async def owned_stream(
    store: Store,
    *,
    new: NewRun,
    standing: Standing,
    told: Callable[[Lease], AsyncGenerator[Event]],
    worker: str | None,
    lease: float,
    beat: float | None = None,
) -> AsyncGenerator[Event]:
    """Give what `told` gives, under a lease that is given back at the end."""
    owned = await taken(store, new, worker=worker, lease=lease, beat=beat)
    events = told(owned)
    try:
        standing.record = owned.run
        async for event in events:
            yield event
    finally:
        try:
            await events.aclose()
        finally:
            await owned.close()
    standing.record = await patiently(lambda: store.status(new.id), lease)


async def _settled(owned: Lease, intent: str, whole: str) -> None:
    metadata = {"chars": len(whole)}
    await owned.settle("completed", {"notes": intent, "metadata": metadata})


async def first_step(store: Store, owned: Lease) -> Step | None:
    """Read what a turn recorded before: it is one step."""
    steps = await owned.write(lambda: store.steps(owned.run.id))
    return steps[0] if steps and steps[0].index == 0 else None


async def begun(store: Store, owned: Lease, intent: str, input_hash: str) -> None:
    """Record that the turn's step runs."""
    await owned.write(
        lambda: store.begin_step(
            owned.run.id,
            owned.fence,
            0,
            intent=intent,
            kind="llm",
            input_hash=input_hash,
        )
    )


async def ended(store: Store, owned: Lease, result: Mapping[str, Any]) -> None:
    """Record that the turn's step is done."""
    await owned.write(
        lambda: store.end_step(owned.run.id, owned.fence, 0, result=dict(result))
    )


class Text:
    """The text that events make: as a user tells it, or as a message has it."""

    def __init__(self, accumulate: Callable[[Event], str | None] | None = None) -> None:
        """Start empty."""
        self._accumulate = accumulate
        self._pieces: list[str] = []
        self._message = Message()

    def add(self, event: Event) -> None:
        """Take one event in."""
        if self._accumulate is not None:
            self._pieces.append(self._accumulate(event) or "")
        elif "type" in event:
            self._message.on_event(event)

    def whole(self) -> str:
        """Tell the text so far."""
        return "".join(self._pieces) or self._message.text()


class _Source:
    """A producer's events; that it failed is recorded before anybody hears of it."""

    def __init__(self, owned: Lease, produce: Callable[[], Any], text: Text) -> None:
        self._owned = owned
        self._produce = produce
        self._text = text
        self._events: AsyncIterator[Any] | None = None
        self._final_text: Callable[[], Any] | None = None

    async def read(self) -> list[Event] | None:
        """Give what the producer gives next; None at its end."""
        return await recorded(self._owned, self._read)

    async def whole(self) -> str:
        """Tell the text: the producer's own, or what was put together."""
        return await recorded(self._owned, self._whole)

    async def close(self) -> None:
        """Close what the producer opened; an error of that is logged."""
        close = getattr(self._events, "aclose", None)
        if close is not None:
            try:
                await close()
            except Exception as exc:
                logger.warning("closing the source of %r: %r", self._owned.run.id, exc)

    async def _read(self) -> list[Event] | None:
        if self._events is None:
            made = self._produce()
            if inspect.isawaitable(made):
                made = await made
            if isinstance(made, ChatTurnProducer):
                self._final_text = made.final_text
                made = made.stream
            self._events = iterator_of(made)
        item = await anext(self._events, END)
        if item is END:
            return None
        items = cast("list[Any]", item) if isinstance(item, list) else [item]
        events = [checked(one) for one in items]
        for event in events:
            self._text.add(event)
        return events

    async def _whole(self) -> str:
        own = None if self._final_text is None else await called(self._final_text)
        return own or self._text.whole()


async def recorded(owned: Lease, work: Callable[[], Awaitable[T]]) -> T:
    """Do a part of a turn's work; where it fails, the step and the run are failed first.

    A cancellation that somebody asked for is not recorded: the run may go on elsewhere.
    """
    try:
        with owned.working():
            return await work()
    except BaseException as exc:
        failure = failure_of(exc)
        if isinstance(failure, Exception):
            await owned.fail(failure, {}, step=0)
        if failure is exc:
            raise
        raise failure from exc
