"""The fields of a response's events: read, or refused with what is wrong."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from operators.errors import SourceProtocol

from .decoding import excerpt


def object_of(record: dict[str, Any], field: str) -> dict[str, Any]:
    """Read an object.

    Raises:
        SourceProtocol: it is something else, or not there.
    """
    value: Any = record.get(field)
    if value.__class__ is not dict:
        refuse(field, record)
    return value


def text_of(record: dict[str, Any], field: str) -> str:
    """Read a text; what is not there or null is "".

    Raises:
        SourceProtocol: it is something else.
    """
    value: Any = record.get(field)
    if value is None:
        return ""
    if value.__class__ is not str:
        refuse(field, record)
    return value


def refuse(field: str, record: dict[str, Any]) -> NoReturn:
    """Raise SourceProtocol for a field."""
    raise SourceProtocol(
        f"a response event has a {type(record.get(field)).__name__} as its `{field}`: "
        f"{excerpt(json.dumps(record))}"
    )
