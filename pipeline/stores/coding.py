"""JSON as stores keep it: whatever an event may hold comes back the same."""

from __future__ import annotations

import json
from typing import Any, cast

import orjson


def to_json(value: Any) -> bytes:
    """Write `value` as JSON; lone surrogates as escapes, integers of any size.

    Raises:
        TypeError: something in it is not JSON.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        _check_keys(value)
        try:
            return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise TypeError(f"not JSON: {error}") from error


def _check_keys(value: Any) -> None:
    """Refuse what the standard library's encoder would quietly turn into strings."""
    pending: list[Any] = [value]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if not isinstance(one, (dict, list, tuple)) or id(cast("Any", one)) in seen:
            continue
        seen.add(id(cast("Any", one)))
        if isinstance(one, dict):
            members = cast("dict[object, Any]", one)
            for key in members:
                if not isinstance(key, str):
                    raise TypeError(f"JSON keys are strings, not {key!r}: use str(key)")
            pending.extend(members.values())
        else:
            pending.extend(cast("list[Any]", one))


def from_json(text: bytes | str | None) -> Any:
    """Read what `to_json` wrote; None where nothing was written."""
    if text is None:
        return None
    held = text.encode() if isinstance(text, str) else bytes(text)
    if b"\\ud" in held or _has_long_integer(held):
        return json.loads(held)
    return orjson.loads(held)


_DIGITS = bytes(0x30 if 0x30 <= i <= 0x39 else 0x20 for i in range(256))


def _has_long_integer(held: bytes) -> bool:
    """Tell whether 19 digits stand in a row: orjson changes integers beyond 64 bits."""
    return b"0" * 19 in held.translate(_DIGITS)
