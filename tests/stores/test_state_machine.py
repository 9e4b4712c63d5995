"""Random calls on every store that ships, compared with a model; workers at once."""

import asyncio
import random
import time

import pytest

from pipeline.stores import MemoryStore
from pipeline.testing.conformance import drive, explore, storm

from . import places

SHORT_S = 4.0


def run(place, work):
    async def closing():
        try:
            return await work
        finally:
            await place.close()

    return asyncio.run(closing())


def test_random_calls_agree_with_the_model(place):
    seed = random.randrange(2**32)
    work = drive(place, steps=100_000, seed=seed, seconds=SHORT_S)
    assert run(place, work)["steps"] > 100


def test_no_short_sequence_of_calls_differs_from_the_model(place):
    explore(place, examples=10, steps=30)


def test_workers_at_once_break_no_rule(place):
    seed = random.randrange(2**32)
    run(place, storm(place, seed=seed, calls=400, cancels=0.1))


def test_a_seed_makes_the_same_calls_again():
    found = [
        run(place, drive(place, steps=3_000, seed=7))
        for place in (places.memory(None), places.memory(None))
    ]
    assert found[0] == found[1]
    other = places.memory(None)
    assert run(other, drive(other, steps=3_000, seed=8)) != found[0]


def test_driving_stops_when_its_time_is_up():
    place = places.memory(None)
    began = time.monotonic()
    answered = run(place, drive(place, steps=10**9, seed=1, seconds=0.05))
    assert 0 < answered["steps"] < 10**6
    assert time.monotonic() - began < 30


def test_what_differs_is_told_with_its_seed_and_the_calls_before_it():
    class Miscounts(MemoryStore):
        async def release(self, run_id, fence):
            return True

    place = places.memory(None, Miscounts)
    with pytest.raises(AssertionError, match=r"seed 3, step \d+") as caught:
        run(place, drive(place, steps=5_000, seed=3))
    assert f"{caught.value}".rstrip().rpartition("\n")[2].strip().startswith("release")


@pytest.mark.parametrize("work", ["drive", "explore"])
def test_a_place_whose_clock_does_not_move_is_refused(work, tmp_path):
    place = places.waiting(tmp_path)
    with pytest.raises(ValueError, match="clock does not move"):
        if work == "drive":
            run(place, drive(place, steps=1, seed=1))
        else:
            explore(place, examples=1)
