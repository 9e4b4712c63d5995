"""Which of a log's lines count: those of the last time that its run was begun.

A run that cannot be attached to again is begun anew; what its first attempt logged is
void then. A line of its own says so, and the event ids of the new attempt are its own,
so that none is taken for one of the void ones.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..stores.coding import from_json, to_json
from ..stores.contract import Lines

if TYPE_CHECKING:
    from ..stores.contract import Chunk, Store
    from .lease import Lease

OWN: Final = "turnpipe:"
RESTARTED: Final = "log.restarted"


@dataclass(frozen=True, slots=True)
class Generation:
    """The lines after `void`, up to `lines`; `last_id` is the adapter's of the last."""

    prefix: str = ""
    void: int = 0
    lines: int = 0
    last_id: str | None = None

    def line(self, owned: Lease, event_id: str, payload: Mapping[str, Any]) -> Lines:
        """Make the line of one event.

        Raises:
            ValueError: the event's id is empty, or one of ours.
        """
        if not event_id or event_id.startswith(OWN):
            raise ValueError(
                f"event id {event_id!r} must be a text of the adapter's own, that does "
                f"not begin with {OWN!r}"
            )
        data = to_json(dict(payload)) + b"\n"
        return Lines(owned.run.id, owned.fence, 0, 1, data, self.prefix + event_id)


async def last_generation(store: Store, owned: Lease) -> Generation:
    """Look the log over for the last generation."""
    found = Generation()
    async for chunk in chunks(store, owned, after=0):
        event_id = chunk.event_id or ""
        last = chunk.first + chunk.count - 1
        if event_id.startswith(OWN) and event_id.endswith(":"):
            found = Generation(event_id, last, last)
        else:
            own = event_id.removeprefix(found.prefix)
            found = Generation(found.prefix, found.void, last, own)
    return found


async def restarted(store: Store, owned: Lease, before: Generation) -> Generation:
    """Begin another generation: void what is logged."""
    prefix = f"{OWN}{owned.fence}:"
    event = {"type": RESTARTED, "data": {"void": before.lines}}
    data = to_json(event) + b"\n"
    line = Lines(owned.run.id, owned.fence, 0, 1, data, prefix)
    await owned.append([line])
    return Generation(prefix, before.lines + 1, before.lines + 1)


async def payloads(
    store: Store, owned: Lease, generation: Generation
) -> AsyncGenerator[dict[str, Any]]:
    """Read a generation's events back."""
    async for chunk in chunks(store, owned, after=generation.void):
        for line in chunk.data.splitlines():
            yield from_json(line)


async def chunks(store: Store, owned: Lease, *, after: int) -> AsyncGenerator[Chunk]:
    """Read what the log held when it was claimed, page by page."""
    while after < owned.run.lines:
        page = await owned.write(partial(store.read, owned.run.id, after=after))
        for chunk in page.chunks:
            after = chunk.first + chunk.count - 1
            yield chunk
