r"""JSON text that comes in pieces, such as a tool's arguments, edited inside.

What is edited is what the JSON says: `\u0041lice` is Alice. What stays, stays as it was
written; what is put in is escaped, and quoted where it takes the place of a number. Each
string is a text of its own, with the key before it as context. Text that is no JSON is
edited as it stands.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Final

from .texts import Hit, OpenEditing, Piece

_CONTEXT: Final = 64
_SHORT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX: Final = frozenset("0123456789abcdefABCDEF")


class JsonText:
    """One JSON text being edited: `feed` its pieces, `flush` at its end."""

    def __init__(self, open_editing: OpenEditing) -> None:
        """Begin outside of a string."""
        self._open = open_editing
        self._editing = open_editing("")
        self._string = False
        self._depth = 0
        self._escape = ""
        self._high = ("", "")
        self._raw: deque[str] = deque()
        self._said: list[str] = []
        self._context = ""
        self._out: list[str] = []

    @property
    def held(self) -> int:
        """Count the characters held back."""
        waiting = len(self._escape) + len(self._high[1])
        return sum(map(len, self._raw)) + waiting

    @property
    def complete(self) -> bool:
        """Tell whether every bracket and string is closed."""
        return not self._string and self._depth <= 0

    def feed(self, text: str, /) -> str:
        """Take the next piece of the text; return what is decided now."""
        plain: list[str] = []
        for char in text:
            if self._escape:
                self._escaped(char, plain)
            elif char == "\\" and self._string:
                self._escape = char
            elif char == '"':
                self._alone(plain)
                self._quote(plain)
            else:
                if not self._string:
                    self._depth += (char in "{[") - (char in "]}")
                self._unit(char, char, plain)
        self._edit(plain)
        return self._taken()

    def flush(self, *, last: bool = False) -> str:
        """End the text; return the rest of it.

        An escape that is cut stays held, for its other half, unless it is the `last`
        time.
        """
        if last:
            plain: list[str] = []
            self._alone(plain)
            self._literally(plain)
            self._edit(plain)
        self._show(self._editing.end())
        return self._taken()

    def _taken(self) -> str:
        out, self._out = "".join(self._out), []
        return out

    # -- reading

    def _escaped(self, char: str, plain: list[str]) -> None:
        self._escape += char
        if self._escape[1] != "u":
            raw, self._escape = self._escape, ""
            self._unit(_SHORT.get(char, char), raw, plain)
        elif len(self._escape) > 2 and char not in _HEX:
            self._escape = self._escape[:-1]
            self._alone(plain)
            self._literally(plain)
            self._out_of_place(char, plain)
        elif len(self._escape) == 6:
            raw, self._escape = self._escape, ""
            self._unit(chr(int.from_bytes(bytes.fromhex(raw[2:]))), raw, plain)

    def _out_of_place(self, char: str, plain: list[str]) -> None:
        """Take a character that ended what only looked like an escape."""
        if char == "\\":
            self._escape = char
        elif char == '"':
            self._quote(plain)
        else:
            self._unit(char, char, plain)

    def _literally(self, plain: list[str]) -> None:
        """Take an escape that is none as the characters it is written with."""
        for char in self._escape:
            self._unit(char, char, plain)
        self._escape = ""

    def _unit(self, char: str, raw: str, plain: list[str]) -> None:
        """Take one character; two escapes may be one (RFC 8259, section 7)."""
        high, high_raw = self._high
        if high:
            self._high = ("", "")
            if "\udc00" <= char <= "\udfff":
                code = 0x10000 + (ord(high) - 0xD800) * 0x400 + ord(char) - 0xDC00
                char, raw = chr(code), high_raw + raw
            else:
                self._raw.append(high_raw)
                plain.append(high)
        if len(raw) == 6 and "\ud800" <= char <= "\udbff":
            self._high = (char, raw)
            return
        self._raw.append(raw)
        plain.append(char)

    def _alone(self, plain: list[str]) -> None:
        """Take a first half whose second one does not come."""
        high, raw = self._high
        if high:
            self._high = ("", "")
            self._raw.append(raw)
            plain.append(high)

    def _quote(self, plain: list[str]) -> None:
        """Go into a string, or out of it."""
        self._edit(plain)
        plain.clear()
        self._show(self._editing.end())
        self._out.append('"')
        said = "".join(self._said)[-_CONTEXT:]
        self._said = []
        self._string = not self._string
        if self._string:
            colon = ":" in said or "=" in said
            self._editing = self._open(f'{self._context}{said}"' if colon else "")
        else:
            self._context = f'{said}"'
            self._editing = self._open("")

    # -- writing

    def _edit(self, plain: list[str]) -> None:
        if plain:
            text = "".join(plain)
            self._said.append(text[-_CONTEXT:])
            if len(self._said) > _CONTEXT:
                self._said = ["".join(self._said)[-_CONTEXT:]]
            self._show(self._editing.take(text))

    def _show(self, pieces: Sequence[Piece]) -> None:
        """Write pieces as JSON: what is kept as it was written."""
        raw = self._raw
        for piece in pieces:
            if isinstance(piece, Hit):
                for _ in range(piece.dropped):
                    raw.popleft()
                if piece.text:
                    written = json.dumps(piece.text, ensure_ascii=False)
                    self._out.append(written[1:-1] if self._string else written)
            else:
                self._out += [raw.popleft() for _ in piece]
