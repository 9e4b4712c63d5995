"""Which failures of a source another attempt, or another source, is meant for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

from operators.errors import CompositionError, SourceError

Failures: TypeAlias = (
    "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], object]"
)
"""Which failures are meant: their classes, or a function that tells."""


def matching(on: Failures, where: str) -> Callable[[Exception], object]:
    """Return a function that tells whether a failure is one of those meant.

    Raises:
        CompositionError: `on` is neither exception classes nor a function.
    """
    classes = cast("tuple[object, ...]", on if isinstance(on, tuple) else (on,))
    if all(isinstance(one, type) and issubclass(one, Exception) for one in classes):
        kinds = cast("tuple[type[Exception], ...]", classes)
        return lambda error: isinstance(error, kinds)
    if isinstance(on, (tuple, type)) or not callable(on):
        raise CompositionError(
            f"{where}(on={on!r}): give exception classes, or a function of the exception"
        )
    return on


def is_source_failure(error: Exception) -> bool:
    """Tell a failure of the source's or its network's from a mistake in the code."""
    return isinstance(error, (SourceError, ConnectionError, TimeoutError))
