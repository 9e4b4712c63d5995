"""Event types as operators are given them: exact ones, and `prefix*` for families."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .errors import CompositionError

_LIMIT = 1024


def checked_kinds(types: Iterable[str], owner: str) -> tuple[str, ...]:
    """Return the types if they can be such.

    Raises:
        CompositionError: there are none, one is no string, or a `*` stands elsewhere
            than at the end.
    """
    kinds: tuple[Any, ...] = tuple(types)
    if not kinds:
        raise CompositionError(f'{owner} needs event types, such as {owner}("result")')
    for kind in kinds:
        if kind.__class__ is not str or not kind:
            raise CompositionError(
                f"{owner}: event types are non-empty strings, not {kind!r}"
            )
        if "*" in kind[:-1]:
            raise CompositionError(f"{owner}: in {kind!r} a `*` may only stand last")
    return kinds


class Kinds:
    """A set of types and prefixes; each type's answer is found once."""

    __slots__ = ("_known", "exact", "prefixes")

    def __init__(self, kinds: Iterable[str]) -> None:
        """Take exact types, and prefixes written with a `*` at their end."""
        kinds = tuple(kinds)
        self.exact = frozenset([kind for kind in kinds if not kind.endswith("*")])
        self.prefixes = tuple([kind[:-1] for kind in kinds if kind.endswith("*")])
        self._known: dict[Any, bool] = dict.fromkeys(self.exact, True)

    def __contains__(self, kind: object) -> bool:
        """Tell whether `kind` is one of them."""
        try:
            known = self._known.get(kind)
        except TypeError:  # unhashable, so not a type
            return False
        if known is None:
            known = isinstance(kind, str) and kind.startswith(self.prefixes)
            if len(self._known) < _LIMIT:
                self._known[kind] = known
        return known
