"""NDJSON: one event, one line of UTF-8, ended by LF.

`encode` and `encode_many` are orjson; what it refuses takes `encode_slow`, which writes
the same bytes and, on top, lone surrogates and integers of any size, or says which
place in the event is not JSON.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, Final, cast

from orjson import OPT_APPEND_NEWLINE, JSONDecodeError, dumps, loads

from operators.errors import InvalidEvent
from operators.event import Event

CONTENT_TYPE: Final = "application/x-ndjson"

MAX_DEPTH: Final = 254
"""How many containers orjson nests into each other."""

LARGE_CHUNK: Final = 131_072
"""From how many bytes on `encode_large` is the faster one."""

_DICT_ONLY: Final = frozenset((dict,))


def encode(event: Event, /) -> bytes:
    """Write one event as one line, LF included.

    Raises:
        InvalidEvent: `event` is not a JSON-serialisable dict; its path says where.
    """
    if event.__class__ is dict:
        try:
            return dumps(event, None, OPT_APPEND_NEWLINE)
        except TypeError:
            pass
    return encode_slow(event)


def encode_many(events: Sequence[Event], /) -> bytes:
    """Write events as one chunk: the lines that `encode` gives, in a row.

    Raises:
        InvalidEvent: one of `events` is not a JSON-serialisable dict.
    """
    if events and _DICT_ONLY.issuperset(map(type, events)):
        return encode_dicts(events)
    return b"".join([encode(event) for event in events])


def encode_dicts(events: Sequence[Event], /) -> bytes:
    """Write events, one at least, that are known to be plain dicts, as one chunk.

    Raises:
        InvalidEvent: as `encode_many`.
    """
    try:
        return b"\n".join([*map(dumps, events), b""])
    except TypeError:
        return b"".join([encode(event) for event in events])


def encode_large(events: Sequence[Event], /) -> bytes:
    """Write the same where it will be `LARGE_CHUNK` or more.

    So much held in pieces takes fresh pages from the system, which costs up to 7 times
    the encoding: each line is freed before the next is made.

    Raises:
        InvalidEvent: as `encode_many`.
    """
    chunk = BytesIO()
    for event in events:
        chunk.write(encode(event))
    return chunk.getvalue()


def encode_slow(event: Event, /) -> bytes:
    r"""Write what orjson refuses, by its rules otherwise.

    A lone surrogate becomes its `\udxxx` escape, in keys too; two that make a pair, the
    character that they mean. Integers have no size; NaN and Infinity are null.

    Raises:
        InvalidEvent: `event` is not a JSON-serialisable dict; its path says where.
    """
    checked: object = event
    if not isinstance(checked, dict):
        raise InvalidEvent(
            f"an event is a dict, not {type(checked).__name__}: "
            'send {"type": ..., "data": {...}}'
        )
    pieces: list[bytes] = []
    try:
        _write(event, [], set(), pieces.append)
    except RecursionError:
        raise InvalidEvent(
            "nested too deeply for the stack that is left: flatten it"
        ) from None
    pieces.append(b"\n")
    return b"".join(pieces)


def _write(
    value: Any, path: list[str | int], above: set[int], put: Callable[[bytes], None]
) -> None:
    """Put `value`'s bytes; `above` holds the ids of the containers around it."""
    if isinstance(value, dict):
        members = _members(cast("dict[Any, Any]", value), path)
        _write_container(value, members, b"{}", path, above, put)
    elif isinstance(value, list) or value.__class__ is tuple:
        items = enumerate(cast("Sequence[Any]", value))
        _write_container(value, items, b"[]", path, above, put)
    else:
        try:
            put(dumps(value))
        except TypeError:
            _write_refused(value, path, above, put)


def _write_container(  # noqa: PLR0917 - a recursion hands on what it was given
    value: Any,
    members: Iterator[tuple[str | int, Any]],
    brackets: bytes,
    path: list[str | int],
    above: set[int],
    put: Callable[[bytes], None],
) -> None:
    if id(value) in above:
        raise InvalidEvent(
            "circular structure, it contains itself: send a copy or an id",
            path=_spell(path),
        )
    if len(above) >= MAX_DEPTH:
        raise InvalidEvent(
            f"nested deeper than {MAX_DEPTH} levels: flatten it", path=_spell(path)
        )
    above.add(id(value))
    put(brackets[:1])
    comma = b""
    for key, member in members:
        put(comma)
        path.append(key)
        if isinstance(key, str):
            put(_string(key))
            put(b":")
        _write(member, path, above, put)
        path.pop()
        comma = b","
    put(brackets[1:])
    above.discard(id(value))


def _write_refused(
    value: Any, path: list[str | int], above: set[int], put: Callable[[bytes], None]
) -> None:
    """Put a leaf that orjson refused, or say why it is not JSON."""
    if isinstance(value, enum.Enum):
        _write(value.value, path, above, put)
    elif isinstance(value, str):
        put(_string(value))
    elif isinstance(value, int):
        try:
            put(int.__repr__(value).encode())
        except ValueError as error:  # more digits than the interpreter converts
            raise InvalidEvent(
                "integer too long to write: send it as a string", path=_spell(path)
            ) from error
    elif dataclasses.is_dataclass(value.__class__):
        members = iter(_attributes(value).items())
        _write_container(value, members, b"{}", path, above, put)
    else:
        mend = next((m for k, m in _MENDS.items() if isinstance(value, k)), "")
        raise InvalidEvent(
            f"{type(value).__name__} is not JSON{mend}", path=_spell(path)
        )


