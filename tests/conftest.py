"""Keep what other modules have left in memory out of a test's own collections.

Many tests collect, to find what they left behind, which takes as long as the heap is
large: without this the whole suite slows down as it goes.
"""

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def settled_heap():
    gc.collect()
    gc.freeze()
