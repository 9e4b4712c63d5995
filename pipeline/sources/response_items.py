"""Which item of a response an event is about."""

from __future__ import annotations

from typing import Any


class ItemKeys:
    """Tell the items of one response apart: a key for each, however events name it.

    An id that was announced says it; else the item that was announced last at that
    `output_index` and is not done; else the id itself. Some servers give each event of
    one item an id of its own, others give all items the same index, others no index.
    """

    __slots__ = ("_at", "_known")

    def __init__(self) -> None:
        """Start with no item."""
        self._known: dict[str, str] = {}
        self._at: dict[int, str] = {}

    def announce(self, names: list[str], index: Any) -> str:
        """Begin an item that has these names, at that index; give its key."""
        given = [name for name in names if name]
        key = given[0] if given else f"at {index}"
        for name in given:
            self._known[name] = key
        if type(index) is int:
            self._at[index] = key
        return key

    def find(self, names: list[str], index: Any) -> str | None:
        """Tell the key of an item that was announced; None: it was not."""
        for name in names:
            if name in self._known:
                return self._known[name]
        return self._at.get(index) if type(index) is int else None

    def of(self, name: str, index: Any) -> str:
        """Tell the key of the item that an event names so, announced or not."""
        known = self._known.get(name)
        if known is None and type(index) is int:
            known = self._at.get(index)
        return name if known is None else known

    def done(self, key: str, index: Any) -> None:
        """End the item: its index no longer stands for it."""
        if type(index) is int and self._at.get(index) == key:
            del self._at[index]
