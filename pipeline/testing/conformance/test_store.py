"""What `pytest --pyargs pipeline.testing.conformance --turnpipe-store ...` runs."""

from __future__ import annotations

import asyncio
import importlib
import random
from pathlib import Path

import pytest

from . import CLAIMS, Place, check, drive, explore

STEPS = 2_000
EXAMPLES = 20


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Make the place that the option `--turnpipe-store` names."""
    named = request.config.getoption("--turnpipe-store")
    if not named:
        pytest.skip("name a store: --turnpipe-store package.module:factory")
    module, _, name = str(named).partition(":")
    made = getattr(importlib.import_module(module), name)(tmp_path)
    assert isinstance(made, Place), f"{named} gave {made!r}: it returns a Place"
    return made


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_of_the_contract_holds(claim: str, place: Place) -> None:
    """Check one sentence."""
    check(claim, place)


def test_random_calls_agree_with_the_model(place: Place) -> None:
    """Drive it at random, where its clock moves."""
    if place.advance is None:
        pytest.skip("its place's clock does not move: Place(open, advance)")

    async def run() -> None:
        try:
            await drive(place, steps=STEPS, seed=random.randrange(2**32))
        finally:
            await place.close()

    asyncio.run(run())


def test_no_short_sequence_of_calls_differs_from_the_model(place: Place) -> None:
    """Let hypothesis look for one."""
    if place.advance is None:
        pytest.skip("its place's clock does not move: Place(open, advance)")
    explore(place, examples=EXAMPLES)
