"""Does a store keep its contract? Each sentence of it, as a check.

    from pipeline.testing.conformance import CLAIMS, Place, check

    @pytest.mark.parametrize("claim", CLAIMS)
    def test_my_store(claim, tmp_path):
        check(claim, Place(lambda: MyStore(tmp_path)))

* `CLAIMS`: the checks by name; `check(name, place)` runs one in a loop of its own
* `Place`: where a store keeps its runs: how to open it, how to move its clock
* `drive(place, steps=, seed=)`: random calls of several workers, compared with a model
* `explore(place, examples=)`: the same by hypothesis, which finds the fewest calls that
  differ (extra `testing`)
* `storm(place, seed=, calls=)`: workers at once, calls cancelled in their middle

From the command line: `pytest --pyargs pipeline.testing.conformance --turnpipe-store
package.module:factory`, where `factory(folder)` returns a Place.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from .claims import CLAIMS
from .driving import drive
from .place import LONG_S, SHORT_S, Place
from .storm import storm

if TYPE_CHECKING:
    from .machine import explore

LIMIT_S: Final = 60.0


def check(name: str, place: Place) -> None:
    """Run one claim against a store, in an event loop of its own.

    Raises:
        AssertionError: the store does not keep it.
        TimeoutError: it hangs.
    """

    async def run() -> None:
        async with asyncio.timeout(LIMIT_S):
            try:
                await CLAIMS[name](place)
            finally:
                await place.close()

    if not __debug__:
        raise RuntimeError("the claims are assertions: run Python without -O")
    asyncio.run(run())


__all__ = [
    "CLAIMS",
    "LONG_S",
    "SHORT_S",
    "Place",
    "check",
    "drive",
    "explore",
    "storm",
]


def __getattr__(name: str) -> Any:
    """Import what needs an extra when it is asked for."""
    if name == "explore":
        from .machine import explore

        return explore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
