"""`share`: one turn, many readers."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

from .errors import CompositionError
from .feed import Feed, Slow
from .keyed import at_least
from .operator import Operator, Stage
from .reader import Reader
from .turn import TurnContext

if TYPE_CHECKING:
    from .event import Event

Feeds: TypeAlias = "WeakValueDictionary[str, Feed]"
_SLOW: tuple[Slow, ...] = ("drop_oldest", "disconnect", "wait")


class Share(Operator):
    """What `share` gives: an operator that others can read from."""

    __slots__ = ("_buffer", "_feeds", "_replay", "_slow")

    _buffer: int
    _feeds: Feeds
    _replay: int
    _slow: Slow

    def __init__(self, *, replay: int, buffer: int, slow: Slow) -> None:
        """Describe it."""
        detail = {"kind": "share", "replay": replay, "buffer": buffer, "slow": slow}
        super().__init__("share", self._stage, detail=detail, fixed=True)
        set_ = object.__setattr__
        set_(self, "_replay", replay)
        set_(self, "_buffer", buffer)
        set_(self, "_slow", slow)
        set_(self, "_feeds", WeakValueDictionary())

    def subscribe(self, turn: TurnContext | str) -> Reader:
        """Read a turn's events, those that are still to come and the last `replay`.

        `turn` is its context (`run.context`) or its execution id; it need not have begun.
        Iterate the reader, once; close it with `aclose()`, or drop it. It ends when the
        turn is closed, and at once for a turn that has ended; by its id alone a turn
        that nobody holds any more is waited for, as one that is still to come.
        """
        key = turn if isinstance(turn, str) else turn.execution_id
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feed(key)
            feed.over = isinstance(turn, TurnContext) and turn.ending is not None
        return feed.reader()

    def _feed(self, key: str) -> Feed:
        feed = Feed(replay=self._replay, buffer=self._buffer, slow=self._slow)
        self._feeds[key] = feed
        return feed

    def _stage(self, turn: TurnContext) -> Stage:
        key = turn.execution_id
        feed = self._feeds.get(key)
        if feed is None or feed.begun:
            feed = self._feed(key)
        feed.begun = True

        def paced(event: Event) -> Awaitable[None] | None:
            if feed.full and turn.ending is None:
                return feed.later(event)
            feed.send(event)
            return None

        on_event = paced if self._slow == "wait" else feed.send
        return Stage(on_event, awaits=False, close=feed.end, on_error="log")


def share(*, replay: int = 0, buffer: int = 256, slow: Slow = "drop_oldest") -> Share:
    """Let others read the turn's events as they pass, each at a pace of its own.

        shared = ops.share(replay=100)
        chat = Pipeline(produce) | ops.lifecycle() | shared
        async for event in shared.subscribe(run.context): ...

    A reader sees the events that come after it subscribed, and first the last `replay`
    before. `buffer`: how many events may wait for it. Where it is slower than that,
    `"drop_oldest"` forgets the oldest (`reader.dropped` counts them), `"disconnect"` ends
    it with SlowReader, `"wait"` lets the turn wait, though not with its last events: what
    comes once it settles goes beyond the buffer. Readers that leave cost nothing.

    Holds: `replay` events a turn, `buffer` events a reader; nothing of a turn that has
        ended and has no reader.
    Order: after `lifecycle`, readers see the terminal; after `redact`, no secrets.
    Raises: CompositionError: parameters that cannot be.
    """
    at_least(0, replay, "share: replay")
    at_least(1, buffer, "share: buffer")
    if slow not in _SLOW:
        raise CompositionError(f"share: slow must be one of {', '.join(_SLOW)}")
    return Share(replay=replay, buffer=buffer, slow=slow)
