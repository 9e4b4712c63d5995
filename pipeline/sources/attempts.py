"""Sources asked one after another until one begins: `retry` and `fallback`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from operators.errors import TurnError

from .candidate import Answer, Before, Candidate, Choice

if TYPE_CHECKING:
    from operators.turn import TurnContext

Next = Callable[[int, Exception], "tuple[Choice, float] | None"]
"""What to ask after attempt number N failed, and after which pause; None: give up."""


async def asked_in_turn(
    turn: TurnContext,
    first: Choice,
    then: Next,
    *,
    kind: str,
    answer: Answer,
    before: Before = "first_content",
) -> AsyncGenerator[Any, None]:
    """Give the events of the first source that begins.

    A failed attempt is closed before the next one begins; of what it gave only its
    usage is delivered. A turn that has been asked to stop begins no further attempt.
    """
    choice = first
    failures: list[tuple[str, Exception]] = []
    while True:
        candidate = Candidate(choice, turn)
        try:
            failure: Exception | None = None
            while not candidate.begun:
                try:
                    item = await candidate.next()
                except StopAsyncIteration:
                    break
                except Exception as error:
                    failure = error
                    break
                for read in candidate.admit(item, before):
                    yield read
            else:
                async for item in candidate.rest():
                    yield item
            if failure is None:
                for held in candidate.released():  # it ended without content
                    yield held
                answer.candidate = candidate
                return
        finally:
            await candidate.close()
        for usage in candidate.usage():
            yield usage
        number = len(failures) + 1
        further = None if turn.ending is not None else then(number, failure)
        if further is None:
            raise noted(failure, failures, kind)
        failures.append((f"attempt {number}, {choice.name},", failure))
        following, pause = further
        turn.log(
            f"{kind}: attempt {number} failed, asking {following.name} next",
            failure,
            attempt=number,
            source=choice.name,
            pause_s=round(pause, 3),
        )
        choice = following
        if pause:
            await asyncio.sleep(pause)
        if turn.ending is not None:
            raise noted(failure, failures[:-1], kind)


def noted(
    failure: Exception, others: list[tuple[str, Exception]], kind: str
) -> Exception:
    """Return a failure with the others, each by its name, in its notes."""
    for name, error in others:
        code = f" [{error.code}]" if isinstance(error, TurnError) else ""
        note = f"{kind}: {name} failed with {type(error).__name__}{code}: {error}"
        if note not in getattr(failure, "__notes__", ()):  # one raised again and again
            failure.add_note(note)
    return failure
