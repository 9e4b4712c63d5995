"""Every store that ships keeps the contract, sentence by sentence."""

import asyncio
import inspect

import pytest

from pipeline.testing.conformance import CLAIMS, Place, check

from . import places

ABOUT_TIME = [
    name
    for name, claim in CLAIMS.items()
    if {"overdue", "lapsed", "lease"} & set(inspect.unwrap(claim).__code__.co_names)
]


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_sentence_of_the_contract_holds(claim, place):
    check(claim, place)


@pytest.mark.parametrize("claim", ABOUT_TIME)
def test_leases_lapse_by_the_database_s_own_clock(claim, tmp_path):
    check(claim, places.waiting(tmp_path))


def test_claims_about_time_are_known_by_what_they_use():
    assert "a_lease_that_is_over_writes_nothing_though_nobody_took_it" in ABOUT_TIME
    assert "a_renewed_lease_lasts" in ABOUT_TIME
    assert "steps_outlive_their_worker" in ABOUT_TIME


def test_a_claim_that_hangs_is_told(monkeypatch):
    async def hangs(place):
        await place.store().wait("r", after=0, timeout=60)

    monkeypatch.setitem(CLAIMS, "hangs", hangs)
    monkeypatch.setattr("pipeline.testing.conformance.LIMIT_S", 0.05)

    class Silent:
        async def wait(self, run_id, **limits):
            await asyncio.Event().wait()

        async def close(self):
            closed.append(self)

    closed = []
    with pytest.raises(TimeoutError):
        check("hangs", Place(Silent))
    assert len(closed) == 1
