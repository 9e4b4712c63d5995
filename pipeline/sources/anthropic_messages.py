"""`anthropic_messages`: messages of Anthropic's API, and of servers that speak it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from operators.errors import SourceError

from .anthropic_events import AnthropicAssembler
from .chat_request import address, encoded, request_headers, secrets_of, traced
from .openai_chat import Messages
from .patience import RETRIED, Patience
from .post import Post
from .source import Source, messages_of
from .sse import LIMIT_BYTES
from .streamed import made_by, streamed
from .typed_stream import TypedStream

if TYPE_CHECKING:
    import httpx

    from operators.turn import TurnContext

System: TypeAlias = "str | Sequence[Mapping[str, Any]]"


def anthropic_messages(
    *,
    model: str,
    max_tokens: int,
    base_url: str = "https://api.anthropic.com",
    api_key: str | None = None,
    messages: Messages | None = None,
    system: System | None = None,
    version: str = "2023-06-01",
    client: httpx.AsyncClient | None = None,
    first_event: float | None = 60.0,
    idle: float | None = 60.0,
    total: float | None = None,
    connect: float | None = 10.0,
    attempts: int = 3,
    backoff: float = 0.5,
    backoff_max: float = 8.0,
    headers: Mapping[str, str] | None = None,
    provider: str = "anthropic",
    limit_bytes: int = LIMIT_BYTES,
    **params: Any,
) -> Source:
    """Stream a message from `{base_url}/v1/messages`, one a turn.

    `messages` as for `openai_chat`; those of role `system` or `developer` go to the end
    of `system`, a text or blocks. `version` is the header `anthropic-version`. `params`
    go into the body as they are (`tools`, `thinking`, `temperature`, ...). Deadlines,
    attempts, `client` and `headers` as for `openai_chat`; status 529, and an error that
    is the stream's first record, are tried again by their kind.

    Emits: parts as `openai_chat`, with `signature`, `redacted` and `annotations` as
        `AnthropicAssembler` says; `llm_call` at the start, with each count and at the
        end, all of one `callId`. `finishReason` is the provider's `stop_reason`.
    Raises: as `openai_chat`; SourceIncomplete: the stream ended with neither
        `message_stop` nor a stop reason. ValueError, at once: as `openai_chat`.
    """
    if "stream" in params:
        raise ValueError("the answer is always streamed: leave `stream` out")
    if type(max_tokens) is not int or max_tokens < 1:
        raise ValueError(f"max_tokens={max_tokens!r}: give 1 or more")
    based = base_url.rstrip("/").endswith("/v1")
    url = address(base_url, "/messages" if based else "/v1/messages")
    patience = Patience(
        first_event=first_event,
        idle=idle,
        total=total,
        connect=connect,
        attempts=attempts,
        backoff=backoff,
        backoff_max=backoff_max,
        retried=RETRIED | {529},
    )
    own = {"anthropic-version": version}
    if api_key:
        own["x-api-key"] = api_key
    more = {name.lower(): value for name, value in (headers or {}).items()}
    fixed = request_headers(None, own | more)
    secrets = secrets_of(api_key, fixed)
    body = {"model": model, "max_tokens": max_tokens, "stream": True, **params}

    async def ask(turn: TurnContext) -> Post:
        made = await made_by(messages, turn)
        if messages is None:
            asked = messages_of(turn.request, "the turn's request")
        else:
            asked = messages_of(made, "`messages`")
        said, told = split_system(asked, system)
        whole: dict[str, Any] = {**body, "messages": said}
        if told:
            whole["system"] = told
        return Post(
            url=url, headers=traced(fixed), content=encoded(whole), secrets=secrets
        )

    def decoder(status: int) -> TypedStream:
        return TypedStream(
            AnthropicAssembler(model=model, provider=provider),
            kind="a message",
            ends="message_stop or a stop reason",
            status=status,
            limit_bytes=limit_bytes,
        )

    return streamed(
        ask, decoder, name="anthropic_messages", patience=patience, client=client
    )


def split_system(
    messages: list[Any], system: System | None = None
) -> tuple[list[Any], str | list[Any] | None]:
    """Take the system messages out: those that stay, and the `system` of the request.

    Texts are joined by an empty line; where one has blocks, all become blocks.

    Raises:
        SourceError: nothing else is left; code `source.request`.
    """
    said: list[Any] = []
    told: list[Any] = [system] if system else []
    for message in messages:
        role: Any = None
        content: Any = None
        if isinstance(message, Mapping):
            known = cast("Mapping[str, Any]", message)
            role, content = known.get("role"), known.get("content")
        if role in ("system", "developer"):
            told += [content] if content else []
        else:
            said.append(message)
    if not said:
        raise SourceError(
            "the request has only system messages: add one of role user",
            code="source.request",
        )
    if all(isinstance(content, str) for content in told):
        return said, "\n\n".join(told) or None
    blocks: list[Any] = []
    for content in told:
        if isinstance(content, str):
            blocks.append({"type": "text", "text": content})
        else:
            blocks += content
    return said, blocks
