"""A run of an agent supervised: begun in one process, gone on with in another."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from operators.errors import SourceError

from .supervised import SupervisedEvent

if TYPE_CHECKING:
    from operators.turn import TurnContext

    from .sandbox_prompt import SandboxPrompt


class SandboxAdapter:
    """How one turn's run is reached: `start` begins it, `attach` goes on with it.

    An event's id is the server's own where it has one. The handle is JSON without
    secrets; it comes with the first event, and anew where what it takes to go on has
    changed: at each new part of the message, at 1, 2, 4, 8, ... events, and at the end.
    All that changes often is in its `cursor`.

    What a server gives again is compared with what the handle knows of the run: another
    run raises SourceIncomplete. Events of a server that sends no ids have ids too, but
    there is no going on with them: `attach` then raises SourceIncomplete, without asking.
    """

    __slots__ = ("_prompt", "_turn")

    def __init__(self, prompt: SandboxPrompt, turn: TurnContext) -> None:
        """Send nothing yet."""
        self._prompt = prompt
        self._turn = turn

    def start(self) -> AsyncGenerator[SupervisedEvent, None]:
        """Begin the run, and give its events to the end.

        Raises: what the source raises.
        """
        return self._events(None, None)

    def attach(
        self, handle: Mapping[str, Any], after_event_id: str | None
    ) -> AsyncGenerator[SupervisedEvent, None]:
        """Go on with the run of this handle, after this event; None: from its first.

        Raises: what the source raises; SourceStatus with the code `source.gone`: the
            server does not have the run any more.
            SourceError: it is no handle of such a run; code `source.handle`.
        """
        return self._events(handle, after_event_id)

    async def _events(
        self, handle: Mapping[str, Any] | None, after_event_id: str | None
    ) -> AsyncGenerator[SupervisedEvent, None]:
        run_id = None if handle is None else _run_id(handle)
        reading = await self._prompt.reading(self._turn, run_id=run_id, handles=True)
        try:
            if handle is not None:
                reading.resume(handle, after_event_id)
            while await reading.next() is not None:
                for event in reading.taken:
                    yield event
        finally:
            await reading.close()


def _run_id(handle: Mapping[str, Any]) -> str:
    run_id: Any = handle.get("runId")
    if handle.get("kind") == "sandbox" and isinstance(run_id, str) and run_id:
        return run_id
    raise SourceError(
        f"this is no handle of an agent's run, it needs a `runId` and the kind 'sandbox': "
        f"{dict(handle)!r}",
        code="source.handle",
    )
