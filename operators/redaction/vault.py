"""`Vault`: which placeholder stands for which secret, turn by turn."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from ..turn import TurnContext


class Vault:
    """Keeps what `redact(vault=...)` took out, for a `restore(vault)` further on.

    In memory, and for as long as the turn itself: each turn has secrets of its own.
    """

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        """Begin empty."""
        self._tables: WeakKeyDictionary[TurnContext, dict[str, str]] = (
            WeakKeyDictionary()
        )

    def of(self, turn: TurnContext) -> MutableMapping[str, str]:
        """Return the secrets of one turn, by their placeholders."""
        return self._tables.setdefault(turn, {})

    def __repr__(self) -> str:
        """Say how many turns there are; never what it holds."""
        return f"<Vault of {len(self._tables)} turns>"


def table_of(
    vault: Vault | MutableMapping[str, str], turn: TurnContext
) -> MutableMapping[str, str]:
    """Return the table of a turn: a plain mapping is one for all turns."""
    return vault.of(turn) if isinstance(vault, Vault) else vault
