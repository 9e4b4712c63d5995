"""`restore`: for a reader who may see it, what was taken out is put back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING

from ..operator import Operator, Stage
from .editor import Editor
from .places import SCOPES, Scope
from .texts import Hit, Piece, shown
from .vault import Vault, table_of

if TYPE_CHECKING:
    from ..turn import TurnContext


def restore(vault: Vault | MutableMapping[str, str]) -> Operator:
    """Put secrets back in the place of their placeholders, in every text of an event.

    `vault` is the one that `redact(vault=...)` filled, further left.

    Emits: what comes in, deltas of the same parts with less or later text.
    Holds back: what may be the beginning of a placeholder, as `redact` does.
    Order: after everything that must not see secrets: `accumulate`, `persist`, taps. A
        secret longer than its detector's `max_len` is put back as far as it has come.
    """

    def open_(turn: TurnContext) -> Stage:
        table = _Table(table_of(vault, turn))

        def text(scope: Scope) -> Callable[[str], Placeholders]:
            return lambda before: Placeholders(table)

        def whole(scope: Scope, text: str, before: str) -> str:
            return table.put_back(text)

        editor = Editor(text, whole, frozenset(SCOPES))
        return Stage(
            editor.on_event, shape="flat_map", awaits=False, finish=editor.finish
        )

    return Operator("restore", open_, detail={"kind": "restore"}, fixed=True)


class _Table:
    """The placeholders of a turn, ready to be looked for; more may come."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.known = known
        self.size = -1
        self.begun: set[str] = set()
        self.longest = 0
        self.pattern = re.compile(r"(?!)")
        self.first = self.pattern

    def refresh(self) -> None:
        """Take note of new placeholders."""
        if len(self.known) == self.size:
            return
        self.size = len(self.known)
        names = sorted(self.known, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self.begun = {name[:end] for name in names for end in range(1, len(name))}
        firsts = {re.escape(name[0]) for name in names if name}
        self.first = re.compile("|".join(sorted(firsts)) or r"(?!)")
        self.longest = max(map(len, self.begun), default=0)

    def put_back(self, text: str) -> str:
        """Put secrets back into a whole text."""
        self.refresh()
        return self.pattern.sub(lambda match: self.known[match[0]], text)

    def undecided(self, text: str) -> int:
        """Tell from where on a text may be the beginning of a placeholder."""
        for at in range(max(0, len(text) - self.longest), len(text)):
            if text[at:] in self.begun:
                return at
        return len(text)


class Placeholders:
    """One text with placeholders: `feed` its pieces, `flush` at its end."""

    def __init__(self, table: _Table) -> None:
        """Begin a text."""
        self._table = table
        self._buffer = ""

    @property
    def held(self) -> int:
        """Count the characters held back."""
        return len(self._buffer)

    def feed(self, text: str, /) -> str:
        """Take the next piece of the text; return what is decided now."""
        table = self._table
        if not self._buffer:
            table.refresh()
            if table.first.search(text) is None:  # as nearly all text
                return text
        return shown(self.take(text))

    def flush(self, *, last: bool = False) -> str:
        """End the text; return the rest of it."""
        return shown(self.end())

    def take(self, text: str, /) -> list[Piece]:
        """Do as `feed`, and tell what was taken out."""
        self._buffer += text
        self._table.refresh()
        return self._put_back(self._table.undecided(self._buffer))

    def end(self) -> list[Piece]:
        """Do as `flush`, and tell what was taken out."""
        return self._put_back(len(self._buffer))

    def _put_back(self, stop: int) -> list[Piece]:
        """Let out the text up to `stop`; a placeholder that crosses it waits whole."""
        pieces: list[Piece] = []
        buffer = self._buffer
        at = 0
        for match in self._table.pattern.finditer(buffer):
            if match.end() > stop:
                stop = min(stop, match.start())
                break
            pieces += [buffer[at : match.start()]]
            pieces.append(Hit(len(match[0]), self._table.known[match[0]]))
            at = match.end()
        pieces.append(buffer[at:stop])
        self._buffer = buffer[stop:]
        return [piece for piece in pieces if piece]
