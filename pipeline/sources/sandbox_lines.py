"""An agent's event stream cut into records: server-sent events, or JSON lines."""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson

from operators.errors import SourceProtocol

from .sse import LIMIT_BYTES

_BOM: Final = b"\xef\xbb\xbf"
_DONE: Final = b"[DONE]"


class Line(NamedTuple):
    """One record; `id` is its own, None where it has none; without `data`, only that."""

    data: bytes | None
    name: str = ""
    id: str | None = None


class LineSplitter:
    r"""Cut bytes into records: `feed` what was read, `eof` when it ended.

    The grammar is that of server-sent events (WHATWG HTML, 9.2.6), and three more
    things that agent servers send instead: a line that begins with `{` is a record by
    itself; so is each of several `data:` lines that is a whole JSON object where no
    empty line parts them; and with `lines`, said by the content type, every line that
    is no field. Lines end at LF, CR or CRLF and nowhere else.

    `retry` is the reconnection time in ms that the stream asked for.
    """

    __slots__ = (
        "_data",
        "_each",
        "_every",
        "_failure",
        "_id",
        "_limit",
        "_name",
        "_pieces",
        "_size",
        "_skip_lf",
        "_start",
        "retry",
    )

    def __init__(self, *, lines: bool = False, limit_bytes: int = LIMIT_BYTES) -> None:
        """Start before the first byte; no record may be longer than `limit_bytes`."""
        self.retry: int | None = None
        self._every = lines
        self._each = lines  # lines, not events: none of them waits for an empty one
        self._limit = limit_bytes
        self._pieces: list[bytes] = []  # of the unfinished line
        self._size = 0  # of the unfinished record
        self._data: list[bytes] = []
        self._name = ""
        self._id: str | None = None
        self._start: bytes | None = b""  # a byte order mark may be cut, too
        self._skip_lf = False
        self._failure: SourceProtocol | None = None

    def feed(self, chunk: bytes) -> list[Line]:
        """Take the next bytes; give the records that they complete.

        Raises:
            SourceProtocol: a record is longer than the limit. Records before it are
                given first, the next call raises.
        """
        if self._failure is not None:
            raise self._failure
        chunk = self._normal(chunk)
        if not chunk:
            return []
        pieces = self._pieces
        if b"\n" not in chunk:
            pieces.append(chunk)
            self._grow(len(chunk), [])
            return []
        if pieces:
            self._size -= sum(map(len, pieces))
            pieces.append(chunk)
            chunk = b"".join(pieces)
            pieces.clear()
        lines = chunk.split(b"\n")
        rest = lines.pop()
        found: list[Line] = []
        for line in lines:
            if not line:
                self._dispatch(found)
            elif not self._data and line.startswith(b"data: {") and not self._each:
                self._data.append(line[6:])
                self._size += len(line)
                if self._size > self._limit and not self._grow(0, found):
                    return found
            elif self._grow(len(line), found):
                self._take(line, found)
            else:
                return found
        if rest:
            pieces.append(rest)
            self._grow(len(rest), found)
        return found

    def eof(self) -> tuple[list[Line], bytes]:
        """End the stream; give what was whole but for its end, and what was cut.

        Only lines can be whole: "if the file ends in the middle of an event, before the
        final empty line, the incomplete event is not dispatched".

        Raises:
            SourceProtocol: a record was longer than the limit.
        """
        if self._failure is not None:
            raise self._failure
        found: list[Line] = []
        rest = (self._start or b"") + b"".join(self._pieces)
        if self._each or rest.startswith(b"{"):
            if _is_whole(rest.removeprefix(b"data:")):
                self._take(rest, found)
                rest = b""
            if self._data and _is_whole(self._data[-1]):
                self._dispatch(found)
        left = b"\n".join([*self._data, rest])
        self._pieces.clear()
        self._data.clear()
        self._start = None
        return found, left.strip(b"\n")

    def _normal(self, chunk: bytes) -> bytes:
        """Take off the byte order mark; make every line end a LF."""
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._start = chunk
                return b""
            self._start = None
            chunk = chunk.removeprefix(_BOM)
        if self._skip_lf and chunk:
            self._skip_lf = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._skip_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _grow(self, size: int, found: list[Line]) -> bool:
        self._size += size
        if self._size <= self._limit:
            return True
        self._pieces.clear()
        self._data.clear()
        self._failure = SourceProtocol(
            f"a record of the event stream is longer than {self._limit} bytes"
        )
        if not found:
            raise self._failure
        return False

    def _take(self, line: bytes, found: list[Line]) -> None:
        """Take one line that is not empty."""
        if line.startswith(b":"):  # a comment
            self._size -= len(line)
            return
        if line.startswith(b"{") or line == _DONE:
            self._each = True
            self._dispatch(found)
            found.append(Line(line))
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data = self._data
            if len(data) == 1 and value.startswith(b"{") and _is_whole(data[0]):
                self._each = True
                self._dispatch(found)
            self._data.append(value)
            if self._each and (value == _DONE or _is_whole(value)):
                self._dispatch(found)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id":
            # "If the field value does not contain U+0000 NULL"
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif field == b"retry":
            if value.isdigit() and len(value) < 16:
                self.retry = int(value)
        elif self._every:
            found.append(Line(line))
            self._size = 0

    def _dispatch(self, found: list[Line]) -> None:
        data = self._data
        if data:
            whole = data[0] if len(data) == 1 else b"\n".join(data)
            found.append(Line(whole, self._name, self._id))
            data.clear()
        elif self._id is not None:
            found.append(Line(None, self._name, self._id))
        self._name = ""
        self._id = None
        self._size = 0


def _is_whole(data: bytes) -> bool:
    """Tell whether this is a JSON object; what is cut out of one never is."""
    data = data.strip()
    if not (data.startswith(b"{") and data.endswith(b"}")):
        return False
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True
