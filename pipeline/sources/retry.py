"""`retry`: a source that is asked again where it fails before it began."""

from __future__ import annotations

import math
from random import uniform
from typing import TYPE_CHECKING

from operators.deadline import is_seconds
from operators.errors import (
    CompositionError,
    SourceIncomplete,
    SourceStatus,
    SourceTimeout,
    SourceUnreachable,
)
from operators.source import ChatTurnProducer

from .attempts import asked_in_turn
from .candidate import Answer, Before, Choice, Combined, named
from .failures import Failures, matching
from .patience import RETRIED

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from operators.turn import TurnContext


def is_passing(error: Exception) -> bool:
    """Tell whether a failure may be gone the next time: what `retry` asks again after.

    The network's (unreachable, cut, late) and the statuses 408, 425, 429, 500, 502,
    503, 504; not a refusal such as 400 or 401, nor a mistake in the code.
    """
    if isinstance(error, SourceStatus):
        return error.status in RETRIED
    return isinstance(
        error,
        (
            SourceUnreachable,
            SourceIncomplete,
            SourceTimeout,
            ConnectionError,
            TimeoutError,
        ),
    )


def retry(
    source: Callable[..., Any],
    *,
    attempts: int = 3,
    backoff: float = 0.5,
    backoff_max: float = 8.0,
    jitter: float = 0.25,
    retry_after_max: float = 60.0,
    on: Failures = is_passing,
    before: Before = "first_content",
) -> Combined:
    """Ask `source` again where it fails before it gave anything that counts.

    `attempts` counts the first one too. The pauses double from `backoff` to
    `backoff_max` seconds, give or take the share `jitter`, and are never shorter than
    the provider's `Retry-After`; where that is above `retry_after_max` seconds, the
    failure stands. `on` tells after which failures. What counts is content, or with
    `before="first_event"` any event that is no heartbeat. A source that reports its
    failure in-band, with an `error` event, has answered, and is not asked again.

    Emits: what the attempt that began gives, lists of one read untouched, and of the
        failed ones their `llm_call` events: they have been paid for.
    Holds back: what comes before the first that counts, at most 1,024 reads, so that
        nothing is delivered twice. Heartbeats pass at once, also ahead of it.
    Raises: the last failure, the earlier ones in its notes; each is in the turn's log.
        CompositionError: not a source, or a number that cannot be.
    """
    choice = Choice(source)
    if type(attempts) is not int or attempts < 1:
        raise CompositionError(f"retry(attempts={attempts!r}): give 1 or more")
    limits = {"backoff": backoff, "backoff_max": backoff_max}
    for name, seconds in {**limits, "retry_after_max": retry_after_max}.items():
        if not is_seconds(seconds):
            raise CompositionError(
                f"retry({name}={seconds!r}): give a positive number of seconds"
            )
    if isinstance(jitter, bool) or not 0 <= jitter <= 1:
        raise CompositionError(f"retry(jitter={jitter!r}): give a share from 0 to 1")
    if before not in ("first_content", "first_event"):
        raise CompositionError(
            f'retry(before={before!r}): give "first_content" or "first_event"'
        )
    meant = matching(on, "retry")

    def then(attempt: int, error: Exception) -> tuple[Choice, float] | None:
        if attempt >= attempts or not meant(error):
            return None
        asked = retry_after_of(error)
        if asked > retry_after_max:
            return None
        spread = uniform(1 - jitter, 1 + jitter)
        return choice, max(asked, doubled(attempt, backoff, backoff_max) * spread)

    def retry(turn: TurnContext) -> ChatTurnProducer:
        answer = Answer()
        stream = asked_in_turn(
            turn, choice, then, kind="retry", answer=answer, before=before
        )
        return ChatTurnProducer(stream, answer.final_text)

    return named(retry, "retry", choice)


def doubled(attempt: int, backoff: float, backoff_max: float) -> float:
    """Tell the pause after attempt number `attempt`, without its jitter."""
    return min(backoff * 2.0 ** min(attempt - 1, 60), backoff_max)


def retry_after_of(error: Exception) -> float:
    """Tell the seconds that the provider asked to wait; 0 where it did not."""
    asked = error.retry_after if isinstance(error, SourceStatus) else None
    return asked if asked is not None and 0 < asked <= math.inf else 0.0
