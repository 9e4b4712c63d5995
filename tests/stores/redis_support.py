"""What the tests of RedisLog share."""

import asyncio
from contextlib import asynccontextmanager

from pipeline.stores import RedisLog
from pipeline.stores.contract import Lines
from pipeline.testing import no_leaks

from .valkey_server import fresh_prefix

RUN = "tenant:run/1"


def run(test, *, limit_s=60.0):
    """Run a test in a loop of its own, which it leaves as it found it."""

    async def bounded():
        async with asyncio.timeout(limit_s), no_leaks():
            await test()

    asyncio.run(bounded())


@asynccontextmanager
async def opened(server, **options):
    """Give a log with data of its own."""
    options = {"prefix": fresh_prefix()} | options
    log = RedisLog(getattr(server, "url", server), **options)
    try:
        yield log
    finally:
        await log.close()


def line(number):
    return b'{"line":%d}\n' % number


def lines(first, count=1, *, fence=1, run_id=RUN):
    data = b"".join(line(k) for k in range(first, first + count))
    return Lines(run_id, fence, first, count, data)


def event(event_id, data=b"event\n", *, fence=1, run_id=RUN):
    return Lines(run_id, fence, 0, 1, data, event_id=event_id)


async def append(log, *batch):
    """Append, and give `(line, accepted)` or None of each."""
    return [
        None if answer is None else (answer.line, answer.accepted)
        for answer in await log.append(batch)
    ]


async def text_of(log, run_id=RUN, *, after=0, limit_bytes=1 << 20):
    """Read all that there is after a cursor, page by page; None where it is not here."""
    found = []
    while True:
        page = await log.read(run_id, after=after, limit_bytes=limit_bytes)
        if page is None:
            return None
        chunks, end = page
        for chunk in chunks:
            assert chunk.first == after + 1
            assert chunk.data.count(b"\n") == chunk.count
            after += chunk.count
            found.append(chunk.data)
        if after >= end:
            return b"".join(found)
        assert chunks, "a page before the end has a chunk"


def text(first, last):
    return b"".join(line(k) for k in range(first, last + 1))
