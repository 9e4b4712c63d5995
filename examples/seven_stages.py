"""One chat turn through the seven stages, with a source in memory.

Run it, or look at it:

    python examples/seven_stages.py
    turnpipe graph examples.seven_stages:chat --format ascii
    turnpipe explain examples.seven_stages:chat
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator

import operators as ops
from operators.event import delta, llm_call, text_part
from pipeline import Pipeline, TurnIdentity

ANSWER = ("The sea ", "looks blue ", "because water ", "absorbs red light. ")
messages: dict[str, str] = {}
seen: list[str] = []


async def produce() -> AsyncIterator[ops.Event]:
    """Answer as a model would, a few words at a time."""
    part = text_part("p1")
    for words in ANSWER:
        yield delta(part, words)
    yield delta(part, "Call 078-05-1120 for more.")
    yield llm_call(model="in-memory", inputTokens=6, outputTokens=14)


def broadcast(event: ops.Event) -> None:
    """Note what passed."""
    seen.append(event["type"])


def strip_ssn(text: str) -> str:
    """Take out what looks like a social security number."""
    return re.sub(r"\b\d{3}-\d{2}-\d{4}\b", "[redacted]", text)


def save_message(record: ops.TurnRecord) -> None:
    """Store the message under its execution id."""
    messages[record.execution_id] = record.text


def flush() -> None:
    """Send off the traces; there are none here."""


chat = (
    Pipeline(produce)                # 1 source producer
    | ops.lifecycle()                # 2 the session.run.* envelope
    | ops.tap(broadcast)             # 3 what sees every event
    | ops.accumulate()               # 4 text
    | ops.transform(strip_ssn)       # 5 pre-persist transform
    | ops.persist(save_message)      # 6 sink
    | ops.trace_flush(flush)         # 7 trace flush
)  # fmt: skip


async def main() -> None:
    """Run the turn: its NDJSON to standard output, the rest to standard error."""
    identity = TurnIdentity(
        tenant_id="ws-1", session_id="thread-1", user_id="u-1", turn_index=0
    )
    run = chat.start(identity, request={"message": "Why does the sea look blue?"})
    async for chunk in run.body():
        sys.stdout.buffer.write(chunk)
    outcome = await run.outcome()
    print(outcome.status, list(messages.values()), file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main())
