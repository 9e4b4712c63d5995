"""A provider's refusal, as the JSON in its body tells it."""

from __future__ import annotations

from typing import Any, cast

from operators.errors import SourceStatus

from .decoding import excerpt


def error_from_body(
    body: dict[str, Any] | None, data: bytes | str, *, status: int, where: str = ""
) -> SourceStatus:
    """Make the error that an answer's JSON body tells; `where` opens its message."""
    error: Any = body.get("error") or body if body is not None else None
    said = ""
    if isinstance(error, dict):
        told = cast("dict[str, Any]", error)
        message: Any = told.get("message") or told.get("detail")
        kinds = [told.get("type"), told.get("code")]
        kind: Any = next((kind for kind in kinds if kind and kind != "error"), None)
        said = str(message or "")
        if said and kind:
            said += f" ({kind})"
    elif isinstance(error, str):
        said = error
    text = excerpt(data)
    where = where or "the provider answered with an error instead of the stream"
    return SourceStatus(f"{where}: {excerpt(said) or text}", status=status, body=text)
