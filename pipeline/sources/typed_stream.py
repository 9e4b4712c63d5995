"""An answer of typed JSON records folded into events: splitter, decoder, end rule."""

from __future__ import annotations

from typing import Any, Final, Protocol

from operators.errors import SourceError, SourceIncomplete, SourceProtocol
from operators.event import Event

from .decoding import decode_object
from .refusal import error_from_body
from .sse import LIMIT_BYTES, Splitter

_DONE: Final = b"[DONE]"


class TypedFold(Protocol):
    """What makes events of records that name their `type`: a protocol's own part.

    `seen`: a record of the protocol was there; `finished`: the answer is whole; `done`:
    nothing comes after it.
    """

    seen: bool
    finished: bool
    done: bool

    def feed(self, record: dict[str, Any], events: list[Event]) -> None:
        """Fold one record in; what it makes goes to `events`, also before it raises."""
        ...

    def finish(self, *, latency_ms: float | None = None) -> list[Event]:
        """End the message: settle what is open, report the call."""
        ...

    def status(self, error: object) -> int | None:
        """Tell the HTTP status that an error object stands for; None: not known."""
        ...


class TypedStream:
    """Fold the body of a streamed answer into events, read by read.

    Pings count as no record. What fails after events of the same read is kept in
    `failure`: deliver what `feed` gave, then raise it.
    """

    __slots__ = (
        "_ends",
        "_fold",
        "_kind",
        "_splitter",
        "_status",
        "_where",
        "failure",
        "records",
    )

    def __init__(
        self,
        fold: TypedFold,
        *,
        kind: str,
        ends: str,
        where: str = "the stream",
        status: int = 200,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        """Start before the first byte; `kind`, `ends` and `where` are for messages.

        `status` is the HTTP status that an error is given whose own is not known.
        """
        self.failure: SourceError | None = None
        self.records = 0
        self._fold = fold
        self._kind = kind
        self._ends = ends
        self._where = where
        self._status = status
        self._splitter = Splitter(limit_bytes=limit_bytes)

    @property
    def done(self) -> bool:
        """Whether nothing more is to come."""
        return self._fold.done

    @property
    def complete(self) -> bool:
        """Whether the answer is known to be whole."""
        return self._fold.done or self._fold.finished

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the bytes of one read; give the events that they complete."""
        events: list[Event] = []
        fold = self._fold
        if fold.done or self.failure is not None:
            return events
        try:
            for record in self._splitter.feed(chunk):
                data = record.data
                if record.name == "ping" or data == _DONE:
                    continue
                number = self.records + 1
                decoded = decode_object(data, f"record {number} of {self._where}")
                kind = decoded.get("type")
                if kind == "ping":
                    continue
                self.records = number
                if kind == "error" or record.name == "error":
                    self._raise_error(decoded, data)
                if kind is None and decoded.get("error"):
                    self._raise_error(decoded, data)
                fold.feed(decoded, events)
                if self.done:
                    break
        except SourceError as error:
            self.failure = error
            self.records = self.records or 1
        return events

    def finish(self, *, latency_ms: float | None = None) -> list[Event]:
        """End the stream: give the closing events, `llm_call` last.

        Raises:
            SourceIncomplete: nothing says that the answer is whole.
            SourceProtocol: there were records, but none of this protocol.
            SourceStatus: the body was an error object instead of a stream.
        """
        if self.failure is not None:
            raise self.failure
        left = self._splitter.eof()
        if not self.complete:
            self._explain(left)
        return self._fold.finish(latency_ms=latency_ms)

    def _explain(self, left: bytes) -> None:
        if not self.records and left.startswith(b"{"):
            self._raise_error(decode_object(left, "the body"), left)
        if self.records and not self._fold.seen:
            raise SourceProtocol(
                f"{self._where} has {self.records} records, but none of them is of "
                f"{self._kind}"
            )
        raise SourceIncomplete(
            f"{self._where} ended after {self.records} records without {self._ends}"
            + (f", in the middle of a record of {len(left)} bytes" if left else "")
            + ": the answer is cut"
        )

    def _raise_error(self, decoded: dict[str, Any], data: bytes) -> None:
        told = decoded.get("error") or decoded
        status = self._fold.status(told) or self._status
        raise error_from_body(decoded, data, status=status)
