"""`openai_chat`: chat completions of any server that speaks OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from .chat_chunks import ChatAssembler
from .chat_request import (
    completions_url,
    encoded,
    request_headers,
    request_options,
    secrets_of,
    traced,
)
from .chat_stream import ChatStream
from .patience import Patience
from .post import Post
from .source import Source, messages_of
from .sse import LIMIT_BYTES
from .streamed import made_by, streamed

if TYPE_CHECKING:
    import httpx

    from operators.turn import TurnContext

Messages: TypeAlias = "str | Sequence[Mapping[str, Any]] | Callable[[TurnContext], Any]"


def openai_chat(
    *,
    base_url: str,
    model: str,
    api_key: str | None = None,
    messages: Messages | None = None,
    client: httpx.AsyncClient | None = None,
    first_event: float | None = 60.0,
    idle: float | None = 60.0,
    total: float | None = None,
    connect: float | None = 10.0,
    attempts: int = 3,
    backoff: float = 0.5,
    backoff_max: float = 8.0,
    headers: Mapping[str, str] | None = None,
    provider: str = "openai",
    limit_bytes: int = LIMIT_BYTES,
    **params: Any,
) -> Source:
    """Stream a chat completion from `{base_url}/chat/completions`, one a turn.

    `messages`: the messages, or a function of the turn that makes them, async or not;
    left out, they are the turn's request: `{"messages": [...]}`, `{"message": "text"}`
    or the text itself. `params` go into the request's body as they are (`temperature`,
    `tools`, `max_tokens`, `n`, ...); `stream_options=None` leaves usage unasked for.

    `first_event`, `idle`, `total` are deadlines in seconds, None for none: for the
    first record of the answer, all attempts included; for each further one, pings not
    counted; for the whole, a slow reader's time included. `connect` limits the making
    of one connection. What fails before the first record is tried `attempts` times in
    all: connections that fail or break, and statuses 408, 425, 429, 500, 502, 503, 504;
    with pauses that double from `backoff` to `backoff_max`, and heed `Retry-After`. A
    pause that would outlast the deadline is not made.

    `client`: one of yours, which is left open; without it each turn makes one and
    closes it. `provider` names the provider in `llm_call`. `limit_bytes`: the longest
    record.

    Emits: `message.part.updated` with deltas of parts `text`, `reasoning` and `tool`
        (see `ToolCalls` for their states), the events of one read as one list; at last
        one `llm_call` with usage as reported. Choices beyond the first are passed over.
    Raises: SourceUnreachable, SourceStatus, SourceProtocol, SourceTimeout;
        SourceIncomplete: the stream ended with neither a finish reason nor `[DONE]`;
        SourceError: the turn asks nothing, or what it asks is not JSON.
        ValueError, at once: an address, limit, header or parameter that cannot be.
    """
    url = completions_url(base_url)
    patience = Patience(
        first_event=first_event,
        idle=idle,
        total=total,
        connect=connect,
        attempts=attempts,
        backoff=backoff,
        backoff_max=backoff_max,
    )
    fixed = request_headers(api_key, headers or {})
    return chat_source(
        url=url,
        body={"model": model, **request_options(params)},
        messages=messages,
        headers=fixed,
        patience=patience,
        client=client,
        provider=provider,
        limit_bytes=limit_bytes,
        secrets=secrets_of(api_key, fixed),
    )


def chat_source(
    *,
    url: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    patience: Patience,
    messages: Messages | None = None,
    client: httpx.AsyncClient | None = None,
    direct: bool = False,
    provider: str = "openai",
    limit_bytes: int = LIMIT_BYTES,
    secrets: tuple[str, ...] = (),
) -> Source:
    """Make the source out of what `openai_chat` checked; `direct`: through no proxy."""

    async def ask(turn: TurnContext) -> Post:
        asked = await _messages(messages, turn)
        return Post(
            url=url,
            headers=traced(headers),
            content=encoded({**body, "messages": asked}),
            secrets=secrets,
        )

    def decoder(status: int) -> ChatStream:
        assembler = ChatAssembler(model=str(body["model"]), provider=provider)
        return ChatStream(assembler, status=status, limit_bytes=limit_bytes)

    return streamed(
        ask,
        decoder,
        name="openai_chat",
        patience=patience,
        client=client,
        direct=direct,
    )


async def _messages(messages: Messages | None, turn: TurnContext) -> list[Any]:
    if messages is None:
        return messages_of(turn.request, "the turn's request")
    if not callable(messages):
        return messages_of(messages, "`messages`")
    return messages_of(await made_by(messages, turn), "what `messages` made")
