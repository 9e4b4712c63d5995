"""Scripted sources, and what the tests of those that combine them share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from operators.event import delta, llm_call, text_part
from operators.turn import TurnContext, TurnIdentity

PART = text_part("t")
HEARTBEAT: dict[str, Any] = {"type": "heartbeat"}
EMPTY = delta(PART, "")
USAGE = llm_call(model="m", inputTokens=7, finishReason="stop")


def says(text: str) -> dict[str, Any]:
    return delta(PART, text)


class Scripted:
    """Its n-th call follows the n-th script, the last one again and again.

    A step is an event or list to yield, an exception to raise, an event to wait for,
    or "hang". Closing takes a turn of the loop.
    """

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts = scripts
        self.calls = 0
        self.open = 0
        self.pulled = 0
        self.closing_error: Exception | None = None

    async def __call__(self, turn: TurnContext) -> AsyncGenerator[Any, None]:
        script = self.scripts[min(self.calls, len(self.scripts) - 1)]
        self.calls += 1
        self.open += 1
        try:
            for step in script:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif step == "hang":
                    await asyncio.Event().wait()
                else:
                    await asyncio.sleep(0)
                    self.pulled += 1
                    yield step
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                self.open -= 1
            if self.closing_error is not None:
                raise self.closing_error


class Logged:
    """A turn, and what it logged."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.metas: list[Any] = []
        self.turn = TurnContext(
            TurnIdentity(session_id="s", turn_index=0),
            request="hi",
            log_to=self._log,
        )

    def _log(self, message: str, meta: Any) -> None:
        self.messages.append(message)
        self.metas.append(meta)


async def read(combined: Any, turn: TurnContext | None = None) -> list[Any]:
    """Read a combined source to its end; give its reads."""
    reads: list[Any] = []
    async with aclosing(combined(turn or Logged().turn).stream) as stream:
        async for item in stream:
            reads.append(item)  # noqa: PERF401 - what came before an error counts
    return reads


async def failing(
    combined: Any, turn: TurnContext | None = None
) -> tuple[list[Any], Exception]:
    """Read it until it fails; give its reads, and the failure."""
    reads: list[Any] = []
    try:
        async with aclosing(combined(turn or Logged().turn).stream) as stream:
            async for item in stream:
                reads.append(item)  # noqa: PERF401 - what came before an error counts
    except Exception as error:
        return reads, error
    raise AssertionError(f"it did not fail, but gave {reads}")