_MENDS: Final[dict[type, str]] = {
    set: ": send a list",
    frozenset: ": send a list",
    tuple: ": send a list or a dict",
    bytes: ": send text, base64 if it is none",
    bytearray: ": send text, base64 if it is none",
    memoryview: ": send text, base64 if it is none",
    BaseException: ": send its text",
    Mapping: ": send a dict",
}


def _members(value: dict[Any, Any], path: list[str | int]) -> Iterator[tuple[str, Any]]:
    for key, member in value.items():
        if key.__class__ is not str:
            raise InvalidEvent(
                f"key {key!r:.40} is {type(key).__name__}, JSON keys are strings: "
                f"use str(key)",
                path=_spell(path),
            )
        yield key, member


def _attributes(value: Any) -> dict[str, Any]:
    """List what orjson writes of a dataclass: all that is not private."""
    held = getattr(value, "__dict__", None)
    if held is None:
        held = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
        }
    return {name: held[name] for name in held if not name.startswith("_")}


_SURROGATE: Final = r"([\ud800-\udfff])"


def _string(text: str) -> bytes:
    """Write a string whose surrogates may be lone."""
    try:
        return dumps(text)
    except TypeError:
        paired = text.encode("utf-16-le", "surrogatepass")
        text = paired.decode("utf-16-le", "surrogatepass")
    pieces = re.split(_SURROGATE, text)
    return b'"%s"' % b"".join(
        b"\\u%04x" % ord(piece) if k % 2 else dumps(piece)[1:-1]
        for k, piece in enumerate(pieces)
    )


_PLAIN_KEY: Final = r"[^\W\d]\w*"
_SHOWN: Final = 4


def _spell(path: list[str | int]) -> str:
    """Spell a path as one would type it: `data.parts[3].x`; a long one is cut."""
    if len(path) <= 4 * _SHOWN:
        return _steps(path)
    return f"{_steps(path[:_SHOWN])} ... {_steps(path[-_SHOWN:])}"


def _steps(path: list[str | int]) -> str:
    spelled = ""
    for step in path:
        if isinstance(step, str) and re.fullmatch(_PLAIN_KEY, step):
            spelled += f".{step}" if spelled else step
        else:
            spelled += f"[{step!r:.40}]"
    return spelled


_DIGITS: Final = bytes(0x30 if 0x30 <= i <= 0x39 else 0x20 for i in range(256))
_MANY_DIGITS: Final = b"0" * 19


def decode(line: bytes, /) -> Event:
    """Read one line as the event it is; integers and lone surrogates come back whole.

    Raises:
        InvalidEvent: the line is not JSON, or not an object.
    """
    try:
        # orjson turns integers beyond 64 bits, 19 digits at least, into other numbers
        many = _MANY_DIGITS in line.translate(_DIGITS)
        read = json.loads(line) if many else loads(line)
    except JSONDecodeError as error:
        read = _decode_slow(line, error)
    except (ValueError, RecursionError) as error:
        raise _not_json(line, error) from error
    if not isinstance(read, dict):
        raise InvalidEvent(
            f"a line holds an object, not {type(read).__name__}: {line[:60]!r}"
        )
    return cast("Event", read)


def _decode_slow(line: bytes, error: JSONDecodeError) -> object:
    r"""Read the lone `\udxxx` escapes that orjson refuses."""
    if b"\\ud" in line or b"\\uD" in line:
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            pass
    raise _not_json(line, error) from error


def _not_json(line: bytes, error: Exception) -> InvalidEvent:
    return InvalidEvent(f"a line is not JSON ({error}): {line[:60]!r}")


class Lines:
    r"""Cut chunks into lines at LF, CR and CRLF, and nowhere else.

    U+2028, U+0085 and form feed are text (they end lines for `str.splitlines`). A CRLF
    may fall between two chunks. Blank lines are given as `b""`.
    """

    __slots__ = ("_after_cr", "_held")

    def __init__(self) -> None:
        """Start with nothing held."""
        self._held: list[bytes] = []
        self._after_cr = False

    def feed(self, chunk: bytes, /) -> list[bytes]:
        """Take a chunk, give the lines that it ends, without their line ends."""
        if not chunk:
            return []
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            if not chunk:
                self._after_cr = False
                return []
        lines = chunk.splitlines()
        self._after_cr = chunk.endswith(b"\r")
        held = None if self._after_cr or chunk.endswith(b"\n") else lines.pop()
        if lines and self._held:
            lines[0] = b"".join((*self._held, lines[0]))
            self._held.clear()
        if held is not None:
            self._held.append(held)
        return lines

    def flush(self) -> bytes:
        """Give what follows the last line end, and forget it."""
        rest = b"".join(self._held)
        self._held.clear()
        self._after_cr = False
        return rest


class Ndjson:
    """The wire of one line an event."""

    __slots__ = ()

    @property
    def content_type(self) -> str:
        """What the response's header says."""
        return CONTENT_TYPE

    def encode(self, event: Event, /) -> bytes:
        """Write one event as one line."""
        return encode(event)

    def heartbeat(self, pad: int, /) -> bytes:
        """Write blank lines: even a client that skips only empty ones skips these."""
        return b"\n" * (pad or 1)

    def encode_many(self, events: Sequence[Event], /) -> bytes:
        """Write events as one chunk of lines."""
        return encode_many(events)


NDJSON: Final = Ndjson()
