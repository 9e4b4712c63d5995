"""The contract of a wire: how events become bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from operators.event import Event


class Wire(Protocol):
    """One way of writing events. It keeps no state: one object serves all turns."""

    @property
    def content_type(self) -> str:
        """The media type that goes into the response's header."""
        ...

    def encode(self, event: Event, /) -> bytes:
        """Write one event.

        Raises:
            InvalidEvent: `event` is not a JSON-serialisable dict.
        """
        ...

    def heartbeat(self, pad: int, /) -> bytes:
        """Write what clients pass over, of at least `pad` bytes."""
        ...

    def encode_many(self, events: Sequence[Event], /) -> bytes:
        """Write events that belong together as one chunk; none of them as nothing.

        Raises:
            InvalidEvent: one of `events` is not a JSON-serialisable dict.
        """
        ...
