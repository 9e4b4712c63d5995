"""A store keeps its whole contract with its lines in a RedisLog."""

import asyncio
import importlib.util
import random

import pytest
from sqlalchemy import update

from pipeline.stores import RedisLog, SqlStore
from pipeline.stores.sql_schema import runs
from pipeline.testing.conformance import CLAIMS, LONG_S, Place, check, drive

from .valkey_server import command, fresh_prefix

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


@pytest.fixture(params=["sqlite", "postgres"])
def beside(request, tmp_path):
    """A database's URL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/turns.db"
    if importlib.util.find_spec("pgserver") is None:
        pytest.skip("no PostgreSQL: pip install pgserver")
    return request.getfixturevalue("postgres").fresh()


@pytest.fixture(params=[5.0, 0.02], ids=["archived late", "archived soon"])
def place(request, beside, valkey):
    prefix = fresh_prefix()

    def opened():
        log = RedisLog(valkey.url, prefix=prefix)
        return SqlStore(beside, log=log, archive_every=request.param)

    async def advance(seconds=LONG_S + 1):
        """Move all times back: no clock here can be moved on."""
        back = update(runs).values({column: column - seconds for column in _TIMES})
        mover = SqlStore(beside)
        try:
            await mover._db.write(lambda connection: connection.execute(back))
        finally:
            await mover.close()
        by = -int(seconds * 1000)
        command(valkey, "EVAL", _BACK, 0, f"{prefix}:*:meta", by)

    return Place(opened, advance)


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_sentence_of_the_contract_holds(claim, place):
    check(claim, place)


def test_random_calls_agree_with_the_model(place):
    seed = random.randrange(2**32)

    async def run():
        try:
            await drive(place, steps=600, seed=seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            await place.close()

    asyncio.run(run())
