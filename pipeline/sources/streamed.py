"""One model call as a source: ask, retry, read, decode, end and close.

What a protocol adds is its request and its decoder; the life of a call is the same.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from operators.errors import SourceError

from .exchange import Decoder, Exchange

if TYPE_CHECKING:
    import httpx

    from operators.event import Event
    from operators.turn import TurnContext

    from .patience import Patience
    from .post import Post
    from .source import Source


class CallDecoder(Decoder, Protocol):
    """What folds one call's answer into events, and knows when it is whole."""

    @property
    def complete(self) -> bool:
        """Whether the answer is known to be whole, though more may come."""
        ...

    def finish(self, *, latency_ms: float | None = None) -> list[Event]:
        """End the stream: give the closing events, or raise what it ended as."""
        ...


def streamed(
    ask: Callable[[TurnContext], Awaitable[Post]],
    decoder: Callable[[int], CallDecoder],
    *,
    name: str,
    patience: Patience,
    client: httpx.AsyncClient | None = None,
    direct: bool = False,
) -> Source:
    """Make a source that asks once a turn; `name` is the source's.

    `ask` makes the request; `decoder` what reads an answer with that HTTP status, for
    each attempt anew; `direct` goes through no proxy.
    """

    async def call(turn: TurnContext) -> AsyncGenerator[list[Event], None]:
        post = await ask(turn)
        began = turn.clock()
        exchange = Exchange(post, patience, client=client, direct=direct)
        whole = False
        try:
            stream, events = await exchange.open(decoder)
            progress = True
            while not stream.done:
                if events:
                    yield events
                if stream.failure is not None:
                    break
                events = []
                seen = stream.records
                try:
                    chunk = await exchange.read(progress=progress)
                except SourceError:
                    if stream.complete:  # only usage was still to come
                        break
                    raise
                if chunk is None:
                    break
                events = stream.feed(chunk)
                progress = stream.records > seen
            try:
                latency_ms = round((turn.clock() - began) * 1000)
                events += stream.finish(latency_ms=latency_ms)
            except SourceError as error:
                post.clean_error(error)
                raise
            whole = stream.done
            yield events
        finally:
            await exchange.close(drain=whole)

    call.__name__ = call.__qualname__ = name
    return call


async def made_by(asked: Any, turn: TurnContext) -> Any:
    """Take what is asked, from the turn where a function makes it, async or not."""
    if not callable(asked):
        return asked
    made = asked(turn)
    return await made if inspect.isawaitable(made) else made
