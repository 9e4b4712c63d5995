"""What edits a text that comes in pieces: the face that scanners show to events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias


class Hit(NamedTuple):
    """A stretch of text taken out: how many characters, and what stands in their place.

    A match that goes on has more than one hit; all but the first put nothing in.
    """

    dropped: int
    text: str


Piece: TypeAlias = str | Hit


class Text(Protocol):
    """A text being edited: `feed` its pieces, `flush` where other events must pass."""

    @property
    def held(self) -> int:
        """Count the characters held back."""
        ...

    def feed(self, text: str, /) -> str:
        """Take the next piece of the text; return what is decided now."""
        ...

    def flush(self, *, last: bool = False) -> str:
        """End the text, for good if it is the `last` time; return the rest of it."""
        ...


class Editing(Text, Protocol):
    """A text that also tells what was taken out."""

    def take(self, text: str, /) -> Sequence[Piece]:
        """Do as `feed`."""
        ...

    def end(self) -> Sequence[Piece]:
        """Do as `flush`."""
        ...


OpenEditing: TypeAlias = Callable[[str], Editing]
"""Begins a text, given what stands left of it."""


def shown(pieces: Sequence[Piece]) -> str:
    """Join what is left to be seen."""
    return "".join([one.text if isinstance(one, Hit) else one for one in pieces])
