"""`fallback`: other sources in place of one that fails before it began."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operators.errors import CompositionError
from operators.source import ChatTurnProducer

from .attempts import asked_in_turn
from .candidate import Answer, Choice, Combined, named
from .failures import Failures, is_source_failure, matching

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from operators.turn import TurnContext


def fallback(
    source: Callable[..., Any],
    *others: Callable[..., Any],
    on: Failures = is_source_failure,
) -> Combined:
    """Ask the next source where one fails before its first content.

    `on` tells after which failures; by default a source's own (SourceError, refusals
    such as 401 included) and the network's, so that a mistake in the code still shows.
    A source that reports its failure in-band, with an `error` event, has answered.

    Emits: what the source that began gives, lists of one read untouched, and of the
        failed ones their `llm_call` events: they have been paid for.
    Holds back: what a source gives before its first content, at most 1,024 reads.
        Heartbeats pass at once, also ahead of it.
    Raises: the last failure, those of the others in its notes; each is in the turn's
        log. CompositionError: not a source, or no other one.
    """
    choices = [Choice(one) for one in (source, *others)]
    if not others:
        raise CompositionError(
            f"fallback({choices[0].name}) has nothing to fall back on: give it two "
            f"sources or more, or use retry"
        )
    meant = matching(on, "fallback")

    def then(attempt: int, error: Exception) -> tuple[Choice, float] | None:
        if attempt == len(choices) or not meant(error):
            return None
        return choices[attempt], 0.0

    def fallback(turn: TurnContext) -> ChatTurnProducer:
        answer = Answer()
        stream = asked_in_turn(turn, choices[0], then, kind="fallback", answer=answer)
        return ChatTurnProducer(stream, answer.final_text)

    return named(fallback, "fallback", *choices)
