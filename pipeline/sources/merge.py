"""`merge`: several sources as one, in order of arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from operators.errors import CompositionError
from operators.event import PART_UPDATED
from operators.source import ChatTurnProducer

from .attempts import noted
from .candidate import Candidate, Choice, Combined, named
from .pulling import Ended, Pulling

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from operators.event import Event
    from operators.turn import TurnContext


def merge(
    *sources: Callable[..., Any],
    limit: int | None = None,
    on_error: Literal["fail", "log"] = "fail",
    **named_sources: Callable[..., Any],
) -> Combined:
    """Give the events of several sources as one, in order of their arrival.

    The parts of a source given by name are told apart by it: `merge(a=draft, b=check)`
    makes `text-1` of each `a/text-1` and `b/text-1`. Those of the others stay as they
    are, so sources whose parts have the same ids must be named. At most `limit` are
    read at a time; the next begins when one has ended.

    Where one fails, `on_error="fail"` fails the whole, the others closed; `"log"` logs
    it and goes on with the others, and fails only where all have.

    A producer's `final_text()` counts only where each source has one that is not
    empty: they are joined in the order of the sources, a blank line between.

    Emits: lists of one read as one list.
    Raises: CompositionError: no source, one that is none, or a `limit` below 1.
    Order: each source is read by a task of its own, at most one read ahead.
    """
    choices = [("", Choice(one)) for one in sources]
    choices += [(name, Choice(one)) for name, one in named_sources.items()]
    if not choices:
        raise CompositionError("merge() has no source: give it one or more")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise CompositionError(f"merge(limit={limit!r}): give 1 or more, or None")
    if on_error not in ("fail", "log"):
        raise CompositionError(f'merge(on_error={on_error!r}): give "fail" or "log"')

    def merge(turn: TurnContext) -> ChatTurnProducer:
        candidates = {Candidate(one, turn): name for name, one in choices}
        stream = _merged(
            turn, candidates, limit or len(candidates), log=on_error == "log"
        )

        async def final_text() -> str:
            texts = [await one.final_text() for one in candidates]
            return "\n\n".join(texts) if all(texts) else ""

        return ChatTurnProducer(stream, final_text)

    return named(merge, "merge", *(one for _, one in choices))


async def _merged(
    turn: TurnContext, candidates: dict[Candidate, str], limit: int, *, log: bool
) -> AsyncGenerator[Any, None]:
    pulling = Pulling(turn)
    waiting = list(reversed(candidates))
    failures: list[tuple[str, Exception]] = []
    going = 0
    try:
        while going or waiting:
            while waiting and going < limit:
                pulling.start(waiting.pop(), "merge")
                going += 1
            arrival = await pulling.next()
            assert not isinstance(arrival, Ended), "nothing is due"
            candidate, item = arrival
            if not isinstance(item, Ended):
                name = candidates[candidate]
                yield with_part_ids(item, name) if name else item
                continue
            going -= 1
            error = item.error
            if error is None:
                continue
            if not log or not isinstance(error, Exception):
                raise error
            failures.append((candidate.name, error))
            if len(failures) == len(candidates):
                raise noted(failures[0][1], failures[1:], "merge")
            turn.log("merge: a source failed", error, source=candidate.name)
    finally:
        await pulling.close()


def with_part_ids(item: Any, name: str) -> Any:
    """Put `name/` before the part ids of a read; what has none stays as it is."""
    if isinstance(item, list):
        return [_renamed(event, name) for event in cast("list[Any]", item)]
    return _renamed(item, name)


def _renamed(event: Any, name: str) -> Any:
    if not isinstance(event, dict):
        return event
    known = cast("Event", event)
    data: Any = known.get("data")
    if known.get("type") != PART_UPDATED or not isinstance(data, dict):
        return known
    part: Any = cast("Event", data).get("part")
    if not isinstance(part, dict) or not isinstance(cast("Event", part).get("id"), str):
        return known
    told: Event = {**part, "id": f"{name}/{part['id']}"}
    changed: Event = {**data, "part": told}
    return {**known, "data": changed}
