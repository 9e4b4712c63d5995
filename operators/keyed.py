"""What an operator finds in an event: by a key of it, or by a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .errors import CompositionError
from .operator import is_async, name_of

if TYPE_CHECKING:
    from .event import Event


def finder(key: object, owner: str) -> tuple[str, Callable[[Event], Any]]:
    """Return the operator's name, and the function that finds.

    Raises:
        CompositionError: it is neither a key nor a plain function.
    """
    if isinstance(key, str):
        return f"{owner}({key})", lambda event: event.get(key)
    if not callable(key) or is_async(key):
        raise CompositionError(
            f"{owner}: {key!r} must be a key of the event, or a plain function of it"
        )
    return f"{owner}({name_of(key)})", cast("Callable[[Event], Any]", key)


def at_least(least: int, value: object, what: str) -> None:
    """Check a count.

    Raises:
        CompositionError: it is no int, or less than `least`; `what` names it.
    """
    if value.__class__ is not int or cast("int", value) < least:
        raise CompositionError(f"{what} must be an int, {least} or more, not {value!r}")
