"""`RedisLog`: the lines of running turns in Redis or Valkey Streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

from operators.errors import LeaseLost, StoreFull

from .chunks import following, gap, overlap
from .contract import PAGE_BYTES, Appended, Chunk, Lines
from .redis_link import Arg, Call, Link
from .redis_lua import APPEND, BEGIN, FINISH, LOOK, READ, RENEW, TRIM, Script
from .redis_waiting import Waiting

_EVENT: Final = b"e:"

_LONG: Final = 200
"""Characters of a run's id, encoded, from which on its keys have a hash instead."""


class RedisLog:
    """A delivery log in Redis (7 or later) or Valkey, beside a store that archives.

    `RedisLog("redis://user:secret@host:6379/0")`; `rediss://` for TLS, `unix://` for a
    socket; with `cluster=True` any node of a cluster. A run is one stream and one hash in
    one slot, named `prefix:{run}`. A batch of appends is one Lua script. On a cluster it
    is one for each run, sent together: where it fails in the middle, some runs have
    their lines and some have not.

    `max_bytes` bounds what a run holds here that was not trimmed: beyond it `append`
    raises StoreFull, and nothing is dropped. `ttl` seconds after its last `begin` or
    `renew` a run that nobody took over expires, with what was not archived: let it be
    much longer than it takes until somebody recovers. A finished one expires after
    `linger` seconds. At most `connections` connections are open for calls, and one for
    all waits. A call asks again for `patience` seconds while the server is away, and
    waits for an answer for `timeout`.

    What an acknowledged append survives is the server's to say. Without `appendonly` it
    is in the server's memory, and gone with its process. With `appendonly yes`:
    `appendfsync always` loses nothing that the disk kept, at one fsync for what came
    together. `everysec`, the default, acknowledges ahead of its file while an fsync is
    under way: up to two seconds are lost where the machine fails, and also where only
    the process is killed. `no` survives a killed process, and loses what the kernel had
    not written where the machine fails. A replica follows later, so a failover may lose
    the last moments whatever is set. What is lost is the end of a run, never its middle,
    and never what the store had archived; readers may have seen it. Its owner's lease is
    over then, as soon as it appends through the object that had the acknowledgement.

    The server must not evict: with a `maxmemory` its policy has to be `noeviction`. Its
    user needs the commands of the scripts (EVAL, EVALSHA, hash, stream and key commands,
    TIME, PUBLISH, SUBSCRIBE, INFO) on `prefix:*`, keys and channels.

    Raises:
        ValueError: the URL or prefix cannot be, or a bound is not above 0.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "turnpipe",
        ttl: float = 3600.0,
        linger: float = 60.0,
        max_bytes: int = 64 << 20,
        connections: int = 8,
        timeout: float = 5.0,
        patience: float = 1.0,
        cluster: bool = False,
    ) -> None:
        """Read the URL; connections are opened on first use."""
        if not prefix or "{" in prefix or "}" in prefix:
            raise ValueError(
                f"a prefix is not empty and has no braces, which would change the slot "
                f"of a run's keys: not {prefix!r}"
            )
        bounds = {
            "ttl": ttl,
            "linger": linger,
            "max_bytes": max_bytes,
            "connections": connections,
            "timeout": timeout,
        }
        for name, bound in bounds.items():
            if not bound > 0:
                raise ValueError(f"{name} must be above 0, not {bound}")
        self._prefix = prefix
        self._ttl = ttl
        self._linger_ms = max(int(linger * 1000), 1)
        self._max_bytes = max_bytes
        self._link = Link(
            url,
            connections=connections,
            timeout=timeout,
            patience=patience,
            cluster=cluster,
        )
        self._ends: dict[str, tuple[int, int]] = {}
        self._waiting = Waiting(self._link.listener, self._look, channel=self._channel)

    async def close(self) -> None:
        """Let go of connections and tasks; waits end."""
        await self._waiting.close()
        await self._link.close()

    async def begin(self, run_id: str, fence: int, *, lease: float, lines: int) -> int:
        """Let only `fence` append from now on."""
        has = await self._one(
            BEGIN,
            run_id,
            fence,
            _milliseconds(lease),
            lines,
            self._expiry_ms(lease),
            self._channel(run_id),
        )
        if has < 0:
            raise LeaseLost(run_id)
        self._ends[run_id] = (fence, has)
        self._waiting.tell(run_id, lines=has)
        return int(has)

    async def renew(self, fences: Mapping[str, int], *, lease: float) -> None:
        """Renew the live leases of runs, by id; end them with a lease of 0."""
        times = (_milliseconds(lease), self._expiry_ms(lease))
        calls = [
            Call(RENEW, self._keys(run_id), (fence, *times))
            for run_id, fence in fences.items()
        ]
        if calls:
            await self._link.call(calls)
        if lease <= 0:
            for run_id, fence in fences.items():
                self._forget(run_id, fence)

    async def append(self, batch: Sequence[Lines]) -> Sequence[Appended | None]:
        """Append lines of any number of runs, in order, each run's as a whole.

        Raises:
            ValueError: lines would leave a gap, or overlap the log's end.
            StoreFull: a run holds `max_bytes` already. Those of other runs are written.
        """
        places: dict[str, list[int]] = {}
        for k, lines in enumerate(batch):
            places.setdefault(lines.run_id, []).append(k)
        if not places:
            return []
        if self._link.is_cluster and len(places) > 1 and self._doubtful(batch):
            # There is no transaction over slots: what would be refused is known before.
            checked = await self._appended("check", batch, places)
            self._refuse(batch, places, checked)
        found = await self._appended("write", batch, places)
        answers: list[Appended | None] = [None] * len(batch)
        grown: dict[str, int] = {}
        for (run_id, ks), answer in zip(places.items(), found, strict=True):
            if not answer or answer[0] < 0:
                continue
            for k, line, new in zip(ks, answer[::2], answer[1::2], strict=True):
                lines = batch[k]
                if not line:
                    self._forget(run_id, lines.fence)
                    continue
                answers[k] = Appended(line, accepted=bool(new))
                self._acknowledged(run_id, lines.fence, line + lines.count - 1)
                if new:
                    grown[run_id] = line + lines.count - 1
        for run_id, end in grown.items():
            self._waiting.tell(run_id, lines=end)
        self._refuse(batch, places, found)
        return answers

    async def _appended(
        self, mode: str, batch: Sequence[Lines], places: Mapping[str, list[int]]
    ) -> list[list[int]]:
        """Append, and give of each run what the script does: one call, but a cluster's."""
        head: list[Arg] = [mode, self._max_bytes]
        keys: list[str] = []
        args: list[Arg] = []
        calls: list[Call] = []
        for run_id, ks in places.items():
            known = self._ends.get(run_id, (0, 0))
            keys += self._keys(run_id)
            args += (self._channel(run_id), *known, len(ks))
            for k in ks:
                lines = batch[k]
                event = b"" if lines.event_id is None else _field(lines.event_id)
                data = bytes(lines.data)
                args += (lines.fence, lines.first, lines.count, event, data)
            if self._link.is_cluster:
                calls.append(Call(APPEND, keys, head + args))
                keys, args = [], []
        if keys:
            calls.append(Call(APPEND, keys, head + args))
        answers = await self._link.call(calls)
        return [answer for one in answers for answer in one]

    def _doubtful(self, batch: Sequence[Lines]) -> bool:
        """Tell whether lines may not fit, by what this object has acknowledged."""
        ends: dict[str, int] = {}
        vague: set[str] = set()
        for lines in batch:
            if lines.event_id is not None:
                vague.add(lines.run_id)  # whether it is new is not known here
                continue
            fence, known = self._ends.get(lines.run_id, (0, 0))
            end = ends.get(lines.run_id, known)
            last = lines.first + lines.count - 1
            if (
                fence != lines.fence
                or lines.run_id in vague
                or lines.first < 1
                or lines.count < 1
                or (lines.first != end + 1 and last > end)
            ):
                return True
            ends[lines.run_id] = max(end, last)
        return False

    def _acknowledged(self, run_id: str, fence: int, end: int) -> None:
        before, known = self._ends.get(run_id, (0, 0))
        if fence > before or (fence == before and end > known):
            self._ends[run_id] = (fence, end)

    def _forget(self, run_id: str, fence: int) -> None:
        known = self._ends.get(run_id)
        if known is not None and known[0] == fence:
            del self._ends[run_id]

    def _refuse(
        self,
        batch: Sequence[Lines],
        places: Mapping[str, list[int]],
        found: list[list[int]],
    ) -> None:
        """Raise what a run's answer says, if one does: what does not fit goes first."""
        full: StoreFull | None = None
        for (run_id, ks), answer in zip(places.items(), found, strict=True):
            if not answer or answer[0] >= 0:
                continue
            kind, one, two = answer
            if kind == -1:
                gap(batch[ks[one]], two)
                overlap(batch[ks[one]], two)
            full = StoreFull(
                f"{run_id!r} holds {one} bytes in {self._link.where} that the store has "
                f"not archived, and {two} more are beyond max_bytes={self._max_bytes}: "
                f"let the store archive, or raise max_bytes"
            )
        if full is not None:
            raise full

    async def read(
        self, run_id: str, *, after: int = 0, limit_bytes: int = PAGE_BYTES
    ) -> tuple[tuple[Chunk, ...], int] | None:
        """Read lines after a cursor, and how many there are; None: the store has them.

        Raises:
            ValueError: `after` is negative.
        """
        if after < 0:
            raise ValueError(f"after must be 0 or more, not {after}")
        page = await self._one(READ, run_id, after, limit_bytes)
        if page is None:
            return None
        lines, *entries = page
        chunks = (
            Chunk(first, count, data, None if event is None else _event_id(event))
            for first, count, data, event in entries
        )
        return following(chunks, after, limit_bytes), lines

    async def wait(self, run_id: str, *, after: int, timeout: float) -> None:  # noqa: ASYNC109 - the contract's
        """Return when the log may have grown past `after` or closed, or time is up.

        A run that the log does not know may begin: it is waited for.
        """
        await self._waiting.wait(run_id, after=after, limit_s=timeout)

    async def trim(self, run_id: str, *, upto: int) -> None:
        """Let go of the lines up to this one; those that share a chunk with others stay."""
        if upto > 0:
            await self._one(TRIM, run_id, upto + 1)

    async def finish(self, run_id: str, fence: int) -> None:
        """Close; a fence that does not own the run closes nothing."""
        done = await self._one(
            FINISH, run_id, fence, self._linger_ms, self._channel(run_id)
        )
        self._forget(run_id, fence)
        if done:
            self._waiting.tell(run_id)

    # -- names and times

    async def _one(self, script: Script, run_id: str, *args: Arg) -> Any:
        (answer,) = await self._link.call([Call(script, self._keys(run_id), args)])
        return answer

    async def _look(self, run_ids: list[str]) -> list[tuple[int, bool] | None]:
        found = await self._link.call(
            [Call(LOOK, self._keys(run_id), ()) for run_id in run_ids]
        )
        return [None if one is None else (one[0], bool(one[1])) for one in found]

    def _expiry_ms(self, lease: float) -> int:
        """Outlive the lease, however long that is."""
        return _milliseconds(max(self._ttl, 2 * lease))

    def _channel(self, run_id: str) -> str:
        return f"{self._prefix}:{{{_tag(run_id)}}}"

    def _keys(self, run_id: str) -> tuple[str, str]:
        name = self._channel(run_id)
        return f"{name}:meta", f"{name}:log"


def _tag(run_id: str) -> str:
    """Write an id so that it can stand in braces: they decide about the slot.

    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
    """
    # "%" and "#" are not what quoting ever gives by themselves.
    tag = quote(run_id, safe=":/@,=+ ", errors="surrogatepass") or "%"
    if len(tag) > _LONG:
        return f"#{sha256(tag.encode()).hexdigest()}"
    return tag


def _field(event_id: str) -> bytes:
    return _EVENT + event_id.encode(errors="surrogatepass")


def _event_id(field: bytes) -> str:
    return field.removeprefix(_EVENT).decode(errors="surrogatepass")


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 0)
