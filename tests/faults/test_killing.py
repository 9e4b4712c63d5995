"""A short run of `killing`: workers, and a server, are killed; no promise is broken."""

import asyncio
import importlib.util
import random

import pytest

from .killing import round_of
from .servers import serving


def kills(store, **options):
    seed = random.randrange(10**6)
    random.seed(seed)
    with serving(store) as server:
        try:
            asyncio.run(round_of(server.fresh(), **options))
        except AssertionError as exc:
            raise AssertionError(f"seed {seed}: {exc}") from exc


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_workers_that_are_killed_lose_nothing_and_say_nothing_twice(store):
    if store == "postgres" and importlib.util.find_spec("pgserver") is None:
        pytest.skip("no PostgreSQL: pip install pgserver")
    kills(store, turns=12, kills=4)


def test_a_worker_that_is_stopped_past_its_lease_writes_nothing_when_it_wakes():
    kills("sqlite", turns=8, kills=2, stop=True)
