"""`turnpipe run`: one question, one turn through the seven stages."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sqlite3
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry.trace import set_span_in_context

import operators as ops
from operators.turn import TurnIdentity

from .cli_screen import Prose, Screen, summary
from .cli_store import TENANT, MessageStore
from .cli_trace import TurnTrace, Watch
from .execution import derive_execution_id
from .pipeline import Pipeline

if TYPE_CHECKING:
    from .run import TurnRun

COMPLETED: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CANCELLED: Final = 130  # as shells report a program that SIGINT ended

_EXIT: Final[Mapping[str, int]] = {
    "completed": COMPLETED,
    "failed": FAILED,
    "cancelled": CANCELLED,
}


class BadUsageError(Exception):
    """What was asked for cannot be done; the message says the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What `turnpipe run` was asked. `wire` None: prose on a terminal, else NDJSON."""

    question: str
    source: str
    model: str | None
    wire: str | None
    session: str | None
    speed: float
    db: Path
    trace: Path
    quiet: bool


def run(request: Request) -> int:
    """Run one turn; give the exit code.

    Raises:
        BadUsageError: the source is neither known, a URL nor a file.
    """
    source = choose_source(request)
    try:
        return asyncio.run(_turn(request, source))
    except KeyboardInterrupt:  # before the turn began
        return CANCELLED


def choose_source(request: Request) -> Callable[..., Any]:
    """Find the source that `--source` names.

    Raises:
        BadUsageError: there is none.
    """
    try:
        return _source(request)
    except ValueError as error:
        raise BadUsageError(f"--source {request.source}: {error}") from error


def _source(request: Request) -> Callable[..., Any]:
    from .sources import local_model, openai_chat, recorded

    name = request.source
    if name == "local":
        return local_model(model=request.model) if request.model else local_model()
    if name.startswith(("http://", "https://")):
        return openai_chat(
            base_url=name,
            model=request.model or "default",
            api_key=os.environ.get("OPENAI_API_KEY"),
        )
    if Path(name).is_file():
        return recorded(name, speed=request.speed or None)
    raise BadUsageError(
        f"--source {name}: there is no such file; give `local`, a recorded stream, or "
        "a server's address such as http://127.0.0.1:8080/v1"
    )


async def _turn(request: Request, source: Callable[..., Any]) -> int:
    session = request.session or secrets.token_hex(6)
    store = MessageStore(request.db)
    try:
        turn_index, talk = await store.begin(session, request.question)
    except (OSError, sqlite3.Error) as error:
        _say(f"cannot keep messages in {request.db}: {error}")
        return FAILED
    watch = Watch()
    try:
        trace = TurnTrace(request.trace, model=request.model, watch=watch)
    except OSError as error:
        _say(f"cannot write the trace to {request.trace}: {error}")
        return FAILED
    execution_id = derive_execution_id(TENANT, session, turn_index)
    trace.describe(
        conversation=session, execution_id=execution_id, source=request.source
    )
    chat = (
        Pipeline(source)
        | ops.lifecycle(errors="message")
        | ops.tap(watch)
        | ops.accumulate()
        | ops.transform(str.strip)
        | ops.persist(store.save, partial=True)
        | ops.trace_flush(trace.flush)
    )
    # so that the source's requests carry the span's traceparent
    token = otel.attach(set_span_in_context(trace.span))
    try:
        turn = chat.start(
            TurnIdentity(tenant_id=TENANT, session_id=session, turn_index=turn_index),
            request={
                "messages": [*talk, {"role": "user", "content": request.question}]
            },
            execution_id=execution_id,
            log=_log,
        )
    finally:
        otel.detach(token)
    with _interrupts(turn):
        broken = await _show(request.wire, turn)
        outcome = await turn.outcome()
    if outcome.status == "failed":
        told = str(outcome.error or watch.error or "the source reported no reason")
        code = f" ({outcome.code})" if outcome.code else ""
        _say(f"failed{code}: {' '.join(told.split())}")
    if broken is not None and not isinstance(broken, BrokenPipeError):
        _say(f"cannot write the output: {broken}")
        return FAILED
    if broken is None and not request.quiet:
        summary(
            outcome,
            watch,
            message=f"{request.db} ({execution_id})"
            if outcome.persisted
            else f"not stored in {request.db}",
            trace=trace.where,
        )
    return _EXIT[outcome.status]


async def _show(wire: str | None, turn: TurnRun) -> OSError | None:
    """Write the turn to standard output; give the error that ended the writing.

    The writing is done in a thread, so that a reader that stalls keeps neither an
    interrupt nor the settlement waiting.
    """
    terminal = wire is None and sys.stdout.isatty()
    try:
        if terminal or wire == "text":
            view = Screen() if terminal else Prose()
            async with aclosing(turn.events()) as events:
                async for event in events:
                    if shown := view.show(event):
                        await asyncio.to_thread(
                            _write, shown.encode("utf-8", "replace")
                        )
            await asyncio.to_thread(_write, view.end().encode())
        else:
            async with aclosing(turn.body(wire or "ndjson")) as body:
                async for chunk in body:
                    await asyncio.to_thread(_write, chunk)
    except OSError as error:
        return error
    return None


def _write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


@contextmanager
def _interrupts(turn: TurnRun) -> Generator[None]:
    """Let the first interrupt cancel the turn and the second leave at once."""
    loop = asyncio.get_running_loop()
    interrupted = False

    def interrupt(signum: int, _frame: object) -> None:
        nonlocal interrupted
        if interrupted:
            os._exit(CANCELLED)
        interrupted = True
        reason = "interrupted" if signum == signal.SIGINT else "terminated"
        loop.call_soon_threadsafe(turn.cancel, reason)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _log(message: str, meta: Mapping[str, Any]) -> None:
    if message != "turn failed":  # that is told at the end, with its code
        _say(f"{message}: {meta['error']}" if "error" in meta else message)


def _say(text: str) -> None:
    print(f"turnpipe: {text}", file=sys.stderr)
