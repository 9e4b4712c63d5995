"""The connections of one run: each asked for, checked, read and closed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from operators.errors import SourceError, SourceIncomplete, SourceUnreachable

from .client import is_transport, make_client, send
from .closing import carried_through
from .exchange import Exchange
from .post import Post

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx

    from .patience import Patience

LINES: Final = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-lines",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking(Post):
    """A request of any method; one without content has no body."""

    method: str = "POST"

    @property
    def name(self) -> str:
        """The request as messages name it."""
        return f"{self.method} {self.url}"


class RunExchange(Exchange):
    """Connections one after another, under one clock: `ask`, `read`, `ask` again.

    `stall`: the seconds without any byte, pings too, after which a connection counts as
    broken.
    """

    __slots__ = ("_stall", "lines", "whole")

    _client: httpx.AsyncClient | None

    def __init__(
        self,
        asking: Asking,
        patience: Patience,
        *,
        client: httpx.AsyncClient | None = None,
        stall: float | None = None,
    ) -> None:
        """Start the clock of `first_event` and `total`; nothing is sent yet."""
        Exchange.__init__(self, asking, patience, client=client)
        self._stall = stall
        self.lines = False  # the answer is JSON lines
        self.whole = False  # the answer's end can be told from a break

    async def hang_up(self) -> None:
        """Close the connection, however often the caller is cancelled."""
        await carried_through(self._close_response())

    def allows(self, seconds: float) -> bool:
        """Tell whether a pause of `seconds` ends before the deadline."""
        return self._waiting.allows(seconds)

    async def ask(self, asking: Asking) -> httpx.Response | None:
        """Ask; None: 204, there is nothing (more).

        Raises:
            SourceUnreachable: no connection, or no answer.
            SourceStatus: the server refused.
            SourceProtocol: the answer is no event stream.
            SourceTimeout: it did not come in time.
        """
        await self.hang_up()
        self._post = asking
        try:
            response = await self._waiting.wait(self._send)
        except SourceError:
            raise
        except Exception as error:
            raise self._unreachable(error, "no answer", 1) from error
        self._response = response
        # httpx says less than it gives: an async generator can be closed
        self._chunks = cast("AsyncGenerator[bytes, None]", response.aiter_raw())
        if not 200 <= response.status_code < 300:
            raise await self._refusal(response)
        if response.status_code == 204:
            return None
        await self._check_type(response)
        told = response.headers
        self.whole = (
            "content-length" in told
            or "chunked" in told.get("transfer-encoding", "").lower()
            or response.http_version == "HTTP/2"
        )
        return response

    async def read(self, *, progress: bool) -> bytes | None:
        """Read what comes next, None at the end; `progress`: there has been a record.

        Raises:
            SourceIncomplete: the connection broke, or went silent.
            SourceTimeout: `first_event`, `idle` or `total` has passed.
        """
        if progress:
            self._waiting.progress()
        assert self._chunks is not None, "ask() comes first"
        begin = self._chunks.__anext__ if self._stall is None else self._next
        try:
            return await self._waiting.wait(begin)
        except StopAsyncIteration:
            return None
        except SourceError:
            raise
        except Exception as error:
            raise SourceIncomplete(
                f"{self._post.name}: the connection broke in the middle of the stream: "
                f"{self._told(error)}"
            ) from error

    def _unreachable(self, error: Exception, what: str, attempt: int) -> SourceError:
        del attempt  # who counts them says which it was
        told = f"{self._post.name}: {what}: {self._told(error)}"
        return SourceUnreachable(told) if is_transport(error) else SourceError(told)

    async def _next(self) -> bytes:
        assert self._chunks is not None, "ask() comes first"
        try:
            async with asyncio.timeout(self._stall):
                return await self._chunks.__anext__()
        except TimeoutError as error:
            raise SourceIncomplete(
                f"{self._post.name}: the connection gave nothing for {self._stall:g} s, "
                f"not even a ping"
            ) from error

    async def _check_type(self, response: httpx.Response) -> None:
        told = response.headers
        kind = told.get("content-type", "").partition(";")[0].strip().lower()
        self.lines = kind in LINES
        coding = told.get("content-encoding", "identity").strip().lower()
        if not self.lines or coding not in ("identity", ""):
            await Exchange._check_type(self, response)

    async def _send(self) -> httpx.Response:
        import httpx

        asking = self._post
        if self._client is None:
            self._client = make_client()
        request = self._client.build_request(
            asking.method if isinstance(asking, Asking) else "POST",
            asking.url,
            headers=asking.headers,
            content=asking.content or None,
            timeout=httpx.Timeout(None, connect=self._patience.connect),
        )
        if self._own:  # closing it closes what a cancellation leaves behind
            return await self._client.send(request, stream=True)
        return await send(self._client, request)
