"""Run `async def` tests, and fail those that leave a task or a generator behind."""

import inspect

import pytest

from .support import Seen, alone


def pytest_configure(config):
    config.addinivalue_line("markers", "debug: run also in asyncio's debug mode")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    given = {name: pyfuncitem.funcargs[name] for name in names if name != "debug"}
    debug = pyfuncitem.get_closest_marker("debug") is not None
    alone(pyfuncitem.obj(**given), debug=debug)
    return True


@pytest.fixture
def seen():
    return Seen()
