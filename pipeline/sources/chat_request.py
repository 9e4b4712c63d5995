"""The parts of a model call's request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from operators.errors import SourceError

_SECRET: Final = ("auth", "key", "token", "secret", "cookie", "password")


def encoded(body: Mapping[str, Any]) -> bytes:
    """Write a request's body.

    Raises:
        SourceError: it is not JSON; code `source.request`.
    """
    try:
        try:
            return orjson.dumps(body)
        except TypeError:  # lone surrogates and large integers are valid JSON
            return json.dumps(body, allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise SourceError(
            f"the request cannot be written as JSON: {error}", code="source.request"
        ) from error


def traced(headers: Mapping[str, str]) -> dict[str, str]:
    """Copy headers, the trace's added: `traceparent`, as the environment propagates."""
    from opentelemetry.propagate import inject

    carrier = dict(headers)
    inject(carrier)
    return carrier


def request_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Make what every request's body has, beside model and messages.

    Raises:
        ValueError: `params` has `stream`, which is always on.
    """
    if "stream" in params:
        raise ValueError("the answer is always streamed: leave `stream` out")
    options: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        **params,
    }
    if options["stream_options"] is None:
        del options["stream_options"]
    return options


def completions_url(base_url: str) -> str:
    """Make the address that chat completions are posted to.

    Raises:
        ValueError: `base_url` is no address of a server.
    """
    return address(base_url, "/chat/completions")


def address(base_url: str, path: str) -> str:
    """Make the address to post to, `path` put to the end.

    Raises:
        ValueError: `base_url` is no address of a server.
    """
    url = urlsplit(base_url)
    if "@" in url.netloc:
        raise ValueError(
            "base_url has a user name in it: use api_key, or headers={'authorization': ...}"
        )
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(
            f"base_url={base_url!r}: give an address such as http://127.0.0.1:8080/v1"
        )
    if url.query or url.fragment:
        raise ValueError(
            f"base_url ends with a query or fragment: {path} goes to its end"
        )
    return base_url.rstrip("/") + path


def request_headers(api_key: str | None, more: Mapping[str, str]) -> dict[str, str]:
    """Make the headers of every request.

    Raises:
        ValueError: one cannot be sent.
    """
    headers = {
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
    }
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    headers |= {name.lower(): value for name, value in more.items()}
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable() and value == value.strip()):
            raise ValueError(
                f"the header {name} cannot be sent: it is not plain ASCII, or has "
                f"white space around it or control characters; `.strip()` what was read"
            )
    return headers


def secrets_of(api_key: str | None, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Gather what no message may tell: the key, and headers that sound secret."""
    found = {api_key or ""}
    for name, value in headers.items():
        if any(word in name for word in _SECRET):
            found |= {value, value.rpartition(" ")[2]}
    return tuple(sorted((s for s in found if len(s) > 5), key=len, reverse=True))
