"""Run `async def` tests, and fail those that leave a task or a generator behind."""

import gc
import inspect

import pytest

from .support import Seen, alone


def pytest_configure(config):
    config.addinivalue_line("markers", "debug: run in asyncio's debug mode")


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # the check for leaks looks at what a test made, not at all of pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    given = {name: pyfuncitem.funcargs[name] for name in names}
    debug = pyfuncitem.get_closest_marker("debug") is not None
    alone(pyfuncitem.obj(**given), debug=debug)
    return True


@pytest.fixture
def seen():
    return Seen()
