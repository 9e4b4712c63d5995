"""One streamed HTTP answer: asked for, retried, timed, read and closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from operators.errors import (
    SourceError,
    SourceIncomplete,
    SourceProtocol,
    SourceStatus,
    SourceUnreachable,
)

from .client import is_transport, make_client, send
from .closing import carried_through
from .decoding import decode_object, excerpt
from .patience import Patience, Waiting, retry_after
from .post import Post
from .refusal import error_from_body

if TYPE_CHECKING:
    import httpx

    from operators.event import Event

BODY_BYTES: Final = 64 * 1024
BODY_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 0.1


class Decoder(Protocol):
    """What folds the answer's bytes into events."""

    records: int
    failure: SourceError | None

    @property
    def done(self) -> bool:
        """Whether nothing more is to come."""
        ...

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the bytes of one read."""
        ...

    def finish(self) -> object:
        """End the stream; raise what it ended as."""
        ...


_TOO_EARLY: Final = "the answer broke off before its first event"

D = TypeVar("D", bound=Decoder)


class Exchange:
    """A POST whose answer is an event stream: `open`, `read` until None, `close`.

    `client` None: one is made for this exchange, and closed with it; `direct` keeps it
    from the environment's proxies.
    """

    __slots__ = (
        "_chunks",
        "_client",
        "_direct",
        "_own",
        "_patience",
        "_post",
        "_response",
        "_waiting",
    )

    def __init__(
        self,
        post: Post,
        patience: Patience,
        *,
        client: httpx.AsyncClient | None = None,
        direct: bool = False,
    ) -> None:
        """Start the clock of `first_event` and `total`; nothing is sent yet."""
        self._post = post
        self._patience = patience
        self._client = client
        self._own = client is None
        self._direct = direct
        self._waiting = Waiting(patience)
        self._response: httpx.Response | None = None
        self._chunks: AsyncGenerator[bytes, None] | None = None

    async def open(self, decoder: Callable[[int], D]) -> tuple[D, list[Event]]:
        """Ask until the first record is here; give its decoder and its read's events.

        `decoder` makes one for an answer with that HTTP status, for each attempt anew.

        Raises:
            SourceUnreachable: no connection, or it broke before the first record.
            SourceStatus: the provider refused.
            SourceProtocol: the answer is no event stream.
            SourceTimeout: the first event did not come in time.
        """
        attempt = 1
        while True:
            try:
                return await self._attempt(decoder, attempt)
            except SourceError as error:
                self._post.clean_error(error)
                pause = self._patience.pause(attempt, error)
                if pause is None or not self._waiting.allows(pause):
                    raise
            await carried_through(self._close_response())
            await asyncio.sleep(pause)
            attempt += 1

    async def read(self, *, progress: bool) -> bytes | None:
        """Read what comes next, None at the end; `progress`: there has been a record.

        Raises:
            SourceIncomplete: the connection broke.
            SourceTimeout: `idle` or `total` has passed.
        """
        if progress:
            self._waiting.progress()
        assert self._chunks is not None, "open() comes first"
        try:
            return await self._waiting.wait(self._chunks.__anext__)
        except StopAsyncIteration:
            return None
        except SourceError:
            raise
        except Exception as error:
            raise SourceIncomplete(
                f"{self._post.name}: the connection broke in the middle of the stream: "
                f"{self._told(error)}"
            ) from error

    async def close(self, *, drain: bool = False) -> None:
        """Close the connection, and the client if it was made here; never fails.

        `drain`: the stream is done but for its end mark, so read on for a moment; a
        connection that was read to its end can serve the next turn.
        """
        self._waiting.close()
        if self._response is not None or (self._own and self._client is not None):
            await carried_through(self._close(drain and not self._own))

    async def _attempt(
        self, decoder: Callable[[int], D], attempt: int
    ) -> tuple[D, list[Event]]:
        try:
            response = await self._waiting.wait(self._send)
        except SourceError:
            raise
        except Exception as error:
            raise self._unreachable(error, "no answer", attempt) from error
        self._response = response
        # httpx says less than it gives: an async generator can be closed
        self._chunks = cast("AsyncGenerator[bytes, None]", response.aiter_raw())
        if not 200 <= response.status_code < 300:
            raise await self._refusal(response)
        await self._check_type(response)
        made = decoder(response.status_code)
        events: list[Event] = []
        while not (made.records or made.failure):
            try:
                chunk = await self._waiting.wait(self._chunks.__anext__)
            except StopAsyncIteration:
                try:
                    made.finish()
                except SourceIncomplete as error:
                    raise self._unreachable(error, _TOO_EARLY, attempt) from error
                break
            except SourceError:
                raise
            except Exception as error:
                raise self._unreachable(error, _TOO_EARLY, attempt) from error
            events = made.feed(chunk)
        if made.failure is not None and not events:
            raise made.failure
        return made, events

    async def _send(self) -> httpx.Response:
        import httpx

        if self._client is None:
            self._client = make_client(direct=self._direct)
        request = self._client.build_request(
            "POST",
            self._post.url,
            headers=self._post.headers,
            content=self._post.content,
            timeout=httpx.Timeout(None, connect=self._patience.connect),
        )
        if self._own:  # closing it closes what a cancellation leaves behind
            return await self._client.send(request, stream=True)
        return await send(self._client, request)

    async def _check_type(self, response: httpx.Response) -> None:
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", ""):
            raise SourceProtocol(
                f"{self._post.name} answered with content-encoding {encoding}, "
                f"although only identity was accepted"
            )
        told = response.headers.get("content-type", "")
        kind = told.partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return
        body = await self._body()
        where = f"{self._post.name} answered with an error instead of the stream"
        if kind == "application/json":
            decoded = decode_object(
                body, f"{self._post.name}: the answer, application/json,"
            )
            if decoded.get("error"):
                raise error_from_body(
                    decoded, excerpt(body), status=response.status_code, where=where
                )
        raise SourceProtocol(
            f"{self._post.name} answered with content-type {told or '(none)'}, not "
            f"text/event-stream: {excerpt(body)}"
        )

    async def _refusal(self, response: httpx.Response) -> SourceStatus:
        body = await self._body()
        decoded: dict[str, Any] | None = None
        with suppress(SourceProtocol):
            decoded = decode_object(body, "the body")
        reason = f"{response.status_code} {response.reason_phrase}".strip()
        error = error_from_body(
            decoded,
            excerpt(body),
            status=response.status_code,
            where=f"{self._post.name} answered {reason}",
        )
        error.retry_after = retry_after(response.headers.get("retry-after"))
        return error

    async def _body(self) -> bytes:
        """Read the beginning of a body that is no stream, as far as it comes."""
        assert self._chunks is not None, "only called with a response"
        body = bytearray()
        with suppress(Exception):  # the answer's status says more than how it broke off
            async with asyncio.timeout(BODY_SECONDS):
                while len(body) < BODY_BYTES:
                    body += await self._waiting.wait(self._chunks.__anext__)
        return bytes(body)

    # Closing has no other outcome than closed: the answer is had by then, or its error
    # is on its way, and what breaks off here must not take its place.

    async def _close(self, drain: bool) -> None:
        if drain:
            await self._pull_out()
        await self._close_response()
        if self._own and self._client is not None:
            client, self._client = self._client, None
            with suppress(Exception):
                await client.aclose()

    async def _close_response(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            with suppress(Exception):
                await response.aclose()
            # httpx leaves the generators behind its body suspended, for the garbage
            # collector to end in tasks; on a closed connection a pull ends them here
            await self._pull_out()
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            with suppress(Exception):
                await chunks.aclose()

    async def _pull_out(self) -> None:
        if self._chunks is not None:
            with suppress(Exception):
                async with asyncio.timeout(DRAIN_SECONDS):
                    async for _ in self._chunks:
                        pass

    def _unreachable(self, error: Exception, what: str, attempt: int) -> SourceError:
        told = f"{self._post.name}: {what}: {self._told(error)}"
        if not isinstance(error, SourceError) and not is_transport(error):
            return SourceError(told)
        attempts = self._patience.attempts
        return SourceUnreachable(f"{told} (attempt {attempt} of {attempts})")

    def _told(self, error: Exception) -> str:
        said = self._post.clean(excerpt(str(error)))
        return f"{type(error).__name__}: {said}" if said else type(error).__name__
