"""`sandbox_prompt`: a run of an agent in its sandbox, gone on with where it breaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
from uuid import uuid4

from operators.deadline import is_seconds
from operators.errors import SourceError

from .chat_request import address, encoded, request_headers, secrets_of, traced
from .openai_chat import Messages
from .patience import Patience
from .sandbox_adapter import SandboxAdapter
from .sandbox_events import ENDS
from .sandbox_exchange import Asking
from .sandbox_place import is_sendable
from .sandbox_reading import Reading, Terms
from .sandbox_stream import IdOf, MapEvent
from .source import messages_of
from .sse import LIMIT_BYTES
from .streamed import made_by

if TYPE_CHECKING:
    import httpx

    from operators.event import Event
    from operators.turn import TurnContext

PATH: Final = "/runtime/agents/run/stream"

Body: TypeAlias = "Mapping[str, Any] | Callable[[TurnContext], Any]"


class SandboxPrompt:
    """The source that `sandbox_prompt` makes; `adapter` makes a turn's run supervised."""

    __slots__ = ("__name__", "_ask", "_terms")

    def __init__(
        self, ask: Callable[[TurnContext, bool], Awaitable[Asking]], terms: Terms
    ) -> None:
        """Take what asks, and how it is read."""
        self.__name__ = "sandbox_prompt"
        self._ask = ask
        self._terms = terms

    async def __call__(self, turn: TurnContext) -> AsyncGenerator[list[Event], None]:
        """Run the agent once, for this turn."""
        reading = await self.reading(turn)
        try:
            while (events := await reading.next()) is not None:
                yield events
        finally:
            await reading.close()

    def adapter(self, turn: TurnContext) -> SandboxAdapter:
        """Make what reaches this turn's run, from whatever process."""
        return SandboxAdapter(self, turn)

    async def reading(
        self, turn: TurnContext, *, run_id: str | None = None, handles: bool = False
    ) -> Reading:
        """Make the reading of a turn's run, or of one that was begun as `run_id`.

        Raises:
            SourceError: the turn asks nothing, what it asks is not JSON, or the id
                cannot be sent; code `source.request`.
        """
        began = run_id is not None
        run_id = run_id or turn.execution_id or f"run-{uuid4().hex}"
        if not is_sendable(run_id):
            raise SourceError(
                f"the execution id {run_id[:80]!r} cannot be sent in a header: give one of "
                f"plain ASCII, of at most 1,024 characters",
                code="source.request",
            )
        bare = began and self._terms.again_method == "GET"
        return Reading(
            self._terms, await self._ask(turn, bare), run_id, handles=handles
        )


