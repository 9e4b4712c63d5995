"""`openai_responses`: OpenAI's Responses API, and servers that speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from .chat_request import address, encoded, request_headers, secrets_of, traced
from .openai_chat import Messages
from .patience import Patience
from .post import Post
from .responses_events import ResponseAssembler
from .source import Source, messages_of
from .sse import LIMIT_BYTES
from .streamed import made_by, streamed
from .typed_stream import TypedStream

if TYPE_CHECKING:
    import httpx

    from operators.turn import TurnContext


def openai_responses(
    *,
    model: str,
    base_url: str = "https://api.openai.com/v1",
    api_key: str | None = None,
    input: Messages | None = None,  # noqa: A002 - the API's own name for it
    instructions: str | None = None,
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
    """Stream a response from `{base_url}/responses`, one a turn.

    `input`: the text, the items, or a function of the turn that makes them, async or
    not; left out, they are the turn's request: `{"input": ...}`, or as for
    `openai_chat`. `params` go into the body as they are (`tools`, `reasoning`, `store`,
    `previous_response_id`, ...). Deadlines, attempts, `client` and `headers` as for
    `openai_chat`; an error that is the stream's first record is tried again by its kind.

    Emits: parts as `openai_chat`, with `annotations` and `encrypted`, and the tools that
        the provider runs, as `ResponseAssembler` says; at last one `llm_call`. Its
        `finishReason` is `completed`, or why the response is incomplete.
    Raises: as `openai_chat`; SourceIncomplete: the stream ended without
        `response.completed` or `response.incomplete`. ValueError, at once: as
        `openai_chat`.
    """
    if "stream" in params:
        raise ValueError("the answer is always streamed: leave `stream` out")
    url = address(base_url, "/responses")
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
    secrets = secrets_of(api_key, fixed)
    body: dict[str, Any] = {"model": model, "stream": True, **params}
    if instructions is not None:
        body["instructions"] = instructions

    async def ask(turn: TurnContext) -> Post:
        asked = await made_by(input, turn)
        where = "`input`"
        if input is None:
            asked, where = turn.request, "the turn's request"
        if isinstance(asked, dict):
            known = cast("dict[str, Any]", asked)
            asked = known.get("input") or known
        content = encoded({**body, "input": messages_of(asked, where)})
        return Post(url=url, headers=traced(fixed), content=content, secrets=secrets)

    def decoder(status: int) -> TypedStream:
        return TypedStream(
            ResponseAssembler(model=model, provider=provider),
            kind="a response",
            ends="response.completed or response.incomplete",
            status=status,
            limit_bytes=limit_bytes,
        )

    return streamed(
        ask, decoder, name="openai_responses", patience=patience, client=client
    )
