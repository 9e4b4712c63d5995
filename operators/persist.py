"""`persist`: the sink that stores the turn."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .deadline import is_seconds
from .drafts import Drafts
from .errors import CompositionError
from .operator import Operator, Stage, bind_turn, name_of
from .saving import tried

if TYPE_CHECKING:
    from .turn import TurnContext, TurnRecord


def persist(
    save: Callable[..., object],
    /,
    *,
    partial: bool = False,
    retries: int = 0,
    backoff: float = 0.1,
    timeout: float | None = None,
    every: float | None = None,
    name: str | None = None,
) -> Operator:
    """Call `save(record)` with the TurnRecord, once the source is drained.

    With `partial=True` on every end, with what was produced and the status. `save` may
    take the turn as its second required parameter. It is tried `1 + retries` times,
    `backoff` seconds apart, doubling; each try may take `timeout` seconds. All of it
    lies within the turn's `settle_timeout`.

    With `every`, what there is of the turn is also saved while it streams, every so
    many seconds of the turn's clock, if something was added: a record whose status is
    `"streaming"`, and which has passed the transforms that stand before. It is saved in
    the background, so a slow save never delays the stream; it skips beats, since one
    draft is in flight at a time. Drafts are not retried, a failed one is logged. A turn
    that has drafts is always saved at its end too (`partial` is implied), after the
    draft in flight: that may take a quarter of `settle_timeout` more, then it is
    cancelled. Give an async `save`: a sync one, and sync transforms, block the event
    loop at each beat.

    All records of a turn have one `execution_id`, and a save may be repeated: make
    `save` an upsert by it. A write that was cancelled may still reach the database, so
    let a draft replace nothing but a draft:

        INSERT INTO turns (id, status, text) VALUES (?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET status = excluded.status, text = excluded.text
        WHERE turns.status = 'streaming'

    Raises: (failing the turn) what the last try raised; then nothing after it settles.
        CompositionError: an argument is out of its range.
    Order: after `accumulate`, and after the transforms that it shall store.
    """
    _check(partial, retries, backoff, {"timeout": timeout, "every": every})
    bind = bind_turn(save)
    label = name or f"persist({name_of(save)})"

    def settle(turn: TurnContext) -> Awaitable[None] | None:
        record = turn.record()
        bound = save if bind is None else bind(turn)
        if turn.recording is not None:
            return recorded(turn, bound, turn.recording(label, record))
        if retries or timeout is not None:
            return again(turn, bound, record)
        value: Any = bound(record)
        if value is not None and inspect.isawaitable(value):
            return awaited(turn, value)
        turn.persisted = True
        return None

    async def recorded(
        turn: TurnContext,
        bound: Callable[..., object],
        recording: Awaitable[TurnRecord],
    ) -> None:
        await again(turn, bound, await recording)

    async def awaited(turn: TurnContext, pending: Awaitable[object]) -> None:
        await pending
        turn.persisted = True

    async def again(
        turn: TurnContext, bound: Callable[..., object], record: TurnRecord
    ) -> None:
        def told(error: BaseException) -> None:
            turn.log(f"{label} raised, trying again", error, operator=label)

        await tried(
            bound, record, retries=retries, backoff=backoff, limit=timeout, again=told
        )
        turn.persisted = True

    def open_drafting(turn: TurnContext) -> Stage:
        assert every is not None, "it is what opens this"
        bound = save if bind is None else bind(turn)
        drafts = Drafts(bound, turn, every=every, limit=timeout, label=label)

        def settle_last() -> Awaitable[None] | None:
            pending = drafts.stop()
            return settle(turn) if pending is None else after(turn, pending)

        return Stage(
            drafts.on_event,
            awaits=False,
            settle=settle_last,
            when="always",
            close=drafts.close,
        )

    async def after(turn: TurnContext, pending: Awaitable[None]) -> None:
        await pending
        storing = settle(turn)
        if storing is not None:
            await storing

    partial = partial or every is not None
    stage = Stage(settle=settle, when="always" if partial else "drained", by_turn=True)
    return Operator(
        label,
        open_drafting if every is not None else None,
        stage=stage if every is None else None,
        detail={
            "kind": "persist",
            "partial": partial,
            "retries": retries,
            "every": every,
        },
        needs="accumulate",
        fixed=True,
    )


def _check(
    partial: object, retries: object, backoff: object, limits: dict[str, object]
) -> None:
    if partial.__class__ is not bool:
        raise CompositionError(f"partial must be True or False, not {partial!r}")
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise CompositionError(f"retries must be an int, 0 or more, not {retries!r}")
    if not is_seconds(backoff) and (isinstance(backoff, bool) or backoff != 0):
        raise CompositionError(
            f"backoff must be a number of seconds, 0 or more, not {backoff!r}"
        )
    for name, limit in limits.items():
        if limit is not None and not is_seconds(limit):
            raise CompositionError(
                f"{name} must be a positive number of seconds, not {limit!r}; leave it "
                f"out for none"
            )
