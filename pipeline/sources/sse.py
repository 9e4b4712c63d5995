"""Server-sent events out of bytes: a splitter that does no I/O.

The grammar is that of the WHATWG HTML standard, 9.2.6 "Interpreting an event stream",
but for one thing: data stays bytes, so that what is not UTF-8 is found by whoever
decodes it instead of turning into U+FFFD.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from operators.errors import SourceProtocol

LIMIT_BYTES: Final = 8 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """One dispatched event: its data lines joined by LF, its name, the last id seen."""

    data: bytes
    name: str = "message"
    id: str = ""


class Splitter:
    r"""Cut a stream of bytes into records: `feed` what was read, `eof` when it ended.

    Lines end at LF, CR or CRLF and nowhere else; U+2028, U+0085 and form feeds are
    text. A CR ends its line at once, also where the LF that belongs to it comes with
    the next bytes. `retry` is the reconnection time in ms that the stream asked for.
    """

    __slots__ = (
        "_failure",
        "_id",
        "_limit",
        "_pieces",
        "_size",
        "_skip_lf",
        "_start",
        "retry",
    )

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES) -> None:
        """Start before the first byte; no record may be longer than `limit_bytes`."""
        self.retry: int | None = None
        self._limit = limit_bytes
        self._pieces: list[bytes] = []  # of the unfinished record
        self._size = 0
        self._start: bytes | None = b""  # a byte order mark may be cut, too
        self._skip_lf = False
        self._id = ""
        self._failure: SourceProtocol | None = None

    def feed(self, chunk: bytes) -> list[Record]:
        """Take the next bytes; give the records that they complete.

        Raises:
            SourceProtocol: a record is longer than the limit. Records before it are
                given first, the next call raises.
        """
        if self._failure is not None:
            raise self._failure
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._start = chunk
                return []
            self._start = None
            chunk = chunk.removeprefix(_BOM)
        if self._skip_lf and chunk:
            self._skip_lf = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._skip_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not chunk:
            return []
        pieces = self._pieces
        if b"\n\n" not in chunk and not (
            chunk.startswith(b"\n") and pieces and pieces[-1].endswith(b"\n")
        ):
            pieces.append(chunk)
            self._size += len(chunk)
            if self._size > self._limit:
                raise self._fail()
            return []
        if pieces:
            pieces.append(chunk)
            chunk = b"".join(pieces)
            pieces.clear()
        blocks = chunk.split(b"\n\n")
        rest = blocks.pop()
        self._size = len(rest)
        if rest:
            pieces.append(rest)
        records: list[Record] = []
        for block in blocks:
            if len(block) > self._limit:
                failure = self._fail()
                if not records:
                    raise failure
                break
            if block.startswith(b"data: ") and b"\n" not in block:
                records.append(Record(block[6:], "message", self._id))
            elif (record := self._parse(block)) is not None:
                records.append(record)
        return records

    def eof(self) -> bytes:
        """End the stream; give the unfinished record's bytes, which the rule discards.

        "Once the end of the file is reached, any pending data must be discarded. (If
        the file ends in the middle of an event, before the final empty line, the
        incomplete event is not dispatched.)"

        Raises:
            SourceProtocol: a record was longer than the limit.
        """
        if self._failure is not None:
            raise self._failure
        left = (self._start or b"") + b"".join(self._pieces)
        self._pieces.clear()
        self._start = None
        return left.lstrip(b"\n")

    def _fail(self) -> SourceProtocol:
        self._pieces.clear()
        self._failure = SourceProtocol(
            f"a record of the event stream is longer than {self._limit} bytes"
        )
        return self._failure

    def _parse(self, block: bytes) -> Record | None:
        data: list[bytes] = []
        name = ""
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"id":
                if b"\0" not in value:
                    self._id = value.decode("utf-8", "replace")
            elif field == b"retry" and value.isdigit() and len(value) < 16:
                self.retry = int(value)
        # "If the data buffer is an empty string, set the data buffer and the event type
        # buffer to the empty string and return": the event is for nobody.
        if not data:
            return None
        return Record(b"\n".join(data), name or "message", self._id)
