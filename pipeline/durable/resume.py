"""What becomes of a turn whose worker died: pipelines made for that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from operators.errors import TurnLost
from operators.event import LLM_CALL, RUN_STARTED, Event
from operators.lifecycle import lifecycle
from operators.operator import Chain, Operator

from ..pipeline import Pipeline
from .carrier import record_key
from .records import events_of
from .seam import seam

if TYPE_CHECKING:
    from operators.turn import TurnContext

    from ..stores.contract import Chunk, Claim, Store

_SETTLING: Final = frozenset({"persist", "transform", "complete", "trace_flush"})
_METERING: Final = frozenset({"meter", "meter.text"})


def gone_on(pipeline: Pipeline, logged: Sequence[Chunk]) -> Pipeline:
    """Make the pipeline that runs a turn again, and sends only what is not logged."""
    return pipeline | seam(events_of(logged)) if logged else pipeline


async def reduced(
    pipeline: Pipeline | None,
    claim: Claim,
    logged: Sequence[Chunk],
    store: Store,
    *,
    only_recorded: bool = False,
) -> Pipeline | None:
    """Make the pipeline that settles a turn from its log, without running its source.

    Where the turn had come to its end, a sink's record is kept: then it ends as it was
    to end, and the sinks store what was kept. Else it fails as lost, and partial sinks
    store what is logged. With `only_recorded`, None where it had not come to its end.
    """
    operators = () if pipeline is None else pipeline.operators
    recorded = await _recorded(operators, claim, store)
    if recorded is None and only_recorded:
        return None
    events = events_of(logged)
    has_call = any(event.get("type") == LLM_CALL for event in events)
    kept = [op for op in operators if _settles(op, metering=not has_call)]
    if not any(op.name == "lifecycle" for op in kept):
        kept.insert(0, lifecycle())
    source = _replay(events, recorded, claim.run.id)
    return Pipeline(source) | Chain(tuple(kept)) | seam(events)


def supervised(pipeline: Pipeline, claim: Claim, store: Store) -> Pipeline:
    """Make the pipeline that reaches a supervised source: begun, or attached to.

    Attached to, it gives all of its events again: operators that hold text back have
    seen all of it then, and what is logged already stops at the seam.
    """
    adapter_of = getattr(pipeline.source, "adapter", None)
    if adapter_of is None:
        return pipeline

    async def source(turn: TurnContext) -> AsyncIterator[Event]:
        adapter = adapter_of(turn)
        handle = claim.run.handle
        events = adapter.start() if handle is None else adapter.attach(handle, None)
        seen: set[str] = set()
        try:
            async for event in events:
                if event.handle is not None and event.handle != handle:
                    handle = event.handle
                    await store.set_handle(claim.run.id, claim.fence, handle)
                if event.event_id not in seen:
                    seen.add(event.event_id)
                    yield dict(event.payload)
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    source.__name__ = getattr(pipeline.source, "__name__", "supervised")
    return Pipeline(source) | Chain(pipeline.operators)


def _settles(op: Operator, *, metering: bool) -> bool:
    kind = op.detail.get("kind", op.name)
    return (
        kind in _SETTLING
        or kind in ("lifecycle", "accumulate")
        or (metering and kind in _METERING)
    )


async def _recorded(
    operators: Sequence[Operator], claim: Claim, store: Store
) -> Mapping[str, Any] | None:
    """Return what the turn's first sink was about to store, if it had come so far."""
    sinks = [op.name for op in operators if op.detail.get("kind") == "persist"]
    for sink in sinks:  # the first to settle may be any: a partial one, or the first
        signal = await store.signal(claim.run.id, record_key(0, sink))
        if signal is not None:
            return cast("Mapping[str, Any]", signal.payload)
    return None


def _replay(
    events: list[Event], recorded: Mapping[str, Any] | None, run_id: str
) -> Callable[[], AsyncIterator[Event]]:
    async def replay() -> AsyncIterator[Event]:
        for event in events:
            if event.get("type") != RUN_STARTED:  # the lifecycle says it
                yield event
        if recorded is None or not recorded["drained"]:
            raise TurnLost(run_id)

    replay.__name__ = "replay"
    return replay
