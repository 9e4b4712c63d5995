"""A chat completion's bytes folded into events: splitter, decoder and end rule."""

from __future__ import annotations

from typing import Any, Final

from operators.errors import SourceError, SourceIncomplete, SourceProtocol
from operators.event import Event

from .chat_chunks import ChatAssembler
from .decoding import decode_object
from .refusal import error_from_body
from .sse import LIMIT_BYTES, Splitter

_DONE: Final = b"[DONE]"


class ChatStream:
    """Fold the body of a streamed chat completion into events, read by read.

    The end rule: `[DONE]` or choice 0's finish reason proves that the answer is whole;
    either is enough, as some servers leave the mark out and others the reason. Usage
    comes after the reason, so the stream is read on until `[DONE]` or its end.

    What fails after events of the same read is kept in `failure`: deliver what `feed`
    gave, then raise it.
    """

    __slots__ = (
        "_assembler",
        "_splitter",
        "_status",
        "_where",
        "done",
        "failure",
        "records",
    )

    def __init__(
        self,
        assembler: ChatAssembler,
        *,
        where: str = "the stream",
        status: int = 200,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        """Start before the first byte.

        `where` names the stream in messages; `status` is the HTTP status that error
        objects in it came with.
        """
        self.failure: SourceError | None = None
        self.done = False
        self.records = 0
        self._assembler = assembler
        self._splitter = Splitter(limit_bytes=limit_bytes)
        self._status = status
        self._where = where

    @property
    def complete(self) -> bool:
        """Whether the answer is known to be whole."""
        return self.done or self._assembler.finished

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the bytes of one read; give the events that they complete.

        `records` counts what was dispatched; comments, the pings of servers, do not
        count. Nothing is read after `[DONE]` or a failure.
        """
        events: list[Event] = []
        if self.done or self.failure is not None:
            return events
        try:
            for record in self._splitter.feed(chunk):
                self.records += 1
                data = record.data
                if data == _DONE:
                    self.done = True
                    break
                decoded = decode_object(data, f"record {self.records} of {self._where}")
                if "error" in decoded or record.name == "error":
                    self._raise_error(decoded, data, record.name)
                events += self._assembler.feed(decoded)
        except SourceError as error:
            self.failure = error
        return events

    def finish(self, *, latency_ms: float | None = None) -> list[Event]:
        """End the stream: give the closing events, `llm_call` last.

        Raises:
            SourceIncomplete: nothing says that the answer is whole.
            SourceProtocol: there were records, but none of a chat completion.
            SourceStatus: the body was an error object instead of a stream.
        """
        if self.failure is not None:
            raise self.failure
        left = self._splitter.eof()
        if not self.complete:
            self._explain(left)
        return self._assembler.finish(latency_ms=latency_ms)

    def _explain(self, left: bytes) -> None:
        if not self.records and left.startswith(b"{"):
            body = decode_object(left, "the body")
            raise error_from_body(body, left, status=self._status)
        if self.records and not self._assembler.seen:
            raise SourceProtocol(
                f"{self._where} has {self.records} records, but none of them is a "
                f"chat completion chunk"
            )
        raise SourceIncomplete(
            f"{self._where} ended after {self.records} records without a finish reason "
            f"or [DONE]"
            + (f", in the middle of a record of {len(left)} bytes" if left else "")
            + ": the answer is cut"
        )

    def _raise_error(self, decoded: dict[str, Any], data: bytes, name: str) -> None:
        if decoded.get("error") or name == "error":
            raise error_from_body(decoded, data, status=self._status)
