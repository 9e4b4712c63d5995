"""JSON as providers write it: decoded, or refused with what is wrong and where."""

from __future__ import annotations

import json
from typing import Any, Final, cast

import orjson

from operators.errors import SourceProtocol

EXCERPT_CHARACTERS: Final = 2_048


def excerpt(body: bytes | str) -> str:
    """Cut a body to what a message may quote."""
    if isinstance(body, bytes):
        body = body[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace")
    return body[:EXCERPT_CHARACTERS]


def decode_object(data: bytes, where: str, *, exact: bool = False) -> dict[str, Any]:
    """Decode a JSON object; `where` names its place for the message.

    orjson does it; what it refuses goes to the standard library, which also takes the
    lone surrogates that a model's half of an emoji becomes, and `Infinity`. `exact`:
    the standard library alone, as orjson turns integers beyond 64 bits into floats.

    Raises:
        SourceProtocol: it is not UTF-8, not JSON or not an object.
    """
    value: object
    if exact:
        value = _decode_slowly(data, where)
    else:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            value = _decode_slowly(data, where)
    if not isinstance(value, dict):
        raise SourceProtocol(
            f"{where} is {_kind(value)}, not a JSON object: {excerpt(data)}"
        )
    return cast("dict[str, Any]", value)


def _decode_slowly(data: bytes, where: str) -> object:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SourceProtocol(
            f"{where} is not UTF-8 at byte {error.start} ({error.reason}): "
            f"{excerpt(data)}"
        ) from error
    except RecursionError as error:
        raise SourceProtocol(f"{where} is nested too deeply to be decoded") from error
    except ValueError as error:
        raise SourceProtocol(
            f"{where} is not JSON ({error}): {excerpt(data)}"
        ) from error


def _kind(value: object) -> str:
    kinds: dict[type, str] = {list: "an array", str: "a string", type(None): "null"}
    return kinds.get(type(value), "a number or boolean")
