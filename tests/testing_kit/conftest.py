"""Run `async def` tests, each in a loop of its own."""

import asyncio
import inspect

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    given = {name: pyfuncitem.funcargs[name] for name in names}
    # a guard against hangs, not a claim about time
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**given), 120))
    return True
