"""Every store that ships keeps the contract, and the suite finds one that does not."""

import asyncio
import random

import pytest

from pipeline.testing.conformance import CLAIMS, check, drive


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_sentence_of_the_contract_holds(claim, place):
    check(claim, place)


def test_random_calls_agree_with_the_model(place):
    if place.lapse is None:
        pytest.skip("its leases lapse by time alone")

    async def run():
        try:
            await drive(place, steps=1_500, seed=random.randrange(2**32))
        finally:
            await place.close()

    asyncio.run(run())
