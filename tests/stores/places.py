"""The stores that ship, as places for the conformance suite."""

from time import time

from sqlalchemy import update

from pipeline.stores import MemoryStore, RedisLog, SqlStore
from pipeline.stores.sql_schema import runs
from pipeline.testing.conformance import Place

from .valkey_server import command

_TIMES = (
    runs.c.lease_until,
    runs.c.created_at,
    runs.c.updated_at,
    runs.c.ended_at,
)

_BACK = """
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  redis.call('HINCRBY', key, 'until', ARGV[2])
end
"""


def memory(folder, kind=MemoryStore):
    ahead = 0.0
    store = kind(clock=lambda: time() + ahead)

    async def advance(seconds):
        nonlocal ahead
        ahead += seconds

    return Place(lambda: store, advance)


def sqlite(folder):
    return sql(f"sqlite:///{folder}/turns.db")


def sql(url, **options):
    """A database's clock cannot be moved: all times that it holds are moved back."""

    async def advance(seconds):
        back = update(runs).values({column: column - seconds for column in _TIMES})
        mover = SqlStore(url)
        try:
            await mover._db.write(lambda connection: connection.execute(back))
        finally:
            await mover.close()

    return Place(lambda: SqlStore(url, **options), advance)


def beside(url, server, prefix, **options):
    """A database with a RedisLog: the times in both are moved back."""
    base = sql(url)

    def opened():
        return SqlStore(url, log=RedisLog(server.url, prefix=prefix), **options)

    async def advance(seconds):
        await base.advance(seconds)
        back(server, prefix, seconds)

    return Place(opened, advance)


def back(server, prefix, seconds):
    """Move the leases in a log back."""
    command(server, "EVAL", _BACK, 0, f"{prefix}:*:meta", -int(seconds * 1000))


def waiting(folder):
    """Leases that lapse by themselves: nobody moves the clock."""
    return Place(lambda: SqlStore(f"sqlite:///{folder}/turns.db"))
