"""A line to a PostgreSQL server that can be cut at a bad moment, or fall silent."""

import asyncio
import contextlib
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

_SOCKET = ".s.PGSQL.5432"


class Line:
    """Between a store and its server: `cut` says what the next COMMIT meets.

    "before": it is not sent on. "after": it is, and the answer is dropped. "silent":
    nothing passes any more, and nothing is closed. "any" does not wait for a COMMIT:
    whatever is next is not sent on.
    """

    def __init__(self, target):
        self.target = target
        self.cut = None
        self.cuts = 0
        self.silent = asyncio.Event()
        self.tasks = set()

    async def client(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        server = None
        try:
            there, server = await asyncio.open_unix_connection(self.target)
            answers = asyncio.ensure_future(_copied(there, writer))
            self.tasks.add(answers)
            while data := await reader.read(1 << 16):
                if self.cut and (b"COMMIT;" in data or self.cut == "any"):
                    how, self.cut = self.cut, None
                    self.cuts += 1
                    answers.cancel()
                    await asyncio.wait((answers,))
                    if how == "after":
                        server.write(data)
                        await there.read(1 << 16)
                    elif how == "silent":
                        await self.silent.wait()
                    return
                server.write(data)
                await server.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, server):
                if end is not None:
                    end.close()


async def _copied(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def line(url):
    """Give a line to the server that a URL names, and the URL through it."""
    parts = urlsplit(url)
    folder = parse_qs(parts.query)["host"][0]
    with tempfile.TemporaryDirectory(prefix="line-") as here:
        made = Line(str(Path(folder, _SOCKET)))
        path = str(Path(here, _SOCKET))
        server = await asyncio.start_unix_server(made.client, path)
        try:
            yield made, f"postgresql://postgres@{parts.path}?host={quote(here)}"
        finally:
            server.close()
            for task in made.tasks:
                task.cancel()
            if made.tasks:
                await asyncio.wait(made.tasks)
