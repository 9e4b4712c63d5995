"""The HTTP client: which one, and which of its errors are the network's."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING

from .closing import carried_through

if TYPE_CHECKING:
    import ssl

    import httpx


def make_client(*, direct: bool = False) -> httpx.AsyncClient:
    """Make a client; over aiohttp, as it is faster, with the extra `http` installed."""
    import httpx

    kind: type[httpx.AsyncClient]
    try:
        from httpx_aiohttp import HttpxAiohttpClient as kind
    except ImportError:
        kind = httpx.AsyncClient
    return kind(verify=_tls(), trust_env=not direct, timeout=None)


@cache
def _tls() -> ssl.SSLContext:
    """Load the certificates once: it takes longer than a turn's whole set-up."""
    import httpx

    return httpx.create_ssl_context()


def is_transport(error: Exception) -> bool:
    """Tell what the network did from what is wrong with the request."""
    import httpx

    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return False
    return (
        isinstance(error, (httpx.TransportError, OSError))
        # the transport of httpx-aiohttp lets some of aiohttp's own errors through
        or type(error).__module__.startswith("aiohttp.")
    )


async def send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send with a client that goes on living: a cancellation leaves no slot taken.

    httpcore shields its bookkeeping with anyio's scopes, which the cancellation of a
    task passes through. So the request has a task of its own, and a cancellation of the
    caller becomes the cancellation of a scope inside.
    """
    import anyio

    scope = anyio.CancelScope()

    async def sending() -> httpx.Response | None:
        with scope:
            return await client.send(request, stream=True)
        return None

    task = asyncio.create_task(sending())
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancellation = error
            scope.cancel()
    response = None if cancellation and task.exception() else task.result()
    if cancellation is None and response is not None:
        return response
    if response is not None:
        await carried_through(response.aclose())
    raise cancellation or asyncio.CancelledError
