"""The stores that ship, as places for the conformance suite."""

from time import time

from sqlalchemy import update

from pipeline.stores import MemoryStore, SqlStore
from pipeline.stores.sql_schema import runs
from pipeline.testing.conformance import LONG_S, Place


def memory(folder):
    ahead = 0.0
    store = MemoryStore(clock=lambda: time() + ahead)

    async def lapse():
        nonlocal ahead
        ahead += LONG_S + 1

    return Place(lambda: store, lapse)


def sqlite(folder):
    return sql(f"sqlite:///{folder}/turns.db")


def sql(url, **options):
    mover = None

    async def lapse():
        nonlocal mover
        mover = mover or place.store()
        past = update(runs).values(lease_until=runs.c.lease_until - LONG_S - 1)
        await mover._db.write(lambda connection: connection.execute(past))

    place = Place(lambda: SqlStore(url, **options), lapse)
    return place


def waiting(folder):
    """Leases that lapse by themselves: nobody moves the clock."""
    return Place(lambda: SqlStore(f"sqlite:///{folder}/turns.db"))
