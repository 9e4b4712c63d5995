"""What the claims share: their list, the runs they begin, the logs they read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ...stores.contract import Lines, NewRun
from .place import LONG_S, Place

if TYPE_CHECKING:
    from ...stores.contract import Claim, Run, Signal, Step, Store

Check: TypeAlias = Callable[[Place], Awaitable[None]]

CLAIMS: Final[dict[str, Check]] = {}

IDS: Final = (
    "turn:1",
    "a/../b",
    "{brace}:{}",
    "quote'\"`;--",
    "p%20q_%",
    "back\\slash",
    "emoji \N{PARTY POPPER} \u4e2d",
    "x" * 256,
    " spaced ",
    "Turn:1",
    "two\nlines\ttab",
    "e\u0301",
    "\u00e9",
)
"""Ids, keys and words of any characters: each another, none read as anything else."""

VALUES: Final[tuple[Any, ...]] = (
    None,
    False,
    0,
    -0.5,
    2**63,
    -(2**64),
    10**40,
    "",
    "\x00\u2028\u0085\ufeff",
    "\ud800 lone, \N{PARTY POPPER} paired",
    [],
    {},
    {"": [{"\udfff": [None, 1e-7, 1.0]}]},
    "9" * 70_000,
)
"""JSON that comes back the same."""


def claim(check: Check) -> Check:
    """Put a check among the claims."""
    CLAIMS[check.__name__] = check
    return check


async def raises(kind: type[BaseException], pending: Awaitable[object]) -> Any:
    """Return the error of this kind that awaiting raises."""
    try:
        value = await pending
    except kind as exc:
        return exc
    raise AssertionError(f"{kind.__name__} was not raised; it gave {value!r}")


async def owned(
    store: Store,
    run_id: str = "r",
    worker: str = "w1",
    *,
    session: str | None = None,
    lease: float = LONG_S,
    reenter: bool = False,
) -> Claim:
    """Claim a run for a long time."""
    new = NewRun(id=run_id, manifest_hash="h", session=session)
    return await store.claim(new, worker=worker, lease=lease, reenter=reenter)


async def overdue(
    place: Place, store: Store, run_id: str = "r", worker: str = "w1"
) -> int:
    """Claim a run, and wait until that lease is over; return its fence."""
    got = await owned(store, run_id, worker, lease=place.lease)
    await place.lapsed(store, run_id)
    return got.fence


def lines(run_id: str, fence: int, first: int, *said: str) -> Lines:
    """Make lines."""
    data = b"".join([text.encode() + b"\n" for text in said])
    return Lines(run_id, fence, first, len(said), data)


def event(run_id: str, fence: int, event_id: str, said: str) -> Lines:
    """Make one line with an id."""
    return Lines(run_id, fence, 0, 1, said.encode() + b"\n", event_id)


async def put(store: Store, piece: Lines) -> tuple[int, bool] | None:
    """Append; give the line, and whether it is new."""
    (answer,) = await store.append([piece])
    return None if answer is None else (answer.line, answer.accepted)


async def whole(
    store: Store, run_id: str, after: int = 0, *, limit_bytes: int = 1 << 20
) -> bytes:
    """Read a log to its present end, in whatever pages."""
    found: list[bytes] = []
    while True:
        page = await store.read(run_id, after=after, limit_bytes=limit_bytes)
        if not page.chunks:
            assert after >= page.lines, f"nothing after {after} of {page.lines}"
            return b"".join(found)
        for chunk in page.chunks:
            assert chunk.first == after + 1, "chunks follow each other"
            assert chunk.data.count(b"\n") == chunk.count, "lines are whole"
            assert chunk.data.endswith(b"\n"), "lines are whole"
            after += chunk.count
            found.append(chunk.data)


Shown: TypeAlias = "tuple[Run, list[Step], dict[str, Signal | None], bytes]"


async def shown(store: Store, run_id: str, *keys: str) -> Shown:
    """Give all that a store tells of a run, but for the time."""
    from dataclasses import replace

    run = replace(await store.status(run_id), updated_at=0.0, lapsed_s=None)
    signals = {key: await store.signal(run_id, key) for key in keys}
    text = await whole(store, run_id, run.first - 1)
    return run, list(await store.steps(run_id)), signals, text
