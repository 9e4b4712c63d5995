"""One run read to its end: asked for, gone on with where it broke, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from operators.errors import (
    SourceError,
    SourceIncomplete,
    SourceProtocol,
    SourceStatus,
    SourceTimeout,
    SourceUnreachable,
)

from .patience import RETRIED, Patience
from .sandbox_exchange import Asking, RunExchange
from .sandbox_place import another_run, is_sendable
from .sandbox_stream import IdOf, MapEvent, SandboxStream

if TYPE_CHECKING:
    import httpx

    from operators.event import Event

    from .supervised import SupervisedEvent

GONE: Final = frozenset({404, 410})

# A server may take a moment to see that the connection before is broken: 409, 423.
PASSING: Final = RETRIED | {409, 423}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How runs are read: deadlines, attempts, and what their events are."""

    patience: Patience
    reconnects: int
    again_url: str
    again_method: str
    ends: Collection[str]
    map_event: MapEvent | None
    event_id: IdOf | None
    limit_bytes: int
    stall: float | None
    client: httpx.AsyncClient | None = field(repr=False)


class Reading:
    """One run, over as many connections as it takes: `next` until None, `close`.

    With `handles`, `taken` has the events of the last `next` with their ids.
    """

    __slots__ = (
        "_again",
        "_asked_again",
        "_asking",
        "_attached",
        "_before",
        "_connected",
        "_ended",
        "_exchange",
        "_failures",
        "_lost",
        "_new",
        "_run_id",
        "_stream",
        "_streams",
        "_terms",
    )

    def __init__(
        self, terms: Terms, asking: Asking, run_id: str, *, handles: bool = False
    ) -> None:
        """Start the clock; nothing is sent yet."""
        self._terms = terms
        self._asking = asking
        self._run_id = run_id
        self._exchange = RunExchange(
            asking, terms.patience, client=terms.client, stall=terms.stall
        )
        self._streams = partial(
            SandboxStream,
            ends=terms.ends,
            map_event=terms.map_event,
            id_of=terms.event_id,
            limit_bytes=terms.limit_bytes,
            handles=handles,
        )
        self._stream = self._streams()
        self._again = False  # the run has begun: it is gone on with
        self._attached: Mapping[str, Any] | None = None  # another reader began it
        self._connected = False
        self._asked_again = False  # this connection goes on with the one before
        self._before = 0  # the records before this connection
        self._lost: SourceError | None = None  # how the last connection ended
        self._ended = False
        self._new = False  # there were new events since the last read
        self._failures = 0  # in a row

    @property
    def taken(self) -> list[SupervisedEvent]:
        """The events of the last `next`, each with its id and handle."""
        return self._stream.taken

    def resume(self, handle: Mapping[str, Any], event_id: str | None) -> None:
        """Go on with a run that another reader began, after this event.

        Raises:
            SourceIncomplete: nothing tells the server where that is.
        """
        self._attached = handle
        stream = self._stream
        stream.resume(handle, event_id)
        hindrance = stream.place.hindrance
        if event_id is None:
            # asked again, a server without ids may begin another run
            hindrance = None if handle.get("first") else hindrance
        else:
            self._again = True
            self._ended = stream.done
        if hindrance is not None:
            if not stream.complete:
                raise self._cut(hindrance)
            self._ended = True

    async def next(self) -> list[Event] | None:
        """Read on until there are new events; None at the run's end.

        Raises: SourceError, of any kind: the run could not be read to its end.
        """
        try:
            while not self._ended:
                if self._stream.failure is not None:
                    raise self._stream.failure
                if not self._connected:
                    await self._connect()
                    continue
                events = await self._read()
                if events:
                    return events
        except SourceError as error:
            if isinstance(error, SourceTimeout) and self._stream.complete:
                self._ended = True  # only what nobody waits for was still to come
                return None
            self._asking.clean_error(error)
            raise
        return None

    async def close(self) -> None:
        """Close the connection; never fails."""
        await self._exchange.close(drain=self._stream.done)

    async def _read(self) -> list[Event]:
        stream = self._stream
        before = stream.records
        broke: SourceIncomplete | None = None
        chunk: bytes | None = None
        cut = 0
        try:
            chunk = await self._exchange.read(progress=self._new)
        except SourceIncomplete as error:
            broke = error
        if chunk is not None:
            events = stream.feed(chunk)
        else:
            events, cut = stream.eof()
        self._new = stream.records > before
        if self._new:
            self._again = True
            self._failures = 0
        if stream.failure is not None:
            return events
        if stream.done:
            self._ended = True
        elif chunk is None:
            self._connected = False
            self._end_of_connection(broke, cut)
        return events

    def _end_of_connection(self, broke: SourceIncomplete | None, cut: int) -> None:
        """Tell the run's end from a break."""
        stream = self._stream
        # asked for more, it had none: an end that nothing marks is then believed
        nothing = self._asked_again and stream.records == self._before
        proven = self._exchange.whole or nothing
        if stream.complete and broke is None and not cut and proven:
            self._ended = True
            return
        if broke is not None:
            self._lost = broke
            return
        self._lost = SourceIncomplete(
            f"{self._asking.name}: the stream ended without an end mark"
            + (f", in the middle of a record of {cut} bytes" if cut else "")
        )

    async def _connect(self) -> None:
        """Ask, or ask to go on; a failure that may pass is kept for the next attempt."""
        lost, self._lost = self._lost, None
        if lost is not None:
            self._failures += 1
            pause = self._pause(lost)
            if pause is None:
                return
            await self._exchange.hang_up()
            await asyncio.sleep(pause)
        again = self._asked_again = self._again
        if not again:  # nothing of the attempts before counts
            self._stream = self._streams()
            if self._attached is not None:
                self._stream.resume(self._attached, None)
        self._before = self._stream.records
        try:
            response = await self._exchange.ask(self._post())
        except (SourceUnreachable, SourceStatus) as error:
            self._lost = error
            return
        if response is None:
            if not again:
                raise SourceProtocol(
                    f"{self._asking.name} answered 204 (no content) where the run was to "
                    f"begin"
                )
            self._ended = True  # the standard: "HTTP 204 No Content" stops reconnecting
            return
        self._know(response.headers.get("x-execution-id"))
        self._stream.trail.run_id = self._run_id
        self._stream.connect(again=again, lines=self._exchange.lines)
        self._connected = True

    def _pause(self, lost: SourceError) -> float | None:
        """Tell how long to wait before the next attempt; None: the run has ended.

        Raises: what it ended as.
        """
        failure = lost
        patience = self._terms.patience
        if not self._again:
            if not isinstance(lost, SourceStatus):
                failure = SourceUnreachable(
                    f"{lost}, before the first event (attempt {self._failures} of "
                    f"{patience.attempts})"
                )
            pause = patience.pause(self._failures, failure)
            if pause is None or not self._exchange.allows(pause):
                if self._attached is not None and isinstance(lost, SourceStatus):
                    raise self._refused(lost) from None
                raise failure from lost.__cause__
            return pause
        pause = self._pause_again(lost)
        if pause is not None and self._exchange.allows(pause):
            return pause
        if self._stream.complete:
            self._ended = True
            return None
        if isinstance(lost, SourceStatus) and lost.status not in PASSING:
            raise self._refused(lost) from None
        why = self._stream.place.hindrance
        if why is None:
            number = self._failures - 1
            why = (
                f"{number} attempts to go on did not help"
                if number >= self._terms.reconnects
                else "the pause before the next attempt would outlast the deadline"
            )
        raise self._cut(f"{why}; {lost}") from lost

    def _pause_again(self, lost: SourceError) -> float | None:
        if self._stream.place.hindrance is not None:
            return None
        patience, retry = self._terms.patience, self._stream.retry
        base = patience.backoff if retry is None else max(retry / 1000, 0.001)
        again = replace(
            patience,
            attempts=self._terms.reconnects + 1,
            backoff=base,
            backoff_max=max(base, patience.backoff_max),
            retried=PASSING,
        )
        passing = lost if isinstance(lost, SourceStatus) else SourceUnreachable()
        return again.pause(self._failures, passing)

    def _cut(self, why: str) -> SourceIncomplete:
        at = self._stream.place.id
        after = f" after event {at!r}" if at else ""
        return SourceIncomplete(
            f"{self._asking.name}: the answer is cut{after}, and cannot be gone on with: "
            f"{why}"
        )

    def _refused(self, error: SourceStatus) -> SourceStatus:
        """Say what a refusal to go on means."""
        if error.status not in GONE:
            return error
        gone = SourceStatus(
            f"the server does not have the run {self._run_id!r} any more: {error}",
            status=error.status,
            body=error.body,
        )
        gone.code = "source.gone"
        return gone

    def _know(self, told: str | None) -> None:
        """Learn by which id the server knows the run; the same run keeps it."""
        if told and told != self._run_id:
            if self._attached is not None or self._again:
                raise another_run(f"{told!r} and not {self._run_id!r}")
            if is_sendable(told):
                self._run_id = told

    def _post(self) -> Asking:
        """Make the request: the first one, and the same again with `Last-Event-ID`.

        The same, as an agent's server knows a run by its X-Execution-ID whatever it is
        asked with: a POST is what it is sure to have, an address to resume from is not.
        """
        asking, terms = self._asking, self._terms
        headers = {**asking.headers, "x-execution-id": self._run_id}
        if not self._again and self._attached is None:
            return replace(asking, headers=headers)
        if self._again and self._stream.place.id:
            headers["last-event-id"] = self._stream.place.id
        url = terms.again_url.replace("{execution_id}", quote(self._run_id, safe=""))
        if terms.again_method == "GET":
            del headers["content-type"]
            return replace(asking, url=url, method="GET", headers=headers, content=b"")
        return replace(asking, url=url, headers=headers)
