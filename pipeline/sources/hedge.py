"""`hedge`: a second source beside one that keeps the turn waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operators.deadline import is_seconds
from operators.errors import CompositionError
from operators.event import llm_call
from operators.source import ChatTurnProducer

from .attempts import noted
from .candidate import Answer, Candidate, Choice, Combined, named
from .pulling import Ended, Pulling

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from operators.turn import TurnContext


def hedge(
    source: Callable[..., Any],
    other: Callable[..., Any] | None = None,
    *,
    after: float = 2.0,
) -> Combined:
    """Ask `other` as well where `source` gives no content within `after` seconds.

    Without `other` the same source is asked a second time. The first that gives
    content, or ends, has won: the loser is stopped, its connection closed, and the
    turn ends only when that is done. Where one fails before its content, it is logged
    and the other goes on, or is asked at once.

    Emits: what the winner gives, lists of one read untouched, and the `llm_call` events
        that the other has given so far. A loser that has reported none yet leaves one
        `llm_call` with `hedged: true` and no token counts, provenance `"estimated"`: it
        may be charged for.
    Holds back: what each gives before its first content, at most 1,024 reads.
        Heartbeats pass at once, also ahead of it.
    Raises: the first failure where both fail, the other one in its notes.
        CompositionError: not a source, or `after` is no positive number.
    Order: each source is read by a task of its own, at most one read ahead. The cleanup
        of a loser that takes longer than 5 s is cancelled as well.
    """
    first = Choice(source)
    second = first if other is None else Choice(other)
    if not is_seconds(after):
        raise CompositionError(
            f"hedge(after={after!r}): give a positive number of seconds"
        )

    def hedge(turn: TurnContext) -> ChatTurnProducer:
        answer = Answer()
        stream = _raced(turn, first, second, after, answer)
        return ChatTurnProducer(stream, answer.final_text)

    return named(hedge, "hedge", first, second)


async def _raced(
    turn: TurnContext, first: Choice, second: Choice, after: float, answer: Answer
) -> AsyncGenerator[Any, None]:
    pulling = Pulling(turn)
    racing = [Candidate(first, turn)]
    failures: list[tuple[str, Exception]] = []
    alone = True
    winner: Candidate | None = None
    reads: list[Any] = []
    began = turn.clock()
    pulling.start(racing[0], "hedge")
    try:
        while winner is None:
            left = max(after - (turn.clock() - began), 0.0) if alone else None
            arrival = await pulling.next(within=left)
            if not isinstance(arrival, Ended):
                candidate, item = arrival
                if not isinstance(item, Ended):
                    reads = candidate.admit(item)
                    if candidate.begun:
                        winner = candidate
                        break
                    for heartbeat in reads:
                        yield heartbeat
                    continue
                if item.error is None:
                    winner = answer.candidate = candidate
                    reads = candidate.released()
                    break
                racing.remove(candidate)
                for usage in candidate.usage():
                    yield usage
                if not isinstance(item.error, Exception):
                    raise item.error
                failures.append((candidate.name, item.error))
                if len(failures) == 2 or turn.ending is not None:
                    raise noted(failures[0][1], failures[1:], "hedge")
                turn.log("hedge: a source failed", item.error, source=candidate.name)
            if alone:
                alone = False
                if turn.ending is None:
                    racing.append(Candidate(second, turn))
                    pulling.start(racing[-1], "hedge")
        losers = [one for one in racing if one is not winner]
        for loser in losers:
            pulling.leave(loser)
        for read in reads:
            yield read
        for loser in losers:
            for usage in loser.usage() or [[_unreported()]]:
                yield usage
        while answer.candidate is None:
            arrival = await pulling.next()
            assert not isinstance(arrival, Ended), "nothing is due"
            candidate, item = arrival
            if candidate is not winner:
                continue
            if not isinstance(item, Ended):
                yield item
            elif item.error is None:
                answer.candidate = winner
            else:
                raise item.error
    finally:
        await pulling.close()


def _unreported() -> dict[str, Any]:
    return llm_call(hedged=True, finishReason="cancelled", provenance="estimated")