def sandbox_prompt(
    base_url: str,
    *,
    path: str = PATH,
    backend: str | Mapping[str, Any] = "claude-code",
    model: str | None = None,
    profile: Mapping[str, Any] | None = None,
    messages: Messages | None = None,
    body: Body | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    map_event: MapEvent | None = None,
    event_id: IdOf | None = None,
    ends: Collection[str] = ENDS,
    reconnect: Literal["post", "get"] = "post",
    reconnect_path: str | None = None,
    reconnects: int = 5,
    stall: float | None = None,
    first_event: float | None = 120.0,
    idle: float | None = 300.0,
    total: float | None = None,
    connect: float | None = 10.0,
    attempts: int = 3,
    backoff: float = 0.5,
    backoff_max: float = 8.0,
    client: httpx.AsyncClient | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> SandboxPrompt:
    """Run an agent at `{base_url}{path}`, once a turn, under the turn's execution id.

    The request's body is `{"backend": {"type", "profile", "model"}, "messages"}`:
    `backend` is its type, or all of it; `messages` as with `openai_chat`, by default
    the turn's request; `body` more fields, or others in place of these, as a mapping or
    a function of the turn. The header `X-Execution-ID` names the run: a server that
    knows it gives the same run again and begins no second one.

    The answer is server-sent events, or JSON lines. A connection that breaks once
    events came is made again: with the same request (`reconnect="get"`: a GET of
    `reconnect_path`, in which `{execution_id}` is the run's) and `Last-Event-ID`.
    Events that are repeated are dropped; events that are repeated with another content
    fail the turn, as a second run must not be spliced to the first. `reconnects`
    attempts in a row are made without a new event; their pauses begin at what the
    stream's `retry:` says, or `backoff`, and heed `Retry-After`. Without event ids
    there is no going on; `event_id` may find them in the records of servers that send
    none of the standard's. The answer 204 to a reconnection says that the run has
    ended, 404 and 410 that it is gone.

    An answer is whole after one of the types in `ends`, after `[DONE]`, and where it
    ends after `result` or an error; a connection that ends without any of them is cut.

    `map_event(record)` returns the event or list of events of a record, or None to
    leave it to the rules of `EventMapper`. `stall`: the seconds without any byte, pings
    too, after which a connection counts as broken (for servers that ping): one that died
    in silence is found in no other way. The other limits are those of `openai_chat`,
    longer by default, as sandboxes start and tools run without a word; `idle` runs on
    through reconnections.

    `adapter(turn)` makes the run reachable from another process.

    Holds: the id and a checksum of each event, to know it again.
    Emits: deltas of text and reasoning, tool calls and their results as `tool` parts,
        `result`, `llm_call`, `error` for failures that the agent reports, and whatever
        else it sends as it is; the events of one read as one list.
    Raises: SourceUnreachable, SourceStatus, SourceProtocol, SourceTimeout;
        SourceIncomplete: the answer is cut, and could not be gone on with;
        SourceStatus with the code `source.gone`: the server has forgotten the run;
        SourceError: the turn asks nothing, or what it asks is not JSON.
        ValueError, at once: an address, limit, header or option that cannot be.
    """
    fixed = request_headers(api_key, headers or {})
    url = address(base_url, _checked_path("path", path))
    again = url
    if reconnect_path is not None:
        again = address(base_url, _checked_path("reconnect_path", reconnect_path))
    if reconnect not in ("post", "get"):
        raise ValueError(f'reconnect={reconnect!r}: give "post" or "get"')
    if type(reconnects) is not int or reconnects < 0:
        raise ValueError(f"reconnects={reconnects!r}: give 0 or more")
    if stall is not None and not is_seconds(stall):
        raise ValueError(f"stall={stall!r}: give a positive number of seconds, or None")
    if isinstance(ends, str):
        raise ValueError(f"ends={ends!r}: give a collection of event types")  # noqa: TRY004 - as every option
    terms = Terms(
        patience=Patience(
            first_event=first_event,
            idle=idle,
            total=total,
            connect=connect,
            attempts=attempts,
            backoff=backoff,
            backoff_max=backoff_max,
        ),
        reconnects=reconnects,
        again_url=again,
        again_method=reconnect.upper(),
        ends=frozenset(ends),
        map_event=map_event,
        event_id=event_id,
        limit_bytes=limit_bytes,
        stall=stall,
        client=client,
    )
    about = _backend(backend, model, profile)
    secrets = secrets_of(api_key, fixed)

    async def ask(turn: TurnContext, bare: bool) -> Asking:
        if bare:
            return Asking(url=url, headers=traced(fixed), content=b"", secrets=secrets)
        asked: dict[str, Any] = {"backend": about}
        more: Any = await made_by(body, turn) if body is not None else {}
        if not isinstance(more, Mapping):
            raise SourceError(
                f"`body` made {type(more).__name__}: it must be a mapping of fields",
                code="source.request",
            )
        fields = cast("Mapping[str, Any]", more)
        if "messages" not in fields:
            asked["messages"] = await _messages(messages, turn)
        return Asking(
            url=url,
            headers=traced(fixed),
            content=encoded({**asked, **fields}),
            secrets=secrets,
        )

    return SandboxPrompt(ask, terms)


def _backend(
    backend: str | Mapping[str, Any],
    model: str | None,
    profile: Mapping[str, Any] | None,
) -> dict[str, Any]:
    about: dict[str, Any] = (
        {"type": backend} if isinstance(backend, str) else {**backend}
    )
    if profile is not None:
        about["profile"] = dict(profile)
    if model is not None:
        about["model"] = {"default": model}
    return about


def _checked_path(name: str, path: str) -> str:
    if not path.startswith("/") or "#" in path or not path.isascii():
        raise ValueError(f"{name}={path!r}: give a path such as {PATH}")
    return path


async def _messages(messages: Messages | None, turn: TurnContext) -> list[Any]:
    if messages is None:
        return messages_of(turn.request, "the turn's request")
    if not callable(messages):
        return messages_of(messages, "`messages`")
    return messages_of(await made_by(messages, turn), "what `messages` made")
