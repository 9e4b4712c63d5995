"""The HTTP client: which one, and which of its errors are the network's."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

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
